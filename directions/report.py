"""The report of a direction: as JSON in its file, as a Markdown card, and as an image of its
curves."""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from latentedit.directions.chance import doubts_about
from latentedit.directions.conditioning import LEAKS, leakage, to_keep
from latentedit.directions.direction import Direction
from latentedit.directions.effects import Effect
from latentedit.directions.validation import propose_layers
from latentedit.errors import complete, printable
from latentedit.latent.editing import step_of
from latentedit.latent.spaces import space_of
from latentedit.networks.generator import Generator


def with_report(
    direction: Direction,
    generator: Generator,
    *,
    others: Sequence[Direction] = (),
    effect: Effect | None = None,
    by_layer: Sequence[float] = (),
) -> Direction:
    """Return ``direction`` with a report that goes beyond the probe's own figures.

    Args:
        others: known directions of the same generator, whose scores should not change; those of the
            same name are skipped.
        effect: as `latentedit.directions.effects.measure_effect` measured it.
        by_layer: as `latentedit.directions.effects.effect_of_layers` measured it.
    """
    report = dict(direction.report)
    known = [d for d in others if d.name != direction.name and space_of(d.space).linear]
    if space_of(direction.space).linear:
        step_of(torch.zeros(1, generator.num_ws, generator.w_dim), direction)  # for its checks
        if known:
            matrix = leakage([direction, *known], generator.num_ws, generator.w_dim)
            report["leakage"] = {
                d.name: round(float(matrix[0, i + 1]), 3) for i, d in enumerate(known)
            }
            report["keep"] = [
                d.name for d in to_keep(direction, known, generator.num_ws, generator.w_dim)
            ]

    if effect is not None:
        report["effect"] = effect.summary()

    if any(by_layer):
        report["by_layer"] = list(by_layer)
        report["proposed_layers"] = list(propose_layers(by_layer))
    return replace(direction, report=report)


def _named(direction: Direction) -> AbstractContextManager[None]:
    """Turn the failures of a report with an unexpected form, which a file may have, into an `Error`
    that says so."""
    return complete(f"direction {direction.name}", "report")


def card(direction: Direction) -> str:
    """Return the report as Markdown; raise `Error` if its form is not that of `with_report`."""
    with _named(direction):
        return _card(direction)


def _card(direction: Direction) -> str:
    r = direction.report
    layers = (
        f"layers {direction.layers[0]}-{direction.layers[1]}" if direction.layers else "all layers"
    )
    lines = [
        f"# {direction.name}",
        "",
        f"Space {direction.space}, {layers}, generator `{direction.fingerprint[:12]}`.",
        "",
    ]
    facts: list[tuple[str, str]] = []

    for prefix, what in (("", "probe"), ("photo_", "photo classifier")):
        for key, figure in (("auc", "AUC"), ("r2", "R2"), ("r", "correlation")):
            if f"{prefix}{key}" in r:
                text = f"{r[prefix + key]:.3f}"
                if f"{prefix}{key}_interval" in r:
                    low, high = r[f"{prefix}{key}_interval"]
                    text += f" ({low:.3f} to {high:.3f})"
                facts.append((f"{figure} of the {what} on held-out data", text))
                if r.get(f"{prefix}{key}_shuffled") is not None:
                    facts.append(
                        (f"{figure} with shuffled labels", f"{r[f'{prefix}{key}_shuffled']:.3f}")
                    )

    if "samples" in r:
        of = f", in {r['groups']} groups" if r.get("groups") else ""
        facts.append(("labelled latents", f"{r['samples']}{of}"))

    if r.get("angle") is not None:
        facts.append(
            ("angle between directions from resampled labels", f"{r['angle']:.0f} degrees")
        )

    if r.get("layers_alone"):
        first = direction.layers[0] if direction.layers else 0
        alone = ", ".join(f"{first + i}: {value:.2f}" for i, value in enumerate(r["layers_alone"]))
        facts.append(("AUC (or R2) of probes of a single layer", alone))

    if r.get("telling_layers"):
        low, high = r["telling_layers"]
        facts.append(("layers that reach nine tenths of it", f"`--layers {low}-{high}`"))

    if r.get("gain_of_doubling") is not None:
        facts.append(("expected gain from twice the labels", f"+{r['gain_of_doubling']:.3f}"))

    if r.get("kept"):
        facts.append(("does not change", ", ".join(r["kept"])))

    if "leakage" in r:
        moved = ", ".join(f"{name} {value:+.2f}" for name, value in r["leakage"].items())
        facts.append(("change of other scores, in sigmas per sigma", moved))
        if r.get("keep"):
            facts.append(
                ("scores worth keeping (change of 0.2 or more)", f"`--keep {','.join(r['keep'])}`")
            )

    effect = r.get("effect")
    if effect:
        for amount, (share, count) in effect["brought_over"].items():
            facts.append((f"success rate at {amount} sigmas", f"{share:.0%} of {count}"))
        for amount, share in effect.get("side_effects_over_random", {}).items():
            facts.append(
                (
                    f"side effects at {amount} sigmas, minus those of a random direction",
                    f"{share:+.1%}",
                )
            )

        for amount, shares in effect.get("side_effects", {}).items():
            changed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            facts.append((f"side effects at {amount} sigmas", changed))
        if effect.get("whole"):
            low, high = effect["whole"]
            facts.append(("in-domain images", f"from {low:+g} to {high:+g} sigmas"))
        if effect.get("recognised"):
            known = ", ".join(
                f"{share:.0%} at {a:+g}"
                for a, share in zip(effect["amounts"], effect["recognised"], strict=True)
                if abs(a) in (1.0, 2.0)
            )
            facts.append((f"identity preservation among {effect['pictures']} images", known))

    if r.get("proposed_layers"):
        low, high = r["proposed_layers"]
        facts.append(("layers with nine tenths of the effect", f"{low}-{high}"))

    lines += [
        line
        for sentence in doubts_about(r)
        for line in (f"**{sentence[0].upper()}{sentence[1:]}.**", "")
    ]
    lines += ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in facts), ""]
    if direction.provenance:
        lines += [
            "Made from: "
            + "; ".join(f"{k} {_plain(v)}" for k, v in direction.provenance.items() if v)
            + ".",
            "",
        ]

    return "\n".join(lines)


