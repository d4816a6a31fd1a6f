"""The latent discriminator: distinguishes a model's random w from others with the same mean and
covariance.

e4e (Tov et al. 2021, section 4.2) keeps an encoder's output realistic with a discriminator that is
trained together with the encoder. Here the negative samples are normal vectors of several widths
instead. The discriminator is trained once per model and learns what the Mahalanobis distance cannot
measure (noise-contrastive estimation, Gutmann and Hyvarinen 2010).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.networks.generator import Generator

STEPS = 300
BATCH = 256
WIDTH = 256
"""Width of the two hidden layers."""
SPREADS = (0.7, 1.6)
"""Smallest and largest width of the normal w, in standard deviations of the real ones."""


class Critic:
    """A latent discriminator for whitened w, see `latentedit.latent.w_statistics.WStatistics`."""

    def __init__(self, generator: Generator, statistics: WStatistics, seed: int = 0) -> None:
        device = generator.device
        # Whitened, real and normal w have the same mean and covariance: the network has to learn
        # what lies beyond these.
        real = (sample_w(generator) - statistics.mean.to(device)) @ statistics.whitening.to(device)
        dim = real.shape[1]

        # Streams of its own, so that the caller's random numbers stay as they are.
        draws = torch.Generator().manual_seed(seed)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [
                nn.Linear(dim, WIDTH),
                nn.SiLU(),
                nn.Linear(WIDTH, WIDTH),
                nn.SiLU(),
                nn.Linear(WIDTH, 1),
            ]
            self.network = nn.Sequential(*layers).to(device)

        optimiser = torch.optim.AdamW(self.network.parameters(), lr=2e-3, weight_decay=1e-2)
        for _ in range(STEPS):
            ours = real[torch.randint(len(real), (BATCH,), generator=draws).to(device)]
            low, high = SPREADS
            # Several widths, so that the logit also falls for w that are too typical, and for those
            # far out.
            spread = low + (high - low) * torch.rand(BATCH, 1, generator=draws)
            others = (spread * torch.randn(BATCH, dim, generator=draws)).to(device)

            # The logistic loss of StyleGAN's own discriminator.
            loss = F.softplus(-self.network(ours)).mean() + F.softplus(self.network(others)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        self.network.requires_grad_(False)

    def penalty(self, u: Tensor) -> Tensor:
        """Return softplus(-logit) of ``u [N, layers, w_dim]``, averaged over layers: ``[N]``; near
        0 for random w."""
        return F.softplus(-self.network(u)).mean(dim=(1, 2))
