"""Face detectors behind one small interface: a grey picture in, boxes out.

All boxes follow one convention, that of S3FD's training data (WIDER FACE): forehead to chin, ear to ear.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np

from manifests.assets import find

DetectorName = Literal["cascade", "s3fd"]

CASCADE_TO_BOX = np.array([0.07, 0.02, 0.915, 1.09])
"""Where forehead, chin and ears lie in the square that the frontal cascade marks, as shares of its side.

Medians over 1289 faces of 31 public clips: the 68 landmarks span 0.07..0.91 of the square across and, brows to
chin, 0.24..1.09 of it down. The forehead is put a quarter of that height above the brows.
"""

_WINDOW_PX = 24
"""Pictures are scaled so that the smallest face looked for has about this side; the cascade's window is 20."""


class Faces(NamedTuple):
    """``boxes`` (N, 4) float32, x0 y0 x1 y1 in pixels of the picture searched; ``scores`` (N,), larger is surer."""

    boxes: np.ndarray
    scores: np.ndarray


class Detector(Protocol):
    """Finds faces whose box side (geometric mean) lies within the limits, in pixels of ``grey`` (H, W) uint8.

    ``sideways`` asks for more effort where nothing is found from the front. Scores of ``sure`` and more are
    hardly ever wrong.
    """

    @property
    def sure(self) -> float: ...

    def __call__(self, grey: np.ndarray, smallest: float, largest: float, sideways: bool = False) -> Faces: ...


class CascadeDetector:
    """OpenCV's cascades of Haar features (Viola and Jones 2001; Lienhart and Maydt 2002): nothing to download.

    The frontal cascade is ``alt2``: on the public clips it found 99 % of the faces and marked the fewest other
    things (``default`` three times as many). With ``sideways`` the profile cascade is asked, both ways round,
    where the frontal one finds nothing. Scores are numbers of windows that agree: 14 and more in the usual frame
    of the public clips, 4 at most from the front where there is no face.
    """

    sure = 6.0

    def __init__(self) -> None:
        # The number of threads must not decide the order in which windows are grouped, and workers share the machine.
        cv2.setNumThreads(1)
        folder = Path(cv2.__file__).parent / "data"
        self._frontal = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_alt2.xml"))
        self._profile = cv2.CascadeClassifier(str(folder / "haarcascade_profileface.xml"))

    def __call__(self, grey: np.ndarray, smallest: float, largest: float, sideways: bool = False) -> Faces:
        side = float(np.sqrt(np.prod(CASCADE_TO_BOX[2:] - CASCADE_TO_BOX[:2])))
        scale = min(1.0, _WINDOW_PX * side / smallest)
        if scale < 1.0:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        limits = int(smallest / side * scale), int(np.ceil(largest / side * scale))
        squares, counts = _search(self._frontal, grey, limits, 3)
        if sideways and not len(squares):
            squares, counts = _search(self._profile, grey, limits, 4)
        if sideways and not len(squares):
            squares, counts = _search(self._profile, cv2.flip(grey, 1), limits, 4)
            squares[:, 0] = grey.shape[1] - squares[:, 0] - squares[:, 2]
        corners = np.concatenate([squares[:, :2], squares[:, :2]], 1)
        boxes = (corners + squares[:, 2:3] * CASCADE_TO_BOX) / scale
        return Faces(boxes.astype(np.float32), counts.astype(np.float32))


def _search(cascade: Any, grey: np.ndarray, limits: tuple[int, int], neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    if min(grey.shape) < max(20, limits[0]):
        return np.zeros((0, 4)), np.zeros(0)
    squares, counts = cascade.detectMultiScale2(grey, 1.15, neighbours, 0, (limits[0],) * 2, (limits[1],) * 2)
    return np.asarray(squares, np.float64).reshape(-1, 4), np.asarray(counts, np.float64).reshape(-1)


class S3fdDetector:
    """S3FD (Zhang et al. 2017, "Single Shot Scale-invariant Face Detector") as the package face-alignment has it.

    ``path`` is its weight file, read with ``weights_only``. Needs torch and face-alignment. Scores are in [0, 1].
    """

    least_score, sure = 0.5, 0.8

    def __init__(self, path: Path, device: str = "cpu"):
        from face_alignment.detection.sfd.net_s3fd import s3fd

        from prep.weights import load_state, load_weights

        self._device = device
        self._net = s3fd()
        load_state(self._net, load_weights(path), path)
        self._net.to(device).eval()

    def __call__(self, grey: np.ndarray, smallest: float, largest: float, sideways: bool = False) -> Faces:
        import torch
        from face_alignment.detection.sfd.bbox import nms
        from face_alignment.detection.sfd.detect import batch_detect

        # The smallest anchor is 16 px; nothing is gained by showing a face larger than a few anchors.
        scale = min(1.0, _WINDOW_PX / smallest)
        if scale < 1.0:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        picture = torch.from_numpy(np.ascontiguousarray(np.broadcast_to(grey[None, None], (1, 3, *grey.shape))))
        with torch.inference_mode():
            found = np.asarray(batch_detect(self._net, picture, self._device)[0]).reshape(-1, 5)
        found = found[found[:, 4] > self.least_score]
        found = found[nms(found, 0.3)] if len(found) else found
        boxes = found[:, :4] / scale
        sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        fits = (sides >= smallest) & (sides <= largest)
        return Faces(boxes[fits].astype(np.float32), found[fits, 4].astype(np.float32))


@lru_cache(maxsize=2)
def load_detector(name: DetectorName) -> Detector:
    """The detector of this name, once in a process. Raises ``manifests.assets.MissingAsset``."""
    return CascadeDetector() if name == "cascade" else S3fdDetector(find("s3fd"))


def side_of(boxes: np.ndarray) -> Any:
    """Side (...) of boxes (..., 4): the geometric mean of width and height."""
    return np.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return float(w * h / (side_of(a) ** 2 + side_of(b) ** 2 - w * h))
