"""The guide: a small network that reads attributes off portraits, and whose gradients the sliders
of `faces128` follow.

    python recipes/guide.py ../shared/data/portraits --out runs/guide.safetensors

Trained on the labelled training crops alone, reduced to 64 px: by-eye labels as yes and no,
measures of landmarks as numbers in standard deviations. Labels are weighted so that they say
nothing of the collection (`source`) a portrait is from. The guide is not the judge
(recipes/portrait_judge.py): that one is another network, on the same crops and labels, and dlib's
landmarks and descriptors, which share nothing with the guide.
"""

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from latentedit.io.images import load_image
from latentedit.io.native_file import read_tensors, write_tensors

Array = np.ndarray[Any, np.dtype[Any]]

FORMAT = "latentedit-guide"
VERSION = 1
SIDE = 64
WIDTHS = (32, 64, 96, 128)
BINARY = ("glasses", "beard", "teeth", "woman", "grey_hair", "bald", "dark_skin")
NUMERIC = ("yaw", "corners_up", "mouth_width", "mouth_open", "eyes_open", "face_width")
HEADS = (*BINARY, *NUMERIC)
STEPS = 1200
BATCH = 64
RATE = 3e-3


class Guide(nn.Module):
    """Four residual stages of stride 2; ``[N, 3, R, R]`` in [-1, 1] to ``[N, heads]``.

    A binary head is a log odds, a numeric one a number in standard deviations of the training
    crops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.halvings = nn.ModuleList()
        self.residuals = nn.ModuleList()
        before = 3
        for width in WIDTHS:
            self.halvings.append(
                nn.Sequential(nn.Conv2d(before, width, 3, 2, 1), nn.BatchNorm2d(width), nn.SiLU())
            )
            self.residuals.append(
                nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.SiLU())
            )
            before = width
        self.head = nn.Linear(WIDTHS[-1] * 16, len(HEADS))

    def forward(self, image: Tensor) -> Tensor:
        x = (
            F.interpolate(image, size=(SIDE, SIDE), mode="area")
            if image.shape[-1] != SIDE
            else image
        )
        for halving, residual in zip(self.halvings, self.residuals, strict=True):
            x = halving(x)
            x = x + residual(x)
        found: Tensor = self.head(F.dropout(x.flatten(1), 0.4, self.training))
        return found


@dataclass
class Portraits:
    """Crops ``[N, 3, 64, 64]`` with targets and weights ``[N, heads]``; a weight of 0 stands for no
    label."""

    images: Tensor
    targets: Tensor
    weights: Tensor
    people: list[str]
    rows: list[dict[str, str]]


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read(folder: Path, table: str = "train") -> Portraits:
    """The crops of ``table``.csv; numbers are standardised by those of train.csv."""
    rows = read_table(folder / f"{table}.csv")
    reference = read_table(folder / "train.csv")
    images = torch.cat([load_image(folder / table / row["file"], size=SIDE) for row in rows])
    columns = []
    weights = []
    for name in HEADS:
        values = np.array([float(row[name]) if row[name] else np.nan for row in rows])
        if name in NUMERIC:
            known = np.array([float(row[name]) for row in reference if row[name]])
            values = (values - known.mean()) / known.std()
        columns.append(np.nan_to_num(values))
        weights.append(balance(values, [row["source"] for row in rows], name in BINARY))
    targets = torch.from_numpy(np.stack(columns, 1)).float()
    return Portraits(
        images,
        targets,
        torch.from_numpy(np.stack(weights, 1)).float(),
        [row["person"] for row in rows],
        rows,
    )


def balance(values: Array, sources: list[str], binary: bool) -> Array:
    """Weights of mean 1 that make a binary label independent of the source, both classes counting
    the same; at most 8.

    Sources that give one answer alone stay, at half the weight: there the source still tells the
    label.
    """
    known = ~np.isnan(values)
    weights = known.astype(float)
    if binary:
        names = np.array(sources)
        for source in set(sources):
            here = known & (names == source)
            for value in (0.0, 1.0):
                some = here & (values == value)
                if some.any():
                    weights[some] = 0.5 * here.sum() / some.sum()
        weights = np.minimum(weights, 8.0)
    scaled: Array = weights / max(weights[known].mean(), 1e-9)
    return scaled


def augmented(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrored (the head then turns the other way), moved, and changed in colour, sharpness and
    grain, at random."""
    n = len(x)
    mirror = torch.rand(n) < 0.5
    targets = targets.clone()
    yaw = HEADS.index("yaw")
    targets[mirror, yaw] *= -1
    angle = (torch.rand(n) - 0.5) * 0.3
    size = 0.88 + 0.24 * torch.rand(n)
    cos = torch.cos(angle) * size
    sin = torch.sin(angle) * size
    shift = (torch.rand(2, n) - 0.5) * 0.2
    flip = torch.where(mirror, -1.0, 1.0)
    theta = torch.stack(
        [torch.stack([cos * flip, -sin, shift[0]], 1), torch.stack([sin * flip, cos, shift[1]], 1)],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    x = (
        x * (0.7 + 0.6 * torch.rand(n, 3, 1, 1).lerp(torch.rand(n, 1, 1, 1), 0.7))
        + (torch.rand(n, 1, 1, 1) - 0.5) * 0.5
    )
    grey = torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.3)
    x = x.lerp(x.mean(dim=1, keepdim=True).expand_as(x), grey)
    x = torch.where((torch.rand(n) < 0.3)[:, None, None, None], F.avg_pool2d(x, 3, 1, 1), x)
    x = x + torch.randn_like(x) * (0.15 * torch.rand(n, 1, 1, 1))
    top, left = torch.randint(0, SIDE - 14, (2, n, 1, 1, 1))
    down = torch.arange(SIDE)[None, None, :, None]
    across = torch.arange(SIDE)[None, None, None, :]
    hole = (down >= top) & (down < top + 14) & (across >= left) & (across < left + 14)
    return x.masked_fill(hole & (torch.rand(n, 1, 1, 1) < 0.5), 0.0), targets


