"""``model``: facts about models, and their files."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import click

from latentedit.cli import log
from latentedit.cli.common import (
    device_option,
    framing_option,
    lazy_bar,
    print_facts,
    progress_bar,
    read_model,
    say_written,
)
from latentedit.cli.groups import Forgiving
from latentedit.errors import ArgumentError, NotFoundError, meant

if TYPE_CHECKING:
    from latentedit.model.cost import Cost
    from latentedit.model.model import Model


@click.group(cls=Forgiving)
def model() -> None:
    """Inspect, convert, list and download models."""


@model.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path())
@click.option(
    "--layout",
    type=click.Choice(["rosinality", "nvidia"]),
    default="rosinality",
    show_default=True,
    help="Layout of a .pt: rosinality's checkpoint, or a state_dict with NVIDIA's names.",
)
@click.option(
    "--loader",
    type=click.Choice(["stylegan2-ada", "stylegan3"]),
    help="NVIDIA's code that a .pkl is for (default: stylegan2-ada, for a StyleGAN3 network "
    "stylegan3). Stylegan3's code loads StyleGAN2 networks too.",
)
@framing_option
def convert(source: str, target: str, layout: str, loader: str | None, framing: str | None) -> None:
    """Convert the model IN (a bundled name, or a file of any supported format) to OUT, a
    .safetensors, .pt or .pkl file.

    The fingerprint stays the same, so latents and directions work with both files. A .safetensors
    file stores --framing. The command lists what the layout cannot store. Rosinality's layout
    cannot store the clamp of activations; the command measures on random images how much that
    changes. A .pkl is a network pickle that NVIDIA's own programs load. It contains no source code.

    \b
    Example:
      latentedit model convert stylegan2-ffhq.pt ffhq.safetensors
      latentedit model convert ffhq.safetensors ffhq.pkl --loader stylegan3
    """
    from latentedit.formats.checkpoints import save_plain
    from latentedit.formats.nvidia_writer import Code, save_nvidia
    from latentedit.formats.rosinality import save_rosinality
    from latentedit.inversion.published_encoder import PublishedEncoder
    from latentedit.model.native import save_model
    from latentedit.networks.fingerprint import fingerprint

    if loader is not None and not target.endswith(".pkl"):
        raise ArgumentError(f"{target}: --loader is for a .pkl as OUT")

    found = read_model(source, "cpu", framing)
    if target.endswith(".safetensors"):
        save_model(target, found)
        if isinstance(found.encoder, PublishedEncoder):
            log.warn(
                f"left out: the {found.encoder.config.kind} encoder; keep {source}, and give it "
                "with --encoder"
            )
    elif target.endswith(".pt"):
        if layout == "nvidia":
            save_plain(target, found)
        else:
            with lazy_bar("what the clamp does", "image") as progress:
                left_out = save_rosinality(target, found, progress)
            for what in left_out:
                log.warn(f"left out: {what}")
    elif target.endswith(".pkl"):
        for what in save_nvidia(target, found, cast(Code | None, loader)):
            log.warn(what)
    else:
        raise ArgumentError(f"{target}: OUT must end in .safetensors, .pt or .pkl")

    click.echo(f"fingerprint {fingerprint(found.generator)}")
    say_written(target)


@model.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def zoo(as_json: bool) -> None:
    """List published networks with their resolution, licence and (if known) size, then auxiliary
    weights.

    Only "latentedit model fetch" downloads anything.

    \b
    Example:
      latentedit model zoo --json
    """
    import json
    from dataclasses import asdict
    from itertools import groupby

    from latentedit.formats.zoo import catalogue
    from latentedit.io.weights import WEIGHTS

    entries = list(catalogue().values())
    if as_json:
        everything = [*entries, *WEIGHTS.values()]
        facts = [{**asdict(entry), "here": entry.path.is_file()} for entry in everything]
        click.echo(json.dumps(facts, indent=2))
        return

    for (source, licence), group in groupby(
        entries, key=lambda entry: (entry.source, entry.licence)
    ):
        click.echo(f"{source}\n  licence: {licence}")
        for entry in group:
            size = f"{entry.megabytes} MB" if entry.megabytes else ""
            notes = [f"{entry.labels} labels"] if entry.labels else []
            notes += ["here"] if entry.path.is_file() else ["by hand"] if entry.by_hand else []
            click.echo(
                f"  {entry.name:36} {entry.resolution:>5} px  {size:7} {', '.join(notes)}".rstrip()
            )

    click.echo("auxiliary weights")
    for weights in WEIGHTS.values():
        here = ", here" if weights.path.is_file() else ""
        size = f"{max(weights.bytes / 1e6, 0.1):.{0 if weights.bytes > 1e6 else 1}f} MB"
        click.echo(f"  {weights.name:36} {size:>8}  {weights.use}{here}")
        click.echo(f"    licence: {weights.licence}")


@model.command()
@click.argument("name")
@click.option(
    "--sha256",
    help="Expected checksum (default: the published one, or that of the first download, which is"
    " recorded).",
)
def fetch(name: str, sha256: str | None) -> None:
    """Download the published network or the auxiliary weights NAME to the cache folder.

    The NAME of a network then works wherever a model is expected. Auxiliary weights are found by
    what needs them: vgg16 (LPIPS), inception (FID), yunet (--face-detector yunet), clip.

    Run the same command again to resume an interrupted download. The folder is LATENTEDIT_CACHE, or
    latentedit in the user's cache folder.

    \b
    Example:
      latentedit model fetch ada-ffhq
      latentedit model fetch vgg16
    """
    from latentedit.formats.zoo import catalogue
    from latentedit.io.download import Download, checksum
    from latentedit.io.download import fetch as run
    from latentedit.io.weights import WEIGHTS, Weights

    entries: dict[str, Download] = {**catalogue(), **WEIGHTS}
    if name not in entries:
        advice = meant(name, entries, '"latentedit model zoo" lists the names')
        raise NotFoundError("unknown published network", path=name, advice=advice)
    entry = entries[name]
    click.echo(f"from {entry.address}\nlicence: {entry.licence}")
    if isinstance(entry, Weights):
        click.echo(f"size: {entry.bytes:,} bytes\nSHA-256: {entry.sha256} ({entry.digest})")
    bars: list[Any] = []
    with ExitStack() as stack:

        def progress(there: int, total: int | None) -> None:
            if not bars:  # nothing to show before the server answers
                bars.append(stack.enter_context(progress_bar(total, name, unit="B", scale=True)))
            bars[0].update(there - bars[0].n)

        path, new = run(entry, sha256, progress)

    if new:
        say_written(path)
        if not isinstance(entry, Weights):
            click.echo(f"SHA-256: {checksum(path)} ({'as given' if sha256 else 'recorded'})")
    else:
        click.echo(f"already downloaded, checksum correct: {path}")


@model.command()
@click.argument("model_name", metavar="MODEL")
@click.option(
    "--grid",
    "picture",
    type=click.Path(),
    help="Also write a grid of samples (seeds 0 to 15, psi 0.7).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
def info(model_name: str, picture: str | None, as_json: bool, device: str) -> None:
    """Show the architecture, sizes, provenance and fingerprint of MODEL, and estimate the cost of
    rendering and inverting.

    The estimates of time and memory are correct within a factor of two. The program itself needs
    another 0.4 GB.

    \b
    Example:
      latentedit model info faces128
      latentedit model info ffhq.pkl --grid samples.png
    """
    from latentedit.directions.registry import shipped
    from latentedit.model.cost import estimate_cost
    from latentedit.networks.fingerprint import fingerprint
    from latentedit.runtime.devices import resolve_device

    where = resolve_device(device)
    found = read_model(model_name, "cpu")
    parts = {
        "generator": found.generator,
        "discriminator": found.discriminator,
        "encoder": found.encoder,
    }
    own = fingerprint(found.generator)
    facts = {
        "file": found.path,
        "network": found.generator.config.kind,
        "fingerprint": own,
        **{
            name: network.config.as_dict() for name, network in parts.items() if network is not None
        },
        "num_ws": found.generator.num_ws,
        "parameters": {
            name: sum(p.numel() for p in network.parameters())
            for name, network in parts.items()
            if network is not None
        },
        "framing": found.framing,
        "directions": sorted(shipped(own)),
        "provenance": found.provenance,
        "estimate": _estimates(estimate_cost(found, where), where.type),
    }
    print_facts(facts, as_json)
    if picture:
        found.generator.to(where)
        _draw(found, list(range(16)), picture)


def _estimates(cost: "Cost", device: str) -> dict[str, object]:
    from latentedit.inversion.projector import STEPS

    def digits(value: float) -> float:
        return float(f"{value:.2g}")

    return {
        "device": device,
        "render_seconds": digits(cost.render_seconds),
        "render_gb": digits(cost.render_gb),
        "inversion_step_seconds": digits(cost.step_seconds),
        f"inversion_{STEPS['quasi-newton']}_steps_minutes": digits(
            cost.step_seconds * STEPS["quasi-newton"] / 60
        ),
        "inversion_gb": digits(cost.step_gb),
        "perceptual": cost.perceptual,
    }


def _draw(found: "Model", seeds: list[int], picture: str) -> None:
    """Draw a grid at psi 0.7; for a conditional model, with all labels in turn."""
    import torch

    from latentedit.io.contact_sheet import numbered
    from latentedit.io.images import save_image
    from latentedit.latent.w_statistics import one_hot, sample_z

    generator = found.generator
    pictures = []

    with torch.no_grad():
        for index, seed in enumerate(seeds):
            c = (
                one_hot(torch.tensor([index % generator.c_dim]), generator.c_dim).to(
                    generator.device
                )
                if generator.c_dim
                else None
            )
            ws = generator.mapping(sample_z(seed, generator.z_dim).to(generator.device), c, 0.7)
            pictures.append(generator.synthesis(ws).cpu())

    save_image(numbered(pictures, seeds), picture)
    say_written(picture)
