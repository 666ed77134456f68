"""The registry of model files: what each is for, whose it is, and where it lies when the user has put it there.

headloom ships no weights and downloads none. ``find`` looks in the folders of ``search_path``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from manifests.document import did_you_mean, file_digest
from manifests.model_file import Kind, WrongModelFile


class MissingAsset(FileNotFoundError):
    """A model file is needed and not there: the message names the file and says where to get and put it."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One model file: what it is for, its licence, where people get it, the file names it comes under.

    The first file name belongs to this asset alone; under it ``headloom assets add`` puts the file. ``marks`` tell it by
    content: keys that it holds (of nested dicts joined by dots), or the shape of a single array, as in ``39×3``.
    ``digests`` are the sha256 of published files that were read with headloom.
    """

    name: str
    purpose: str
    licence: str
    where: str
    file_names: tuple[str, ...]
    kind: Kind
    marks: tuple[str, ...]
    digests: tuple[str, ...] = ()


_FLAME_LICENCE = "FLAME model licence: non-commercial research"
_FLAME_SITE = "https://flame.is.tue.mpg.de, after registration"
_FLAME_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f")
_NPHM_SITE = "https://github.com/SimonGiebenhain/NPHM, under Pretrained models"
_DEEP3D_SITE = "https://github.com/sicxu/Deep3DFaceRecon_pytorch, under Prepare prerequisite models"
_SADTALKER_SITE = "https://github.com/OpenTalker/SadTalker/releases"


def _flame(name: str, *file_names: str, purpose: str) -> Asset:
    return Asset(name, purpose, _FLAME_LICENCE, _FLAME_SITE, file_names, Kind.pickle, _FLAME_KEYS)


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="s3fd",
            purpose="face detection by stage faces with detector: s3fd (needs the package face-alignment)",
            licence="BSD-3 (face-alignment)",
            where="the first use of the face-alignment package downloads it to the torch hub folder",
            file_names=("s3fd-619a316812.pth",),
            kind=Kind.torch,
            marks=("conv1_1.weight", "conv3_3_norm.weight", "conv7_2_mbox_loc.weight"),
        ),
        Asset(
            name="face-parsing",
            purpose="face segmentation by stage clouds with mask: parsing (BiSeNet, 19 classes)",
            licence="MIT (face-parsing.PyTorch); trained on CelebAMask-HQ: non-commercial research",
            where="https://github.com/zllrunning/face-parsing.PyTorch, linked in its README",
            file_names=("79999_iter.pth",),
            kind=Kind.torch,
            marks=("cp.resnet.conv1.weight", "cp.arm16.conv_atten.weight", "ffm.convblk.conv.weight", "conv_out.conv_out.weight"),
        ),
        Asset(
            name="fan",
            purpose="68 landmarks in pictures by stage landmarks with source: face-alignment (needs the package face-alignment)",
            licence="BSD-3 (face-alignment)",
            where="the first use of the face-alignment package downloads it to the torch hub folder",
            file_names=("2DFAN4-11f355bf06.pth.tar",),
            kind=Kind.torch,
            marks=("conv1.weight", "m0.b1_4.conv1.weight", "bl0.weight", "l3.weight"),
        ),
        _flame("flame2020", "flame2020.pkl", "generic_model.pkl", purpose="FLAME 2020, the head that most codes are for"),
        _flame(
            "flame2020-female", "flame2020_female.pkl", "female_model.pkl", purpose="FLAME 2020, female; NPHM was built on it"
        ),
        _flame("flame2020-male", "flame2020_male.pkl", "male_model.pkl", purpose="FLAME 2020, male"),
        _flame("flame2023", "flame2023.pkl", purpose="FLAME 2023"),
        _flame("flame2023-no-jaw", "flame2023_no_jaw.pkl", purpose="FLAME 2023 whose expressions open the mouth"),
        Asset(
            name="flame-masks",
            purpose="regions of FLAME's vertices",
            licence=_FLAME_LICENCE,
            where=_FLAME_SITE,
            file_names=("FLAME_masks.pkl",),
            kind=Kind.pickle,
            marks=("face", "scalp", "neck", "left_eyeball"),
            digests=("ccefbe1ac0774ff78c68caf2c627b4abc067a6555ebeb0be5d5b0812366ab492",),
        ),
        Asset(
            name="flame-landmarks",
            purpose="68 landmarks on FLAME, full set and dynamic contour (two pupils besides in VHAP's file)",
            licence="that of DECA and VHAP: non-commercial research",
            where="data/landmark_embedding.npy of https://github.com/yfeng95/DECA, or VHAP's landmark_embedding_with_eyes.npy",
            file_names=("landmark_embedding.npy", "landmark_embedding_with_eyes.npy"),
            kind=Kind.npy,
            marks=("static_lmk_faces_idx", "full_lmk_faces_idx", "dynamic_lmk_faces_idx"),
            digests=(
                "8095348eeafce5a02f6bd8765146307f9567a3f03b316d788a2e47336d667954",
                "a9050103cc98d5505beadca2f9b101acce9a78ebdd5d10cb001fa164ab7d309b",
            ),
        ),
        Asset(
            name="flame-landmarks-static",
            purpose="51 inner landmarks on FLAME, in RingNet's format",
            licence="that of RingNet: non-commercial research",
            where="flame_model of https://github.com/soubhiksanyal/RingNet",
            file_names=("flame_static_embedding.pkl",),
            kind=Kind.pickle,
            marks=("lmk_face_idx", "lmk_b_coords"),
        ),
        Asset(
            name="flame-landmarks-contour",
            purpose="17 contour landmarks on FLAME for each yaw, in RingNet's format",
            licence="that of RingNet: non-commercial research",
            where="flame_model of https://github.com/soubhiksanyal/RingNet",
            file_names=("flame_dynamic_embedding.npy",),
            kind=Kind.npy,
            marks=("lmk_face_idx", "lmk_b_coords"),
        ),
        Asset(
            name="flame-landmarks-mediapipe",
            purpose="105 of MediaPipe's landmarks on FLAME",
            licence=_FLAME_LICENCE,
            where=_FLAME_SITE,
            file_names=("mediapipe_landmark_embedding.npz",),
            kind=Kind.npz,
            marks=("lmk_face_idx", "lmk_b_coords", "landmark_indices"),
            digests=("8863363013fc6fe3752d4318ea02a1784970200616a54b785920cdd0568816fc",),
        ),
        Asset(
            name="flame-eyelid-left",
            purpose="closing of the left eyelid, which FLAME lacks",
            licence="MPI non-commercial research",
            where="flame/blendshapes of https://github.com/Zielon/metrical-tracker",
            file_names=("l_eyelid.npy",),
            kind=Kind.npy,
            marks=("5023×3",),
            digests=("fa50997166c2f884fbfc577d99fe8707966763fc3d83a1870bb786df6cc9410d",),
        ),
        Asset(
            name="flame-eyelid-right",
            purpose="closing of the right eyelid, which FLAME lacks",
            licence="MPI non-commercial research",
            where="flame/blendshapes of https://github.com/Zielon/metrical-tracker",
            file_names=("r_eyelid.npy",),
            kind=Kind.npy,
            marks=("5023×3",),
            digests=("dd78776fed765be4468889dd7d5b54b4bf61c8efbb2869b5b91409ce798aad8d",),
        ),
        Asset(
            name="bfm",
            purpose="the face model of Deep3DFaceRecon: Basel Face Model 2009 with FaceWarehouse's expressions",
            licence="Basel Face Model licence: research",
            where=_DEEP3D_SITE,
            file_names=("BFM_model_front.mat",),
            kind=Kind.mat,
            marks=("meanshape", "idBase", "exBase", "texBase", "tri", "point_buf", "keypoints"),
        ),
        Asset(
            name="bfm-landmarks",
            purpose="the 68 standard landmarks to which Deep3DFaceRecon aligns pictures",
            licence="MIT (Deep3DFaceRecon_pytorch)",
            where="BFM/similarity_Lm3D_all.mat of https://github.com/sicxu/Deep3DFaceRecon_pytorch",
            file_names=("similarity_Lm3D_all.mat",),
            kind=Kind.mat,
            marks=("lm",),
            digests=("53b83ce6e35c50ddc3e97603650cef4970320c157e75c241c844f29c1dcba65a",),
        ),
        Asset(
            name="deep3d",
            purpose="Deep3DFaceRecon's network: a picture's 257 coefficients",
            licence="MIT (Deep3DFaceRecon_pytorch)",
            where=_DEEP3D_SITE,
            file_names=("epoch_20.pth",),
            kind=Kind.torch,
            marks=("net_recon.backbone.conv1.weight", "net_recon.final_layers.0.weight"),
        ),
        *(
            Asset(
                name=f"sadtalker-{size}",
                purpose=f"all networks of SadTalker at {size}², among them Deep3DFaceRecon's",
                licence="Apache-2.0 (SadTalker)",
                where=_SADTALKER_SITE,
                file_names=(f"SadTalker_V0.0.2_{size}.safetensors",),
                kind=Kind.safetensors,
                marks=("face_3drecon.backbone.conv1.weight", "audio2exp.mapping1.weight"),
            )
            for size in (256, 512)
        ),
        Asset(
            name="nphm-identity",
            purpose="NPHM: the signed distance of a head, from its identity code",
            licence="as published with NPHM (code MIT; the weights' licence is not stated)",
            where=_NPHM_SITE,
            file_names=("nphm_identity.tar", "checkpoint_epoch_15000.tar"),
            kind=Kind.torch,
            marks=("decoder_state_dict.ensembled_deep_sdf.lin0.weight", "decoder_state_dict.mlp_pos.0.weight"),
        ),
        Asset(
            name="nphm-expression",
            purpose="NPHM: how an expression moves canonical points (the published, forward network)",
            licence="as published with NPHM (code MIT; the weights' licence is not stated)",
            where=_NPHM_SITE,
            file_names=("nphm_expression.tar", "checkpoint_epoch_2500.tar"),
            kind=Kind.torch,
            marks=("decoder_state_dict.defDeepSDF.lin0.weight",),
        ),
        Asset(
            name="nphm-backward",
            purpose="NPHM: back from posed to canonical points, as FaceTalk uses it; not published, can be distilled",
            licence="that of the network it was distilled from",
            where="fitting.nphm.distil, or the authors of FaceTalk",
            file_names=("nphm_backward.tar",),
            kind=Kind.torch,
            marks=("decoder_state_dict.defDeepSDF.lin0.weight",),
        ),
        Asset(
            name="nphm-anchors",
            purpose="NPHM's 39 mean anchors, which its checkpoints lack",
            licence="MIT (NPHM)",
            where="assets/anchors_39.npy of https://github.com/SimonGiebenhain/NPHM",
            file_names=("anchors_39.npy",),
            kind=Kind.npy,
            marks=("39×3",),
            digests=("04ac8841d08e0790863d3c571d54722f06ca5abf05ce228f34b6b718aa1fdc97",),
        ),
        *(
            Asset(
                name=f"nphm-code-{statistic}",
                purpose=f"{words} of NPHM's identity codes",
                licence="MIT (NPHM)",
                where=f"assets/nphm_lat_{statistic}.npy of https://github.com/SimonGiebenhain/NPHM",
                file_names=(f"nphm_lat_{statistic}.npy",),
                kind=Kind.npy,
                marks=("1344",),
                digests=(digest,),
            )
            for statistic, words, digest in (
                ("mean", "mean", "f7850e8ef21f06bf1ce878cb7b070e50e97e04b3be7a194b35aea18023fc767e"),
                ("std", "standard deviation", "5490385b1a61d596fb1e3ba3c482000e50beec98a70be0dcb56546ddae21e352"),
            )
        ),
        Asset(
            name="mononphm",
            purpose="MonoNPHM: identity with colour, and its backward expression network",
            licence="as published with MonoNPHM (code MIT; the weights' licence is not stated)",
            where="https://github.com/SimonGiebenhain/MonoNPHM",
            file_names=("mononphm.tar",),
            kind=Kind.torch,
            marks=("id_decoder.mlp_pos.0.weight", "ex_decoder.defDeepSDF.lin0.weight"),
        ),
        Asset(
            name="mononphm-anchors",
            purpose="MonoNPHM's 65 mean anchors, which its checkpoints lack",
            licence="MIT (MonoNPHM)",
            where="assets/anchors_65.npy of https://github.com/SimonGiebenhain/MonoNPHM",
            file_names=("anchors_65.npy",),
            kind=Kind.npy,
            marks=("65×3",),
            digests=("26b95c615c7de95e241ec39d025e9268952130c7f8144e99bf33287124b9dba8",),
        ),
    )
}


def home() -> Path:
    """Where ``headloom assets add`` puts model files: ``$HEADLOOM_MODELS``, else a folder of the user's."""
    return Path(os.environ.get("HEADLOOM_MODELS") or "~/.local/share/headloom/models").expanduser()


