"""Features of speech by a frozen wav2vec 2.0, on small networks with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from manifests.clock import sample_count
from manifests.document import ManifestError
from manifests.pickles import load_pickle
from manifests.recipe import Recipe
from manifests.stage import Done
from pipelines.plan import make_plan
from prep import speech
from prep.speech import Wav2Vec, Wav2VecLarge, checkpoint_files, speech_features

transformers = pytest.importorskip("transformers")


def write_checkpoint(folder: Path, *, hidden: int = 768, seed: int = 0, safetensors: bool = True, **more: object) -> Path:
    """A wav2vec 2.0 with two narrow layers, as ``save_pretrained`` lays it out, with the usual preprocessor."""
    config = transformers.Wav2Vec2Config(
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=8,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=8,
        **more,
    )
    torch.manual_seed(seed)
    model = transformers.Wav2Vec2Model(config).eval()
    model.save_pretrained(folder)
    if not safetensors:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16000}))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("wav2vec") / "tiny")


def a_wave(seconds: float, seed: int = 0) -> np.ndarray:
    """int16, noise that swells and fades."""
    noise = np.random.default_rng(seed).standard_normal(round(16000 * seconds))
    swelling = 1.5 + np.sin(np.arange(len(noise)) / 1500)
    return (1500 * swelling * noise + 300).astype(np.int16)


def by_hand(folder: Path, wave: np.ndarray, n_frames: int) -> np.ndarray:
    """The same from the file's arrays with NumPy and bare PyTorch operations: no code of transformers."""
    from safetensors.torch import load_file

    held = load_file(folder / "model.safetensors")
    x = wave.astype(np.float64)
    x = torch.from_numpy((x - x.mean()) / np.sqrt(x.var() + 1e-7)).float()[None, None]
    for layer, (kernel, stride) in enumerate(zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True)):
        prefix = f"feature_extractor.conv_layers.{layer}"
        assert held[f"{prefix}.conv.weight"].shape[-1] == kernel
        x = nn.functional.conv1d(x, held[f"{prefix}.conv.weight"], stride=stride)
        if layer == 0:
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            x = x * held[f"{prefix}.layer_norm.weight"][:, None] + held[f"{prefix}.layer_norm.bias"][:, None]
        x = nn.functional.gelu(x)
    # Frame i of T shows place i (N - 1) / (T - 1) of the N vectors.
    vectors = x[0].T.numpy()
    places = np.linspace(0, len(vectors) - 1, n_frames)
    frames = np.stack([np.interp(places, np.arange(len(vectors)), track) for track in vectors.T], axis=1)
    x = torch.from_numpy(frames).float()[None]

    def norm(x: torch.Tensor, prefix: str) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], held[f"{prefix}.weight"], held[f"{prefix}.bias"], 1e-5)

    def linear(x: torch.Tensor, prefix: str) -> torch.Tensor:
        return x @ held[f"{prefix}.weight"].T + held[f"{prefix}.bias"]

    x = linear(norm(x, "feature_projection.layer_norm"), "feature_projection.projection")
    conv = "encoder.pos_conv_embed.conv"
    size, direction = held[f"{conv}.parametrizations.weight.original0"], held[f"{conv}.parametrizations.weight.original1"]
    weight = size * direction / (direction**2).sum(dim=(0, 1), keepdim=True).sqrt()
    places_of = nn.functional.conv1d(x.transpose(1, 2), weight, held[f"{conv}.bias"], padding=8, groups=8)[..., :-1]
    x = norm(x + nn.functional.gelu(places_of).transpose(1, 2), "encoder.layer_norm")
    for layer in range(2):
        prefix = f"encoder.layers.{layer}"
        query, key, value = (
            linear(x, f"{prefix}.attention.{part}_proj").unflatten(-1, (8, -1)).transpose(1, 2) for part in ("q", "k", "v")
        )
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        heard = linear((weights @ value).transpose(1, 2).flatten(2), f"{prefix}.attention.out_proj")
        x = norm(x + heard, f"{prefix}.layer_norm")
        inner = nn.functional.gelu(linear(x, f"{prefix}.feed_forward.intermediate_dense"))
        x = norm(x + linear(inner, f"{prefix}.feed_forward.output_dense"), f"{prefix}.final_layer_norm")
    return x[0].numpy()


