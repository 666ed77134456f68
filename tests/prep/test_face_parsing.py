"""Face parsing: the published layout is read, the published function computed, and labels lie where they belong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from manifests.model_file import WrongModelFile
from prep.face_parsing import CLASSES, FACE, BiSeNet, load_face_parsing, parse_faces
from tests.fitting.rule_weights import assert_close, rule_state
from tests.prep.face_parsing_file import official_shapes, write_face_parsing

GOLDEN = Path(__file__).with_name("golden_face_parsing.npz")
"""Logits of the published code under rule-made weights (``tests.fitting.rule_weights``): every 97th."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> BiSeNet:
    return load_face_parsing(write_face_parsing(tmp_path_factory.mktemp("weights")))


class Colours(nn.Module):
    """Says class 1 where a picture is rather red, 17 where it is rather blue, else 0."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.least = nn.Parameter(torch.tensor(0.5))

    def forward(self, pictures: Tensor) -> Tensor:
        self.seen.append(pictures)
        logits = torch.zeros(len(pictures), len(CLASSES), *pictures.shape[-2:])
        logits[:, 0] = self.least
        logits[:, CLASSES.index("skin")] = pictures[:, 0]
        logits[:, CLASSES.index("hair")] = pictures[:, 2]
        return logits


@pytest.mark.parametrize(("name", "gain"), [("plain", 1.0), ("gain", 2**0.5)])
def test_the_network_computes_what_the_published_one_does(name: str, gain: float) -> None:
    network = BiSeNet().eval()
    network.load_state_dict(rule_state(official_shapes(), gain=gain))
    pictures = torch.from_numpy(np.random.RandomState(8).uniform(-2, 2, (2, 3, 96, 64)).astype(np.float32))
    with torch.no_grad():
        logits = network(pictures).numpy()
    with np.load(GOLDEN) as recorded:
        assert logits.shape == tuple(recorded["shape"])
        assert_close(logits.ravel()[::97], recorded[f"logits_{name}"])


def test_keys_and_shapes_are_the_published_ones() -> None:
    assert {key: tuple(value.shape) for key, value in BiSeNet().state_dict().items()} == official_shapes()
    assert sum(weights.numel() for weights in BiSeNet().parameters()) == 13_300_416


def test_a_checkpoint_with_a_layer_missing_is_refused(tmp_path: Path) -> None:
    state = rule_state(official_shapes())
    del state["ffm.conv1.weight"]
    torch.save(state, tmp_path / "79999_iter.pth")
    with pytest.raises(WrongModelFile, match=r"ffm\.conv1\.weight"):
        load_face_parsing(tmp_path / "79999_iter.pth")


def test_the_same_pictures_give_the_same_labels_in_batches_of_any_size(network: BiSeNet) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 60, 40, 3), np.uint8)
    labels = parse_faces(network, pictures, batch=3)
    assert labels.shape == (3, 60, 40)
    assert labels.dtype == np.uint8
    assert labels.max() < len(CLASSES)
    assert np.mean(labels == parse_faces(network, pictures, batch=1)) > 0.999


def test_labels_lie_on_the_pixels_that_they_are_of() -> None:
    picture = np.zeros((300, 200, 3), np.uint8)
    picture[100:200, 50:150, 0] = 255
    picture[20:90, 50:150, 2] = 255
    wanted = np.zeros((300, 200), np.uint8)
    wanted[picture[..., 0] > 0], wanted[picture[..., 2] > 0] = CLASSES.index("skin"), CLASSES.index("hair")
    labels = parse_faces(Colours(), picture[None])[0]  # type: ignore[arg-type]
    np.testing.assert_array_equal(labels, wanted)


def test_only_the_crop_is_looked_at_and_it_may_reach_out_of_the_picture() -> None:
    pictures = np.zeros((2, 300, 200, 3), np.uint8)
    pictures[..., 0] = 255
    labels = parse_faces(Colours(), pictures, np.array([[-40, -20, 100, 120], [30, 40, 90, 100]]))  # type: ignore[arg-type]
    wanted = np.zeros((2, 300, 200), np.uint8)
    wanted[0, :120, :100] = wanted[1, 40:100, 30:90] = CLASSES.index("skin")
    np.testing.assert_array_equal(labels, wanted)


def test_a_crop_beside_the_picture_is_background() -> None:
    pictures = np.full((1, 30, 20, 3), 255, np.uint8)
    assert not parse_faces(Colours(), pictures, np.array([[40, 40, 60, 60]])).any()  # type: ignore[arg-type]


def test_pictures_reach_the_network_in_its_size_with_the_training_sets_mean() -> None:
    network = Colours()
    parse_faces(network, np.full((1, 30, 20, 3), 255, np.uint8))  # type: ignore[arg-type]
    (seen,) = network.seen
    assert seen.shape == (1, 3, 512, 512)
    white = torch.tensor([(1 - mean) / deviation for mean, deviation in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))])
    torch.testing.assert_close(seen, white[:, None, None].expand(1, 3, 512, 512))


def test_wrong_crops_are_refused() -> None:
    pictures = np.zeros((2, 30, 20, 3), np.uint8)
    for crops in (np.array([[0, 0, 20, 20]]), np.array([[0, 0, 20, 20], [5, 5, 5, 9]])):
        with pytest.raises(ValueError, match="2 pictures want as many crops"):
            parse_faces(Colours(), pictures, crops)  # type: ignore[arg-type]


def test_no_pictures_give_no_labels() -> None:
    assert parse_faces(Colours(), np.zeros((0, 30, 20, 3), np.uint8)).shape == (0, 30, 20)  # type: ignore[arg-type]


def test_the_face_has_no_hair_clothes_or_glasses() -> None:
    assert len(CLASSES) == 19
    assert set(FACE) < set(CLASSES)
    assert not set(FACE) & {"background", "neck", "cloth", "hair", "hat", "glasses", "left_ear"}
