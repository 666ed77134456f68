"""The fast way solves the same equations as slow plain ones would."""

import torch

from fitting.nphm_fit.gauss_newton import _Equations, _solve


def test_block_elimination_is_the_solution_of_the_whole_system() -> None:
    generator = torch.Generator().manual_seed(0)
    w, length, size = 2, 4, 3

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root = random(w, length, size, size)
    main = root @ root.mT + 5 * torch.eye(size, dtype=torch.float64)
    beside, right = random(w, length, size), random(w, length, size)
    beside[:, -1] = 0
    found = _solve(_Equations(main, beside, right))
    for window in range(w):
        whole = torch.block_diag(*main[window])
        for frame in range(length - 1):
            here, there = (slice(k * size, (k + 1) * size) for k in (frame, frame + 1))
            whole[here, there] = whole[there, here] = torch.diag(beside[window, frame])
        torch.testing.assert_close(torch.linalg.solve(whole, right[window].flatten()), found[window].flatten())
