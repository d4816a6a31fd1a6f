"""The differences of a tuned generator: products of thin matrices in a file, added to the weights
when they are used."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from latentedit.errors import FormatError, IncompatibleError, shown
from latentedit.networks.generator import Generator

Deltas = dict[str, Tensor]
"""Differences of the synthesis network's parameters, by name, in float32."""


def compress_deltas(deltas: Deltas, rank: int | None) -> dict[str, Tensor]:
    """Return ``deltas`` for a file: matrices as products of rank ``rank`` where those are smaller,
    all in half precision.

    A convolution's weight ``[O, I, k, k]`` counts as a matrix ``[O, I k k]``.
    """
    stored = {}
    for name, delta in deltas.items():
        rows = delta.flatten(1) if delta.ndim > 1 else None
        if rank is not None and rows is not None and rank * sum(rows.shape) < rows.numel():
            u, s, v = torch.linalg.svd(rows, full_matrices=False)
            # The singular values are shared between the factors, so that neither leaves the range
            # of half precision.
            root = s[:rank].sqrt()
            stored[f"{name}/u"] = (u[:, :rank] * root).half()
            stored[f"{name}/v"] = (v[:rank] * root[:, None]).reshape(-1, *delta.shape[1:]).half()
        else:
            stored[name] = delta.half()

    return stored


def expand_deltas(
    stored: dict[str, Tensor], parameters: Mapping[str, Tensor] | None = None
) -> Deltas:
    """Return the differences in float32 of what `compress_deltas` gave.

    Args:
        parameters: that they belong to. A small file can hold factors of a product that no memory
            holds; with these, none is computed that does not fit.

    Raises:
        Error: products of which a part is missing, or does not fit.
    """
    deltas = {}
    for name, tensor in stored.items():
        if name.endswith("/v"):
            continue
        if not name.endswith("/u"):
            deltas[name] = tensor.float()
            continue
        # Shapes are compared before the product is computed: from a hostile file it could have any
        # size.
        base = name.removesuffix("/u")
        v = stored.get(f"{base}/v")
        if v is None or tensor.ndim != 2 or v.ndim < 2 or tensor.shape[1] != v.shape[0]:
            raise FormatError(f"the tuned difference of {shown(base)} is incomplete")
        if parameters is not None and (
            base not in parameters or parameters[base].shape != (len(tensor), *v.shape[1:])
        ):
            raise IncompatibleError(
                f"the latent's tuned difference does not fit this generator ({shown(base)})"
            )
        deltas[base] = (tensor.float() @ v.float().flatten(1)).reshape(len(tensor), *v.shape[1:])

    return deltas


def same_difference(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Return whether two differences, as files store them, are the same numbers."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@torch.no_grad()
def with_deltas(generator: Generator, deltas: Deltas) -> Generator:
    """Return a copy of ``generator`` moved by ``deltas``.

    Raises:
        Error: differences of parameters that it does not have, or of other shapes.
    """
    moved = copy.deepcopy(generator)
    parameters = dict(moved.synthesis.named_parameters())
    for name, delta in deltas.items():
        if name not in parameters or parameters[name].shape != delta.shape:
            raise IncompatibleError(
                f"the latent's tuned difference does not fit this generator ({shown(name)})"
            )
        parameters[name].data += delta.to(moved.device)

    return moved
