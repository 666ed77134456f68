"""Meshes as PLY."""

import io

import numpy as np
import pytest
import trimesh

from fitting.ply import ply_bytes


def test_another_program_reads_the_same_mesh() -> None:
    vertices = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    read = trimesh.load(io.BytesIO(ply_bytes(vertices, faces)), file_type="ply", process=False)
    np.testing.assert_array_equal(read.vertices, vertices)
    np.testing.assert_array_equal(read.faces, faces)


def test_what_is_no_mesh_is_refused() -> None:
    with pytest.raises(ValueError, match=r"triangles \(F, 3\)"):
        ply_bytes(np.zeros((3, 3)), np.zeros((1, 4), int))
