"""The judge: a small CNN that tells sunglasses and pose on the CMU photographs, independent of generator and probes.

    python recipes/faces64_judge.py ../shared/data --out runs/judge.safetensors

Four convolutions, global averaging, strong augmentation. Prints its own accuracy on unseen people (four folds by person
over the people it may see) and on the people kept out of all training, then trains on everyone but those.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from faces64_data import KEPT_OUT_CMU, cmu_crop, person
from torch import Tensor

from latentedit.images import to_tensor
from latentedit.metrics import Judge, save_judge

POSES = ("straight", "left", "right", "up")
STEPS, BATCH = 900, 64
HEADS = {"sunglasses": ("no", "yes"), "pose": POSES}


@dataclass
class Photographs:
    images: Tensor
    sunglasses: Tensor
    pose: Tensor
    people: list[str]


def load(data: Path) -> Photographs:
    """Every CMU photograph; file names read person_pose_expression_eyes.png."""
    paths = sorted((data / "cmu_faces" / "images").glob("*.png"))
    parts = [path.stem.split("_") for path in paths]
    return Photographs(
        torch.cat([to_tensor(cmu_crop(path)) for path in paths]),
        torch.tensor([float(part[3] == "sunglasses") for part in parts]),
        torch.tensor([POSES.index(part[1]) for part in parts]),
        [person(path) for path in paths],
    )


def augmented(x: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Random mirror (left and right change places), rotation, scale, shift, brightness, contrast, noise, cutout."""
    n = len(x)
    mirror = torch.rand(n) < 0.5
    swapped = torch.tensor([0, 2, 1, 3])[pose]
    pose = torch.where(mirror, swapped, pose)
    angle, size = (torch.rand(n) - 0.5) * 0.5, 0.8 + 0.4 * torch.rand(n)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    shift = (torch.rand(2, n) - 0.5) * 0.35
    flip = torch.where(mirror, -1.0, 1.0)
    theta = torch.stack([torch.stack([cos * flip, -sin, shift[0]], 1), torch.stack([sin * flip, cos, shift[1]], 1)], 1)
    x = F.grid_sample(
        x, F.affine_grid(theta, list(x.shape), align_corners=False), padding_mode="reflection", align_corners=False
    )
    x = x * (0.6 + 0.8 * torch.rand(n, 1, 1, 1)) + (torch.rand(n, 1, 1, 1) - 0.5) * 0.6
    x = x + torch.randn_like(x) * (0.15 * torch.rand(n, 1, 1, 1))
    blurred = F.avg_pool2d(x, 3, 1, 1)
    x = torch.where((torch.rand(n) < 0.3)[:, None, None, None], blurred, x)
    top, left = torch.randint(0, 52, (2, n, 1, 1, 1))
    rows, columns = torch.arange(64)[None, None, :, None], torch.arange(64)[None, None, None, :]
    hole = (rows >= top) & (rows < top + 12) & (columns >= left) & (columns < left + 12)
    return x.masked_fill(hole, 0.0), pose


def train(photographs: Photographs, chosen: Tensor, seed: int = 0, steps: int = STEPS) -> Judge:
    torch.manual_seed(seed)
    judge = Judge(1, 64, HEADS).train()
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        rows = chosen[torch.randint(len(chosen), (BATCH,))]
        x, pose = augmented(photographs.images[rows], photographs.pose[rows])
        found = judge(x)
        loss = F.binary_cross_entropy_with_logits(found["sunglasses"], photographs.sunglasses[rows])
        loss = loss + F.cross_entropy(found["pose"], pose)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(judge: Judge, photographs: Photographs, rows: Tensor) -> tuple[float, float]:
    found = judge(photographs.images[rows])
    right_glasses = ((found["sunglasses"] > 0).float() == photographs.sunglasses[rows]).float().mean()
    return float(right_glasses), float((found["pose"].argmax(1) == photographs.pose[rows]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--folds", type=int, default=4)
    options = parser.parse_args()
    photographs = load(options.data)
    names = np.array(photographs.people)
    seen = [name for name in sorted(set(names)) if name not in KEPT_OUT_CMU]
    figures = []
    for fold in range(options.folds):
        out = np.isin(names, seen[fold :: options.folds])
        fitted = train(photographs, torch.from_numpy(np.flatnonzero(~out & np.isin(names, seen))))
        figures.append(accuracy(fitted, photographs, torch.from_numpy(np.flatnonzero(out))))
        print(f"fold {fold}: sunglasses {figures[-1][0]:.3f}, pose {figures[-1][1]:.3f}", flush=True)
    if figures:
        print("unseen people: sunglasses {:.3f}, pose {:.3f}".format(*np.mean(figures, axis=0)))
    judge = train(photographs, torch.from_numpy(np.flatnonzero(np.isin(names, seen))))
    kept_out = torch.from_numpy(np.flatnonzero(~np.isin(names, seen)))
    print("kept-out people: sunglasses {:.3f}, pose {:.3f}".format(*accuracy(judge, photographs, kept_out)))
    save_judge(options.out, judge, {"data": "cmu_faces without the people kept out", "steps": STEPS})
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
