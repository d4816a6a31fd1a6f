"""Train the judge of edits made with `faces128`: a CNN that has seen neither model nor sliders.

    PYTHONPATH=recipes python recipes/judge.py ../shared/data/portraits --out runs/judge.safetensors

It tells glasses, beard, femininity, grey hair, bald and teeth on colour pictures of 128 px, from
the labelled portraits of `train.csv`. One network is trained on all of them and kept. Folds by
person give the accuracy on people not seen, and the logit at which an answer turns from no to yes.
Last, the judge is looked at once on `held_out.csv`, which nothing is fitted to or chosen by.

Writes the judge (recipes/portrait_judge.py asks it) and, with `--json`, every figure printed.
"""

import argparse
import csv
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from portrait_judge import ATTRIBUTES, PIXELS, SMILE, Looks, PortraitJudge, Reference, joined
from sklearn.metrics import roc_auc_score
from torch import Tensor

from latentedit.io.files import replacing
from latentedit.metrics import Judge, save_judge
from latentedit.runtime.devices import auto_precision

Numbers = NDArray[np.floating[Any]]
Rows = list[dict[str, str]]

HEADS = ("glasses", "beard", "woman", "grey_hair", "bald", "teeth")
COLLECTIONS = {
    "congress": "washington",
    "senate": "washington",
    "parliament": "westminster",
    "london": "studio",
    "canada": "studio",
}
"""Sources that look alike (backdrop, light, sharpness) count as one collection."""

RESOLUTION = 128
REDUCTION = 2
LAYERS = [(32, 5, 2), (64, 3, 2), (96, 3, 1), (160, 3, 2), (192, 3, 1)]
FIELDS = 4
BATCH = 64
LOOKED = 200
"""So many pictures are looked at between two lines of progress."""

DARK = "dark skin"
"""People of dark skin, 4 in 100, count as a collection of their own: no answer may go with skin."""

LEAST = 0.15
"""A collection weighs at least as much as this share of all pictures, were it ever so small."""

RAREST = 10.0
"""A picture weighs at most so many times what the average picture of its collection weighs."""


@dataclass
class Portraits:
    """Pictures with labels.

    Attributes:
        images: ``[N, 3, 64, 64]`` in [-1, 1], already reduced to what the judge looks at.
        labels: ``[N, heads]``, 1, 0 or NaN where unsure.
        people, collections, sources: ``[N]`` names.
        rows: what the table says of every picture.
    """

    images: Tensor
    labels: Tensor
    people: NDArray[np.str_]
    collections: NDArray[np.str_]
    sources: NDArray[np.str_]
    rows: Rows


