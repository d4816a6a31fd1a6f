"""Labels that go along with another column: told of, and made independent of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latentedit.cli.fitting import _warn
from latentedit.directions import fit, read_labels
from latentedit.directions.balancing import balanced, balanced_rows, telling_columns
from latentedit.directions.labels import LabelTable
from latentedit.errors import Error
from tests.helpers import tiny_generator

GENERATOR = tiny_generator()
TEETH, BACKDROP = torch.eye(12)[0], torch.eye(12)[1]


def planted(count: int = 600) -> tuple[torch.Tensor, LabelTable]:
    """Teeth along one axis and a backdrop along another; nine in ten of those who show teeth stand
    before the light one."""
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.normal(size=(count, 12)).astype(np.float32))
    teeth = (w @ TEETH > 0).numpy()
    light = np.where(rng.random(count) < 0.9, teeth, ~teeth)
    w[:, 1] = torch.from_numpy(np.where(light, 1.5, -1.5) + 0.3 * rng.normal(size=count))
    others = {
        "backdrop": ["light" if one else "dark" for one in light],
        "camera": [str(i) for i in rng.integers(0, 3, count)],
        "note": [str(i) for i in range(count)],
    }
    return w, LabelTable(
        [Path(f"{i}.png") for i in range(count)], teeth.astype(float), None, others
    )


def test_what_predicts_the_labels_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _, labels = planted()
    (found,) = telling_columns(labels)
    assert found[0] == "backdrop"
    assert 0.85 < found[1] < 0.95
    _warn([("teeth", labels)], [])
    assert "teeth: the column backdrop predicts these labels (AUC 0." in caplog.text
    caplog.clear()
    _warn([("teeth", labels)], ["backdrop"])
    assert caplog.text == ""
    assert (
        telling_columns(
            LabelTable(labels.paths[:10], labels.values[:10], None, {"note": ["a"] * 5 + ["b"] * 5})
        )
        == []
    )


def test_balanced_labels_are_independent_and_the_direction_is_the_attribute() -> None:
    w, labels = planted()
    rows = balanced_rows(labels, ["backdrop"])
    table = balanced(labels, rows)
    assert telling_columns(table) == []
    light = np.array([text == "light" for text in table.others["backdrop"]])
    assert table.values[light].mean() == pytest.approx(table.values[~light].mean(), abs=0.01)
    assert table.groups is not None
    assert len(set(table.groups)) == len(set(rows.tolist()))

    plain = fit(w, labels.values, generator=GENERATOR, strength=1.0)
    even = fit(w[rows], table.values, generator=GENERATOR, strength=1.0, groups=table.groups)
    assert abs(float(even.vector @ BACKDROP)) < 0.5 * abs(float(plain.vector @ BACKDROP))
    assert float(even.vector @ TEETH) > 0.95
    # What praised the backdrop is gone from the figures: the folds are of the balanced samples.
    only_backdrop = w[:, 1:2].expand(-1, 12)
    blind = fit(
        only_backdrop[rows], table.values, generator=GENERATOR, strength=1.0, groups=table.groups
    )
    assert blind.report["auc"] < 0.6
    assert fit(only_backdrop, labels.values, generator=GENERATOR, strength=1.0).report["auc"] > 0.85


def test_what_cannot_be_balanced() -> None:
    _, labels = planted(100)
    with pytest.raises(
        Error,
        match="no column 'hat' to balance the labels by; the other columns are backdrop, camera, "
        "note",
    ):
        balanced_rows(labels, ["hat"])
    with pytest.raises(
        Error, match="cannot balance the labels by note: no value there has samples of every class"
    ):
        balanced_rows(labels, ["note"])
    numbers = LabelTable(labels.paths, np.arange(100.0), None, labels.others)
    with pytest.raises(Error, match="only classes or a few ordered values can be balanced"):
        balanced_rows(numbers, ["backdrop"])


def test_columns_are_read_with_the_labels(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"")
    (tmp_path / "t.csv").write_text(
        "file,hat,who,light\na.png,1,x,sun\nb.png,,y,lamp\nc.png,0,z,lamp\n"
    )
    found = read_labels(tmp_path / "t.csv", "hat", group="who")
    assert found.others == {"light": ["sun", "lamp"]}
