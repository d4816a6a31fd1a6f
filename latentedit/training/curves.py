"""The log of a run as a picture of curves."""

import io
import os
from typing import Any

from latentedit.errors import Error, shown
from latentedit.io.budget import parse_json
from latentedit.io.files import write_bytes

PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("losses", {"loss_g": "generator", "loss_d": "discriminator"}),
    ("discriminator outputs", {"logits_real": "real", "logits_fake": "generated"}),
    (
        "without augmentation, at snapshots",
        {
            "logits_train": "training",
            "logits_held_out": "held out",
            "logits_generated": "generated",
        },
    ),
    ("augmentation", {"ada_p": "strength p", "r_t": "r_t"}),
    ("regularisers", {"r1": "R1 penalty", "path_length": "path length"}),
    ("spread over a batch", {"spread_real": "real", "spread_fake": "generated"}),
)


MEASURES = 12
"""That are drawn; a log that was tampered with can name thousands."""
LINE = 1 << 16
"""Bytes of a record; those that are written have less than a thousand."""


def read_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Return the records of a ``log.jsonl``, all with their ``kimg``; lines that were cut off or
    hold anything else are left out."""
    records = []
    with open(path, "rb") as file:
        while line := file.readline(LINE):
            try:
                record = parse_json(line)
            except Error:
                continue
            if (
                isinstance(record, dict)
                and "kimg" in record
                and all(_is_figure(value) for value in record.values())
            ):
                records.append(record)

    return records


def _is_figure(value: Any) -> bool:
    """Return whether ``value`` is a number that can be drawn; of one that is not finite nothing
    is."""
    return isinstance(value, int | float) and abs(value) <= 1e300


def save_curves(log: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Draw losses, discriminator outputs, augmentation, regularisers and measures over thousands of
    pictures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_log(log)
    metrics = sorted({name for record in records for name in record if name.startswith("metric/")})[
        :MEASURES
    ]
    measures = {name: shown(name.removeprefix("metric/")) for name in metrics}
    panels = [*PANELS, *((called, {name: called}) for name, called in measures.items())]
    rows = -(-len(panels) // 3)
    height = 2.8 * rows
    figure = Figure(figsize=(12, height))
    FigureCanvasAgg(figure)

    # Margins in inches: to have them found, Matplotlib would draw everything twice.
    figure.subplots_adjust(
        left=0.6 / 12,
        right=1 - 0.15 / 12,
        bottom=0.5 / height,
        top=1 - 0.3 / height,
        wspace=0.2,
        hspace=0.42,
    )
    axes: Any = figure.subplots(rows, 3, squeeze=False)

    for axis, (title, lines) in zip(axes.flat, panels, strict=False):
        for name, label in lines.items():
            points = [(record["kimg"], record[name]) for record in records if name in record]
            if points:
                x, y = zip(*_averaged(points), strict=True)
                axis.plot(x, y, label=label, marker="." if len(points) < 40 else None, linewidth=1)

        axis.set_title(title, fontsize=9, parse_math=False)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("thousands of images", fontsize=7)
        if axis.lines:
            for text in axis.legend(fontsize=7).get_texts():
                text.set_parse_math(False)  # a name with dollars is no formula

    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    write_bytes(path, buffer.getvalue())


def _averaged(points: list[tuple[float, float]], count: int = 400) -> list[tuple[float, float]]:
    """At most ``count`` points, each the mean of its neighbours."""
    size = -(-len(points) // count)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
