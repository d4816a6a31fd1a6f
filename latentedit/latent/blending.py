"""Mixing and interpolation of two latents with all their parts: ws, noise maps, and tuned
generators."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import IncompatibleError
from latentedit.latent import editing
from latentedit.latent.latent_file import Latent
from latentedit.latent.spaces import space_of_latent
from latentedit.networks.generator import Generator
from latentedit.networks.stylegan3 import AliasFreeSynthesis

Stored = dict[str, Tensor]
"""The change of a tuned generator, as `latentedit.latent.deltas.compress_deltas` returns it."""


def interpolated(generator: Generator, a: Latent, b: Latent, t: float) -> Latent:
    """Return the latent at the share ``t`` of the way from ``a`` to ``b``: w, noise maps and tuned
    generators together.

    Raises:
        Error: a latent has style offsets, which only fit its own w.
    """
    _check(a, b)
    ws = torch.lerp(a.rows(generator.num_ws), b.rows(generator.num_ws), t)
    noise = None
    if a.noise is not None or b.noise is not None:
        pairs = zip(_maps(generator, a), _maps(generator, b), strict=True)
        noise = [torch.lerp(x, y, t) for x, y in pairs]
    return replace(_neutral(a, ws), noise=noise, tuned=_weighted(a.tuned, 1 - t, b.tuned, t))


def mixed(generator: Generator, a: Latent, b: Latent, layers: Sequence[int]) -> Latent:
    """Return ``a`` with ``layers`` (first, last) of ``b``, with everything that these layers need.

    The noise maps and the tuning of a layer come from the same latent as its w. The crop in the
    photo comes from ``a``, or from ``b`` if all layers are from ``b``.

    Raises:
        Error: a latent has style offsets, which only fit its own w.
    """
    _check(a, b)
    first, last = layers
    ws = editing.mix(a.rows(generator.num_ws), b.rows(generator.num_ws), layers)
    noise = None
    if a.noise is not None or b.noise is not None:
        pairs = enumerate(zip(_maps(generator, a), _maps(generator, b), strict=True))
        noise = [y if first <= row <= last else x for row, (x, y) in pairs]
    rows = _rows_of_parameters(generator)
    tuned = {
        name: tensor for name, tensor in a.tuned.items() if not first <= _row(rows, name) <= last
    }
    tuned |= {name: tensor for name, tensor in b.tuned.items() if first <= _row(rows, name) <= last}
    whole = (first, last) == (0, generator.num_ws - 1)
    return replace(_neutral(b if whole else a, ws), noise=noise, tuned=tuned)


def _check(a: Latent, b: Latent) -> None:
    if a.styles or b.styles:
        raise IncompatibleError(
            "style offsets only fit their own w and cannot be blended",
            advice="invert with `space=w` or `space=w+`",
        )


def _neutral(latent: Latent, ws: Tensor) -> Latent:
    """Return the latent with other ``ws``, and without seed, search settings and distances, which
    belong to the w before."""
    space = space_of_latent(ws, []).name
    kept = {name: value for name, value in latent.settings.items() if name == "edits"}
    return replace(latent, ws=ws, space=space, settings=kept, distances={}, safe=None)


def _maps(generator: Generator, latent: Latent) -> list[Tensor]:
    if latent.noise is not None:
        return latent.noise
    return [map_[None, None].cpu() for map_ in generator.synthesis.noise_constants]


def _weighted(a: Stored, share_a: float, b: Stored, share_b: float) -> Stored:
    """Return the weighted sum of two changes; products stay products and their ranks add up, so
    that the sum is exact."""
    from latentedit.latent.deltas import expand_deltas

    if not a and not b:
        return {}
    if share_a == 0 or not a:
        return _scaled(b, share_b)
    if share_b == 0 or not b:
        return _scaled(a, share_a)

    names = {name.removesuffix("/u") for name in {*a, *b} if not name.endswith("/v")}
    found: Stored = {}
    for name in sorted(names):
        both = [(_part(stored, name), share) for stored, share in ((a, share_a), (b, share_b))]
        parts = [(part, share) for part, share in both if part]
        if all(f"{name}/u" in part for part, _ in parts):
            # [u1 u2] [v1; v2] = u1 v1 + u2 v2.
            found[f"{name}/u"] = torch.cat(
                [part[f"{name}/u"].float() * share for part, share in parts], dim=1
            )
            found[f"{name}/v"] = torch.cat([part[f"{name}/v"].float() for part, _ in parts])
        else:
            wholes = [expand_deltas(part)[name] * share for part, share in parts]
            found[name] = torch.stack(wholes).sum(dim=0)

    return found


def _part(stored: Stored, name: str) -> Stored:
    return {key: stored[key] for key in (name, f"{name}/u", f"{name}/v") if key in stored}


def _scaled(stored: Stored, share: float) -> Stored:
    if share == 1:
        return dict(stored)
    return {
        name: tensor if name.endswith("/v") else tensor.float() * share
        for name, tensor in stored.items()
    }


def _rows_of_parameters(generator: Generator) -> dict[str, int]:
    """Return the index in ws of every layer of the synthesis network, by the layer's name
    ("b8.conv0", "L3_52_512")."""
    if isinstance(generator.synthesis, AliasFreeSynthesis):
        return generator.synthesis.parameter_rows
    rows: dict[str, int] = {}
    row = 0
    blocks: list[Any] = list(generator.synthesis.blocks)

    for block_of, resolution in zip(blocks, generator.config.block_resolutions, strict=True):
        block = f"b{resolution}"
        first = row
        # The first block of StyleGAN2 has conv1 alone.
        for name in ("conv0", "conv1")[2 - len(list(block_of.convs)) :]:
            rows[f"{block}.{name}"] = row
            row += 1
        # Parameters without a w of their own go with the first layer of their block.
        rows[f"{block}.const"] = rows[f"{block}.skip"] = first
        rows[f"{block}.torgb"] = min(row, generator.num_ws - 1)

    return rows


def _row(rows: dict[str, int], parameter: str) -> int:
    layer = re.match(r"b\d+\.\w+|\w+", parameter)
    if layer is None or layer[0] not in rows:
        raise IncompatibleError(
            f"the latent's tuned difference does not fit this generator ({parameter})"
        )
    return rows[layer[0]]