def test_features_are_those_of_the_published_network_interpolated_before_the_transformer(checkpoint: Path) -> None:
    wave = a_wave(1.0)
    found = speech_features(wave, 24, checkpoint, fps=24)
    assert found.shape == (24, 768)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(checkpoint, wave, 24), atol=2e-4)


def test_loudness_and_offset_of_the_wave_do_not_matter(checkpoint: Path) -> None:
    wave = a_wave(0.5).astype(np.float64)
    np.testing.assert_allclose(
        speech_features(wave, 12, checkpoint, fps=24), speech_features(0.01 * wave + 5, 12, checkpoint, fps=24), atol=1e-3
    )


def test_a_checkpoint_that_wants_the_wave_as_it_is_gets_it_so(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, feat_extract_norm="layer", conv_bias=True)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "sampling_rate": 16000}))
    wave = a_wave(0.5)
    found = speech_features(wave, 12, folder, fps=24)
    np.testing.assert_array_equal(found, speech_features(wave / 32768, 12, folder, fps=24))
    speech._load.cache_clear()
    (folder / "preprocessor_config.json").unlink()
    assert np.abs(found - speech_features(wave, 12, folder, fps=24)).max() > 1e-3


def test_silence_has_finite_features(checkpoint: Path) -> None:
    assert np.isfinite(speech_features(np.zeros(8000, np.int16), 12, checkpoint, fps=24)).all()


def test_the_same_sound_gives_the_same_bytes(checkpoint: Path) -> None:
    first = speech_features(a_wave(0.5), 12, checkpoint, fps=24)
    speech._load.cache_clear()
    np.testing.assert_array_equal(first, speech_features(a_wave(0.5), 12, checkpoint, fps=24))


