"""Which probe to fit to few labels?

    python recipes/few_labels.py runs/judge.safetensors

Random w of a model, labelled by a judge (docs/formats.md) of its pictures. It is asked about every
attribute of two classes, and about every class of the others against the rest, where a tenth of the
pictures or more have it and lack it. Prints the mean AUC of probes of 10 and of 40 of each class,
on all others, over 15 draws.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from latentedit.directions.effects import question
from latentedit.directions.photo_features import render_all
from latentedit.directions.probe import probe
from latentedit.formats.load_model import load_model
from latentedit.latent.w_statistics import sample_w
from latentedit.metrics import Judge, load_judge

DRAWS = 15
RAREST = 0.1
"""Share of the pictures that the smaller class must have, so that there are enough for training and
for testing."""


def questions(judge: Judge) -> list[tuple[str, ...]]:
    """What can be asked: (head,) of two classes, (head, class) of several."""
    found: list[tuple[str, ...]] = []
    for head, classes in judge.heads.items():
        found += [(head,)] if len(classes) == 2 else [(head, one) for one in classes]
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("judge", type=Path)
    parser.add_argument("--model", default="faces128")
    parser.add_argument("--samples", type=int, default=1500)
    options = parser.parse_args()

    judge = load_judge(options.judge)
    generator = load_model(options.model).generator
    w = sample_w(generator, options.samples, seed=21)
    pictures = render_all(generator, w)
    x = w.double().numpy()
    x /= np.sqrt(np.square(x - x.mean(axis=0)).mean())

    for asked in questions(judge):
        labels = (question(judge, *asked)(pictures) > 0).numpy().astype(float)
        share = float(min(labels.mean(), 1 - labels.mean()))
        if share < RAREST:
            print(
                f"{':'.join(asked)}: left out, the smaller class is {share:.0%} of the pictures",
                flush=True,
            )
            continue
        for count in (10, 40):
            figures = compared(x, labels, count)
            print(f"{':'.join(asked)} {count} + {count} {figures}", flush=True)


def compared(x: np.ndarray, labels: np.ndarray, count: int) -> dict[str, float]:
    """Mean AUC of every kind of probe fitted to ``count`` samples of each class of
    ``x [n, w_dim]``, on all others."""
    found: dict[str, list[float]] = {kind: [] for kind in ("svc", "logistic", "lda")}
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        train = np.concatenate(
            [rng.permutation(np.flatnonzero(labels == value))[:count] for value in (0, 1)]
        )
        test = np.setdiff1d(np.arange(len(labels)), train)
        for kind, values in found.items():
            fitted = probe(kind, 0.01).fit(x[train], labels[train])
            values.append(float(roc_auc_score(labels[test], fitted.decision_function(x[test]))))
    return {kind: round(float(np.mean(values)), 3) for kind, values in found.items()}


if __name__ == "__main__":
    main()
