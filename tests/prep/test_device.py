"""Devices of stages."""

import pytest
import torch

from fitting.cloud_stage import Clouds
from fitting.identity_stage import NphmIdentity
from fitting.landmark_stage import Landmarks
from fitting.nphm_stage import NphmExpression
from prep.device import device_of


def test_the_cpu_is_always_there() -> None:
    assert device_of("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_the_machines_fault() -> None:
    with pytest.raises(OSError, match="finds no GPU here"):
        device_of("cuda")


def test_only_stages_that_were_told_to_take_part_of_a_gpu() -> None:
    for stage in (Landmarks, NphmIdentity, NphmExpression):
        assert stage().gpus() == 0
        assert 0 < stage(device="cuda").gpus() <= 1
    assert Clouds().gpus() == 0
    assert Clouds(method="patch_match").gpus() > 0
