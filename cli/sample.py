"""``sample``: random images of a generator."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from latentedit.cli.common import (
    MOST,
    PSI,
    device_option,
    read_model,
    rendering_bar,
    say,
    say_written,
    transform_option,
)
from latentedit.errors import ArgumentError, listed

if TYPE_CHECKING:
    from torch import Tensor

    from latentedit.latent.latent_file import Latent
    from latentedit.latent.transforms import Transform
    from latentedit.model.model import Model
    from latentedit.networks.generator import Generator
    from latentedit.networks.noise import Noise

F = TypeVar("F", bound=Callable[..., Any])


def parse_seeds(text: str) -> list[int]:
    """Return ``"0-3,85"`` as a list of seeds."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ArgumentError(f"--seeds takes numbers and ranges such as 0-15,85, got {text!r}")
        if dash and int(first) > int(last):
            raise ArgumentError(
                f"--seeds takes ranges from small to large: write {last}-{first} instead of "
                f"{part.strip()}"
            )
        seeds += range(int(first), min(int(last or first), int(first) + 10_000) + 1)

    if not 1 <= len(seeds) <= 10_000 or max(seeds) >= 2**32:
        raise ArgumentError(f"--seeds takes 1 to 10000 numbers below 2^32, got {text!r}")
    return seeds


def class_number(model: "Model", label: str | None) -> int | None:
    """Return the label that ``--class`` names, by its number or by its name in the training set."""
    names = [str(name) for name in model.provenance.get("label_names", [])]
    count = model.generator.c_dim
    if not count:
        if label is not None:
            raise ArgumentError("--class needs a conditional model; this one has no labels")
        return None

    if label in names:
        return names.index(str(label))

    if label is None or not label.isdecimal() or int(label) >= count:
        known = f" ({listed(names)})" if names else ""
        raise ArgumentError(f"this model is conditional: --class must be 0 to {count - 1}{known}")
    return int(label)


def label_of(model: "Model", label: str | None) -> "Tensor | None":
    """Return the one-hot label ``[1, c_dim]`` that ``--class`` names; None for a model without
    labels."""
    import torch

    from latentedit.latent.w_statistics import one_hot

    number = class_number(model, label)
    if number is None:
        return None
    return one_hot(torch.tensor([number]), model.generator.c_dim).to(model.generator.device)


def class_option(function: F) -> F:
    text = "Random faces of this label only, for a conditional model: number or name."
    return click.option("--class", "label", help=text)(function)


def generator_of(model: "Model", label: str | None) -> "Generator":
    """Return the generator of ``model``, all of whose random faces have the label that ``--class``
    names; with all labels if it is not given."""
    from latentedit.latent.w_statistics import of_class

    number = None if label is None else class_number(model, label)
    return model.generator if number is None else of_class(model.generator, number)


