"""What an inversion minimises, and the searches that do: the published projector's Adam, and
quasi-Newton steps."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latentedit.inversion.latent_discriminator import Critic
from latentedit.inversion.lbfgs import QuasiNewton
from latentedit.inversion.noise_regulariser import _renormalise, noise_regulariser, whiten
from latentedit.inversion.options import InversionOptions
from latentedit.inversion.perceptual import distance
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.latent.spaces import space_of
from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.networks.generator import Generator
from latentedit.runtime.cuda_graphs import Graphs, Replayed

NOISE_RAMP = 0.75
"""Fraction of the run over which the noise added to w fades."""
RAMP_DOWN = 0.25
"""Fraction of the run over which the learning rate falls ..."""
RAMP_UP = 0.05
"""... and that over which it rises."""
PLATEAU = 0.001
"""An improvement of the loss by less than this part of it counts as none."""
RESTART_PSI = 0.5
"""Restarts begin at random w, this far from the mean."""
FIRST_PART = 0.8
"""Share of the steps of a quasi-Newton search that goes to w, before noise maps and style offsets
have theirs."""
SWEEPS = 1
"""Sweeps of `whiten` after every step of noise maps ..."""
FINAL_SWEEPS = 30
"""... and before the first and after the last."""
DETAIL_RATE = 0.15
"""Learning rate of noise maps that are searched after w."""
STYLE_RATE = 0.03
"""Learning rate of style offsets, in standard deviations of the style."""

Tell = Callable[[int, dict[str, float]], None]

TERMS = (
    *("perceptual", "pixel", "noise", "prior", "delta", "adversarial", "styles"),
    "neighbour",
)
"""Parts of the loss."""


def schedule(t: float) -> float:
    """Factor on the learning rate at progress ``t`` in [0, 1): linear rise, cosine fall."""
    fall = min(1.0, (1 - t) / RAMP_DOWN)
    return (0.5 - 0.5 * math.cos(math.pi * fall)) * min(1.0, t / RAMP_UP)


def _adam_step(
    x: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, rate: float
) -> None:
    """As ``torch.optim.Adam(betas=(0.9, 0.99))``, whose import takes longer than a whole inversion
    at 64 px."""
    mean.lerp_(gradient, 0.1)
    square.lerp_(gradient.square(), 0.01)
    x -= (
        rate
        * (mean / (1 - 0.9 ** (step + 1)))
        / ((square / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8)
    )


class Search:
    """One or several searches for the same images; remembers the best of every image over all of
    them.

    Args:
        image: the images to reproduce, ``[N, C, H, W]`` on the generator's device.
        loss: how they are compared with what is rendered.
        options: the space, the noise maps, the weights of the loss, and what the methods need.
        mask: ``[1 or N, 1, H, W]``, 1 for pixels that count and 0 for others.
        start: ``[N, num_ws, w_dim]``, where searches begin; None stands for the mean w.
        critic: the latent discriminator, where the loss has a term of it.
    """

    def __init__(
        self,
        generator: Generator,
        image: Tensor,
        loss: ReconstructionLoss,
        statistics: WStatistics,
        options: InversionOptions,
        *,
        mask: Tensor | None = None,
        start: Tensor | None = None,
        critic: Critic | None = None,
    ) -> None:
        self.generator = generator
        self.image = image
        self.perceptual = loss.perceptual
        self.statistics = statistics
        self.options = options
        self.critic = critic

        self.n = len(image)
        self.device = image.device
        self.rows = space_of(options.space).search_rows(generator)
        self.noise = options.noise
        self.weights = options.weights
        self.graphs = Graphs(self.device)

        self.mask = None if mask is None else mask.to(self.device)
        self.focus = None if loss.focus is None else loss.focus.to(self.device)
        with torch.no_grad():
            # The target does not change, so its features are computed once and not in every step.
            self.target = self.perceptual.features(image)
        self.mean = statistics.mean.to(self.device)
        self.whitening = statistics.whitening.to(self.device)
        self.colouring = statistics.colouring.to(self.device)
        self.start = None if start is None else start.to(self.device)
        self.neighbour: Tensor | None = None
        """``[N, num_ws, w_dim]`` on the device: the w of similar images, to which the result is
        kept near."""
        self.style_std = self._style_std() if space_of(options.space).has_scale else []

        self.history: dict[str, list[Tensor]] = {}
        self.best_loss = torch.full((self.n,), torch.inf, device=self.device)
        self.best: list[Tensor] = []
        """w, noise maps and style offsets."""
        self.rendered = image
        """The images of the last step, ``[N, C, H, W]``; on CUDA the next step writes over them."""
        self._run_best = self.best_loss
        self._since = 0

    @property
    def best_w(self) -> Tensor:
        return self.best[0]

    @property
    def best_maps(self) -> list[Tensor]:
        return self.best[1 : 1 + len(self.generator.synthesis.noise_shapes)]

    @property
    def best_offsets(self) -> list[Tensor]:
        """Style offsets, empty where none were searched."""
        return self.best[1 + len(self.generator.synthesis.noise_shapes) :]

    def adam(self, steps: int, seed: int, psi: float, tell: Tell) -> None:
        """Adam on w and the noise maps together, with noise added to w that fades (StyleGAN2,
        appendix D)."""
        learning_rate = self.options.learning_rate
        # The draws for an image do not depend on its neighbours in the batch.
        streams = [torch.Generator().manual_seed(seed) for _ in range(self.n)]

        def draw(*shape: int) -> Tensor:
            return torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(
                self.device
            )

        # The noise on w widens the search at first: without it, Adam settles in the nearest
        # minimum.
        w = self._start(seed, psi).requires_grad_()
        maps = self._maps(draw)
        searched = [w, *maps] if self.noise == "optimise" else [w]
        optimiser = torch.optim.Adam(searched, lr=learning_rate, betas=(0.9, 0.999))

        def evaluate(added: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            terms = self._terms(leaves[0] + added, leaves[0], leaves[1:] or maps)
            loss = self._loss(terms)
            gradients = torch.autograd.grad(loss.sum(), leaves)
            return loss.detach(), _rows(terms), *gradients

        evaluation = Replayed(evaluate, self.graphs)
        nothing = torch.zeros_like(w)
        self._begin()

        try:
            for step in range(steps):
                t = step / steps
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate * schedule(t)
                jitter = (
                    self.statistics.std
                    * self.options.initial_noise
                    * max(0.0, 1 - t / NOISE_RAMP) ** 2
                )
                added = draw(self.rows, self.generator.w_dim) * jitter if jitter else nothing

                loss, terms, *gradients = evaluation(added, *searched)
                if not jitter:  # else the loss is that of another w
                    self._remember(loss, w, maps)

                for tensor, gradient in zip(searched, gradients, strict=True):
                    tensor.grad = gradient
                optimiser.step()
                if self.noise == "optimise":
                    self.graphs.run("renormalise", lambda: _renormalise(maps))

                self._log(step + 1, terms, tell)
                if not jitter and self._stalled(loss):
                    break
        finally:  # also where Ctrl-C ends it: the last step has moved once more
            with torch.no_grad():
                self._remember(self._loss(self._terms(w, w, maps)), w, maps)

    def quasi_newton(
        self, steps: int, curvature: Curvature, seed: int, psi: float, tell: Tell
    ) -> None:
        """Quasi-Newton steps on w alone, in coordinates scaled by ``curvature``; noise is the
        generator's own, or off."""
        # The prior's own curvature is known exactly (it is quadratic in whitened w), and keeps the
        # scaling finite along directions that images do not depend on.
        pull = self.weights["neighbour"] if self.neighbour is not None else 0.0
        scaling = curvature.scaling(self.rows, self.weights["prior"] + pull).to(self.device)
        maps = self._fixed_maps()
        first = (self._start(seed, psi) - self.mean) @ self.whitening
        minimiser = QuasiNewton(scaling.inverse(first.flatten(1)))

        def evaluate(point: Tensor) -> tuple[Tensor, ...]:
            # Gradients are taken in the scaled coordinates, so that the minimiser sees a loss whose
            # curvature is about 1 in every direction.
            v = point.detach().requires_grad_()
            w = self.mean + scaling(v).reshape(self.n, self.rows, -1) @ self.colouring
            terms = self._terms(w, w, maps)
            loss = self._loss(terms)
            (gradient,) = torch.autograd.grad(loss.sum(), v)
            return loss.detach(), _rows(terms), gradient, w.detach()

        evaluation = Replayed(evaluate, self.graphs)
        self._begin()
        for step in range(steps):
            loss, terms, gradient, w = evaluation(minimiser.point)
            self._remember(loss, w, maps)
            minimiser.tell(loss, gradient)

            self._log(step + 1, terms, tell)
            if self._stalled(loss):
                break

    @torch.no_grad()
    def take_start(self) -> None:
        """The start itself is the result, with the generator's own noise."""
        self._remember(self.best_loss.clone().zero_(), self._start(0, 0.0), self._fixed_maps())

    def details(self, steps: int, with_noise: bool, tell: Tell) -> None:
        """Adam on noise maps, if wanted, and on style offsets, with the best w, which stays; after
        it the best is theirs.

        Whiteness of the maps is a constraint here, not a part of the loss, whose gradient it would
        drown.
        """
        w = self.best_w
        # w stays fixed from here on. Maps and w together would move likeness out of w into the
        # noise, where sliders cannot reach it.
        maps = [map_.clone() for map_ in self.best_maps]
        if with_noise:
            maps = [map_[:1].clone() for map_ in self._fixed_maps()]
            whiten(maps, FINAL_SWEEPS)
            maps = [map_.repeat(self.n, 1, 1, 1).requires_grad_() for map_ in maps]

        offsets = [
            torch.zeros(self.n, len(std), device=self.device).requires_grad_()
            for std in self.style_std
        ]
        free = [(map_, DETAIL_RATE) for map_ in maps] if with_noise else []
        free += [(offset, STYLE_RATE) for offset in offsets]
        searched = [tensor for tensor, _ in free]
        moments = [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in searched]

        def evaluate(*tensors: Tensor) -> tuple[Tensor, ...]:
            leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            own = leaves[: len(maps)] if with_noise else maps
            terms = self._terms(w, w, own, leaves[len(maps) :] if with_noise else leaves)
            loss = self._loss(terms)
            gradients = torch.autograd.grad(
                (loss - self.weights["noise"] * terms["noise"]).sum(), leaves
            )
            return loss.detach(), _rows(terms), *gradients

        evaluation = Replayed(evaluate, self.graphs)
        self._begin()

        # The noise regulariser has had no part in the best loss until now.
        self.best_loss = torch.full_like(self.best_loss, torch.inf)

        try:
            for step in range(steps):
                loss, terms, *gradients = evaluation(*searched)
                self._remember(loss, w, maps, offsets)
                with torch.no_grad():
                    for (tensor, rate), gradient, (mean, square) in zip(
                        free, gradients, moments, strict=True
                    ):
                        # The rate falls to 0, as the last step must not leave the minimum that the
                        # others found.
                        _adam_step(tensor, gradient, mean, square, step, rate * (1 - step / steps))

                if with_noise:
                    self.graphs.run("whiten", lambda: whiten([map_.data for map_ in maps], SWEEPS))

                self._log(step + 1, terms, tell)
                if self._stalled(loss):
                    break
        finally:
            if with_noise:
                whiten([map_.data for map_ in maps], FINAL_SWEEPS)
            with torch.no_grad():
                self._remember(self._loss(self._terms(w, w, maps, offsets)), w, maps, offsets)

    def _start(self, seed: int, psi: float) -> Tensor:
        """Return ``[N, rows, w_dim]``: where the search begins, or ``psi`` of the way from the mean
        w to a random one."""
        w = self.mean.repeat(self.n, self.rows, 1)
        if psi:
            return torch.lerp(
                w, sample_w(self.generator, 1, seed).to(self.device).expand_as(w), psi
            )
        if self.start is None:
            return w
        return self.start.clone() if self.rows > 1 else self.start.mean(dim=1, keepdim=True)

    def _begin(self) -> None:
        self.graphs.forget()
        self._run_best = torch.full_like(self.best_loss, torch.inf)
        self._since = 0

    def _stalled(self, loss: Tensor) -> bool:
        """Return whether no image has improved for as many steps as the options' patience."""
        patience = self.options.patience
        if patience is None:
            return False
        # A search that only creeps counts as stalled.
        better = loss < self._run_best * (1 - PLATEAU)
        self._run_best = torch.minimum(self._run_best, loss)
        self._since = 0 if bool(better.any()) else self._since + 1
        return self._since >= patience

    def _log(self, step: int, terms: Tensor, tell: Tell) -> None:
        """Remember and report ``terms [7, N]``, by one copy to the host."""
        # All terms in one copy: every copy waits for the device.
        values = terms.to("cpu", copy=True)
        for name, value in zip(TERMS, values, strict=True):
            self.history.setdefault(name, []).append(value)
        tell(step, dict(zip(TERMS, values.mean(dim=1).tolist(), strict=True)))

    def _loss(self, terms: dict[str, Tensor]) -> Tensor:
        return sum(
            (self.weights[name] * term for name, term in terms.items()),
            torch.zeros(self.n, device=self.device),
        )

    def _fixed_maps(self) -> list[Tensor]:
        synthesis = self.generator.synthesis
        if self.noise == "off":
            return [
                torch.zeros(self.n, *shape[1:], device=self.device)
                for shape in synthesis.noise_shapes
            ]
        return [map_[None, None].repeat(self.n, 1, 1, 1) for map_ in synthesis.noise_constants]

    def _maps(self, draw: Callable[..., Tensor]) -> list[Tensor]:
        if self.noise != "optimise":
            return self._fixed_maps()
        return [
            draw(*shape[1:]).requires_grad_() for shape in self.generator.synthesis.noise_shapes
        ]

    @torch.no_grad()
    def _style_std(self) -> list[Tensor]:
        w = sample_w(self.generator, 1000)
        return [
            s.std(dim=0)
            for s in self.generator.synthesis.styles(
                w[:, None].expand(-1, self.generator.num_ws, -1)
            )
        ]

    def _terms(
        self, noisy: Tensor, w: Tensor, maps: list[Tensor], offsets: list[Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the parts of the loss, ``[N]`` each; rendered from ``noisy``, judged by where
        ``w`` lies."""
        synthesis = self.generator.synthesis
        zero = torch.zeros(self.n, device=self.device)
        if offsets:
            own = synthesis.styles(noisy.expand(-1, self.generator.num_ws, -1))
            moved = [s + o * std for s, o, std in zip(own, offsets, self.style_std, strict=True)]
            rendered = synthesis.synthesize(moved, noise=maps)
            styles = torch.cat(offsets, dim=1).square().mean(dim=1)
        else:
            rendered = synthesis(noisy.expand(-1, self.generator.num_ws, -1), noise=maps)
            styles = zero

        self.rendered = rendered.detach()

        difference = rendered - self.image
        if self.mask is not None:
            # What does not count is taken from the picture itself, so that no distance can see it.
            difference = difference * self.mask
            rendered = self.image + difference

        squared = difference.square()

        spread = (w - w.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(
            dim=1
        ) / self.statistics.std**2
        # In whitened coordinates all directions of w are equally likely, so the squared length is a
        # Mahalanobis distance.
        u = (w - self.mean) @ self.whitening
        return {
            "perceptual": distance(self.perceptual.features(rendered), self.target),
            "pixel": (squared if self.focus is None else squared * self.focus).mean(dim=(1, 2, 3)),
            "noise": noise_regulariser(maps) if any(map_.requires_grad for map_ in maps) else zero,
            "prior": u.square().mean(dim=(1, 2)),
            "delta": spread,
            "adversarial": zero if self.critic is None else self.critic.penalty(u),
            "styles": styles,
            "neighbour": zero if self.neighbour is None else self._away(w, self.neighbour),
        }

    def _away(self, w: Tensor, other: Tensor) -> Tensor:
        """The squared Mahalanobis distance of ``w`` from ``other``, as the prior has it from the
        mean."""
        return ((w - other) @ self.whitening).square().mean(dim=(1, 2))

    @torch.no_grad()
    def _remember(
        self, loss: Tensor, w: Tensor, maps: list[Tensor], offsets: list[Tensor] | None = None
    ) -> None:
        scaled = [o * std for o, std in zip(offsets or [], self.style_std, strict=bool(offsets))]
        now = [
            w.detach(),
            *(map_.detach() for map_ in maps),
            *(offset.detach() for offset in scaled),
        ]
        if len(self.best) != len(now):
            self.best = [tensor.clone() for tensor in now]
        # Chosen by `where` and not by indexing, which would ask the device how many images are
        # better.
        better = loss < self.best_loss
        self.best_loss = torch.where(better, loss, self.best_loss)
        for best, tensor in zip(self.best, now, strict=True):
            best.copy_(torch.where(better.reshape(-1, *[1] * (best.ndim - 1)), tensor, best))


def _rows(terms: dict[str, Tensor]) -> Tensor:
    """Return ``[8, N]``, in the order of `TERMS`."""
    return torch.stack([terms[name] for name in TERMS]).detach()
