"""Front ends: windows and whole clips have the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fitting.rotations import axis_angle_to_matrix
from manifests.clock import sample_count
from manifests.columns import COLUMNS
from manifests.document import ManifestError
from manifests.training import Window
from training.facetalk.conditions import Condition, Mel, condition_of
from training.facetalk.settings import ConditionName
from training.windows import Cutter

FRAMES, LENGTH = 60, 12


def a_clip(fps: tuple[int, int]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "mel": rng.standard_normal((80, 1 + sample_count(FRAMES, *fps) // 200)).astype(np.float32),
        "wav2vec": rng.standard_normal((FRAMES, 768)).astype(np.float32),
        "wav2vec_large": rng.standard_normal((FRAMES, 1024)).astype(np.float32),
        "landmarks3d": rng.standard_normal((FRAMES, 68, 3)).astype(np.float32),
        "world_to_nphm": np.tile(np.eye(4), (FRAMES, 1, 1)),
    }


def windows_of(condition: Condition, clip: dict[str, NDArray[Any]], fps: tuple[int, int], firsts: list[int]) -> torch.Tensor:
    """As the loader cuts them."""
    window = Window(length=LENGTH, context=(condition.context, condition.context), edge="clamp")
    windows = Cutter([COLUMNS[name] for name in condition.columns], window, fps).windows(condition.columns, np.array(firsts))
    shown = zip(*(windows.cut(clip, number) for number in range(len(firsts))), strict=True)
    batch: dict[str, Any] = {
        name: torch.from_numpy(np.stack(parts)) for name, parts in zip(condition.columns, shown, strict=True)
    }
    return condition.windows(batch | {"first": torch.tensor(firsts)}, LENGTH, fps)


@pytest.mark.parametrize("fps", [(24, 1), (25, 1), (30000, 1001), (60, 1)])
@pytest.mark.parametrize("name", ["mel", "wav2vec", "wav2vec_large", "landmarks"])
def test_windows_show_what_the_whole_clip_does(name: ConditionName, fps: tuple[int, int]) -> None:
    condition, clip = condition_of(name), a_clip(fps)
    firsts = [0, 1, 7, 8, 20, FRAMES - LENGTH]
    whole = condition.whole(clip, FRAMES, fps)
    seen = windows_of(condition, clip, fps, firsts)
    assert whole.shape == (FRAMES, condition.width)
    for row, first in zip(seen, firsts, strict=True):
        torch.testing.assert_close(row, whole[first : first + LENGTH])


def test_a_sound_is_in_the_middle_of_the_frame_at_its_moment() -> None:
    mel = np.zeros((80, 201), np.float32)
    mel[5, 100] = 1  # at 1.25 s, frame 30 of 24 a second
    whole = Mel().whole({"mel": mel}, 60, (24, 1)).unflatten(1, (80, 16))
    assert whole[30].nonzero().tolist() == [[5, 8]]
    assert whole[29].nonzero().tolist() == [[5, 12]]


def test_too_many_frames_a_second_for_the_context_are_refused() -> None:
    with pytest.raises(ManifestError, match="100 frames a second"):
        windows_of(Mel(), a_clip((100, 1)), (100, 1), [20])


def test_landmarks_do_not_follow_the_heads_movement() -> None:
    condition, clip = condition_of("landmarks"), a_clip((24, 1))
    still = condition.whole(clip, FRAMES, (24, 1))
    rng = np.random.default_rng(1)
    moved = np.tile(np.eye(4), (FRAMES, 1, 1))
    moved[:, :3, :3] = axis_angle_to_matrix(torch.from_numpy(0.3 * rng.standard_normal((FRAMES, 3)))).numpy()
    moved[:, :3, 3] = rng.standard_normal((FRAMES, 3))
    points = np.einsum("tij,tkj->tki", moved[:, :3, :3], clip["landmarks3d"]) + moved[:, None, :3, 3]
    turned = {"landmarks3d": points, "world_to_nphm": np.linalg.inv(moved)}
    torch.testing.assert_close(condition.whole(turned, FRAMES, (24, 1)), still, atol=1e-5, rtol=0)
