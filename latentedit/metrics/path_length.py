"""Perceptual path length (Karras et al. 2019, section 4.1)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import ArgumentError
from latentedit.inversion.perceptual import LpipsDistance, Perceptual, StlpipsDistance, distance
from latentedit.latent.spaces import W, Z, space_of
from latentedit.latent.w_statistics import random_labels, sample_z
from latentedit.networks.generator import Generator

EPSILON = 1e-4
TRIMMED = 0.01
FACE_CROP = (3 / 8, 7 / 8, 2 / 8, 6 / 8)
"""Top, bottom, left, right of the face in FFHQ's framing, in fractions of the side."""


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation of unit vectors ``[N, D]``; t ``[N, 1]``."""
    a = F.normalize(a, dim=1)
    b = F.normalize(b, dim=1)
    cosine = (a * b).sum(dim=1, keepdim=True)
    angle = t * torch.acos(cosine.clamp(-1, 1))
    return F.normalize(
        a * torch.cos(angle) + F.normalize(b - cosine * a, dim=1) * torch.sin(angle), dim=1
    )


@torch.no_grad()
def perceptual_path_length(
    generator: Generator,
    perceptual: Perceptual,
    space: Literal["z", "w"] = "w",
    sampling: Literal["full", "end"] = "end",
    count: int = 1000,
    *,
    crop: bool = False,
    batch: int = 8,
    seed: int = 0,
) -> float:
    """Compute the mean perceptual distance of images 1e-4 apart on a path between two random
    latents, divided by 1e-8.

    Only values with LPIPS (VGG) as ``perceptual`` are comparable with published ones. The lowest
    and highest 1 % are left out.

    Args:
        sampling: "full" samples the whole path, "end" only its start.
        crop: measure only the face, in FFHQ's framing.
    """
    between = space_of(space)
    if between not in (Z, W) or sampling not in ("full", "end"):
        raise ArgumentError(
            f'space must be "z" or "w" and sampling "full" or "end", got {space!r} and {sampling!r}'
        )

    found = []
    for start in range(0, count, batch):
        n = min(batch, count - start)
        z = sample_z(seed + start, generator.z_dim, 2 * n).to(generator.device)
        # Both ends of a path have the same label: the distance is to measure the path in w, not a
        # change of class.
        labels = random_labels(generator, seed + start, n)
        t = torch.rand(n, 1, generator=torch.Generator().manual_seed(seed + start)).to(z.device)
        t = t if sampling == "full" else torch.zeros_like(t)
        pair = []
        if between is W:
            w0, w1 = (generator.mapping.map(part, labels) for part in z.split(n))
            # In w the path is a line, in z an arc, along which z stays normal.
            pair = [w0.lerp(w1, t), w0.lerp(w1, t + EPSILON)]
        else:
            pair = [
                generator.mapping.map(slerp(z[:n], z[n:], t + step), labels)
                for step in (0.0, EPSILON)
            ]

        images = [generator.synthesis(w[:, None].expand(-1, generator.num_ws, -1)) for w in pair]
        if crop:
            size = generator.resolution
            top, bottom, left, right = (int(share * size) for share in FACE_CROP)
            images = [image[:, :, top:bottom, left:right] for image in images]
            factor = size // 256
            # published figures are of pictures of 256 pixels, of which the crop is half
            if factor > 1:
                images = [F.avg_pool2d(image, factor) for image in images]
            if not isinstance(
                perceptual, LpipsDistance | StlpipsDistance
            ):  # a discriminator sees pictures of its own size alone
                images = [
                    F.interpolate(image, (size, size), mode="bilinear", align_corners=False)
                    for image in images
                ]

        a, b = (perceptual.features(image) for image in images)
        found.append(distance(a, b).cpu() / EPSILON**2)

    values = torch.cat(found).sort().values
    trimmed = int(len(values) * TRIMMED)
    return float(values[trimmed : len(values) - trimmed].double().mean())
