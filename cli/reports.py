"""``directions report``, ``compare`` and ``condition``: the effect and the side effects of a
direction."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli import log
from latentedit.cli.common import (
    MOST,
    device_option,
    model_option,
    print_facts,
    progress_bar,
    read_model,
    say,
    say_written,
)
from latentedit.errors import ArgumentError

if TYPE_CHECKING:
    from latentedit.directions import Direction
    from latentedit.directions.effects import Effect, Score
    from latentedit.model.model import Model

PICTURES = 100


def parse_question(text: str) -> tuple[str, str | None, str | None]:
    """``"HEAD"``, ``"HEAD:YES"`` or ``"HEAD:YES/NO"``."""
    head, _, classes = text.partition(":")
    yes, _, no = classes.partition("/")
    if not head:
        raise ArgumentError(f"--ask takes HEAD, HEAD:YES or HEAD:YES/NO, got {text!r}")
    return head, yes or None, no or None


def judged(
    direction: "Direction", model: "Model", judge: str, ask: str | None, pictures: int
) -> tuple["Effect", list[float]]:
    """Measure ``direction`` on random images, and every layer alone, with the attribute classifier
    in the file ``judge``."""
    from latentedit.directions.effects import AMOUNTS, effect_of_layers, measure_effect, question
    from latentedit.latent.spaces import space_of
    from latentedit.metrics import load_judge

    found = load_judge(judge)
    head, yes, no = parse_question(ask or direction.name)
    score = question(found, head, yes, no)
    others: dict[str, Score] = {
        name: question(found, name, None if len(classes) == 2 else classes[0])
        for name, classes in found.heads.items()
        if name != head
    }
    generator = model.generator
    space = space_of(direction.space)
    base = space.random(generator, pictures, seed=1)
    with progress_bar(len(AMOUNTS), "measuring", "amount") as bar:
        effect = measure_effect(
            generator,
            direction,
            base,
            score,
            others=others,
            discriminator=model.discriminator,
            progress=lambda done, _: bar.update(done - bar.n),
        )

    by_layer = effect_of_layers(generator, direction, base, score) if space.linear else []
    return effect, by_layer


def own_direction(name: str, model: "Model") -> "Direction":
    from latentedit.directions.direction import check_generator
    from latentedit.directions.registry import load_direction
    from latentedit.networks.fingerprint import fingerprint

    own = fingerprint(model.generator)
    direction = load_direction(name, own)
    check_generator(direction, own, model.path)
    return direction


def known_directions(model: "Model") -> list["Direction"]:
    """Return the user's own and the bundled directions of this generator."""
    from latentedit.directions.direction import read_direction
    from latentedit.directions.registry import own_directions, shipped
    from latentedit.networks.fingerprint import fingerprint

    own = fingerprint(model.generator)
    return [read_direction(path) for path in {**shipped(own), **own_directions(own)}.values()]


def judge_options(function: Any) -> Any:
    function = click.option(
        "--pictures",
        default=PICTURES,
        show_default=True,
        type=click.IntRange(2, MOST),
        help="Number of random images to measure on.",
    )(function)
    text = (
        "Attribute of the classifier: HEAD, HEAD:YES, or HEAD:YES/NO (default: the direction's "
        "name)."
    )
    function = click.option("--ask", metavar="HEAD[:YES[/NO]]", help=text)(function)
    return click.option(
        "--judge", type=click.Path(), help="Independent attribute classifier (docs/formats.md)."
    )(function)


