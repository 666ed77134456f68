"""The command ``headloom``.

Exit codes: 0 done, 1 a check found something wrong, 2 the command or a manifest is wrong, 3 ``--strict`` and something
was quarantined, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from manifests import assets as registry
from manifests.dataset import DATASET_FILE, DatasetManifest
from manifests.document import ManifestError
from manifests.model_file import WrongModelFile
from manifests.recipe import load_recipe
from manifests.training import RUN_MANIFEST
from manifests.verify import verify as find_problems
from pipelines.console import LongWork, duration, show_table, size

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prepares talking-head data, fits head models to it, and trains on the result.",
)
assets_app = typer.Typer(no_args_is_help=True, help="Model files: what each is for, whose it is, whether it is here.")
app.add_typer(assets_app, name="assets")


class Layout(StrEnum):
    """How recordings of the studio are laid out."""

    plain = "plain"
    nersemble = "nersemble"
    nersemble_v1 = "nersemble-v1"
    facetalk = "facetalk"


class ScanLayout(StrEnum):
    """What is looked for in the folders."""

    videos = "videos"
    nersemble = "nersemble"
    plain = "plain"
    facetalk = "facetalk"


class ExportLayout(StrEnum):
    """What a dataset is exported as."""

    facetalk_npz = "facetalk-npz"
    nphm_identities = "nphm-identities"


class CompositionName(StrEnum):
    """How NPHM's networks are put together."""

    backward = "backward"
    forward = "forward"