def loss_of(found: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    split = len(BINARY)
    odds = F.binary_cross_entropy_with_logits(
        found[:, :split], targets[:, :split], reduction="none"
    )
    apart = 0.5 * F.smooth_l1_loss(found[:, split:], targets[:, split:], reduction="none")
    return (torch.cat([odds, apart], dim=1) * weights).mean(dim=0).sum()


def train(portraits: Portraits, chosen: Tensor, seed: int = 0, steps: int = STEPS) -> Guide:
    torch.manual_seed(seed)
    guide = Guide().train()
    optimiser = torch.optim.AdamW(guide.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    told = time.monotonic()
    for step in range(steps):
        rows = chosen[torch.randint(len(chosen), (BATCH,))]
        x, targets = augmented(portraits.images[rows], portraits.targets[rows])
        loss = loss_of(guide(x), targets, portraits.weights[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if time.monotonic() - told > 5:
            print(f"step {step + 1} of {steps}, loss {float(loss.detach()):.3f}", flush=True)
            told = time.monotonic()
    return guide.eval().requires_grad_(False)


@torch.no_grad()
def report(guide: Guide, portraits: Portraits, rows: Tensor) -> dict[str, float]:
    """A head's AUC or, of numbers, its correlation, on portraits that the guide has not seen."""
    found = torch.cat([guide(x) for x in portraits.images[rows].split(128)]).numpy()
    targets = portraits.targets[rows].numpy()
    weights = portraits.weights[rows].numpy()
    figures = {}
    for i, name in enumerate(HEADS):
        known = weights[:, i] > 0
        if name in BINARY:
            figures[name] = float(
                roc_auc_score(targets[known, i], found[known, i], sample_weight=weights[known, i])
            )
        else:
            figures[name] = float(np.corrcoef(targets[known, i], found[known, i])[0, 1])
    return figures


def save(path: Path, guide: Guide, facts: dict[str, float]) -> None:
    write_tensors(path, FORMAT, VERSION, {"report": facts}, guide.state_dict())


def load(path: Path) -> tuple[Guide, dict[str, float]]:
    header, tensors = read_tensors(path, FORMAT, VERSION)
    guide = Guide()
    guide.load_state_dict(tensors)
    return guide.eval().requires_grad_(False), header["report"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/guide.safetensors"))
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()

    portraits = read(options.data)
    people = np.array(portraits.people)
    unseen = np.array([hash_of(person) % 5 == 0 for person in people])
    fitted = train(portraits, torch.from_numpy(np.flatnonzero(~unseen)), steps=options.steps)
    facts = report(fitted, portraits, torch.from_numpy(np.flatnonzero(unseen)))
    print(
        "a fifth of the people, unseen:",
        "  ".join(f"{name} {value:.3f}" for name, value in facts.items()),
        flush=True,
    )
    save(options.out, fitted, facts)
    print(f"wrote {options.out}")


def hash_of(person: str) -> int:
    """The same number everywhere, unlike `hash`."""
    return int(sum(ord(letter) * pow(31, i) for i, letter in enumerate(person))) // 7


if __name__ == "__main__":
    main()
