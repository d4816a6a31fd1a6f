"""Pictures of every kind come in; what goes out carries no secrets."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.errors import Error
from latentedit.images import grid, load_image, open_image, resample, save_image, to_uint8

RAMP = np.linspace(0, 255, 32 * 24).reshape(24, 32).astype(np.uint8)


def saved(tmp_path: Path, image: Image.Image, name: str, **options: Any) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_values(tmp_path: Path) -> None:
    tensor = load_image(saved(tmp_path, Image.fromarray(RAMP), "g.png"), channels=1)
    assert tensor.shape == (1, 1, 24, 32)
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    assert np.array_equal(to_uint8(tensor)[0, 0].numpy(), RAMP)
    assert load_image(RAMP).shape == (1, 3, 24, 32)
    assert load_image(Image.fromarray(RAMP), size=16).shape == (1, 3, 16, 16)


def test_16_bit_grey(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP.astype(np.uint16) * 257), "deep.png")
    assert np.array_equal(np.asarray(open_image(path)), RAMP)


def test_palette_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    path = saved(tmp_path, image, "p.png", transparency=0)
    opened = open_image(path)
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((5, 5)) == (200, 100, 50)


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGBA", (9, 9), (0, 0, 0, 128)), "a.png")
    assert open_image(path).getpixel((1, 1)) == (127, 127, 127)
    path = saved(tmp_path, Image.new("LA", (9, 9), (100, 0)), "la.png")
    assert open_image(path).getpixel((1, 1)) == (255, 255, 255)


def test_cmyk(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "c.tif")
    red, green, blue = open_image(path).getpixel((4, 4))  # type: ignore[misc]
    assert red > 200
    assert max(green, blue) < 60


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    path = saved(tmp_path, Image.fromarray(RAMP), "r.jpg", exif=exif, quality=100)
    assert open_image(path).size == (24, 32)


def test_bad_pictures(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    whole = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), dtype=np.uint8)), "w.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    small = saved(tmp_path, Image.new("L", (3, 3)), "small.png")
    for path, message in [
        (text, "not a picture"),
        (cut, "damaged or truncated"),
        (small, "3 x 3 pixels is too small"),
        (tmp_path / "absent.png", "no such file"),
    ]:
        with pytest.raises(Error, match=f"{path.name}: .*{message}") as caught:
            open_image(path)
        assert "\n" not in str(caught.value)


def test_written_pictures_say_what_they_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}  # GPS
    with_place = saved(tmp_path, Image.fromarray(RAMP), "place.jpg", exif=exif)
    assert open_image(with_place).getexif().get_ifd(0x8825)
    for name in ("out.png", "out.jpg", "out.webp"):
        save_image(load_image(with_place), tmp_path / name)
        with Image.open(tmp_path / name) as again:
            again.load()
            assert not again.getexif().get_ifd(0x8825)
            text = again.info["Description"] if name == "out.png" else again.getexif()[0x010E]
            assert "synthetic or edited" in text
    with pytest.raises(Error, match="pictures are written as one of .png"):
        save_image(torch.zeros(1, 8, 8), tmp_path / "out.xyz")
    with pytest.raises(Error, match=r"shape \[1 or 3, H, W\], got \[2, 8, 8\]"):
        save_image(torch.zeros(2, 8, 8), tmp_path / "out.png")


def test_png_is_lossless(tmp_path: Path) -> None:
    tensor = load_image(RAMP)
    save_image(tensor, tmp_path / "x.png")
    assert torch.equal(to_uint8(load_image(tmp_path / "x.png")), to_uint8(tensor))
    buffer = io.BytesIO((tmp_path / "x.png").read_bytes())
    assert Image.open(buffer).size == (32, 24)


def test_grid() -> None:
    images = torch.stack([torch.full((1, 2, 2), float(i)) for i in range(3)])
    sheet = grid(images, 2)
    assert sheet.shape == (1, 4, 4)
    assert sheet[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 1, 1], [2, 2, 1, 1]]


def test_a_whole_window_is_cut_without_resampling() -> None:
    picture = Image.fromarray(RAMP)
    assert np.array_equal(np.asarray(resample(picture, (4, 3, 20, 19), 16)), RAMP[3:19, 4:20])