def rows_of(table: Path) -> Rows:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def read_picture(path: Path, side: int) -> Tensor:
    """A crop as ``[3, side, side]`` in [-1, 1], reduced by area."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(path)
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    if len(picture) != side:
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1


def load(data: Path, part: str) -> Portraits:
    """The portraits of `train` or `held_out`."""
    folder = data
    rows = rows_of(folder / f"{part}.csv")
    images = torch.stack([read_picture(folder / part / row["file"], RESOLUTION) for row in rows])
    labels = [[float(row[head] or "nan") for head in HEADS] for row in rows]

    return Portraits(
        F.avg_pool2d(images, REDUCTION),
        torch.tensor(labels),
        np.array([row["person"] for row in rows]),
        np.array([DARK if row["dark_skin"] == "1" else COLLECTIONS[row["source"]] for row in rows]),
        np.array([row["source"] for row in rows]),
        rows,
    )


def balance(labels: Tensor, collections: NDArray[np.str_]) -> Tensor:
    """Weights ``[N, heads]`` with which an answer says nothing of the collection.

    Within a collection both answers weigh the same, so the judge gains nothing by telling backdrops
    apart. A collection with one answer only says nothing but that, and weighs 0; so does a missing
    label. Weights of a head have the mean 1.
    """
    weights = torch.zeros_like(labels)
    for name in np.unique(collections):
        here = torch.from_numpy(collections == name)
        for head in range(labels.shape[1]):
            cells = [here & (labels[:, head] == answer) for answer in (0, 1)]
            counts = [int(cell.sum()) for cell in cells]
            # What an answer weighs in total: half the collection, or less where so few pictures
            # have it that each would count for more than RAREST.
            share = max(sum(counts), LEAST * len(labels))
            total = min(share / 2, RAREST * min(counts))
            for cell, count in zip(cells, counts, strict=True):
                weights[cell, head] = total / max(count, 1)
    return weights / weights.mean(dim=0).clamp_min(1e-9)


def augmented(x: Tensor, random: torch.Generator) -> Tensor:
    """Pictures ``[N, 3, R, R]`` moved, recoloured, blurred, made noisy and partly covered.

    Colours change so much that neither a backdrop nor a camera is a clue, yet not so much that grey
    hair turns brown.
    """
    n = len(x)
    side = x.shape[-1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=random)

    angle = uniform(-0.25, 0.25)
    size = uniform(0.85, 1.2)
    cos = torch.cos(angle) * size
    sin = torch.sin(angle) * size
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    across = uniform(-0.15, 0.15)
    down = uniform(-0.15, 0.15)
    rows = [torch.stack([cos * flip, -sin, across], 1), torch.stack([sin * flip, cos, down], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

    grey = x.mean(dim=1, keepdim=True)
    x = torch.lerp(grey, x, uniform(0.5, 1.4, 1, 1, 1))
    x = x * uniform(0.65, 1.3, 1, 1, 1) * uniform(0.9, 1.1, 3, 1, 1)
    x = x + uniform(-0.3, 0.3, 1, 1, 1) + uniform(-0.08, 0.08, 3, 1, 1)

    # A light from one side.
    ramp = torch.linspace(-1, 1, side)
    x = x + uniform(-0.25, 0.25, 1, 1, 1) * ramp + uniform(-0.2, 0.2, 1, 1, 1) * ramp[:, None]

    blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    x = torch.lerp(x, blurred, (uniform(-1, 1, 1, 1, 1)).clamp_min(0))
    x = x + torch.randn(x.shape, generator=random) * uniform(0, 0.12, 1, 1, 1)

    places = torch.arange(side)
    extent = uniform(0.05, 0.28, 2) * side
    corner = uniform(-0.1, 0.95, 2) * side
    inside = (places >= corner[..., None]) & (places < (corner + extent)[..., None])  # [N, 2, R]
    hole = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
    return torch.where(hole, uniform(-0.8, 0.8, 3, 1, 1), x).clamp(-1.5, 1.5)


def train(portraits: Portraits, chosen: Tensor, steps: int, seed: int, name: str) -> Judge:
    """A judge of pictures that are already reduced, fitted to the rows ``chosen``."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    side = RESOLUTION // REDUCTION
    heads = dict.fromkeys(HEADS, ("no", "yes"))
    judge = Judge(3, side, heads, LAYERS, fields=FIELDS).train()
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    labels = portraits.labels[chosen]
    weights = balance(labels, portraits.collections[chosen.numpy()])
    # Pictures that weigh more are drawn more often, and count for less each time.
    odds = 0.5 + weights.mean(dim=1)
    weights = weights / odds[:, None] * odds.mean()

    decayed = [p for p in judge.parameters() if p.ndim > 1]
    others = [p for p in judge.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps, pct_start=0.2)
    started = shown = time.monotonic()
    # where it is emulated, it takes several times as long
    native = auto_precision(torch.device("cpu")) == "bf16"

    for step in range(1, steps + 1):
        rows = torch.multinomial(odds, BATCH, replacement=True, generator=random)
        x = augmented(portraits.images[chosen[rows]], random).to(memory_format=torch.channels_last)

        with torch.autocast("cpu", torch.bfloat16, enabled=native):
            logits = torch.stack(list(judge(x).values()), dim=1).float()
        target = labels[rows].nan_to_num(0.5) * 0.96 + 0.02
        each = F.binary_cross_entropy_with_logits(logits, target, weights[rows], reduction="none")
        loss = each.mean(dim=0).sum()

        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

        if time.monotonic() - shown > 5 or step == steps:
            shown = time.monotonic()
            print(
                f"{name}: step {step} of {steps}, loss {loss:.3f}, {shown - started:.0f} s",
                flush=True,
            )

    return judge.eval().requires_grad_(False)