@click.command()
@click.argument("name", metavar="NAME|FILE")
@judge_options
@model_option()
@click.option(
    "--out",
    type=click.Path(),
    required=True,
    help="Folder for the direction with its report, and for its card and curves.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
def report(
    name: str,
    judge: str | None,
    ask: str | None,
    pictures: int,
    model_name: str,
    out: str,
    as_json: bool,
    device: str,
) -> None:
    """Report the side effects of a direction and, with --judge, its success rate.

    \b
    Example:
      latentedit directions report turn --judge judge.safetensors --ask pose:left/right --out
          reports
    """
    from latentedit.directions.report import card, plot, with_report
    from latentedit.io.files import write_bytes
    from latentedit.io.images import own_path, save_image

    model = read_model(model_name, device)
    direction = own_direction(name, model)
    effect, by_layer = judged(direction, model, judge, ask, pictures) if judge else (None, [])
    direction = with_report(
        direction, model.generator, others=known_directions(model), effect=effect, by_layer=by_layer
    )
    places = [
        own_path(Path(out) / f"{direction.name}{ending}", "report")
        for ending in (".safetensors", ".md", ".png")
    ]
    direction.save(places[0])
    write_bytes(places[1], card(direction).encode())
    save_image(plot(direction), places[2])
    print_facts(
        {"name": direction.name, "space": direction.space, "report": direction.report}, as_json
    )
    if not as_json:
        for place in places:
            say_written(place)


@click.command()
@click.argument("names", metavar="NAME|FILE...", nargs=-1, required=True)
@judge_options
@model_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
def compare(
    names: tuple[str, ...],
    judge: str | None,
    ask: str | None,
    pictures: int,
    model_name: str,
    as_json: bool,
    device: str,
) -> None:
    """Compare several directions, and show how much each changes the scores of the others.

    With --judge, the same --ask applies to all of them.

    \b
    Example:
      latentedit directions compare smile glasses turn
    """
    from latentedit.directions.report import compared, leakages, with_report

    model = read_model(model_name, device)
    directions = [own_direction(name, model) for name in names]
    if judge:
        directions = [
            with_report(d, model.generator, effect=judged(d, model, judge, ask, pictures)[0])
            for d in directions
        ]
    if as_json:
        facts = [{"name": d.name, "space": d.space, "report": d.report} for d in directions]
        changes = leakages(directions, model.generator)
        click.echo(json.dumps({"directions": facts, "one_sigma_changes": changes}, indent=2))
        return
    for line in compared(directions, model.generator).splitlines():
        say(line)


@click.command()
@click.argument("name", metavar="NAME|FILE")
@click.option(
    "--keep",
    required=True,
    metavar="NAME,...|auto",
    help="Directions whose scores must not change; auto selects them.",
)
@click.option(
    "--name", "called", help="Name of the new direction (default: the old name with -alone)."
)
@model_option()
@click.option(
    "--out", type=click.Path(dir_okay=False), required=True, help="Direction file (.safetensors)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
def condition(
    name: str,
    keep: str,
    called: str | None,
    model_name: str,
    out: str,
    as_json: bool,
    device: str,
) -> None:
    """Make a direction that does not change the scores of others, however correlated they are.

    The result is a new direction with its own name. Use "directions report" to measure its effect.

    \b
    Example:
      latentedit directions condition glasses --keep turn,femininity --out glasses-only.safetensors
    """
    if not out.endswith(".safetensors"):
        raise ArgumentError(f"--out must end in .safetensors, got {out}")

    model = read_model(model_name, device)
    direction = own_direction(name, model)
    found = kept(direction, keep, model, called)
    found.save(out)
    if as_json:
        facts = {"name": found.name, "report": found.report, "written": out}
        click.echo(json.dumps(facts, indent=2))
        return
    if found is not direction:
        say(
            f"{found.name}: keeps {', '.join(found.report['kept'])}; cosine with the original"
            f" {found.report['cosine_with_unconditioned']}"
        )

    say_written(out)


def kept(direction: "Direction", keep: str, model: "Model", name: str | None = None) -> "Direction":
    """Return ``direction`` conditioned on those named, or on those that its leakage selects; itself
    if there are none."""
    from latentedit.directions.conditioning import conditioned, to_keep
    from latentedit.latent.spaces import space_of

    generator = model.generator
    if keep == "auto":
        others = [
            d
            for d in known_directions(model)
            if d.name != direction.name and space_of(d.space).linear
        ]
        chosen = to_keep(direction, others, generator.num_ws, generator.w_dim)
        if not chosen:
            log.remark(
                f"{direction.name} changes no known direction by 0.2 sigmas per sigma or more: "
                "nothing to keep"
            )
            return direction
    else:
        chosen = [own_direction(name, model) for name in keep.split(",")]

    return conditioned(direction, chosen, generator, name=name)