class DeviceName(StrEnum):
    """What a trained model computes on; ``auto`` is a GPU where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class RunnerName(StrEnum):
    """Where a build runs."""

    local = "local"
    ray = "ray"


AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
RecipeName = Annotated[str, typer.Argument(help="path of a recipe, or name of one that ships with headloom")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="change one value: dotted.path=value; may be given again")]
Out = Annotated[Path, typer.Option("--out", help="folder of the dataset")]
Folder = Annotated[Path, typer.Argument(help="folder of a dataset")]
Strict = Annotated[bool, typer.Option("--strict", help="exit with 3 when anything was rejected or failed")]
Workers = Annotated[int, typer.Option(min=0, help="worker processes; 0: one for each core, as far as memory goes")]


@app.command()
def scan(
    paths: Annotated[list[str], typer.Argument(help="videos and folders of videos")],
    out: Annotated[Path, typer.Option("-o", "--out", help="source manifest to write")],
    name: Annotated[str, typer.Option(help="name of the source; by default that of the file")] = "",
    layout: Annotated[
        ScanLayout,
        typer.Option(
            help="videos; captures by several cameras: nersemble (both releases), plain (cameras.json); NPHM codes: facetalk"
        ),
    ] = ScanLayout.videos,
    person_from_folder: Annotated[bool, typer.Option(help="take the folder's name for the person")] = False,
    duplicates: Annotated[bool, typer.Option(help="look for files that were given twice, or re-encoded")] = True,
    as_json: AsJson = False,
) -> None:
    """Write a source manifest: every video with its digest, format, and what it is a duplicate of."""
    from prep.scan import scan as run_scan
    from prep.scan_captures import scan_captures
    from prep.scan_codes import scan_codes

    with LongWork() as work:
        if layout is ScanLayout.facetalk:
            found = scan_codes(paths, out, name, work.scan)
            show_table(f"{out}", [{"what": what, "count": count} for what, count in found.counts().items()], as_json)
            return
        if layout is not ScanLayout.videos:
            kind: Literal["nersemble", "plain"] = "plain" if layout is ScanLayout.plain else "nersemble"
            found = scan_captures(paths, out, kind, name, work.scan)
            show_table(f"{out}", [{"what": what, "count": count} for what, count in found.counts().items()], as_json)
            return
        found = run_scan(
            paths,
            out,
            name=name or out.stem,
            person_from="folder" if person_from_folder else "",
            mark_duplicates=duplicates,
            on_progress=work.scan,
        )
    rows = [{"what": what, "count": count} for what, count in found.counts().items()]
    show_table(f"{out}", rows, as_json)


@app.command()
def studio(
    folder: Annotated[Path, typer.Argument(help="folder to record into")],
    takes: Annotated[int, typer.Option(min=1, help="how many recordings")] = 4,
    people: Annotated[int, typer.Option(min=1, help="how many people, who speak in turn")] = 3,
    cameras: Annotated[int, typer.Option(help="1, or NeRSemble's 16")] = 1,
    layout: Annotated[
        Layout, typer.Option(help="one camera: plain; 16: nersemble (version 2) or nersemble-v1; no pictures, codes: facetalk")
    ] = Layout.plain,
    seconds: Annotated[float | None, typer.Option(help="length of a take; by default 4, with 16 cameras 1")] = None,
    picture: Annotated[str, typer.Option("--size", help="WIDTHxHEIGHT; by default 256x256, with 16 cameras 550x802")] = "",
    seed: Annotated[int, typer.Option(min=0, help="other people and other words")] = 0,
    noise_db: Annotated[float | None, typer.Option(help="add noise, the voice so many dB above it")] = None,
    gain: Annotated[float, typer.Option(help="loudness of the voice, up to 1")] = 1.0,
    models: Annotated[Path | None, typer.Option(help="folder for the people's head models, in official formats")] = None,
    workers: Workers = 0,
) -> None:
    """Record people that do not exist, with sound, and with every answer beside them: takes to try and to judge things on."""
    of_codes = layout is Layout.facetalk
    if (cameras, layout is Layout.plain or of_codes) not in ((1, True), (16, False)):
        raise ManifestError(
            f"--cameras {cameras} --layout {layout.value}: one camera is recorded with --layout plain, "
            "16 with --layout nersemble or nersemble-v1"
        )
    from fitting.studio.acting import Conditions
    from fitting.studio.captures import record_captures
    from fitting.studio.codes_layout import record_codes
    from fitting.studio.models import write_models
    from fitting.studio.takes import record_takes
    from prep.scan import scan as run_scan
    from prep.scan_captures import scan_captures
    from prep.scan_codes import scan_codes

    usual_seconds, usual_size = (4.0, (256, 256)) if cameras == 1 else (1.0, (550, 802))
    size_px = tuple(int(side) for side in picture.split("x") if side.isdecimal()) if picture else usual_size
    if len(size_px) != 2:
        raise ManifestError(f"--size {picture}: a size is WIDTHxHEIGHT in pixels, as in 256x256")
    try:
        conditions = Conditions(usual_seconds if seconds is None else seconds, size_px, seed, noise_db, gain)
    except ValueError as error:
        raise ManifestError(str(error)) from None
    if models:
        for path in write_models(models).values():
            print(path)
    with LongWork() as work:
        if of_codes:
            record_codes(folder, takes, people, conditions, workers or None, work.recording)
        elif cameras == 1:
            record_takes(folder, takes, people, conditions, workers or None, work.recording)
        else:
            release: Literal["v1", "v2"] = "v1" if layout is Layout.nersemble_v1 else "v2"
            record_captures(folder, takes, people, conditions, release, workers or None, work.recording)
    source, source_name = folder / "source.yaml", folder.absolute().name
    if of_codes:
        scan_codes([str(folder)], source, source_name)
    elif cameras == 1:
        run_scan([str(folder)], source, name=source_name, person_from="folder")
    else:
        scan_captures([str(folder)], source, "nersemble", source_name)
    print(f"{takes} takes in {folder}; build with: --set source={source}")


@app.command()
def plan(recipe: RecipeName, settings: Settings = None, out: Out = Path("data"), as_json: AsJson = False) -> None:
    """Show what a build would run, what is stored already, and an estimate of time and disk."""
    from pipelines.build import load_inputs
    from pipelines.estimate import estimate

    inputs = load_inputs(load_recipe(recipe, settings))
    rows, seconds, new_bytes = estimate(inputs, out)
    show_table(f"{inputs.recipe.name}: {len(inputs.tasks())} takes to run, {len(inputs.items)} items", rows, as_json)
    if not as_json:
        print(f"about {duration(seconds)} on one core and {size(2 * new_bytes)} of disk, for results and shards")


@app.command()
def build(
    recipe: RecipeName,
    settings: Settings = None,
    out: Out = Path("data"),
    runner: Annotated[RunnerName, typer.Option(help="local processes or Ray actors")] = RunnerName.local,
    address: Annotated[str, typer.Option(help="address of a Ray cluster; empty starts Ray on this machine")] = "",
    workers: Workers = 0,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Build a dataset. Stop it at any time; the same command goes on where it was."""
    run_build(recipe, settings, out, runner, address, workers)
    status(out, as_json)
    if strict and any(account.rejected or account.failed for account in _manifest(out).accounting):
        raise typer.Exit(3)


