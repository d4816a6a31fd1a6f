"""Real pictures come to the device as the stream of the data set has them, whether it lies there or
not."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from latentedit.training import PictureSet, load_pictures, write_pictures
from latentedit.training.feed import Feed, _fits

CPU = torch.device("cpu")
ROUNDS = [range(0, 6, 2), range(1, 6, 2)]


@pytest.fixture
def data(tmp_path: Path) -> tuple[PictureSet, PictureSet]:
    """In memory, and decoded as they are wanted; with labels that mirrored pictures swap."""
    squares = []
    for number in range(5):
        square = Image.new("L", (8, 8), 40 * number)
        square.putpixel((0, 0), 255)
        squares.append((f"{number}.png", square))
    write_pictures(
        tmp_path / "data.zip", squares, lambda name: "left" if int(name[0]) % 2 else "right"
    )
    sets = load_pictures(tmp_path / "data.zip"), load_pictures(tmp_path / "data.zip", in_memory=0)
    for pictures in sets:
        pictures.swap_when_mirrored({"left": "right"})
    return sets


@pytest.mark.parametrize("mirror", [False, True])
def test_the_stream(data: tuple[PictureSet, PictureSet], mirror: bool) -> None:
    """Past the end of the first epoch."""
    for pictures, resident in zip(data, (True, False), strict=True):
        feed = Feed(pictures, ROUNDS, 3, mirror, CPU)
        assert (feed.pixels is not None) == resident
        for seen in (0, 6, 12):
            feed.load(seen)
            for index, samples in enumerate(ROUNDS):
                images, labels = feed.pictures(index)
                expected = data[0].batch([seen + n for n in samples], 3, mirror)
                torch.testing.assert_close(images, expected[0], rtol=0, atol=0)
                torch.testing.assert_close(labels, expected[1], rtol=0, atol=0)


def test_labels_of_an_epoch(data: tuple[PictureSet, PictureSet]) -> None:
    feed = Feed(data[0], ROUNDS, 3, True, CPU)
    assert feed.period == 10
    assert torch.equal(feed.labels[5:], feed.labels[:5].flip(1))


def test_a_set_lies_on_a_gpu_if_it_takes_a_quarter_of_the_free_memory(
    data: tuple[PictureSet, PictureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = torch.device("cuda")
    for free, fits in ((4 * 5 * 64, True), (4 * 5 * 64 - 1, False)):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device, free=free: (free, free))
        assert _fits(data[0], cuda) == fits
        assert not _fits(data[1], cuda)
    assert not _fits(data[0], torch.device("mps"))
