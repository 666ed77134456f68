"""All stages that a recipe can name."""

from __future__ import annotations

from fitting.cloud_stage import Clouds
from fitting.flame_stage import FlameSequence
from fitting.identity_stage import NphmIdentity
from fitting.landmark_stage import Landmarks
from fitting.mesh_stage import Meshes
from fitting.nphm_stage import NphmExpression
from manifests.stage import Stage
from prep.capture_clips import CaptureClips
from prep.codes import Codes, CodesIdentity
from prep.crop import Crop
from prep.cut import Cut
from prep.denoise import Denoise
from prep.faces import Faces
from prep.fbank import FilterBanks
from prep.mel import Mel
from prep.noise import AddNoise
from prep.probe import Probe
from prep.quality import Quality
from prep.sound import Sound
from prep.speech import Wav2Vec, Wav2VecLarge

STAGES: dict[str, type[Stage]] = {
    stage.name: stage
    for stage in (
        Probe,
        Faces,
        Cut,
        CaptureClips,
        Codes,
        CodesIdentity,
        Crop,
        Quality,
        Sound,
        Denoise,
        AddNoise,
        Mel,
        FilterBanks,
        Wav2Vec,
        Wav2VecLarge,
        Clouds,
        Landmarks,
        FlameSequence,
        NphmIdentity,
        NphmExpression,
        Meshes,
    )
}
"""Stage classes by name."""
