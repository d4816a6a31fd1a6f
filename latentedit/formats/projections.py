"""Reads and writes latents in the files of other projectors and encoders."""

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentedit.errors import FormatError, listed
from latentedit.formats.arrays import ENDINGS, numbers, read_arrays
from latentedit.io.files import write_bytes
from latentedit.latent.latent_file import Latent
from latentedit.latent.spaces import space_of_latent

__all__ = ["ENDINGS", "load_projection", "load_projections", "lost", "save_projection"]


def load_projections(path: str | os.PathLike[str]) -> list[tuple[str, Latent]]:
    """Read the names and latents in a file of another tool, one latent per image.

    Supported files:

    - NVIDIA's ``projected_w.npz``: ``w [N, num_ws, w_dim]``;
    - ``latents.pt`` of e4e and similar tools: a tensor ``[N, num_ws, w_dim]``; a ``.npy`` of such
      an array;
    - the ``.pt`` of rosinality's projector: for every image name ``latent [w_dim]`` or
      ``[num_ws, w_dim]``, and ``noise``.

    These files do not name their generator, so the latents' fingerprint is empty. A latent of shape
    ``[1, 1, w_dim]`` means the same w in all layers.

    Raises:
        Error: another kind of file, or a damaged one.
    """
    # The contents decide, not the ending: all of these tools write .pt or .npz.
    found = read_arrays(path)
    stem = Path(path).stem

    # as its older versions wrote it
    if isinstance(found, dict) and isinstance(found.get("noises"), list):
        noises = found.pop("noises")
        found = {
            key: {**value, "noise": noises} if isinstance(value, dict) else value
            for key, value in found.items()
        }

    if (
        isinstance(found, dict)
        and found
        and all(isinstance(v, dict) and "latent" in v for v in found.values())
    ):
        names = [_name(key, index) for index, key in enumerate(found)]
        names = [
            name if names.count(name) == 1 else f"{name}-{index}"
            for index, name in enumerate(names)
        ]
        return [
            (name, _rosinality(path, value))
            for name, value in zip(names, found.values(), strict=True)
        ]

    if isinstance(found, dict):
        array = found.get("w", next(iter(found.values())) if len(found) == 1 else None)
        if array is None:
            raise FormatError(
                f"expected latents under the name w, or a single array; it has {listed(found)}",
                path=path,
            )
    else:
        array = found

    ws = _ws(path, array)
    names = (
        [stem]
        if len(ws) == 1
        else [f"{stem}-{index:0{len(str(len(ws) - 1))}d}" for index in range(len(ws))]
    )
    return [(name, _latent(w[None])) for name, w in zip(names, ws, strict=True)]


def load_projection(path: str | os.PathLike[str]) -> Latent:
    """Read the latent of a file that contains exactly one; see `load_projections`."""
    found = load_projections(path)
    if len(found) != 1:
        raise FormatError(
            f'holds {len(found)} latents; "latentedit latent import" writes a file for each',
            path=path,
        )
    return found[0][1]


def save_projection(path: str | os.PathLike[str], latent: Latent) -> None:
    """Write ``w [1, num_ws, w_dim]`` float32 as NVIDIA's projector does; `lost` lists what this
    format cannot hold."""
    buffer = io.BytesIO()
    np.savez(buffer, w=latent.ws.float().numpy())
    write_bytes(path, buffer.getvalue())


def lost(latent: Latent) -> list[str]:
    """List what `save_projection` leaves out of ``latent``; the first three items change the
    image."""
    parts = {
        "the generator's tuning to the photo": bool(latent.tuned),
        "the style offsets": bool(latent.styles),
        "the noise maps": latent.noise is not None,
        "the generator's fingerprint": bool(latent.fingerprint),
        "the position of the crop in the photo": latent.crop is not None,
        "the hash of the crop": latent.crop_hash is not None,
        "the photo's name and SHA-256": latent.source is not None,
        "the safe amounts of sliders": bool(latent.safe),
        "settings and distances": bool(latent.settings or latent.distances),
    }
    return [name for name, there in parts.items() if there]


def _latent(ws: Tensor, noise: list[Tensor] | None = None) -> Latent:
    space = space_of_latent(ws, []).name
    return Latent(ws, noise, "", space)


def _ws(path: str | os.PathLike[str], array: Any) -> Tensor:
    """Return ``[N, num_ws, w_dim]``; an array of one axis is a w, one of two axes is one latent."""
    ws = torch.from_numpy(numbers(path, array, np.float32))
    while ws.ndim < 3:
        ws = ws[None]
    if ws.ndim != 3 or 0 in ws.shape:
        raise FormatError(
            f"latents have the shape [N, num_ws, w_dim], found {list(ws.shape)}", path=path
        )
    return ws


def _rosinality(path: str | os.PathLike[str], entry: dict[Any, Any]) -> Latent:
    ws = _ws(path, entry["latent"])
    noise = entry.get("noise")
    if len(ws) != 1:
        raise FormatError(f"expected one latent per image, found {len(ws)}", path=path)
    if noise is None:
        return _latent(ws)
    if not isinstance(noise, list) or not all(
        isinstance(map_, np.ndarray) and map_.ndim == 4 for map_ in noise
    ):
        raise FormatError("expected noise maps [1, 1, h, w]", path=path)
    return _latent(ws, [torch.from_numpy(numbers(path, map_, np.float32)) for map_ in noise])


def _name(key: Any, index: int) -> str:
    stem = (
        re.sub(r"[^\w.-]", "_", re.split(r"[/\\]", key)[-1].rsplit(".", 1)[0])
        if isinstance(key, str)
        else ""
    )
    return stem.strip(".")[:80] or f"latent-{index}"