def _plain(value: Any) -> str:
    return printable(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def plot(direction: Direction) -> Image.Image:
    """Plot the report: the classifier's answers over the amounts, the learning curve and the
    leakage, as far as measured."""
    with _named(direction):
        return _plot(direction)


def _plot(direction: Direction) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    r = direction.report
    effect = r.get("effect") or {}
    curve = r.get("learning_curve") or []
    leaks = r.get("leakage") or {}
    layers = r.get("by_layer") or []
    found = (("effect", effect.get("yes")), ("layers", layers), ("curve", curve), ("leaks", leaks))
    panels = [kind for kind, there in found if there]
    # Two beside one another at most, so that all can be read on a phone.
    columns = min(max(len(panels), 1), 2)
    rows = max(-(-len(panels) // columns), 1)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(direction.name, fontsize=13)

    for place, kind in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        if kind == "effect":
            axes.plot(effect["amounts"], effect["yes"], "o-")
            axes.set(
                xlabel="amount, sigmas",
                ylabel="share with the attribute",
                ylim=(-0.03, 1.2),
                yticks=[0, 0.25, 0.5, 0.75, 1],
                title="effect",
            )
            if effect.get("recognised"):
                axes.plot(
                    effect["amounts"],
                    effect["recognised"],
                    ":",
                    color="tab:grey",
                    label="identity preserved",
                )

            if effect.get("whole"):
                axes.axvspan(*effect["whole"], alpha=0.12, color="tab:green", label="in-domain")
            if effect.get("whole") or effect.get("recognised"):
                axes.legend(fontsize=8, loc="upper center", ncols=2)  # above what is drawn
        elif kind == "layers":
            axes.bar(range(len(layers)), layers)
            axes.set(
                xlabel="single layer, edited by 2 sigmas",
                ylabel="change of log odds",
                title="layers",
            )
        elif kind == "curve":
            axes.plot([n for n, _ in curve], [v for _, v in curve], "o-")
            axes.set(xlabel="labels", ylabel="AUC" if "auc" in r else "R2", xscale="log")
            axes.set_title("learning curve")
            axes.set_xticks([n for n, _ in curve], [str(n) for n, _ in curve])
            axes.minorticks_off()
        else:
            axes.barh(list(leaks), list(leaks.values()))
            axes.axvline(0, color="black", linewidth=0.8)
            axes.axvspan(-LEAKS, LEAKS, alpha=0.12, color="tab:green")
            axes.set(xlabel="change by one step, sigmas", title="other sliders")

    if not panels:
        figure.text(0.5, 0.4, "nothing measured yet", ha="center")

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    buffer.seek(0)
    return Image.open(buffer, formats=("PNG",)).convert("RGB")


def compared(directions: Sequence[Direction], generator: Generator) -> str:
    """Return a Markdown table of several directions, and of how much each changes the scores of the
    others."""
    lines = [
        "| | space | held-out | success rate at +2 | success rate at -2 | largest side effect | "
        "in-domain |",
        "|---|---|---|---|---|---|---|",
    ]
    for d in directions:
        with _named(d):
            lines.append(_row(d))

    changes = leakages(directions, generator)
    if len(changes) > 1:
        lines += [
            "",
            "| one sigma of ... changes | " + " | ".join(changes) + " |",
            "|---" * (len(changes) + 1) + "|",
        ]
        for name, row in changes.items():
            lines.append(f"| {name} | " + " | ".join(f"{v:+.2f}" for v in row.values()) + " |")

    return "\n".join(lines) + "\n"


def leakages(directions: Sequence[Direction], generator: Generator) -> dict[str, dict[str, float]]:
    """Return by how many sigmas one sigma of a direction changes the scores of the others, for
    those whose edits are linear."""
    linear = [d for d in directions if space_of(d.space).linear]
    if len(linear) < 2:
        return {}
    matrix = leakage(linear, generator.num_ws, generator.w_dim)
    return {
        d.name: {other.name: float(v) for other, v in zip(linear, row, strict=True)}
        for d, row in zip(linear, matrix, strict=True)
    }


def _row(direction: Direction) -> str:
    r = direction.report
    effect = direction.report.get("effect")
    figure = next(
        (f"{label} {r[k]:.3f}" for k, label in (("auc", "AUC"), ("r2", "R2")) if k in r), ""
    )
    over = {a: f"{s:.0%} of {n}" for a, (s, n) in effect["brought_over"].items()} if effect else {}
    side = (
        max((v for s in effect.get("side_effects", {}).values() for v in s.values()), default=None)
        if effect
        else None
    )
    whole = "{:+g} to {:+g}".format(*effect["whole"]) if effect and effect.get("whole") else ""
    return (
        f"| {direction.name} | {direction.space} | {figure} | {over.get('+2', '')} | "
        f"{over.get('-2', '')} |"
        f" {'' if side is None else f'{side:.0%}'} | {whole} |"
    )
