"""L-BFGS for many problems at once, each with its own pairs and step lengths (Liu and Nocedal
1989)."""

import torch
from torch import Tensor

MEMORY = 40
"""Pairs of steps and gradient changes that are kept."""
DECREASE = 1e-4
"""Share of the predicted decrease that makes a step acceptable (Armijo)."""


class QuasiNewton:
    """Minimises ``N`` losses that are sums of squares, with one evaluation a step.

    Evaluate loss and gradient at `point` and hand them to `tell`, which moves `point`. The
    coordinates should be such that the second derivatives are about 1. A step that does not
    decrease a loss is taken back and halved, for that problem alone.

    Args:
        start: ``[N, n]``.
    """

    def __init__(self, start: Tensor, memory: int = MEMORY) -> None:
        self.point = start.detach().clone()
        """``[N, n]``, to be evaluated next."""
        self.best = self.point
        """``[N, n]``, the lowest so far, where `loss` and `gradient` belong to."""
        self.loss = torch.full((len(start),), torch.inf, device=start.device)
        self.gradient = torch.zeros_like(self.point)
        self.memory = memory
        # steps, changes [N, n], and 1 / <step, change> [N], 0 for none
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.length = torch.ones_like(self.loss)
        self.scale = torch.ones_like(self.loss)

    @torch.no_grad()
    def tell(self, loss: Tensor, gradient: Tensor) -> None:
        """Loss ``[N]`` and gradient ``[N, n]`` at `point`."""
        step = self.point - self.best
        # Armijo's condition, for every problem by itself.
        slope = (step * self.gradient).sum(dim=1)
        finite = torch.isfinite(loss) & torch.isfinite(gradient).all(dim=1)
        accepted = finite & (loss <= self.loss + DECREASE * slope)

        # Points that were refused teach the curvature as well as others do.
        usable = finite & torch.isfinite(self.loss)
        self._learn(step, torch.where(usable[:, None], gradient - self.gradient, 0.0), usable)

        # Backtracking without more evaluations in one step: the halved step is the next one.
        self.length = torch.where(accepted, torch.ones_like(self.length), self.length / 2)
        self.best = torch.where(accepted[:, None], self.point, self.best)
        self.loss = torch.where(accepted, loss, self.loss)
        self.gradient = torch.where(accepted[:, None], gradient, self.gradient)

        direction = self._direction()

        # Old pairs can be wrong where the loss is not convex; then the gradient is the safe
        # direction.
        uphill = (direction * self.gradient).sum(dim=1) >= 0
        direction = torch.where(uphill[:, None], -self.gradient, direction)

        # With second derivatives of 1, a loss of zero is sqrt(2 loss) away.
        longest = (2 * self.loss.clamp(min=0)).sqrt() / direction.norm(dim=1).clamp(min=1e-20)
        self.point = self.best + direction * (self.length * longest.clamp(max=1))[:, None]

    def _learn(self, step: Tensor, change: Tensor, usable: Tensor) -> None:
        product = (step * change).sum(dim=1)
        # A pair of negative curvature would make the estimated matrix indefinite.
        usable = usable & (product > 1e-8 * step.norm(dim=1) * change.norm(dim=1)) & (product > 0)

        # The only number of a step that is read from the device.
        if not bool(usable.any()):
            return

        inverse = torch.where(usable, 1 / product.where(usable, torch.ones_like(product)), 0.0)
        self.pairs.append((step, change, inverse))
        self.pairs = self.pairs[-self.memory :]
        self.scale = torch.where(
            usable, product / change.square().sum(dim=1).clamp(min=1e-30), self.scale
        )

    def _direction(self) -> Tensor:
        """Return the direction of the two-loop recursion: minus the estimated inverse of the second
        derivatives times the gradient."""
        q = self.gradient
        factors = []
        for step, change, inverse in reversed(self.pairs):
            factor = inverse * (step * q).sum(dim=1)
            factors.append(factor)
            q = q - factor[:, None] * change

        q = q * self.scale[:, None]
        for (step, change, inverse), factor in zip(self.pairs, reversed(factors), strict=True):
            q = q + step * (factor - inverse * (change * q).sum(dim=1))[:, None]
        return -q
