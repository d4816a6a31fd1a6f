"""What a search minimises between two images: the perceptual distance and the weighted squared
difference of pixels."""

from dataclasses import dataclass

from torch import Tensor

from latentedit.inversion.perceptual import Perceptual


@dataclass(frozen=True, eq=False)
class ReconstructionLoss:
    """How the rendered image and the given one are compared, by searches, tuning and the
    preconditioner alike."""

    perceptual: Perceptual
    pixel_weight: float = 1.0
    """Weight of the mean squared difference of pixels."""
    focus: Tensor | None = None
    """Weights of the pixels, ``[1, 1, H, W]`` of mean 1 (`latentedit.inversion.face_weights`); None
    for equal weights."""
