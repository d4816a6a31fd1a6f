"""Parsing of edit options, and the model and directions that they name."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentedit.cli import defaults
from latentedit.cli.common import LARGEST_AMOUNT, read_model
from latentedit.errors import ArgumentError, IncompatibleError

if TYPE_CHECKING:
    from latentedit.directions import Direction
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model


@dataclass(frozen=True)
class Move:
    """One ``--set NAME=[:]AMOUNT[@LAYERS]``."""

    name: str
    amount: float
    layers: str | None
    absolute: bool = False
    """Whether the score is set to ``amount`` instead of changed by it."""


def parse_move(text: str) -> Move:
    name, equals, rest = text.rpartition("=")
    amount, _, layers = rest.partition("@")
    try:
        number = float(amount.removeprefix(":"))
    except ValueError:
        return _bad(text)
    if not equals or not name or rest.endswith("@") or not abs(number) <= LARGEST_AMOUNT:
        return _bad(text)
    return Move(name, number, layers or None, amount.startswith(":"))


def _bad(text: str) -> Move:
    form = "--set takes NAME=AMOUNT or NAME=AMOUNT@LAYERS, or NAME=:SCORE"
    raise ArgumentError(
        f"{form}, with the amount in sigmas from -{LARGEST_AMOUNT} to {LARGEST_AMOUNT}, got "
        f"{text!r}"
    )


@dataclass(frozen=True)
class Sweep:
    """One ``--sweep NAME=FROM:TO[:COUNT]``."""

    name: str
    start: float
    stop: float
    count: int | None

    def amounts(self, count: int) -> list[float]:
        """Return ``count`` amounts at even distances, the first and the last as given."""
        return [self.start + (self.stop - self.start) * i / (count - 1) for i in range(count)]


def parse_sweep(text: str) -> Sweep:
    name, _, rest = text.rpartition("=")
    form = "--sweep takes NAME=FROM:TO:COUNT"
    if not name:
        raise ArgumentError(f"{form} with a COUNT of 2 to 50, got {text!r}")
    if rest.count(":") == 1:
        start, stop = parse_amounts(f"{rest}:2", form)
        return Sweep(name, start, stop, None)
    amounts = parse_amounts(rest, form)
    return Sweep(name, amounts[0], amounts[-1], len(amounts))


def parse_amounts(text: str, form: str) -> list[float]:
    """Parse ``"FROM:TO:COUNT"`` into the amounts; ``form`` starts the error message."""
    parts = text.split(":")
    try:
        start = float(parts[0])
        stop = float(parts[1])
        count = int(parts[2])
        far = not max(abs(start), abs(stop)) <= LARGEST_AMOUNT or math.isnan(stop - start)
        if len(parts) != 3 or not 2 <= count <= 50 or far:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise ArgumentError(f"{form} with a COUNT of 2 to 50, got {text!r}") from error
    return [start + (stop - start) * i / (count - 1) for i in range(count)]


def known_model(fingerprint: str, what: str) -> str:
    """Return the bundled model of this fingerprint, or else the file that the network was last read
    from.

    Raises:
        Error: there is none, or the file is gone; the message begins with ``what`` needs the model.
    """
    from latentedit.model.bundled import bundled_with
    from latentedit.model.remembered import remembered

    bundled = bundled_with(fingerprint)
    if bundled is not None:
        return bundled
    file = remembered(fingerprint)
    if file is not None and file.is_file():
        return str(file)
    needs = f"{what} needs the generator with fingerprint {fingerprint}"
    gone = "" if file is None else f", which was in {file} and is no longer there"
    raise IncompatibleError(f"{needs}{gone}; name its file with --model", expected=fingerprint)


def own_model(fingerprint: str, what: str, device: str, *, encoder: bool = True) -> "Model":
    """Read the model of this fingerprint from where `known_model` finds it.

    Raises:
        Error: also where another network is in the file by now.
    """
    from latentedit.networks import fingerprint as fingerprints

    name = known_model(fingerprint, what)
    model = read_model(name, device, encoder=encoder)
    found = fingerprints.fingerprint(model.generator)
    if found != fingerprint:
        reason = (
            f"{what} needs the generator {fingerprint[:12]}, which was in {name}; that is "
            f"{found[:12]} now"
        )
        raise IncompatibleError(
            f"{reason}; name its file with --model", expected=fingerprint, actual=found
        )
    return model


def model_for(latent: "Latent", name: str | None, device: str, force: bool) -> "Model":
    """Return the model that the user names, or the one that ``latent`` belongs to, which is
    checked (`check_model`)."""
    model = named_model(latent, name, device)
    check_model(latent, model, force=force)
    return model


def named_model(
    latent: "Latent", name: str | None, device: str, *, encoder: bool = True
) -> "Model":
    """Return the model that the user names, or else the one that ``latent`` names; without
    ``encoder``, an encoder beside it is not read.

    A latent of another tool names none; it gets the default that the user has set.
    """
    if name is None and latent.fingerprint:
        return own_model(latent.fingerprint, "this latent", device, encoder=encoder)
    found = name or defaults.value_of("model")
    if found is None:
        raise ArgumentError("a latent of another tool does not name its generator; add --model")
    return read_model(found, device, encoder=encoder)


def check_model(latent: "Latent", model: "Model", *, force: bool) -> None:
    """Have ``latent`` fit ``model``: one w per layer.

    Raises:
        Error: it belongs to another generator, or has other sizes; ``force`` accepts the first.
    """
    from latentedit.networks.fingerprint import fingerprint

    latent.check_generator(fingerprint(model.generator), model.path, force=force)
    latent.check_shapes(model.generator)
    latent.ws = latent.rows(model.generator.num_ws)


def direction_for(name: str, model: "Model", force: bool) -> "Direction":
    from latentedit.directions.direction import check_generator
    from latentedit.directions.registry import load_direction
    from latentedit.networks.fingerprint import fingerprint

    own = fingerprint(model.generator)
    direction = load_direction(name, own)
    check_generator(direction, own, model.path, force=force)
    return direction