def run_build(recipe: str, settings: list[str] | None, out: Path, runner: RunnerName, address: str, workers: int) -> None:
    """The work of ``headloom build``, without the closing table."""
    from pipelines.build import build as run
    from pipelines.build import load_inputs
    from pipelines.local_runner import LocalRunner
    from pipelines.runner import Runner, usual_workers
    from pipelines.work import Workbench

    inputs = load_inputs(load_recipe(recipe, settings))
    count = workers or usual_workers(max(planned.stage.needs.memory_mb for planned in inputs.plan.stages))

    def start(bench: Workbench) -> Runner:
        if runner is RunnerName.local:
            return LocalRunner(bench, count)
        try:
            from pipelines.ray_runner import RayRunner
        except ImportError:
            raise ManifestError("--runner ray needs Ray, which is not installed; pip install 'headloom[ray]'") from None
        return RayRunner(bench, count, address)

    try:
        with LongWork() as work:
            run(inputs, out, start, work.build)
    except KeyboardInterrupt:
        print("headloom: interrupted; what was done is kept, run the same command to go on", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command()
def status(dataset: Folder, as_json: AsJson = False) -> None:
    """What became of every item at every stage, and what the last run computed and reused."""
    manifest = _manifest(dataset)
    work = {(row["stage"], row["level"]): row for row in _last_run(dataset)["stages"]}
    rows = []
    for account in manifest.accounting:
        own = work.get((account.stage, account.level), {})
        rows.append(
            {
                "stage": account.stage,
                "of": f"{account.level}s",
                "in": account.entered,
                "done": account.done,
                "rejected": sum(account.rejected.values()),
                "failed": sum(account.failed.values()),
                "duplicate": account.duplicate,
                "computed": own.get("computed", ""),
                "reused": own.get("reused", ""),
                "why": "; ".join(f"{reason}: {count}" for reason, count in {**account.rejected, **account.failed}.items()),
            }
        )
    show_table(f"{manifest.name} {manifest.version} in {dataset}", rows, as_json)
    if not as_json:
        stored = sum(file.bytes for part in manifest.parts for file in part.files.values())
        print(f"{manifest.clips} clips, {duration(manifest.seconds)}, {size(stored)}, digest {manifest.digest}")


@app.command()
def verify(dataset: Folder, as_json: AsJson = False) -> None:
    """Read every byte of a dataset and check it against the manifest."""
    problems = list(find_problems(dataset))
    if as_json:
        print(json.dumps(problems, indent=1, ensure_ascii=False))
    else:
        for problem in problems:
            print(problem)
        print(f"{dataset}: {len(problems)} problems" if problems else f"{dataset}: whole")
    if problems:
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="folder of a dataset, or of a training run")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="page to write; by default report.html in it")] = None,
) -> None:
    """Write one self-contained HTML page about a dataset or a training run, with pictures."""
    path = out or folder / "report.html"
    if (folder / RUN_MANIFEST).is_file():
        from pipelines.report_run import write_run_report

        write_run_report(folder, path)
    else:
        from pipelines.report import write_report

        write_report(folder, path)
    print(path)


@app.command()
def export(
    dataset: Folder,
    layout: Annotated[ExportLayout, typer.Option("--format", help="facetalk-npz, or nphm-identities: <person>.npy")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="folder; by default one of the format's name in the dataset's")
    ] = None,
) -> None:
    """Write a dataset in a layout that other programs read."""
    from pipelines.export import export as run

    folder = out or dataset / layout.value
    count = run(dataset, layout.value, folder, lambda line: print(line, file=sys.stderr))
    print(f"{count} {'people' if layout is ExportLayout.nphm_identities else 'clips'} in {folder}")


@app.command()
def quarantine(
    dataset: Folder,
    retry: Annotated[bool, typer.Option(help="forget what failed, so that the next build tries it again")] = False,
    as_json: AsJson = False,
) -> None:
    """What was refused, and why."""
    manifest = _manifest(dataset)
    entries = manifest.quarantine.read(dataset)
    if as_json:
        print(json.dumps([entry.model_dump() for entry in entries], indent=1, ensure_ascii=False))
    else:
        rows = [
            {"stage": e.stage, "source": e.source_uri, "outcome": e.outcome, "reason": e.reason, "message": e.message}
            for e in entries
        ]
        show_table(f"quarantine of {dataset}", rows, False)
    if retry:
        from pipelines.build import OWN_STORE
        from pipelines.store import Store

        store = Store(_last_run(dataset)["store"] or str(dataset / OWN_STORE))
        forgotten = sum(store.discard(entry.key) for entry in entries if entry.outcome == "failed" and entry.key)
        print(f"{forgotten} failures forgotten; run the same build again", file=sys.stderr)


