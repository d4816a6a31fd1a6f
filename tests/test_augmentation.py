"""The adaptive augmentation pipeline against the published one, percentile by percentile."""

import pytest
import torch

from latentedit.training.augmentation import AugmentPipe
from tests.reference_nets import arrays

DATA = arrays("augment_rgb.npz")


@pytest.mark.parametrize("case", sorted(key for key in DATA if key != "x"))
def test_matches_reference(case: str) -> None:
    name, percentile = case.split("/")
    pipe = AugmentPipe(**{name: 1.0})
    pipe.p.fill_(1)
    x = torch.from_numpy(DATA["x"])
    y = pipe(x, percentile=float(percentile))
    assert (y - torch.from_numpy(DATA[case])).abs().max() <= 1e-3 * (x.max() - x.min())
