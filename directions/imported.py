"""Import of published directions: plain arrays, and the components of GANSpace."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentedit.directions.direction import Direction, unit
from latentedit.directions.sigma import measure_sigma
from latentedit.errors import ArgumentError, FormatError, IncompatibleError, listed
from latentedit.formats.arrays import numbers, read_arrays
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

GANSPACE = (("comp", "mean", "std"), ("lat_comp", "lat_mean", "lat_stdev"))
"""Names of components, mean and standard deviations in its two layouts."""


def read_array(
    path: str | os.PathLike[str], component: int | None = None
) -> tuple[Tensor, dict[str, Any]]:
    """Return the vector in a ``.npy``, ``.npz`` or ``.pt`` as float64, and further facts in the
    file.

    Args:
        component: component of a GANSpace file (with mean, standard deviations and components),
            counted from 0.

    Raises:
        Error: the file does not exist, is damaged, has several arrays, or has anything but numbers.
    """
    found = read_arrays(path)
    facts: dict[str, Any] = {}
    if isinstance(found, dict):
        names = next((names for names in GANSPACE if all(name in found for name in names)), None)
        if names is not None:
            found, facts = _component(path, [found[name] for name in names], component)
        elif len(found) == 1:
            found = next(iter(found.values()))
        else:
            raise FormatError(
                f"expected one array, or GANSpace's mean, std and comp; it has {listed(found)}",
                path=path,
            )

    if component is not None and not facts:
        raise ArgumentError(
            "only GANSpace files have components; this one has a single direction", path=path
        )
    return torch.from_numpy(numbers(path, found)), facts


def _component(
    path: str | os.PathLike[str], parts: list[Any], component: int | None
) -> tuple[Any, dict[str, Any]]:
    comp, _, std = (numbers(path, part) for part in parts)
    comp = comp.reshape(comp.shape[0] if comp.ndim > 1 else 1, -1)
    if component is None or not 0 <= component < len(comp):
        advice = f"choose one with `component`, 0 to {len(comp) - 1}"
        raise ArgumentError(f"a GANSpace file of {len(comp)} components", path=path, advice=advice)
    scale = std.reshape(-1)
    facts = (
        {"component": component, "std": float(scale[component])}
        if component < len(scale)
        else {"component": component}
    )
    return comp[component], facts


def import_direction(
    path: str | os.PathLike[str],
    generator: Generator,
    name: str,
    *,
    component: int | None = None,
    layers: tuple[int, int] | None = None,
) -> Direction:
    """Import a published direction for ``generator``.

    Accepts the shapes ``[w_dim]``, ``[1, w_dim]``, ``[num_ws, w_dim]`` and ``[1, num_ws, w_dim]``.
    If all layers are equal, the result is a direction in W. The norm is set to 1 and the original
    norm is recorded. Sigma is measured. The score is 0 at the mean w, because the file does not say
    where the attribute begins.

    Raises:
        Error: see `read_array`; a shape that does not fit ``generator``; a vector of zeros or NaN.
    """
    array, facts = read_array(path, component)
    shape = list(array.shape)
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]

    expected = ([generator.w_dim], [generator.num_ws, generator.w_dim])
    if list(array.shape) not in expected:
        raise IncompatibleError(
            f"the direction has shape {shape}; this generator takes [{generator.w_dim}] or"
            f" [{generator.num_ws}, {generator.w_dim}], with or without a leading 1",
            path=path,
        )
    if not bool(array.any()):
        raise FormatError("the direction is zero", path=path)

    scale = float(array.norm())
    if array.ndim == 2 and bool((array == array[0]).all()):
        array = array[0]
        scale = float(array.norm())

    vector = unit(array)
    with torch.no_grad():
        mean = sample_w(generator).mean(dim=0).double().cpu()

    centre = float((vector.double() * mean).sum())  # a W+ vector: the sum over its rows
    return Direction(
        name=name,
        vector=vector,
        intercept=-centre,
        sigma=measure_sigma(vector, generator),
        fingerprint=fingerprint(generator),
        layers=layers,
        provenance={"imported": Path(path).name, "shape": shape, "original_norm": scale, **facts},
    )