@torch.no_grad()
def logits_of(judge: Judge, images: Tensor) -> NDArray[np.float32]:
    """Mean logits of pictures and their mirror images, ``[N, heads]``."""
    parts = []
    for some in images.split(64):
        straight, mirrored = (torch.stack(list(judge(x).values()), 1) for x in (some, some.flip(3)))
        parts.append((straight + mirrored) / 2)
    return torch.cat(parts).numpy()


def folds_of(people: NDArray[np.str_], count: int, seed: int) -> list[Tensor]:
    """The rows of every fold; a person's pictures are all in one."""
    names = np.unique(people)
    np.random.default_rng(seed).shuffle(names)
    members = [np.isin(people, names[fold::count]) for fold in range(count)]
    return [torch.from_numpy(np.flatnonzero(fold)) for fold in members]


def undecided(logits: Numbers, labels: Numbers) -> float:
    """The logit that as large a share of the positives falls below as of the negatives above."""
    negatives = logits[labels == 0]
    positives = logits[labels == 1]
    candidates = np.sort(logits)
    middles = (candidates[1:] + candidates[:-1]) / 2
    gaps = [abs((positives < at).mean() - (negatives > at).mean()) for at in middles]
    return float(middles[int(np.argmin(gaps))])


def balanced_accuracy(logits: Numbers, labels: Numbers) -> float | None:
    """Mean share of right answers over both classes, at logit 0; None where there is one class."""
    negatives = logits[labels == 0]
    positives = logits[labels == 1]
    if not len(negatives) or not len(positives):
        return None
    return float(((positives > 0).mean() + (negatives <= 0).mean()) / 2)


def accuracy(logits: Numbers, labels: Numbers, portraits: Portraits) -> dict[str, Any]:
    """Figures of one attribute; ``by_collection`` shows if a collection is told, not a face."""
    known = ~np.isnan(labels)
    by_collection = {}
    for name in np.unique(portraits.collections):
        here = known & (portraits.collections == name)
        counts = [int(np.sum(labels[here] == answer)) for answer in (0, 1)]
        right = float(((logits > 0) == (labels == 1))[here].mean())
        balanced = balanced_accuracy(logits[here], labels[here]) if min(counts) >= 5 else None
        by_collection[str(name)] = {
            "balanced_accuracy": balanced,
            "right": right,
            "no, yes": counts,
        }

    return {
        "balanced_accuracy": balanced_accuracy(logits[known], labels[known]),
        "auc": float(roc_auc_score(labels[known], logits[known])),
        "no": int(np.sum(labels == 0)),
        "yes": int(np.sum(labels == 1)),
        "by_collection": by_collection,
    }


def table(figures: dict[str, Any]) -> str:
    lines = [
        "| attribute | unseen people of train: balanced accuracy, AUC | within collections "
        "| held out: no, yes | balanced accuracy, AUC |",
        "|---" * 5 + "|",
    ]
    for head in HEADS:
        folds = figures["folds"].get(head)
        held_out = figures["held_out"][head]
        seen = f"{folds['balanced_accuracy']:.3f}, {folds['auc']:.3f}" if folds else ""
        by_collection = (folds or held_out)["by_collection"]
        within = ", ".join(
            f"{name} {found['balanced_accuracy']:.2f}"
            for name, found in by_collection.items()
            if found["balanced_accuracy"] is not None
        )
        asked = f"{held_out['no']}, {held_out['yes']}"
        last = f"{held_out['balanced_accuracy']:.3f}, {held_out['auc']:.3f}"
        lines.append(f"| {head} | {seen} | {within} | {asked} | {last} |")
    return "\n".join(lines)


def look_at(
    judge: PortraitJudge,
    data: Path,
    part: str,
    chosen: Sequence[int],
) -> tuple[Looks, Rows]:
    """What the judge sees of some photographs at 128 px, with their rows; says how far it is."""
    folder = data
    every = rows_of(folder / f"{part}.csv")
    rows = [every[i] for i in chosen]
    images = torch.stack([read_picture(folder / part / row["file"], RESOLUTION) for row in rows])
    parts = []
    started = time.monotonic()
    for first in range(0, len(images), LOOKED):
        parts.append(judge.look(images[first : first + LOOKED]))
        seconds = time.monotonic() - started
        print(
            f"{part}: looked at {sum(map(len, parts))} of {len(images)}, {seconds:.0f} s",
            flush=True,
        )
    return joined(parts), rows


