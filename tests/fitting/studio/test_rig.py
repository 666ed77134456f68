"""The studio's cameras: where they stand and what they see."""

import numpy as np
import torch

from fitting.studio.rig import SERIALS, TARGET, in_front, look_at, neighbours, sixteen
from prep.capture import NERSEMBLE_SIZE

HEAD = torch.tensor([[x, y, z] for x in (-0.08, 0.08) for y in (-0.13, 0.11) for z in (-0.09, 0.09)], dtype=torch.float64)
TOP, LEFT = torch.tensor([0.0, 0.1, 0.0]).double(), torch.tensor([0.1, 0.0, 0.0]).double()


def test_one_camera_sees_the_face_upright_and_as_large_as_was_asked() -> None:
    camera = in_front(320, 256, fill=0.5)
    assert camera.project(torch.tensor([TARGET], dtype=torch.float64)).pixels.tolist() == [[160, 128]]
    ends = torch.tensor([TARGET], dtype=torch.float64) + torch.tensor([[0, 0.115, 0], [0, -0.115, 0]], dtype=torch.float64)
    top, bottom = camera.project(ends).pixels[:, 1].tolist()
    assert abs(bottom - top - 128) < 1e-6
    # The person's left is on the right of the picture.
    assert camera.project(LEFT[None]).pixels[0, 0] > 160


def test_sixteen_cameras_see_the_whole_head() -> None:
    rig = sixteen()
    assert rig.cameras.batch == (16,)
    seen = rig.cameras.project(HEAD)
    assert ((seen.pixels > 0) & (seen.pixels < torch.tensor(NERSEMBLE_SIZE))).all()
    assert ((seen.depth > 0.8) & (seen.depth < 1.4)).all()
    tops, lefts = (rig.cameras.project(point[None]).pixels[:, 0] for point in (TOP, LEFT))
    middle = rig.cameras.project(torch.zeros(1, 3).double()).pixels[:, 0]
    assert (tops[:, 1] < middle[:, 1]).all()
    assert (lefts[:, 0] > middle[:, 0]).all()


def test_they_stand_on_the_published_arc_from_the_persons_right_to_its_left() -> None:
    centres = sixteen().cameras.centre - torch.tensor(TARGET, dtype=torch.float64)
    azimuth = torch.rad2deg(torch.atan2(centres[:, 0], centres[:, 2]))
    elevation = torch.rad2deg(torch.asin(centres[:, 1] / centres.norm(dim=1)))
    assert (azimuth.diff() >= -1e-6).all()
    assert abs(float(azimuth[-1] - azimuth[0]) - 93) < 1e-6
    assert abs(float(elevation.max() - elevation.min()) - 32) < 1e-6
    frontal = SERIALS.index("222200037")
    assert abs(float(azimuth[frontal])) < 1e-6
    assert abs(float(elevation[frontal])) < 1e-6


def test_rigs_differ_by_seed_and_repeat_by_it() -> None:
    one, again, other = sixteen(1), sixteen(1), sixteen(2)
    assert torch.equal(one.cameras.world_to_camera, again.cameras.world_to_camera)
    assert not torch.allclose(one.cameras.world_to_camera, other.cameras.world_to_camera)
    assert np.abs(one.to_true - np.eye(3)).max(axis=(1, 2)).min() > 0.02


def test_neighbours_are_near() -> None:
    cameras = sixteen().cameras
    axes = cameras.world_to_camera[:, 2, :3]
    near = neighbours(cameras)
    assert (near != np.arange(16)).all()
    angles = torch.rad2deg(torch.acos((axes * axes[torch.from_numpy(near)]).sum(dim=1)))
    assert angles.max() < 18


def test_roll_turns_the_picture_clockwise() -> None:
    centre = torch.tensor([0.0, 0.0, 1.0]).double()
    matrix = look_at(centre, torch.zeros(3).double(), torch.tensor(0.1).double())
    torch.testing.assert_close(matrix[:3, :3] @ matrix[:3, :3].T, torch.eye(3).double())
    assert torch.det(matrix[:3, :3]) > 0
    seen = matrix[:3, :3] @ TOP
    torch.testing.assert_close(torch.atan2(seen[0], -seen[1]), torch.tensor(0.1).double())
