"""Pictures of every kind come in; what goes out carries no secrets."""

import ast
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from latentedit.directions.labelling.desk import for_browser
from latentedit.errors import Error
from latentedit.io.files import is_picture
from latentedit.io.folders import listing
from latentedit.io.images import (
    EXTENSIONS,
    grid,
    load_image,
    note_of,
    open_image,
    open_reduced,
    resample,
    save_image,
    to_uint8,
)
from latentedit.photo.pasting import save_like
from latentedit.training import load_pictures
from latentedit.training.preparation import Preparation, Skipped, prepared

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
    whole = saved(
        tmp_path,
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), dtype=np.uint8)),
        "w.png",
    )
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    small = saved(tmp_path, Image.new("L", (3, 3)), "small.png")
    for path, message in [
        (text, "not an image"),
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
    with pytest.raises(Error, match="the name of an image must end in one of .png"):
        save_image(torch.zeros(1, 8, 8), tmp_path / "out.xyz")
    with pytest.raises(Error, match=r"shape \[1, 3 or 4, H, W\], got \[2, 8, 8\]"):
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


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_program_is_started_for_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An EPS would be handed to Ghostscript, and some other formats to programs of theirs."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a program is started")

    monkeypatch.setattr("subprocess.Popen", start)
    monkeypatch.setattr("subprocess.check_call", start)
    (tmp_path / "photos").mkdir()
    for name in ("holiday.jpg", "holiday.png"):
        (tmp_path / "photos" / name).write_bytes(EPS)
        with pytest.raises(Error, match="not an image that Pillow can read"):
            open_image(tmp_path / "photos" / name)
        with pytest.raises(Error, match="not an image that Pillow can read"):
            for_browser(tmp_path / "photos" / name)
        with pytest.raises(Error, match="not an image that Pillow can read"):
            save_like(Image.new("RGB", (9, 9)), tmp_path / "out.png", tmp_path / "photos" / name)
        assert note_of(tmp_path / "photos" / name) == ""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("holiday.jpg", EPS)
    for source in (tmp_path / "photos", tmp_path / "photos.zip"):
        skipped = Skipped()
        assert list(prepared(source, Preparation(16), skipped)) == []
        assert all("not an image that Pillow can read" in line for line in skipped.images)
        assert skipped.images
        with pytest.raises(Error, match="not an image that Pillow can read"):
            load_pictures(source)


