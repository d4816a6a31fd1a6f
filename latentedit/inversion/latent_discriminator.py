"""A critic of w: tells a model's own w from others that have the same mean and covariance.

e4e (Tov et al. 2021, section 4.2) keeps an encoder's output among real w by a discriminator trained beside it. Here nothing is
trained beside: the others are normal, of several widths, so that the critic learns once a model what the Mahalanobis distance
does not see (noise-contrastive estimation, Gutmann and Hyvarinen 2010).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.networks.generator import Generator

STEPS, BATCH, WIDTH = 300, 256, 256
SPREADS = (0.7, 1.6)
"""Smallest and largest width of the normal w, in standard deviations of the real ones."""


class Critic:
    """Of whitened rows, see `latentedit.latent.w_statistics.WStatistics`."""

    def __init__(self, generator: Generator, statistics: WStatistics, seed: int = 0) -> None:
        device = generator.device
        real = (sample_w(generator) - statistics.mean.to(device)) @ statistics.whitening.to(device)
        dim = real.shape[1]
        draws = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Linear(dim, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1)]
            self.network = nn.Sequential(*layers).to(device)
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=2e-3, weight_decay=1e-2)
        for _ in range(STEPS):
            ours = real[torch.randint(len(real), (BATCH,), generator=draws).to(device)]
            low, high = SPREADS
            spread = low + (high - low) * torch.rand(BATCH, 1, generator=draws)
            others = (spread * torch.randn(BATCH, dim, generator=draws)).to(device)
            loss = F.softplus(-self.network(ours)).mean() + F.softplus(self.network(others)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        self.network.requires_grad_(False)

    def penalty(self, u: Tensor) -> Tensor:
        """softplus(-logit) of rows ``[N, rows, w_dim]``, averaged over them: ``[N]``; near 0 for the model's own."""
        return F.softplus(-self.network(u)).mean(dim=(1, 2))
