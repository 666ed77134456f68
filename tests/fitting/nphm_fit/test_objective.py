"""The loss is FaceTalk's eq. 16 to 18."""

import pytest
import torch

from fitting.nphm_fit.batch import Batch, terms
from fitting.nphm_fit.objective import Settings, huber, trim_at


def test_hubers_norm_is_a_square_up_to_epsilon_and_goes_on_straight() -> None:
    at = torch.tensor([0.0, 0.01, -0.05, 0.05 + 1e-6, 1.0])
    torch.testing.assert_close(huber(at, 0.05), torch.tensor([0.0, 1e-4, 25e-4, 25e-4 + 1e-7, 0.05 * 1.95]))


def test_each_window_has_its_own_sum() -> None:
    codes = torch.tensor([[0.0, 0.01], [0.02, 0.01], [1.0, 0.0], [1.0, 0.0]])
    of = torch.tensor([0, 0, 1, 1])
    batch = Batch([torch.zeros(1, 3)] * 4, of, 0 * of, of > 5, codes, [torch.Generator(), torch.Generator()])
    found = terms(batch, codes, torch.tensor([0.1, 0.2, 0.3, 0.0]), Settings(temporal=10.0, regularization=2.0, sdf=1.0))
    torch.testing.assert_close(found.sdf, torch.tensor([0.3, 0.3]))
    torch.testing.assert_close(found.temporal, torch.tensor([4e-4, 0.0]))
    torch.testing.assert_close(found.regularization, torch.tensor([6e-4, 2.0]))
    torch.testing.assert_close(found.total(Settings()), 10 * found.sdf + 0.1 * found.temporal + 0.0025 * found.regularization)


@pytest.mark.parametrize(("share", "limit"), [(0.0, 0.1), (0.24, 0.1), (0.25, 0.05), (0.5, 0.0075), (1.0, 0.0075)])
def test_far_points_are_left_out_more_and_more(share: float, limit: float) -> None:
    assert trim_at(Settings(), share) == limit


def test_without_trimming_all_points_count() -> None:
    assert trim_at(Settings(trimming=()), 1.0) == float("inf")
