"""A tuned generator as a model of its own: what latent files hold is added to its weights."""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch

from latentedit.errors import ArgumentError, IncompatibleError
from latentedit.latent.deltas import expand_deltas, same_difference, with_deltas
from latentedit.latent.latent_file import Latent
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint


@torch.no_grad()
def bake(
    model: Model, latents: Sequence[Latent], *, force: bool = False
) -> tuple[Model, list[Latent]]:
    """Add the tuned difference of ``latents`` to the generator of ``model``.

    The discriminator, encoder and framing stay those of ``model``. The generator before averaging
    is left out, because the difference belongs to the average.

    Args:
        latents: one latent, or several that share their difference (``invert --tune --together``).
        force: accept latents of another generator.

    Returns:
        The model, and the latents without a difference. On the model's generator they render what
        they rendered before, bit for bit.

    Raises:
        Error: a latent without a difference, or latents with different ones.
    """
    if not latents:
        raise ArgumentError("there is no latent to bake into the model")
    own = fingerprint(model.generator)
    for latent in latents:
        latent.check_generator(own, model.path, force=force)
        latent.check_shapes(model.generator)
        check_tuned(latent)
        if not same_difference(latent.tuned, latents[0].tuned):
            raise IncompatibleError(
                "the latents have different tuned generators, and a model file holds one; bake them"
                ' one by one, or make them with "latentedit invert --tune --together"'
            )

    parameters = dict(model.generator.synthesis.named_parameters())
    generator = with_deltas(model.generator, expand_deltas(latents[0].tuned, parameters))
    baked = fingerprint(generator)
    provenance = {**model.provenance, "baked": {"generator": own, "latents": len(latents)}}
    made = replace(
        model, generator=generator, raw_generator=None, provenance=provenance, path="", notes=[]
    )
    return made, [replace(latent, fingerprint=baked, tuned={}) for latent in latents]


def check_tuned(latent: Latent, path: str | os.PathLike[str] | None = None) -> None:
    """Raise `Error` if ``latent``, which comes from the file ``path``, has no tuned difference."""
    if not latent.tuned:
        raise IncompatibleError(
            "this latent has no tuned difference, so there is nothing to bake into a model;"
            ' "latentedit invert --tune" makes one',
            path=path,
        )
