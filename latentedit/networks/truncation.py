"""The truncation trick: w is drawn towards its mean (StyleGAN, appendix B)."""

import torch
from torch import Tensor


def truncate(ws: Tensor, mean: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """Draw rows of ``ws [N, num_ws, w_dim]`` towards ``mean [w_dim]``.

    Args:
        psi: 1 leaves them, 0 gives the mean; negative values give the opposite of a face.
        cutoff: so many rows, from the coarsest on; None for all.
    """
    if psi == 1:
        return ws.contiguous()
    count = ws.shape[1] if cutoff is None else cutoff
    return torch.cat([torch.lerp(mean, ws[:, :count], psi), ws[:, count:]], dim=1)