@app.command()
def train(
    manifest: Annotated[str, typer.Argument(help="path of a training manifest, or name of one that ships with headloom")],
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where the run in this folder was cut off")] = False,
) -> None:
    """Train a model as its manifest says. Stop it at any time; with --resume it goes on from its last checkpoint, exactly."""
    run_training(manifest, settings, resume)


def run_training(manifest: str, settings: list[str] | None, resume: bool = False) -> Path:
    """The work of ``headloom train``; returns the last checkpoint."""
    from manifests.training import load_training
    from training.run import begin
    from training.run import train as run

    begun = begin(load_training(manifest, settings), resume=resume)
    try:
        with LongWork() as work:
            last = run(begun, work.training)
    except KeyboardInterrupt:
        print("headloom: interrupted; the same command with --resume goes on from the last checkpoint", file=sys.stderr)
        raise typer.Exit(130) from None
    print(last)
    return last


@app.command()
def sample(
    checkpoint: Annotated[Path, typer.Argument(help="folder of a checkpoint, as runs/facetalk/last")],
    audio: Annotated[Path | None, typer.Option(help="sound that is to be spoken, in any format")] = None,
    clip: Annotated[str, typer.Option(help="DATASET:CLIP instead, by the clip's id or number")] = "",
    speech: Annotated[Path | None, typer.Option(help="wav2vec 2.0 folder, for a model that was trained on its features")] = None,
    identity: Annotated[Path | None, typer.Option(help="whose head it is: a code as .npy or .npz")] = None,
    codes: Annotated[Path | None, typer.Option(help="archive of expression codes to write")] = None,
    meshes: Annotated[Path | None, typer.Option(help="folder to write a mesh a frame and a film with sound to")] = None,
    picture: Annotated[Path | None, typer.Option(help="picture to write: heads, sound, opening of the mouth")] = None,
    resolution: Annotated[int | None, typer.Option(min=16, help="of the meshes; 128 puts vertices 2.5 mm apart")] = None,
    composition: Annotated[CompositionName | None, typer.Option(help="backward, FaceTalk's; or forward, much faster")] = None,
    smoothing: Annotated[bool, typer.Option(help="still what speech does not move; the paper's table 2 has both")] = True,
    guidance: Annotated[float | None, typer.Option(help="how much the sound counts; above 1 amplifies")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="steps of denoising")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="another one speaks the same in another way")] = None,
    device: Annotated[DeviceName, typer.Option(help="auto is a GPU where there is one")] = DeviceName.auto,
) -> None:
    """Let a trained model speak."""
    from training.sample import sample as run

    options = {
        "audio": audio,
        "clip": clip or None,
        "speech": speech,
        "identity": identity,
        "codes": codes,
        "meshes": meshes,
        "picture": picture,
        "resolution": resolution,
        "composition": composition and composition.value,
        "smoothing": None if smoothing else False,
        "guidance": guidance,
        "steps": steps,
        "seed": seed,
    }
    for path in run(checkpoint, {name: value for name, value in options.items() if value is not None}, device.value):
        print(path)


@assets_app.command("list")
def assets_list(as_json: AsJson = False) -> None:
    """Every model file that headloom can use: what for, whose, where to get it, and whether it is here."""
    rows = []
    for asset in registry.ASSETS.values():
        row = {
            "name": asset.name,
            "here": "no",
            "for": asset.purpose,
            "licence": asset.licence,
            "get it": asset.where,
            "file": " or ".join(asset.file_names),
            "digest": "",
        }
        with suppress(registry.MissingAsset):
            row["here"] = str(registry.find(asset.name))
            known = registry.digest(asset.name) in asset.digests
            row["digest"] = registry.digest(asset.name)[:12] + (" (the published file)" if known else "")
        rows.append(row)
    show_table(f"model files, looked for in {', '.join(map(str, registry.search_path()))}", rows, as_json)