def test_a_long_sound_goes_through_in_pieces_that_hear_what_is_around_them(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave, frames = a_wave(7.3), 175
    whole = speech_features(wave, frames, checkpoint, fps=24)
    lengths: list[int] = []
    model, _ = speech._load(checkpoint, "cpu")
    model.feature_extractor.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    model.encoder.register_forward_pre_hook(lambda _, given: lengths.append(round(given[0].shape[1] * 16000 / 24)))
    monkeypatch.setattr(speech, "PIECE_S", 3.0)
    monkeypatch.setattr(speech, "CONTEXT_S", 1.0)
    pieces = speech_features(wave, frames, checkpoint, fps=24)
    speech._load.cache_clear()
    assert len(lengths) == 6
    assert max(lengths) <= 5.1 * 16000
    assert pieces.shape == whole.shape
    # A network with random weights attends to everything alike, so pieces are only near to the whole.
    assert np.corrcoef(pieces.ravel(), whole.ravel())[0, 1] > 0.99


def test_a_sound_without_a_single_vector_is_refused(checkpoint: Path) -> None:
    assert speech_features(a_wave(0.025), 1, checkpoint, fps=24).shape == (1, 768)
    with pytest.raises(ValueError, match=r"399 samples is too short: wav2vec 2\.0 needs 400"):
        speech_features(a_wave(0.025)[:399], 1, checkpoint, fps=24)


def test_weights_are_read_from_either_kind_of_file(checkpoint: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, safetensors=False)
    assert checkpoint_files(folder)[-1].name == "pytorch_model.bin"
    np.testing.assert_array_equal(
        speech_features(a_wave(0.5), 12, folder, fps=24), speech_features(a_wave(0.5), 12, checkpoint, fps=24)
    )


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", safetensors=False)
    torch.save({"encoder": Trap(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ManifestError, match=r"pytorch_model\.bin: holds no weights that can be read \(UnpicklingError\)"):
        speech_features(a_wave(0.5), 12, folder, fps=24)
    assert not (tmp_path / "ran").exists()


class Trap:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path)
    held = load_file(folder / "model.safetensors")
    held.pop("encoder.layers.1.attention.k_proj.weight")
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ManifestError, match=r"lacks 1 of the model's weights, as encoder\.layers\.1\.attention"):
        speech_features(a_wave(0.5), 12, folder, fps=24)


def test_heads_of_a_fine_tuned_checkpoint_are_left_aside(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path)
    held = {f"wav2vec2.{name}": array for name, array in load_file(folder / "model.safetensors").items()}
    held.pop("wav2vec2.masked_spec_embed", None)
    save_file(held | {"lm_head.weight": torch.zeros(32, 768)}, folder / "model.safetensors", {"format": "pt"})
    np.testing.assert_array_equal(
        speech_features(a_wave(0.5), 12, folder, fps=24), speech_features(a_wave(0.5), 12, checkpoint, fps=24)
    )


def recipe(stage: str = "wav2vec", **parameters: object) -> Recipe:
    stages = {"codes": {}, "sound": {}, stage: {name: str(value) for name, value in parameters.items()}}
    return Recipe(format="headloom/recipe", name="speech", stages=stages, families=["clips", "speech"])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
        (lambda folder: (folder / "config.json").write_text("<html>"), "config.json: is not JSON as a checkpoint has it"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "hubert"}'), "is of a 'hubert', wanted 'wav2vec2'"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors or pytorch_model.bin"),
        (
            lambda folder: (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}'),
            "is for sound at 8000 Hz, wanted 16000",
        ),
    ],
)
def test_a_wrong_folder_is_said_when_a_build_is_planned(damage, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "wav2vec2", "hidden_size": 768}')
    (folder / "model.safetensors").write_bytes(b"")
    make_plan(recipe(checkpoint=folder))
    damage(folder)
    with pytest.raises(ManifestError, match=says) as error:
        make_plan(recipe(checkpoint=folder))
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_said_when_a_build_is_planned(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere/config\.json: cannot be read \(No such file or directory\)"):
        make_plan(recipe(checkpoint=tmp_path / "nowhere"))
    with pytest.raises(ManifestError, match="stage wav2vec: 'checkpoint' is missing"):
        make_plan(recipe())


def test_base_and_large_checkpoints_have_stages_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2", "hidden_size": 1024}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ManifestError, match="has 1024 numbers a frame, wanted 768; use stage wav2vec_large"):
        make_plan(recipe(checkpoint=tmp_path))
    plan = make_plan(recipe("wav2vec_large", checkpoint=tmp_path))
    assert "wav2vec_large" in plan.made


def test_the_files_of_the_checkpoint_enter_the_key_and_its_place_does_not(tmp_path: Path) -> None:
    keys = []
    for name, weights in (("one", b"1"), ("moved", b"1"), ("other", b"2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "wav2vec2"}')
        (folder / "model.safetensors").write_bytes(weights)
        keys.append(make_plan(recipe(checkpoint=folder)).stages[-1].key({}))
    assert keys[0] == keys[1] != keys[2]


def test_a_parameter_says_which_sound_is_heard(checkpoint: Path) -> None:
    assert Wav2Vec(checkpoint=checkpoint).reads() == ("wave", "n_frames", "fps_num", "fps_den")
    stage = Wav2Vec(checkpoint=checkpoint, sound="wave_clean")
    assert stage.reads()[0] == "wave_clean"
    wave = a_wave(0.5)
    outcome = stage.run(wave_clean=wave[: sample_count(12, 24, 1)], n_frames=12, fps_num=24, fps_den=1)
    assert isinstance(outcome, Done)
    np.testing.assert_array_equal(outcome.columns["wav2vec"], speech_features(wave, 12, checkpoint, fps=24))


def test_a_large_checkpoint_has_a_column_of_its_own(tmp_path: Path) -> None:
    stage = Wav2VecLarge(checkpoint=write_checkpoint(tmp_path, hidden=1024, feat_extract_norm="layer", do_stable_layer_norm=True))
    outcome = stage.run(wave=a_wave(0.5), n_frames=12, fps_num=24, fps_den=1)
    assert isinstance(outcome, Done)
    assert outcome.columns["wav2vec_large"].shape == (12, 1024)


def test_without_a_gpu_cuda_is_refused(checkpoint: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert Wav2Vec(checkpoint=checkpoint, device="cuda").gpus() > 0
    with pytest.raises(OSError, match="device cuda was asked for"):
        speech_features(a_wave(0.5), 12, checkpoint, fps=24, device="cuda")


def test_the_pickle_of_features_is_read_by_the_safe_reader(tmp_path: Path) -> None:
    import pickle

    held = np.random.default_rng(0).standard_normal((5, 768)).astype(np.float32)
    (tmp_path / "wave2vec_audio_feats.pkl").write_bytes(pickle.dumps(held, protocol=4))
    np.testing.assert_array_equal(load_pickle(tmp_path / "wave2vec_audio_feats.pkl"), held)