def column(rows: Rows, name: str) -> Numbers:
    return np.array([float(row[name] or "nan") for row in rows])


def opened(measured: Numbers) -> float:
    """Midway between the medians of closed and open mouths; which are which, and the middle, agree.

    Begins with 0.05 of the eye distance between the inner lips as open, and moves to the middle
    until it stays.
    """
    measured = measured[~np.isnan(measured)]
    at = 0.05
    for _ in range(100):
        middle = float(np.median(measured[measured <= at]) + np.median(measured[measured > at])) / 2
        if middle == at:
            break
        at = middle
    return at


def reference_of(looks: Looks, rows: Rows, logits: dict[str, Numbers]) -> Reference:
    """Where answers turn and how far people differ, from the photographs of `train.csv`.

    Args:
        logits: of people the network has not seen, by head; the spread of its answers on pictures
            that it was trained on would be too wide.
    """
    mouth = np.stack([looks.measures[name] for name in SMILE], axis=1)
    expression = np.array([row["expression"] for row in rows])
    smiling = np.nanmean(mouth[expression == "smiling"], axis=0)
    neutral = np.nanmean(mouth[expression == "neutral"], axis=0)
    measured = looks.measures

    reference = Reference(
        smile_middle=tuple(map(float, (smiling + neutral) / 2)),
        smile_step=tuple(map(float, smiling - neutral)),
        middles={
            "mouth-open": opened(measured["mouth_open"]),
            "eyes-open": float(np.nanmedian(measured["eyes_open"])),
            "face-width": float(np.nanmedian(measured["face_width"])),
            **{name: float(np.median(measured[name])) for name in PIXELS},
        },
        deviations={"yaw": float(np.nanstd(measured["yaw"]))},
    )
    looks = replace(
        looks,
        logits={head: value.astype(float) for head, value in logits.items()},
        reference=reference,
    )
    spreads = {name: float(np.nanstd(looks.score(name))) for name in ATTRIBUTES if name != "turn"}
    return replace(reference, deviations={**reference.deviations, **spreads})


def agreement(looks: Looks, rows: Rows) -> dict[str, Any]:
    """How the landmarks' measures at 128 px compare with the table's, made on whole photographs."""
    found = {}
    for name in ("yaw", "corners_up", "mouth_width", "mouth_open", "face_width", "eyes_open"):
        own = looks.measures[name]
        given = column(rows, name)
        known = ~np.isnan(own) & ~np.isnan(given)
        found[name] = {
            "correlation": float(np.corrcoef(given[known], own[known])[0, 1]),
            "slope": float(np.polyfit(given[known], own[known], 1)[0]),
            "median_difference": float(np.median(np.abs(own - given)[known])),
        }
    return found


def pairs_of(looks: Looks, rows: Rows) -> dict[str, Any]:
    """Check on neutral and smiling photos of people that the smile is recognised and the person
    kept."""
    places: dict[str, dict[str, int]] = {"neutral": {}, "smiling": {}}
    for i, row in enumerate(rows):
        if row["expression"]:
            places[row["expression"]][row["person"]] = i
    people = sorted(places["neutral"].keys() & places["smiling"].keys())
    neutral = [places["neutral"][person] for person in people]
    smiling = [places["smiling"][person] for person in people]
    smile = looks.score("smile")
    apart = np.linalg.norm(looks.descriptors[neutral] - looks.descriptors[smiling], axis=1)

    descriptors = not np.isnan(apart).all()

    return {
        "pairs": len(people),
        "smiling_told": float((smile[smiling] > 0).mean()),
        "neutral_told": float((smile[neutral] < 0).mean()),
        "smiles_more": float((smile[smiling] > smile[neutral]).mean()),
        "difference_mean": float(np.nanmean(smile[smiling] - smile[neutral])),
        "difference_deviation": float(np.nanstd(smile[smiling] - smile[neutral])),
        "distance_median": float(np.median(apart[~np.isnan(apart)])) if descriptors else None,
        "distance_most": float(np.nanmax(apart)) if descriptors else None,
    }