@assets_app.command("add")
def assets_add(
    files: Annotated[list[Path], typer.Argument(help="model files as they were downloaded")],
    name: Annotated[str, typer.Option("--as", help="which one it is, where its content and name do not tell")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="put it in the place of a different one")] = False,
    as_json: AsJson = False,
) -> None:
    """Check model files and put them in place, with a record of their digest and source. They may have any name."""
    from pipelines.model_files import add

    rows = []
    for file in files:
        asset, place, holds = add(file, name, replace)
        known = registry.digest(asset.name) in asset.digests
        rows.append({"name": asset.name, "place": str(place), "holds": holds, "digest": "published" if known else "not known"})
    show_table("added", rows, as_json)


@assets_app.command("check")
def assets_check(as_json: AsJson = False) -> None:
    """Read every model file that is in place again, and compare it with what was added. Exit code 1: one is wrong."""
    from pipelines.model_files import problems

    rows = []
    for name in registry.ASSETS:
        with suppress(registry.MissingAsset):
            path = registry.find(name)
            rows.append({"name": name, "file": str(path), "problems": "; ".join(problems(name)) or "none"})
    show_table("model files in place", rows, as_json)
    if any(row["problems"] != "none" for row in rows):
        raise typer.Exit(1)


@app.command()
def demo(out: Out = Path("headloom-demo"), takes: Annotated[int, typer.Option(min=1)] = 4, workers: Workers = 0) -> None:
    """The whole road on takes that headloom makes itself, to a head that speaks: some minutes, nothing to download."""
    from fitting.studio.captures import IDENTITIES
    from pipelines import demo as parts
    from pipelines import demo_speech as learn

    print(f"recording {takes} takes of people who do not exist, in {out / 'takes'}")
    studio(out / "takes", takes=takes, workers=workers)
    run_build("talking_clips", [f"source={out / 'takes' / 'source.yaml'}"], out / "dataset", RunnerName.local, "", workers)
    _show_dataset(out / "dataset")

    captures, dataset, untied = out / "captures", out / "facetalk", out / "facetalk-untied"
    print(f"recording two of them with sixteen cameras, in {captures}")
    studio(
        captures,
        takes=2,
        people=2,
        cameras=16,
        layout=Layout.nersemble,
        seconds=parts.SECONDS,
        picture="x".join(map(str, parts.SIZE)),
        models=out / "models",
        workers=workers,
    )
    with registry.looking_in(out / "models"):
        settings = parts.settings(captures)
        run_build("facetalk_nphm", settings, dataset, RunnerName.local, "", workers)
        print("fitting the same once more without the temporal term, to know what it brings: all that comes before is stored")
        run_build("facetalk_nphm", parts.untied(settings, dataset), untied, RunnerName.local, "", workers)
        parts.write_against_truth(dataset, untied, captures)
    _show_dataset(dataset)

    speech, codes, unheard, trained = out / "speech", out / "codes", out / "unheard", out / "run"
    print(f"recording sound and codes of {learn.PEOPLE} people without pictures, and training FaceTalk on them and the captures")
    studio(speech, takes=learn.TAKES, people=learn.PEOPLE, layout=Layout.facetalk, workers=workers)
    run_build("facetalk_codes", [f"source={speech / 'source.yaml'}"], codes, RunnerName.local, "", workers)
    with registry.looking_in(out / "models"):
        run_training("facetalk_small", learn.training(codes, dataset, trained), resume=True)
    print("letting it speak what it has not heard")
    studio(unheard, takes=learn.OTHERS, people=learn.OTHERS, layout=Layout.facetalk, seed=1, workers=workers)
    with registry.looking_in(out / "models"):
        learn.write_samples(trained, unheard, captures / IDENTITIES / "000.npy")
    report(trained, None)


def _show_dataset(dataset: Path) -> None:
    status(dataset)
    verify(dataset)
    report(dataset, None)


def _manifest(dataset: Path) -> DatasetManifest:
    if not (dataset / DATASET_FILE).is_file():
        raise ManifestError(f"{dataset}: has no {DATASET_FILE}, so is no finished dataset; run headloom build first")
    return DatasetManifest.load(dataset / DATASET_FILE)


def _last_run(dataset: Path) -> dict[str, Any]:
    """The account of the last run, or an empty one: it is beside the dataset, not part of it."""
    path = dataset / "run.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {"stages": [], "store": ""}


def main() -> None:
    """Entry point: errors that a user can mend become one line and exit code 2."""
    try:
        app()
    except (ManifestError, WrongModelFile) as error:
        print(f"headloom: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        print(f"headloom: this needs the package {error.name}; pip install 'headloom[all]'", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"headloom: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
