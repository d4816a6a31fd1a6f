"""The mapping network z -> w (StyleGAN, section 2), with labels and truncation."""

import torch
from torch import Tensor, nn

from latentedit.errors import ArgumentError, check_number
from latentedit.networks.layers import FullyConnected, full, normalize_2nd_moment
from latentedit.networks.truncation import truncate


class MappingNetwork(nn.Module):
    """The mapping network from z and label to w: ``[N, z_dim], [N, c_dim] -> [N, num_ws, w_dim]``.

    If ``num_ws`` is None, the result is ``[N, w_dim]`` (the label mapping of the discriminator,
    where ``z_dim`` is 0).
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        *,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        track_average: bool = True,
        joint_labels: bool = False,
    ) -> None:
        super().__init__()
        self.joint_labels = joint_labels
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        for index in range(num_layers):
            # The first layer sees z and the label's embedding side by side.
            inputs = z_dim + (w_dim if c_dim else 0) if index == 0 else w_dim
            setattr(
                self,
                f"fc{index}",
                # A hundredth of the learning rate: eight layers in a row are unstable at the full
                # one (StyleGAN, appendix C).
                FullyConnected(inputs, w_dim, activation=True, lr_multiplier=lr_multiplier),
            )

        if track_average:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def map(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """Compute w before broadcasting and truncation, ``[N, w_dim]``."""
        parts = []
        if self.z_dim:
            if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
                raise ArgumentError(
                    f"z must have shape [N, {self.z_dim}], got "
                    f"{None if z is None else list(z.shape)}"
                )
            parts.append(full(z))

        if self.c_dim:
            if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
                expected = f"one-hot labels of shape [N, {self.c_dim}]"
                found = None if c is None else list(c.shape)
                reason = f"this network is conditional: c must be {expected}, got {found}"
                raise ArgumentError(reason, argument="c", expected=expected, actual=found)
            parts.append(self.embed(full(c)))

        # In the networks of 2019, z and the label's embedding are normalised as one vector.
        parts = [torch.cat(parts, dim=1)] if self.joint_labels else parts
        x = torch.cat([normalize_2nd_moment(part) for part in parts], dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        return x

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Compute w for every layer; ``truncation_psi`` truncates the first ``truncation_cutoff``
        layers (None: all)."""
        check_number("truncation_psi", truncation_psi)
        w = self.map(z, c)
        if self.num_ws is None:
            return w
        # A view: layers share the memory of w until somebody writes to one of them.
        ws = w[:, None].expand(-1, self.num_ws, -1)  # [N, num_ws, w_dim]
        return truncate(ws, self.w_avg, truncation_psi, truncation_cutoff)

    @torch.no_grad()
    def update_average(self, w: Tensor, beta: float = 0.998) -> None:
        """Update the running mean with the mean of ``w [N, w_dim]``; ``beta`` is its decay per
        call."""
        self.w_avg.lerp_(w.to(self.w_avg.dtype).mean(dim=0), 1 - beta)
