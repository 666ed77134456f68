"""Coverage is the share of a pixel that is covered, and its derivative that of the area."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fitting.raster import Fragments, antialias, coverage, pieces, rasterize
from tests.fitting.raster.meshes import ball, seen

SIZE = (24, 30)
FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def rectangle(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    one = torch.ones_like(left)
    corners = [(left, top), (left, bottom), (right, bottom), (right, top)]
    return torch.stack([torch.stack([x, y, one]) for x, y in corners])[None]


def true_coverage(points: Tensor, faces: Tensor, size: tuple[int, int], samples: int = 16) -> Tensor:
    """(B, H, W) by counting samples² of them in each pixel."""
    large = points.detach() * torch.tensor([samples, samples, 1.0])
    hit = rasterize(large, faces, (size[0] * samples, size[1] * samples)).hit.double()
    return hit.unfold(1, samples, samples).unfold(2, samples, samples).mean(dim=(-1, -2))


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.49, 0.51, 0.9])
def test_upright_and_level_outlines_are_covered_exactly(shift: float) -> None:
    edges = torch.tensor([4.3 + shift, 5.1 + shift, 20.7 - shift, 17.6 + shift], dtype=torch.float64)
    points = rectangle(*edges)
    found = coverage(rasterize(points, FACES, SIZE), points, FACES)[0]
    left, top, right, bottom = edges.tolist()
    x, y = torch.arange(SIZE[1]).double(), torch.arange(SIZE[0]).double()
    columns, rows = (
        (at + 1 - low).clamp(0, 1) * (high - at).clamp(0, 1) for at, low, high in ((x, left, right), (y, top, bottom))
    )
    # At its four corners two outlines meet in a pixel.
    inner_rows, inner_columns = slice(int(top) + 1, int(bottom)), slice(int(left) + 1, int(right))
    torch.testing.assert_close(found[inner_rows], columns.expand(len(found[inner_rows]), -1))
    torch.testing.assert_close(found[:, inner_columns].T, rows.expand(found[:, inner_columns].shape[1], -1))


def test_its_derivative_is_that_of_the_area() -> None:
    edges = torch.tensor([4.3, 5.1, 20.7, 17.6], dtype=torch.float64, requires_grad=True)
    points = rectangle(*edges)
    coverage(rasterize(points, FACES, SIZE), points, FACES).sum().backward()
    width, height = 20.7 - 4.3, 17.6 - 5.1
    assert edges.grad is not None
    # All but the four pixels where two outlines meet.
    torch.testing.assert_close(edges.grad, torch.tensor([-height, -width, height, width]).double(), rtol=0, atol=1.5)


@pytest.mark.parametrize("n_faces", [200, 20_000])
@pytest.mark.parametrize("cull_backfaces", [False, True])
def test_a_ball_is_covered_as_samples_say_however_fine_its_mesh(n_faces: int, cull_backfaces: bool) -> None:
    size, mesh = (60, 80), ball(n_faces)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    centre, points = torch.tensor([40.0, 30.0]), seen(mesh.vertices, size)
    points = torch.cat([(points[..., :2] - centre) * scale + centre, points[..., 2:]], dim=-1)
    fragments = rasterize(points, mesh.faces, size, cull_backfaces=cull_backfaces)
    found, expected = (
        coverage(fragments, points, mesh.faces, cull_backfaces=cull_backfaces),
        true_coverage(points, mesh.faces, size),
    )
    outline = (expected > 0) & (expected < 1)
    assert (found - expected).abs().max() < 0.14
    assert (found - expected).abs()[outline].mean() < 0.03 < 0.15 < (fragments.hit.double() - expected).abs()[outline].mean()
    torch.testing.assert_close(found.sum(), expected.sum(), rtol=1e-3, atol=0)
    found.sum().backward()
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad, 2 * expected.sum(), rtol=0.02, atol=0)


def test_it_changes_continuously_as_an_outline_moves() -> None:
    mesh = ball(3000)
    steps = torch.linspace(0, 2, 401, dtype=torch.float64)[:, None]
    moved = seen(mesh.vertices, SIZE, fill=0.35) + torch.stack([steps, 0.3 * steps, 0 * steps], dim=-1)
    found = coverage(rasterize(moved, mesh.faces, SIZE), moved, mesh.faces)
    assert (found[1:] - found[:-1]).abs().max() < 0.02
    assert found.min() >= 0
    assert found.max() <= 1


def test_gradients_agree_with_finite_differences() -> None:
    corners = [[3.7, 4.1, 1.0], [2.2, 14.9, 2.0], [17.3, 16.3, 1.5], [19.8, 2.6, 1.0]]
    points = torch.tensor([corners], dtype=torch.float64, requires_grad=True)
    fragments = rasterize(points, FACES, SIZE)
    assert torch.autograd.gradcheck(lambda points: coverage(fragments, points, FACES), (points,), atol=1e-6)


def test_a_picture_fades_into_its_background_at_the_outline_alone() -> None:
    points = rectangle(*torch.tensor([4.3, 5.1, 20.7, 17.6]))
    fragments = rasterize(points, FACES, SIZE)
    red, blue = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    image = torch.where(fragments.hit[..., None], red, blue)
    smooth = antialias(image, fragments, points, FACES)
    share = coverage(fragments, points, FACES)[..., None]
    torch.testing.assert_close(smooth, share * red + (1 - share) * blue)
    inner = (share == 0) | (share == 1)
    assert 0.8 < inner.float().mean() < 1
    assert torch.equal(smooth[inner[..., 0]], image[inner[..., 0]])


def test_faces_that_are_not_drawn_have_no_outline() -> None:
    points = torch.cat([rectangle(*torch.tensor([4.3, 5.1, 20.7, 17.6])), rectangle(*torch.tensor([4.0, 5.0, 20.9, 17.9]))], 1)
    faces = torch.cat([FACES, FACES.flip(1) + 4])
    expected = coverage(rasterize(points, FACES, SIZE), points, FACES)
    fragments = rasterize(points, faces, SIZE, cull_backfaces=True)
    torch.testing.assert_close(coverage(fragments, points, faces, cull_backfaces=True), expected)
    points[0, 4:, 2] = -1
    torch.testing.assert_close(coverage(rasterize(points, faces, SIZE), points, faces), expected)


def test_a_batch_in_small_pieces_is_its_images_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = ball(300)
    points = torch.cat([seen(mesh.vertices, SIZE), seen(mesh.vertices, SIZE, distance=0.3)])

    def both(points: Tensor) -> tuple[Fragments, Tensor]:
        fragments = rasterize(points, mesh.faces, SIZE)
        return fragments, coverage(fragments, points, mesh.faces)

    alone = [both(points[k : k + 1])[1] for k in range(2)]
    monkeypatch.setattr(pieces, "AT_ONCE", 70)
    assert torch.equal(both(points)[1], torch.cat(alone))


def test_an_empty_picture_has_no_outline() -> None:
    points = rectangle(*torch.tensor([104.3, 5.1, 120.7, 17.6])).requires_grad_()
    found = coverage(rasterize(points, FACES, SIZE), points, FACES)
    assert (found == 0).all()
    none = rasterize(points, FACES[:0], SIZE)
    assert (coverage(none, points, FACES[:0]) == 0).all()
