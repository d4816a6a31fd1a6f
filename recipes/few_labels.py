"""Which probe to fit to few labels?

    python recipes/few_labels.py --judge runs/judge.safetensors

Random w of `faces64`, labelled by the judge (recipes/faces64_judge.py); 10 and 40 of each class, the mean AUC on all others
over 15 draws.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from latentedit.directions.effects import question
from latentedit.directions.probe import probe
from latentedit.directions.transfer import render_all
from latentedit.metrics import load_judge
from latentedit.models import load_model
from latentedit.statistics import sample_w

QUESTIONS = {"sunglasses": ("sunglasses",), "turn": ("pose", "left", "right")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    options = parser.parse_args()
    generator, judge = load_model("faces64").generator, load_judge(options.judge)
    w = sample_w(generator, 1500, seed=21)
    pictures = render_all(generator, w)
    x = w.double().numpy()
    x /= np.sqrt(np.square(x - x.mean(axis=0)).mean())
    for name, asked in QUESTIONS.items():
        with torch.no_grad():
            labels = (question(judge, *asked)(pictures) > 0).numpy().astype(float)
        for count in (10, 40):
            figures: dict[str, list[float]] = {kind: [] for kind in ("svc", "logistic", "lda")}
            for draw in range(15):
                rng = np.random.default_rng(draw)
                train = np.concatenate([rng.permutation(np.flatnonzero(labels == value))[:count] for value in (0, 1)])
                test = np.setdiff1d(np.arange(len(labels)), train)
                for kind, values in figures.items():
                    fitted = probe(kind, 0.01).fit(x[train], labels[train])
                    values.append(float(roc_auc_score(labels[test], fitted.decision_function(x[test]))))
            print(name, f"{count} + {count}", {kind: round(float(np.mean(v)), 3) for kind, v in figures.items()}, flush=True)


if __name__ == "__main__":
    main()