def unseen(portraits: Portraits, count: int, steps: int, seed: int) -> NDArray[np.float32]:
    """Logits ``[N, heads]`` of every portrait by a judge that has seen none of that person."""
    everyone = torch.arange(len(portraits.labels))
    logits = np.zeros(portraits.labels.shape, dtype=np.float32)
    for number, out in enumerate(folds_of(portraits.people, count, seed)):
        rest = everyone[~torch.isin(everyone, out)]
        fitted = train(portraits, rest, steps, seed + 1 + number, f"fold {number}")
        logits[out.numpy()] = logits_of(fitted, portraits.images[out])
    return logits


def save(path: Path, fitted: Judge, turns: NDArray[np.float32], provenance: dict[str, Any]) -> None:
    """Write a judge of pictures of 128 px, fitted to reduced ones; its answers turn at logit 0."""
    judge = Judge(3, RESOLUTION, fitted.heads, LAYERS, REDUCTION, FIELDS)
    judge.eval().requires_grad_(False)
    judge.load_state_dict(fitted.state_dict())
    judge.head.bias.sub_(torch.from_numpy(turns))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_judge(path, judge, {"data": "portraits/train.csv", **provenance})


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--folds", type=int, default=2, help="0: none; answers turn at logit 0")
    parser.add_argument("--fold-steps", type=int, default=450)
    parser.add_argument("--steps", type=int, default=800, help="of the judge that is kept")
    parser.add_argument(
        "--every",
        type=int,
        default=3,
        help="landmarks are taken of London and of every so-many-th portrait of train",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="that look for faces at once")
    options = parser.parse_args()
    torch.set_num_threads(1)

    portraits = load(options.data, "train")
    labels = portraits.labels.numpy()
    settings = {name: getattr(options, name) for name in ("seed", "steps", "folds", "fold_steps")}
    figures: dict[str, Any] = {"settings": settings, "folds": {}}

    everyone = torch.arange(len(labels))
    fitted = train(portraits, everyone, options.steps, options.seed, "all of train")
    turns = np.zeros(len(HEADS), dtype=np.float32)
    save(options.out, fitted, turns, settings)

    logits = logits_of(fitted, portraits.images)
    if options.folds:
        logits = unseen(portraits, options.folds, options.fold_steps, options.seed)
        for i, head in enumerate(HEADS):
            known = ~np.isnan(labels[:, i])
            turns[i] = undecided(logits[known, i], labels[known, i])
            logits[:, i] -= turns[i]
            figures["folds"][head] = accuracy(logits[:, i], labels[:, i], portraits)
            print(f"unseen people: {head} {figures['folds'][head]}", flush=True)
    figures["turns"] = dict(zip(HEADS, map(float, turns), strict=True))
    save(options.out, fitted, turns, settings)

    london = portraits.sources == "london"
    chosen = [i for i in range(len(labels)) if i % options.every == 0 or london[i]]
    judge = PortraitJudge(options.out, descriptors=False, processes=options.processes)
    looks, rows = look_at(judge, options.data, "train", chosen)
    reference = reference_of(looks, rows, {head: logits[chosen, i] for i, head in enumerate(HEADS)})
    save(options.out, fitted, turns, {**settings, "reference": asdict(reference)})
    figures["reference"] = asdict(reference)
    figures["landmarks"] = {
        "pictures": len(rows),
        "found": float(looks.found.mean()),
        **agreement(looks, rows),
    }
    figures["london_pairs_of_train"] = pairs_of(replace(looks, reference=reference), rows)

    # Once, after all is settled.
    held_out = load(options.data, "held_out")
    judge = PortraitJudge(options.out, processes=options.processes)
    seen, rows = look_at(judge, options.data, "held_out", range(len(held_out.rows)))
    figures["held_out"] = {
        head: accuracy(seen.logits[head], labels, held_out)
        for head, labels in zip(HEADS, held_out.labels.T.numpy(), strict=True)
    }
    figures["held_out_found"] = float(seen.found.mean())
    figures["london_pairs_held_out"] = pairs_of(seen, rows)

    print(json.dumps(rounded(figures), indent=1))
    print(table(figures))
    print(f"wrote {options.out}")
    if options.json:
        with replacing(options.json) as path:
            path.write_text(json.dumps(rounded(figures), indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Floats of four digits after the point, at any depth."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