@click.command()
@click.argument("model_name", metavar="MODEL")
@click.option(
    "--seeds",
    default="0-15",
    show_default=True,
    help="Seeds of z; numbered as in the galleries of the official networks.",
)
@click.option(
    "--psi",
    default=0.7,
    show_default=True,
    type=PSI,
    help="Truncation: 1 means none, smaller values give more typical images.",
)
@click.option(
    "--cutoff",
    type=click.IntRange(0, MOST),
    help="Truncate only this many layers, from the first (the first StyleGAN's gallery: 8).",
)
@click.option("--class", "label", help="Label for a conditional model: number or name.")
@click.option(
    "--noise",
    type=click.Choice(["const", "random", "none"]),
    default="const",
    show_default=True,
    help="Noise maps: the model's own, random, or none.",
)
@transform_option
@click.option("--each", is_flag=True, help="Write one image per seed into the folder --out.")
@click.option("--latents", is_flag=True, help="With --each: also write one latent file per seed.")
@click.option(
    "--out",
    type=click.Path(),
    required=True,
    help="Image (a grid of all seeds), or latent (.safetensors) of one seed.",
)
@device_option
def sample(
    model_name: str,
    seeds: str,
    psi: float,
    cutoff: int | None,
    label: str | None,
    noise: str,
    transform: str | None,
    each: bool,
    latents: bool,
    out: str,
    device: str,
) -> None:
    """Generate random images with MODEL (a bundled name or a file).

    With --each, the files in the folder are named seed0085.png and the like.

    \b
    Example:
      latentedit sample faces128 --seeds 0-31 --psi 0.8 --out grid.png
      latentedit sample faces128 --seeds 0-99 --each --out faces
      latentedit sample stylegan3-r.pkl --seeds 0-7 --transform 0.1,0,15 --out turned.png
    """

    from latentedit.io.contact_sheet import numbered
    from latentedit.io.images import check_picture, save_image
    from latentedit.latent.latent_file import save_latent
    from latentedit.latent.transforms import Transform

    numbers = parse_seeds(seeds)
    wanted = Transform.parse(transform) if transform is not None else None
    alone = out.endswith(".safetensors")
    if each and Path(out).suffix:
        raise ArgumentError(f"--each needs a folder as --out, got {out}")
    if latents and not each:
        raise ArgumentError("--latents needs --each")
    if alone and len(numbers) > 1:
        raise ArgumentError(
            "a latent file holds one latent; give one seed, --each --latents, or an image as --out"
        )

    if not each and not alone:
        check_picture(out)

    found = read_model(model_name, device)
    generator = found.generator
    if cutoff is not None and cutoff > generator.num_ws:
        raise ArgumentError(
            f"--cutoff takes 0 to {generator.num_ws}, the number of layers of this network; got "
            f"{cutoff}"
        )

    settings = {"psi": psi, "cutoff": cutoff, "class": label, "transform": transform}
    draws = _Draws(found, label_of(found, label), wanted, settings)
    if alone:
        save_latent(out, draws.latent(numbers[0]))
        say_written(out)
        return

    pictures = []
    with rendering_bar(len(numbers)) as rendered:
        for seed in numbers:
            latent = draws.latent(seed)
            picture = draws.picture(latent, cast("Noise", noise))
            rendered()
            if not each:
                pictures.append(picture)
                continue
            place = Path(out) / f"seed{seed:04d}.png"
            save_image(picture, place)
            if latents:
                save_latent(place.with_suffix(".safetensors"), latent)

    if each:
        say(f"wrote {len(numbers)} images{' and latents' if latents else ''} into {out}")
        return
    save_image(pictures[0] if len(numbers) == 1 else numbered(pictures, numbers), out)
    say_written(out)


class _Draws:
    """Random faces as the options of ``sample`` say."""

    def __init__(
        self, model: "Model", c: "Tensor | None", turn: "Transform | None", settings: dict[str, Any]
    ) -> None:
        from latentedit.networks.fingerprint import fingerprint

        self.generator = model.generator
        self.c = c
        self.turn = turn
        self.fingerprint = fingerprint(model.generator)
        self.settings = {name: value for name, value in settings.items() if value is not None}

    def latent(self, seed: int) -> "Latent":
        import torch

        from latentedit.latent.latent_file import Latent
        from latentedit.latent.transforms import transform_offsets
        from latentedit.latent.w_statistics import sample_z

        generator = self.generator
        psi = self.settings["psi"]
        cutoff = self.settings.get("cutoff")
        with torch.no_grad():
            z = sample_z(seed, generator.z_dim).to(generator.device)
            ws = generator.mapping(z, self.c, psi, cutoff)
            offsets = transform_offsets(generator, ws, self.turn) if self.turn else []

        space = "s" if offsets else "w" if cutoff is None or psi == 1 else "w+"
        found = Latent(
            ws.cpu(), None, self.fingerprint, space, None, {"seed": seed, **self.settings}
        )
        found.styles = [offset.cpu() for offset in offsets]
        return found

    def picture(self, latent: "Latent", noise: "Noise") -> "Tensor":
        from latentedit.latent.latent_file import render

        device = self.generator.device
        offsets = [offset.to(device) for offset in latent.styles]
        return render(self.generator, latent.ws.to(device), noise, offsets).cpu()
