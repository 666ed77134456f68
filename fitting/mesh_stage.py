"""The stage that makes meshes of NPHM fits, and pictures that show the fits. Torch is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from fitting.nphm_networks import Composition, load_networks, network_files
from manifests.assets import find
from manifests.stage import Done, Needs, Outcome, Stage, Take
from prep.capture import open_capture

if TYPE_CHECKING:
    from fitting.fit_pictures import Surface


class Meshes(Stage):
    """The fitted NPHM heads of some frames of a clip as meshes in the capture's world, and pictures of the fits.

    ``frames`` names them by their index in the clip, an index past its end standing for the last; without, ``count`` frames are
    spread evenly, first and last among them. ``resolution`` is that of marching cubes: with 128 vertices are some 2.5 mm apart.
    Composition ``forward`` gives the meshes of a clip the same triangles, ``backward`` each its own. Pictures are JPEG files,
    for each frame one for each camera of ``fit_cameras`` (front and side, of those with a picture of the first frame) and one
    of the mesh alone, see ``fitting.fit_pictures``; captures are read ``width`` pixels wide for them.
    """

    name: ClassVar[str] = "meshes"
    version: ClassVar[int] = 1
    needs: ClassVar[Needs] = Needs(memory_mb=3000, grace_s=3600, patience=600, pace=10.0, bytes_per_s=1_000_000)
    writes: ClassVar[tuple[str, ...]] = (
        "mesh_frames",
        "mesh_vertices",
        "mesh_vertex_counts",
        "mesh_faces",
        "mesh_face_counts",
        "fit_cameras",
        "fit_pictures",
        "fit_picture_sizes",
    )

    composition: Composition = "backward"
    count: int = Field(default=3, ge=1)
    frames: tuple[int, ...] = ()
    resolution: int = Field(default=128, ge=16)
    width: int = Field(default=1100, ge=64)

    def models(self) -> tuple[str, ...]:
        return (*network_files(self.composition), "flame2020")

    def run(
        self,
        take: Take,
        frame_number: np.ndarray,
        cloud_points: np.ndarray,
        cloud_normals: np.ndarray,
        cloud_counts: np.ndarray,
        flame_identity: np.ndarray,
        flame_expression: np.ndarray,
        flame_jaw: np.ndarray,
        flame_rotation: np.ndarray,
        flame_translation: np.ndarray,
        flame_scale: float,
        world_to_nphm: np.ndarray,
        nphm_identity: np.ndarray,
        nphm_expression: np.ndarray,
    ) -> Outcome:
        import torch

        from fitting.captures import cameras_of
        from fitting.fit_pictures import Points, Surface, distances_mm, front_and_side, strip, to_jpeg, turned
        from fitting.flame import Flame
        from fitting.nphm.compose import LOWER
        from fitting.rotations import axis_angle_to_matrix
        from fitting.similarity import Similarity
        from fitting.space import NPHM_SCALE

        chosen = chosen_frames(len(frame_number), self.count, self.frames)
        head = load_networks(self.composition)
        subject = head.subject(torch.tensor(nphm_identity)[None])
        posed = head.meshes(torch.from_numpy(nphm_expression[chosen]), subject, resolution=self.resolution)
        to_nphm = [Similarity.from_matrix(torch.from_numpy(matrix)) for matrix in world_to_nphm[chosen]]
        nphm = [
            Surface(way.inverse().apply(mesh.vertices.double()), mesh.faces) for way, mesh in zip(to_nphm, posed, strict=True)
        ]

        flame = Flame.load(find("flame2020"))
        jaw, expression = (torch.from_numpy(column[chosen]) for column in (flame_jaw, flame_expression))
        with torch.no_grad():
            rest = flame(torch.tensor(flame_identity)[None], expression, jaw=jaw if flame.has_jaw else None).vertices
        turn, shift = (torch.from_numpy(column[chosen]).double() for column in (flame_rotation, flame_translation))
        faces = Similarity(torch.tensor(flame_scale), axis_angle_to_matrix(turn), shift).apply(rest.double())

        capture = open_capture(Path(take.path))
        size = capture.size_within(self.width, int(frame_number[0]))
        cameras = cameras_of(capture, size)
        numbers = np.unique(frame_number[chosen])
        ends = np.cumsum(cloud_counts)
        views: list[int] = []
        pictures = []
        for number, moment in zip(numbers, capture.moments(numbers.tolist(), size), strict=True):
            if not views:
                usable = np.flatnonzero(moment.present if moment.present.any() else np.ones_like(moment.present))
                views = usable[front_and_side(cameras.centre[usable], to_nphm[0])].tolist()
            for place in np.flatnonzero(frame_number[chosen] == number):
                end = ends[chosen[place]]
                own = slice(end - cloud_counts[chosen[place]], end)
                points, normals = (torch.from_numpy(part[own].astype(np.float64)) for part in (cloud_points, cloud_normals))
                cloud = Points(points, normals, distances_mm(points, nphm[place]))
                face = Surface(faces[place], flame.faces)
                shown = faces[place][NPHM_SCALE * rest[place][:, 1] > LOWER[1]]
                pictures += [
                    to_jpeg(strip(moment.pictures[view], cameras[view], shown, face, nphm[place], cloud)) for view in views
                ]
                pictures.append(to_jpeg(turned(Surface(posed[place].vertices, posed[place].faces))))
        return Done(
            {
                "mesh_frames": chosen,
                **_columns_of(nphm),
                "fit_cameras": "\n".join(capture.serials[view] for view in views),
                "fit_pictures": np.frombuffer(b"".join(pictures), np.uint8),
                "fit_picture_sizes": np.array([len(picture) for picture in pictures], np.int32),
            }
        )


def chosen_frames(n_frames: int, count: int, frames: tuple[int, ...] = ()) -> np.ndarray:
    """(K,) int32 ascending indices of frames of a clip of ``n_frames``: ``frames``, or ``count`` of them spread evenly."""
    wanted = np.array(frames) if frames else np.linspace(0, n_frames - 1, count).round()
    return np.unique(np.clip(wanted, 0, n_frames - 1)).astype(np.int32)


def pictures_of(fit_pictures: np.ndarray, fit_picture_sizes: np.ndarray, n_frames: int) -> list[list[bytes]]:
    """For each of ``n_frames`` frames its JPEG files: one for each camera of ``fit_cameras``, then the mesh alone."""
    ends = np.cumsum(fit_picture_sizes)
    files = [fit_pictures[end - size : end].tobytes() for end, size in zip(ends, fit_picture_sizes, strict=True)]
    each = len(files) // n_frames
    return [files[place * each : (place + 1) * each] for place in range(n_frames)]


def _columns_of(meshes: list[Surface]) -> dict[str, np.ndarray]:
    """Meshes as columns, one after the other; the triangles of each index its own vertices."""
    return {
        "mesh_vertices": np.concatenate([mesh.vertices.float().numpy() for mesh in meshes]),
        "mesh_vertex_counts": np.array([len(mesh.vertices) for mesh in meshes], np.int32),
        "mesh_faces": np.concatenate([mesh.faces.int().numpy() for mesh in meshes]),
        "mesh_face_counts": np.array([len(mesh.faces) for mesh in meshes], np.int32),
    }
