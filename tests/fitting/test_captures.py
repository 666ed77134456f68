"""The cameras of a capture fit its pictures."""

import json
from pathlib import Path

import pytest
import torch

from fitting.captures import cameras_of
from fitting.studio.rig import sixteen
from manifests.stage import Unreadable
from prep.capture import open_capture
from tests.prep.test_capture import H, W, nersemble, plain


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_nersembles_cameras_are_for_the_size_that_is_asked_for(release: str, tmp_path: Path) -> None:
    cameras = cameras_of(open_capture(nersemble(tmp_path, release)), (550, 802))
    wanted = sixteen().cameras.resize(550, 802)
    torch.testing.assert_close(cameras.intrinsics, wanted.intrinsics)
    torch.testing.assert_close(cameras.world_to_camera, wanted.world_to_camera)


def test_plain_cameras_see_the_world_as_opencvs_do(tmp_path: Path) -> None:
    cameras = cameras_of(open_capture(plain(tmp_path / "mine")), (W // 2, H // 2))
    pixels, depth = cameras.project(torch.tensor([[0.1, 0.2, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(pixels[0, 0], torch.tensor([80 * 0.1 / 2 + W / 2, 80 * 0.2 / 2 + H / 2], dtype=torch.float64) / 2)
    assert float(depth[0, 0]) == 2.0


def test_a_mirrored_camera_is_refused(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    content = json.loads((folder / "cameras.json").read_text())
    content["cameras"]["left"]["R"][0][0] = -1
    (folder / "cameras.json").write_text(json.dumps(content))
    with pytest.raises(Unreadable, match=r"mine: .*rotation"):
        cameras_of(open_capture(folder), (W, H))


@pytest.mark.parametrize("harm", ["no pose", "no number", "no intrinsics", "not finite"])
def test_a_damaged_calibration_is_unreadable(harm: str, tmp_path: Path) -> None:
    path = nersemble(tmp_path, "v1")
    file = path.parents[1] / "camera_params.json"
    content = json.loads(file.read_text())
    serial = next(iter(content["world_2_cam"]))
    if harm == "no intrinsics":
        content["intrinsics"] = None
    else:
        content["world_2_cam"][serial] = {"no pose": None, "no number": [["x"] * 4] * 4, "not finite": [[float("nan")] * 4] * 4}[
            harm
        ]
    file.write_text(json.dumps(content))
    with pytest.raises(Unreadable, match="its cameras cannot be read"):
        cameras_of(open_capture(path), (W, H))