@contextmanager
def looking_in(folder: Path) -> Iterator[None]:
    """Within the block ``home`` is ``folder``, for this process and those that it starts."""
    before = os.environ.get("HEADLOOM_MODELS")
    os.environ["HEADLOOM_MODELS"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["HEADLOOM_MODELS"]
        else:
            os.environ["HEADLOOM_MODELS"] = before


def search_path() -> list[Path]:
    """Folders in which model files are looked for, first found wins."""
    torch_home = Path(os.environ.get("TORCH_HOME") or "~/.cache/torch").expanduser()
    return [home(), torch_home / "hub" / "checkpoints"]


def find(name: str) -> Path:
    """Path of the model file ``name``. Raises ``MissingAsset`` when it is not there, ``ValueError`` for an unknown name."""
    if name not in ASSETS:
        raise ValueError(f"no model file is called '{name}'{did_you_mean(name, ASSETS)}")
    asset = ASSETS[name]
    for folder in search_path():
        for file_name in asset.file_names:
            if (folder / file_name).is_file():
                return folder / file_name
    raise MissingAsset(
        f"model file {' or '.join(asset.file_names)} ({asset.purpose}) is missing: get it from {asset.where}; "
        "then run headloom assets add FILE"
    )


def record_path(path: Path) -> Path:
    """The file beside a model file that says where it came from."""
    return path.with_name(f"{path.name}.json")


def record(path: Path) -> dict[str, Any]:
    """What was recorded when ``path`` was added: asset, sha256, bytes, source, added_at, holds. Empty if put there by hand.

    Raises ``WrongModelFile`` when the record is damaged.
    """
    try:
        return dict(json.loads(record_path(path).read_text("utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise WrongModelFile(f"{record_path(path)} is damaged: headloom assets add {path} writes it anew") from error


def digest(name: str) -> str:
    """sha256 of the model file ``name``; computed once for each state of the file."""
    path = find(name)
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    return file_digest(path)
