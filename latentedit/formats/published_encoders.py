"""Checkpoints of the published encoders (pSp, e4e, ReStyle): ``state_dict``, ``latent_avg`` and
``opts``."""

import os
import re
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import FormatError, complete, quoted, shown
from latentedit.formats.records import number
from latentedit.inversion.published_encoder import PublishedEncoder, PublishedEncoderConfig
from latentedit.model.weights import with_weights

TYPES = {
    "GradualStyleEncoder": "psp",
    "Encoder4Editing": "e4e",
    "BackboneEncoder": "restyle-psp",
    "ProgressiveBackboneEncoder": "restyle-e4e",
}
"""What the options of these projects call the kinds of `PublishedEncoderConfig`."""
PASSES = 5
"""Passes of ReStyle, where its options do not say (Alaluf et al. 2021, section 4)."""


def is_published(found: Any) -> bool:
    """Return whether ``found`` are the contents of such a checkpoint."""
    state = found.get("state_dict") if isinstance(found, dict) else None
    return isinstance(state, dict) and any(
        isinstance(name, str) and name.startswith("encoder.") for name in state
    )


def decoder_of(found: dict[str, Any]) -> dict[str, Any] | None:
    """Return the decoder as a checkpoint of rosinality's, or None where there is none."""
    decoder = _part(found["state_dict"], "decoder.")
    if not decoder:
        return None
    average = found.get("latent_avg")
    if isinstance(average, Tensor) and average.ndim > 1:
        average = average.reshape(-1, average.shape[-1]).mean(dim=0)  # its rows are the same w
    return {"g_ema": decoder, "latent_avg": average}


def _part(state: dict[Any, Any], prefix: str) -> dict[str, Any]:
    return {
        name[len(prefix) :]: value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(prefix)
    }


def published_encoder(
    path: str | os.PathLike[str], found: dict[str, Any], average: Tensor | None
) -> PublishedEncoder:
    """Return the encoder in ``found``, the contents of such a checkpoint.

    Args:
        average: the mean w ``[w_dim]`` of the generator, for a checkpoint that does not hold it;
            None for none.

    Raises:
        FormatError: an encoder of another kind, or an incomplete one.
    """
    with complete(path, "encoder"):
        state = {
            name: value
            for name, value in _part(found["state_dict"], "encoder.").items()
            if isinstance(value, Tensor)
        }
        state = {
            name: value for name, value in state.items() if not name.endswith("num_batches_tracked")
        }
        options = found.get("opts")
        options = options if isinstance(options, dict) else {}
        kind = _kind(path, state, options)
        rows = {
            int(match[1]) for name in state if (match := re.match(r"styles\.(\d{1,3})\.", name))
        }
        passes = options.get("n_iters_per_batch") or PASSES
        config = PublishedEncoderConfig(
            kind=kind,
            num_ws=max(rows) + 1,
            w_dim=len(state["styles.0.linear.weight"]),
            passes=int(number(passes)) if kind.startswith("restyle") else 1,
        )
        state["latent_avg"] = _average(path, found, options, config, average)
        return with_weights(PublishedEncoder, config, state, path)


def _kind(path: str | os.PathLike[str], state: dict[str, Tensor], options: dict[str, Any]) -> str:
    """From the options, or else from the tensors as far as they tell."""
    first = state.get("input_layer.0.weight")
    if first is None or first.ndim != 4 or not any(name.startswith("styles.") for name in state):
        raise FormatError(
            "an encoder with another backbone than IR-SE-50; it cannot be represented", path=path
        )

    named = options.get("encoder_type")
    kind = TYPES.get(named) if isinstance(named, str) else None
    if named is not None and kind is None:
        name = shown(named) if isinstance(named, str) else quoted(named)
        raise FormatError(f"an encoder of the type {name}; known are {', '.join(TYPES)}", path=path)
    # ReStyle takes only the coarse features, and has no layers for the others.
    iterative = "latlayer1.weight" not in state
    if kind is None:
        raise FormatError(
            "the checkpoint's opts do not say encoder_type, which tells pSp from e4e", path=path
        )

    channels = 6 if kind.startswith("restyle") else 3
    if iterative != kind.startswith("restyle") or first.shape[1] != channels:
        text = (
            f"an encoder of the type {shown(str(named))} takes {channels} channels; this one takes "
            f"{first.shape[1]}"
        )
        raise FormatError(f"{text}, or has other layers; it cannot be represented", path=path)

    return kind


def _average(
    path: str | os.PathLike[str],
    found: dict[str, Any],
    options: dict[str, Any],
    config: PublishedEncoderConfig,
    average: Tensor | None,
) -> Tensor:
    """Return what answers are relative to, ``[num_ws, w_dim]``; zero where the options say that
    they are w themselves."""
    if not options.get("start_from_latent_avg", True):
        return torch.zeros(config.num_ws, config.w_dim)
    # Some checkpoints leave it to the decoder's file.
    own = found.get("latent_avg", average)
    own = average if own is None else own
    if not isinstance(own, Tensor):
        raise FormatError("no latent_avg, to which the encoder's answers are relative", path=path)

    rows = own.reshape(-1, own.shape[-1])
    if rows.shape not in ((1, config.w_dim), (config.num_ws, config.w_dim)):
        raise FormatError.of_shape(
            "latent_avg", f"[{config.w_dim}] or [{config.num_ws}, {config.w_dim}]", own.shape
        ).at(path)
    return rows.float().expand(config.num_ws, -1).clone()
