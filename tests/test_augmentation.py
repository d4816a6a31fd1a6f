"""The adaptive augmentation pipeline against the published one, percentile by percentile."""

import pytest
import torch

from latentedit.errors import Error
from latentedit.training.augmentation import KINDS, AugmentPipe, preset
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


def test_every_kind_is_compared_and_can_be_named() -> None:
    assert {case.split("/")[0] for case in DATA if case != "x"} <= set(KINDS)
    assert preset("upright,xflip,noise").keys() == {
        "xint",
        "scale",
        "aniso",
        "xfrac",
        "brightness",
        "xflip",
        "noise",
    }
    with pytest.raises(Error, match="got 'mirror'"):
        preset("blit,mirror")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_pictures_when_it_is_on(kind: str) -> None:
    """Grey pictures too, but for hue and saturation, which have no meaning there; smaller than the
    widest filter."""
    torch.manual_seed(0)
    for channels in (1, 3):
        pipe, x = AugmentPipe(**preset(kind)), torch.rand(8, channels, 16, 16)
        pipe.p.fill_(1)
        changed = float((pipe(x) - x).abs().max()) > 0.01
        assert changed == (channels == 3 or kind not in ("hue", "saturation"))


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_fixed_shapes_give_the_same_pictures_and_gradients(size: tuple[int, int]) -> None:
    """As they are used under CUDA graphs: margins as wide as they may be, filters as matrices."""
    pipe = AugmentPipe(**preset("bgc")).double()
    pipe.p.fill_(0.8)
    x = torch.rand(6, 3, *size, dtype=torch.float64, requires_grad=True)
    weight, found = torch.rand(6, 3, *size, dtype=torch.float64), []
    for fixed in (False, True):
        pipe.fixed = fixed
        torch.manual_seed(1)
        y = pipe(x)
        (first,) = torch.autograd.grad((y.square() * weight).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first * weight).sum(), x)
        found.append((y, first, second))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)


def test_all_kinds_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    for kind in KINDS:
        pipe = AugmentPipe(**{kind: 1.0}).double()
        pipe.p.fill_(1)
        pipe.fixed = True

        def augmented(images: torch.Tensor, pipe: AugmentPipe = pipe) -> torch.Tensor:
            torch.manual_seed(2)
            y: torch.Tensor = pipe(images)
            return y.square()

        assert torch.autograd.gradcheck(augmented, x, fast_mode=True), kind
        assert torch.autograd.gradgradcheck(augmented, x, fast_mode=True), kind