def test_every_picture_is_opened_by_a_list_of_formats() -> None:
    root = Path(__file__).parent.parent
    opened = 0
    for folder in ("latentedit", "directions", "cli"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
                    assert any(keyword.arg == "formats" for keyword in node.keywords), (
                        f"{path}:{node.lineno}"
                    )
                    opened += 1
                assert not (
                    isinstance(node, ast.Attribute) and node.attr in ("imread", "imdecode")
                ), f"{path}:{node.lineno}"
    assert opened


def header_of_png(path: Path, side: int, depth: int) -> Path:
    """A PNG that says it is that large; it has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    return path


def test_large_pictures_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = header_of_png(tmp_path / "grey16.png", 13_000, 16)
    large = (
        r"grey16.png: has 169 megapixels \(13000 x 13000\), more than 64; megapixels=170 \(or "
        r"LATENTEDIT_MEGAPIXELS\)"
    )
    for read in (open_image, open_reduced):
        with pytest.raises(Error, match=large):
            read(bomb)
    assert Image.MAX_IMAGE_PIXELS == 2**30 // 4 // 3  # as Pillow has it
    Image.new("RGB", (20, 20)).save(tmp_path / "photos.png")
    skipped = Skipped()
    assert len(list(prepared(tmp_path, Preparation(16), skipped))) == 1
    assert "grey16.png: has 169 megapixels" in skipped.images[0]
    monkeypatch.setenv("LATENTEDIT_MEGAPIXELS", "170")
    with pytest.raises(Error, match="grey16.png: damaged or truncated"):
        open_image(bomb)
    for wrong in ("x", "0", "-1", "nan"):
        monkeypatch.setenv("LATENTEDIT_MEGAPIXELS", wrong)
        with pytest.raises(Error, match="LATENTEDIT_MEGAPIXELS must be a number above 0"):
            open_image(tmp_path / "photos.png")


def test_large_jpegs_are_read_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = Image.linear_gradient("L").resize((320, 240))
    path = saved(tmp_path, ramp, "r.jpg", quality=95)
    assert open_reduced(path)[1] == 1
    for limit, factor in (("0.02", 2), ("0.005", 4)):
        monkeypatch.setenv("LATENTEDIT_MEGAPIXELS", limit)
        found, by = open_reduced(path)
        assert (by, found.size) == (factor, (320 // factor, 240 // factor))
        assert (
            np.abs(
                np.asarray(found, dtype=int) - np.asarray(ramp.resize(found.size), dtype=int)
            ).mean()
            < 3
        )
        with pytest.raises(Error, match="megapixels"):
            open_image(path)
    monkeypatch.setenv("LATENTEDIT_MEGAPIXELS", "0.02")
    for other in (saved(tmp_path, ramp, "p.jpg", progressive=True), saved(tmp_path, ramp, "r.png")):
        with pytest.raises(Error, match="megapixels="):
            open_reduced(other)


@pytest.mark.parametrize("mode", ["I;16", "F", "RGBA", "LA", "P", "PA"])
def test_strips_are_as_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 255, (24, 32, 4), dtype=np.uint8)
    image = Image.fromarray(values, "RGBA")
    if mode == "I;16":
        image = Image.fromarray(values[:, :, 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(values[:, :, 0].astype(np.float32) / 255)
    elif mode == "P":
        image = image.convert("RGB").quantize(8)
        image.info["transparency"] = 3
    elif mode != "RGBA":
        image = image.convert("LA").convert(mode)
    whole = open_image(image)
    monkeypatch.setattr("latentedit.io.images.STRIP", 70)
    assert np.array_equal(np.asarray(open_image(image)), np.asarray(whole))
    assert whole.mode == ("L" if mode in ("I;16", "F") else "RGB")
    if mode == "RGBA":
        alpha = values[:, :, 3:].astype(float) / 255
        expected = values[:, :, :3] * alpha + 255 * (1 - alpha)
        assert np.abs(np.asarray(whole) - expected).max() <= 1


def test_floats_that_are_no_numbers() -> None:
    image = np.full((9, 9), 0.5, dtype=np.float32)
    image[0] = (np.nan, np.inf, -np.inf, 0, 1, 0, 1, 0, 1)
    assert np.asarray(open_image(Image.fromarray(image)))[0].tolist() == [
        0,
        0,
        0,
        0,
        255,
        0,
        255,
        0,
        255,
    ]


def test_transparency_and_rotation_together(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 4), dtype=np.uint8)
    pixels[:, :8] = (255, 0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.fromarray(pixels, "RGBA"), "turned.png", exif=exif)
    for background, level in (((255, 255, 255), 255), ((0, 0, 0), 0)):
        found = open_image(path, background)
        assert found.size == (16, 32)
        assert found.getpixel((8, 2)) == (255, 0, 0)
        assert found.getpixel((8, 30)) == (level,) * 3


@pytest.mark.parametrize(
    "name", ["a.jfif", "a.jpe", "a.gif", "a.avif", "a.bmp", "a.webp", "a.tif", "a.ppm", "a.mpo"]
)
def test_kinds_of_files(tmp_path: Path, name: str) -> None:
    if Path(name).suffix not in EXTENSIONS:
        pytest.skip("this Pillow does not read AVIF")
    saved(tmp_path, Image.new("RGB", (16, 16), (200, 30, 30)), name)
    red, green, _ = open_image(tmp_path / name).getpixel((8, 8))  # type: ignore[misc]
    assert red > 150 > green


def test_heic(tmp_path: Path) -> None:
    """Upright as phones store it: turned, and with an entry that turns it back."""
    heif = pytest.importorskip("pillow_heif", reason='pip install "latentedit[heic]" is missing')
    heif.register_heif_opener()
    image = Image.new("RGB", (64, 32), (20, 30, 200))
    image.paste((220, 30, 20), (0, 0, 32, 32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.info["exif"] = exif.tobytes()
    turned.save(tmp_path / "turned.heic", quality=95)
    image.convert("RGBA").save(tmp_path / "clear.HEIF", quality=95)
    for name in ("turned.heic", "clear.HEIF"):
        assert is_picture(tmp_path / name)
        found = open_image(tmp_path / name)
        assert (found.size, found.mode) == ((64, 32), "RGB")
        assert np.abs(np.asarray(found).astype(int) - np.asarray(image)).mean() < 3
    assert [path.name for path in listing(tmp_path, EXTENSIONS).files] == [
        "clear.HEIF",
        "turned.heic",
    ]
    (tmp_path / "cut.heic").write_bytes((tmp_path / "turned.heic").read_bytes()[:-5])
    with pytest.raises(Error, match=r"cut.heic: (damaged or truncated image|not an image)"):
        open_image(tmp_path / "cut.heic")


def test_heic_names_what_reads_it(tmp_path: Path, without_heic: None) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
    with pytest.raises(
        Error,
        match=r"a.heic: not an image that Pillow can read; pip install \"latentedit\[heic\]\"",
    ):
        open_image(tmp_path / "a.heic")


def test_pictures_are_written_in_few_formats(tmp_path: Path) -> None:
    for name in ("a.eps", "a.pdf", "a.ico", "a"):
        with pytest.raises(Error, match="the name of an image must end in one of .png"):
            save_image(Image.new("RGB", (16, 16)), tmp_path / name)
    with pytest.raises(Error, match="JPEG does not take 70000 x 8 pixels"):
        save_image(Image.new("L", (70_000, 8)), tmp_path / "a.jpg")
