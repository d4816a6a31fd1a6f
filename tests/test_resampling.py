"""Bilinear resampling: its values, and its gradients of both orders."""

import pytest
import torch
import torch.nn.functional as F

from latentedit.errors import Error
from latentedit.training.grid_sample import grid_sample


def positions(*shape: int) -> torch.Tensor:
    """A grid that lies partly outside, away from where a bilinear function has a kink."""
    torch.manual_seed(0)
    pixels = (
        torch.randint(-1, 5, (*shape, 2)) + 0.25 + 0.5 * torch.rand(*shape, 2, dtype=torch.float64)
    )
    sizes = torch.tensor([5.0, 4.0], dtype=torch.float64)
    return (pixels + 0.5) / sizes * 2 - 1


def pictures() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)


def test_values_are_those_of_pytorch() -> None:
    x, grid = pictures(), positions(2, 6, 7)
    expected = F.grid_sample(x, grid, align_corners=False)
    assert float((expected == 0).double().mean()) > 0.05  # some lie outside
    torch.testing.assert_close(grid_sample(x, grid), expected)
    torch.testing.assert_close(grid_sample(x, grid.clone().requires_grad_()), expected)


def test_gradients_in_pictures() -> None:
    grid = positions(2, 3, 4)
    assert torch.autograd.gradcheck(lambda x: grid_sample(x, grid), pictures())
    assert torch.autograd.gradgradcheck(lambda x: grid_sample(x, grid).square(), pictures())


def test_gradients_in_the_grid() -> None:
    grid = positions(2, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(grid_sample, (pictures(), grid))
    assert torch.autograd.gradgradcheck(grid_sample, (pictures(), grid))


def test_second_derivatives_do_not_ask_pytorch_for_one() -> None:
    """Torch 2.11 has none on CUDA: the graph of a gradient must not hold its operation."""
    x, grid = pictures(), positions(2, 3, 4)
    (gradient,) = torch.autograd.grad(grid_sample(x, grid).square().sum(), x, create_graph=True)
    waiting, seen = [gradient.grad_fn], set[str]()
    while waiting:
        node = waiting.pop()
        if node is not None and node.name() not in seen:
            seen.add(node.name())
            waiting.extend(following for following, _ in node.next_functions)
    assert "_SpreadBackward" in seen
    assert not [name for name in seen if "GridSampler" in name]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(
        Error, match=r"a grid \[N, h, w, 2\], got \[2, 3, 4, 5\] and \[1, 2, 2, 2\]"
    ):
        grid_sample(pictures(), positions(1, 2, 2))
