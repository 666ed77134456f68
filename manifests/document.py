"""What all manifests share: the header, reading and writing, the digest, and errors that say how to mend them."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.atomic import write_whole

FORMAT_VERSION = 1


class ManifestError(ValueError):
    """A manifest, or something that it names, is wrong: one line that says what, where and how to mend it."""


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a plain value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """sha256 of ``canonical_json(value)``, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Part(BaseModel):
    """A piece of a manifest. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Manifest(Part):
    """The header that every manifest begins with.

    ``version`` is semantic, with Croissant's meanings: a patch packs the same data again, a minor version adds,
    a major one changes. ``digest`` is the sha256 of the canonical JSON of all other fields; generated manifests
    carry it, hand-written ones need not.
    """

    kind: ClassVar[str]

    format: str
    format_version: int = FORMAT_VERSION
    name: str = Field(min_length=1)
    version: str = Field(default="0.1.0", pattern=r"^\d+\.\d+\.\d+$")
    notes: str = ""
    licence: str = ""
    contains_personal_data: bool = True
    digest: str = ""

    def content(self) -> dict[str, Any]:
        """All fields as plain values, without the digest."""
        return self.model_dump(mode="json", exclude={"digest"})

    def computed_digest(self) -> str:
        return digest_of(self.content())

    def sealed(self) -> Self:
        """A copy that carries its digest."""
        return self.model_copy(update={"digest": self.computed_digest()})

    def save(self, path: Path) -> None:
        """Write atomically, as JSON or, for ``.yaml``, as YAML."""
        values = self.model_dump(mode="json")
        if path.suffix in (".yaml", ".yml"):
            text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)
        else:
            text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(path, text.encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a manifest. Raises ``ManifestError``, also when the digest does not fit the content."""
        manifest = cls.parse(read_plain(path), str(path))
        if manifest.digest and manifest.digest != manifest.computed_digest():
            raise ManifestError(f"{path}: its digest does not fit its content, so it was edited; make it again instead")
        return manifest

    @classmethod
    def parse(cls, values: Any, where: str) -> Self:
        """Check plain values. ``where`` is named in errors."""
        if not isinstance(values, dict):
            raise ManifestError(f"{where}: a {cls.kind} manifest is a mapping, this is {type(values).__name__}")
        wanted = f"headloom/{cls.kind}"
        if values.get("format") != wanted:
            raise ManifestError(f"{where}: format is {values.get('format')!r}, wanted {wanted!r}; is it another kind of file?")
        if values.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise ManifestError(
                f"{where}: format_version {values['format_version']}, this headloom reads {FORMAT_VERSION}; "
                "use the headloom that wrote it or make it again"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ManifestError(f"{where}: {first_mistake(error, cls, values)}") from None


def read_plain(path: Path) -> Any:
    """The plain values of a JSON or YAML file. Raises ``ManifestError``."""
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: is not UTF-8 text, so not a manifest") from None
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else getattr(error, "lineno", "?")
        problem = getattr(error, "problem", None) or getattr(error, "msg", "not JSON or YAML")
        raise ManifestError(f"{path}: line {line}: {problem}") from None


def did_you_mean(word: str, known: Any) -> str:
    """``"; did you mean 'x'?"`` for the nearest known word, or the list of them."""
    names = sorted(map(str, known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(names)}" if names else ""


def first_mistake(error: ValidationError, model: type[BaseModel], values: Any) -> str:
    """One line for the first error of a pydantic validation: where, what, and for unknown keys the nearest known."""
    mistakes = error.errors(include_url=False)
    mistake = next((m for m in mistakes if m["type"] == "extra_forbidden"), mistakes[0])
    place = [str(step) for step in mistake["loc"]]
    where = ".".join(place) or "the whole"
    if mistake["type"] == "extra_forbidden":
        return f"unknown key '{where}'{did_you_mean(place[-1], _fields_at(model, place[:-1]))}"
    if mistake["type"] == "missing":
        return f"'{where}' is missing"
    return f"'{where}': {mistake['msg'].removeprefix('Value error, ')}, got {mistake['input']!r}"


def _fields_at(model: Any, place: list[str]) -> list[str]:
    """Names of the fields of the model at ``place`` inside ``model``, following lists and mappings."""
    for step in place:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        if step in model.model_fields:
            model = _inner_model(model.model_fields[step].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_inner_model, getattr(annotation, "__args__", ())) if m is not None), None)
