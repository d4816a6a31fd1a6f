"""An edited crop back in its photo: outside untouched, inside where it was, metadata without place
and thumbnail."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.inversion.result import psnr
from latentedit.io.header import read_header
from latentedit.io.images import load_image, open_image, to_pil
from latentedit.io.native_file import write_tensors
from latentedit.latent.latent_file import FORMAT, VERSION, Latent, save_latent
from latentedit.latent.w_statistics import sample_z
from latentedit.photo.alignment import crop, crop_tensor, quad_of_window
from latentedit.photo.crop_hash import SAME, crop_hash, hash_distance
from latentedit.photo.pasting import check_belongs, fade, paste_back, reduced, save_like
from tests.helpers import SHARED_DATA, tiny_generator

TILTED = [[40.0, 20.0], [100.0, 35.0], [85.0, 95.0], [25.0, 80.0]]


def photo(mode: str = "RGB") -> Image.Image:
    """Smooth, so that resampling twice costs little."""
    y, x = np.mgrid[0:120, 0:150]
    parts = [128 + 60 * np.sin(x / 17 + phase) + 50 * np.cos(y / 13 - phase) for phase in (0, 1, 2)]
    picture = Image.fromarray(np.stack(parts, axis=2).clip(0, 255).astype(np.uint8))
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_outside_is_untouched_and_inside_comes_back(mode: str) -> None:
    base = photo(mode)
    again = paste_back(base, crop(base, TILTED, 128), TILTED)
    difference = np.abs(np.asarray(again).astype(int) - np.asarray(base))
    assert difference.max() <= 3
    black = np.asarray(paste_back(base, Image.new(mode, (64, 64)), TILTED))
    changed = (black != np.asarray(base)).reshape(120, 150, -1).any(axis=2)
    assert changed[57, 62]  # the middle
    assert black[57, 62].max() == 0
    ys, xs = np.nonzero(changed)
    # Every changed pixel lies within the tilted square.
    a, b = np.array([60.0, 15.0]), np.array([-15.0, 60.0])
    inside = np.stack([xs + 0.5 - 40, ys + 0.5 - 20], axis=1)
    for axis in (a, b):
        along = inside @ axis / (axis @ axis)
        assert along.min() > -0.02
        assert along.max() < 1.02
    assert changed.sum() > 0.8 * 61.8**2


def test_a_hard_edge_and_an_upright_square_are_exact() -> None:
    base, patch = (
        photo("L"),
        Image.fromarray(np.arange(32 * 32, dtype=np.uint16).astype(np.uint8).reshape(32, 32)),
    )
    result = np.asarray(paste_back(base, patch, quad_of_window(50, 40, 32), feather=0.0))
    assert np.array_equal(result[40:72, 50:82], np.asarray(patch))
    expected = np.array(base)
    expected[40:72, 50:82] = np.asarray(patch)
    assert np.array_equal(result, expected)


def test_partly_outside() -> None:
    base = photo("L")
    result = np.asarray(
        paste_back(base, Image.new("L", (32, 32), 255), quad_of_window(-20, -20, 60))
    )
    assert result[5, 5] == 255
    assert np.array_equal(result[45:], np.asarray(base)[45:])
    with pytest.raises(Error, match="the crop lies outside the photo of 150 x 120 pixels"):
        paste_back(base, Image.new("L", (32, 32)), quad_of_window(500, 500, 60))


def test_grey_changes_brightness_alone() -> None:
    base = photo("RGB")
    result = paste_back(base, crop(base, TILTED, 128).convert("L"), TILTED)
    assert result.mode == "RGB"
    assert np.abs(np.asarray(result).astype(int) - np.asarray(base)).max() <= 4
    coloured = paste_back(photo("L"), Image.new("RGB", (32, 32), (255, 0, 0)), TILTED)
    assert coloured.getpixel((62, 57)) == (255, 0, 0)


def test_fade() -> None:
    weights = fade(64, 0.25)
    assert weights[32, 32] == 1
    assert weights[0].max() < 0.01
    assert np.array_equal(weights, weights.T)
    with pytest.raises(Error, match="feather must be between"):
        paste_back(photo(), Image.new("RGB", (8, 8)), TILTED, feather=0.7)
    with pytest.raises(Error, match="must be square"):
        paste_back(photo(), Image.new("RGB", (8, 9)), TILTED)


def test_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = "A camera", 6
    exif._ifds[0x8769] = {0x9003: "2026:01:02 03:04:05", 0x927C: b"serial number 123"}
    exif[0x8769] = 0
    exif._ifds[0x8825] = {1: "N", 2: (51.0, 30.0, 0.0)}
    exif[0x8825] = 0
    photo().save(tmp_path / "me.jpg", exif=exif)
    with Image.open(tmp_path / "me.jpg") as file:
        assert dict(file.getexif().get_ifd(0x8825))  # it has a place
    for name in ("out.jpg", "out.png", "out.webp"):
        save_like(photo(), tmp_path / name, tmp_path / "me.jpg")
        with Image.open(tmp_path / name) as file:
            found = file.getexif()
            assert found[0x0110] == "A camera"
            assert found[0x0112] == 1
            assert "edited" in found[0x010E]
            assert dict(found.get_ifd(0x8825)) == {}
            assert dict(found.get_ifd(0x8769)) == {0x9003: "2026:01:02 03:04:05"}
    data = (tmp_path / "out.jpg").read_bytes()
    assert b"serial number" not in data
    assert data.count(b"\xff\xd8\xff") == 1  # no second picture within
    with pytest.raises(Error, match="the name of an image must end in one of"):
        save_like(photo(), tmp_path / "out.xyz", tmp_path / "me.jpg")
    with Image.open(io.BytesIO(data)) as file:
        assert file.size == (150, 120)


def test_differences_keep_the_photos_own_detail() -> None:
    rough = Image.fromarray(np.random.RandomState(0).randint(60, 200, (120, 150), dtype=np.uint8))
    before = crop(rough, TILTED, 16)
    same = paste_back(rough, before, TILTED, before=before)
    assert np.array_equal(np.asarray(same), np.asarray(rough))
    brighter = Image.fromarray(np.asarray(before) + np.uint8(20))
    result = np.asarray(paste_back(rough, brighter, TILTED, before=before)).astype(
        int
    ) - np.asarray(rough)
    assert result[57, 62] == 20
    assert result.min() == 0
    with pytest.raises(Error, match="the image before the edit is L"):
        paste_back(rough, brighter, TILTED, before=before.resize((8, 8)))


def test_another_photo_is_refused() -> None:
    """By how near the picture was when it was found, or by how alike they look where that is not
    known."""
    generator = tiny_generator(channels=3)
    rendered = generator(sample_z(1, 12))
    own = to_pil(rendered).resize((64, 64))
    quad = quad_of_window(8, 8, 64)
    right, wrong = Image.new("RGB", (90, 90)), Image.new("RGB", (90, 90))
    right.paste(own, (8, 8))
    wrong.paste(to_pil(generator(sample_z(2, 12))).resize((64, 64)), (8, 8))
    near = float(psnr(crop_tensor(right, quad, 16, 3), rendered)[0])
    for distances in ({"psnr": near}, {"psnr": 1.0, "psnr_tuned": near}, {}):
        latent = Latent(torch.zeros(1, 6, 12), None, "", "w+", quad, {}, distances)
        check_belongs(right, latent, rendered, "right.png")
        for other in (wrong, right.resize((70, 70)), right.transpose(Image.Transpose.ROTATE_180)):
            with pytest.raises(
                Error, match=r"other.png: the photo does not show the latent's image .*force=True"
            ):
                check_belongs(other, latent, rendered, "other.png")


def test_transparency_and_colour_profile_are_kept(tmp_path: Path) -> None:
    """Over white, the written photo is what was pasted, and where nothing was pasted its bytes are
    those of before."""
    pixels = np.dstack(
        [np.asarray(photo()), np.tile(np.arange(150, dtype=np.uint8) // 2 + 150, (120, 1))]
    )
    pixels[:10, :, 3] = 0
    original = Image.fromarray(pixels, "RGBA")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("me.png", "me.webp"):
        lossless: Any = {"lossless": True, "exact": True} if name == "me.webp" else {}
        original.save(
            tmp_path / name,
            icc_profile=profile,
            exif=exif,
            **lossless,
        )
        upright = original.transpose(Image.Transpose.ROTATE_270)
        white = open_image(tmp_path / name)
        assert white.size == (120, 150)
        patch = Image.new("RGB", (32, 32), (200, 180, 150))
        pasted = paste_back(white, patch, quad_of_window(40, 50, 32), feather=0.0)
        save_like(pasted, tmp_path / "out.png", tmp_path / name)
        with Image.open(tmp_path / "out.png") as file:
            found = np.asarray(file.convert("RGBA"))
            assert file.mode == "RGBA"
            assert file.getexif()[0x0112] == 1
            assert file.info["icc_profile"] == profile
        before = np.asarray(upright)
        assert np.array_equal(found[..., 3], before[..., 3])
        assert np.array_equal(found[:50], before[:50])
        over_white = np.asarray(open_image(tmp_path / "out.png")).astype(int)
        assert np.abs(over_white - np.asarray(pasted)).max() <= 1
        save_like(pasted, tmp_path / "out.jpg", tmp_path / name)
        with Image.open(tmp_path / "out.jpg") as file:
            assert file.mode == "RGB"
            assert file.info["icc_profile"] == profile


def test_a_profile_of_other_colours_is_left_out(tmp_path: Path) -> None:
    """A grey profile does not describe a photo that got colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    photo("L").save(tmp_path / "me.png", icc_profile=bytes(profile))
    for mode, kept in (("L", True), ("RGB", False)):
        save_like(photo(mode), tmp_path / "out.png", tmp_path / "me.png")
        with Image.open(tmp_path / "out.png") as file:
            assert ("icc_profile" in file.info) == kept


def test_a_reduced_photo_keeps_its_crop() -> None:
    small, quad = reduced(photo(), TILTED, 75)
    assert small.size == (75, 60)
    assert quad == [[20.0, 10.0], [50.0, 17.5], [42.5, 47.5], [12.5, 40.0]]
    assert reduced(photo(), TILTED, 150)[1] is TILTED


def portrait(tone: float) -> torch.Tensor:
    """A smooth picture without flat areas, ``[1, 3, 128, 128]``; ``tone`` tells persons apart."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    waves = [
        torch.sin(x / (7 + 3 * i) * tone + i) * torch.cos(y / (9 + i) - i * tone) for i in range(5)
    ]
    return torch.stack(waves).mean(dim=0).expand(1, 3, -1, -1).clone()


def changed(image: torch.Tensor, kind: str) -> torch.Tensor:
    """As people and programs change photos that stay the same photo."""
    picture = to_pil(image)
    buffer = io.BytesIO()
    if kind == "compressed":
        picture.save(buffer, "JPEG", quality=20)
        return load_image(Image.open(buffer))
    if kind == "reduced":
        return load_image(picture.resize((48, 48)), size=128)
    if kind == "moved":
        return image.roll((1, 1), (2, 3))
    factor = {"darker": 0.7, "lighter": 1.3}[kind]
    return ((image + 1) * factor - 1).clamp(-1, 1)


@pytest.mark.parametrize("kind", ["compressed", "reduced", "moved", "darker", "lighter"])
def test_a_photo_keeps_its_hash(kind: str) -> None:
    image = portrait(1.0)
    assert hash_distance(crop_hash(image), crop_hash(image)) == 0
    assert hash_distance(crop_hash(image), crop_hash(changed(image, kind))) <= SAME
    assert hash_distance(crop_hash(image), crop_hash(portrait(1.3))) > SAME
    assert hash_distance(crop_hash(image), crop_hash(image.flip(3))) > SAME


def test_the_hash_is_that_of_the_format() -> None:
    """Brighter to the right everywhere, and darker below."""
    ramp = torch.arange(34.0).expand(34, 34)
    image = (ramp - 2 * ramp.T)[None, None] / 100
    assert crop_hash(image) == "f" * 64 + "0" * 64
    assert hash_distance("f" * 128, "0" * 128) == 1
    with pytest.raises(Error, match=r"\[1, C, R, R\]"):
        crop_hash(image[0])


def test_a_photo_as_near_as_the_own_one_is_refused() -> None:
    """A poor inversion resembles strangers too: by its PSNR alone, their photos were accepted."""
    own, stranger = portrait(1.0), portrait(1.3)
    rendered = (own + stranger) / 2
    quad = quad_of_window(0, 0, 128)
    latent = Latent(torch.zeros(1, 6, 12), None, "", "w+", quad)
    latent.distances = {"psnr": float(psnr(own, rendered)[0])}
    check_belongs(to_pil(stranger), latent, rendered, "x.png")
    latent.crop_hash = crop_hash(own)
    check_belongs(to_pil(own), latent, rendered, "own.png")
    check_belongs(to_pil(changed(own, "compressed")), latent, rendered, "own.png")
    with pytest.raises(Error, match=r"x.png: the photo does not show .* of the bits .*force=True"):
        check_belongs(to_pil(stranger), latent, rendered, "x.png")


def test_strangers_among_portraits() -> None:
    """Judged on people who were not looked at when the bound was chosen."""
    folder = SHARED_DATA / "portraits" / "held_out"
    if not folder.is_dir():
        pytest.skip("../shared is missing")
    hashes = [crop_hash(load_image(file, size=128)) for file in sorted(folder.glob("*.jpg"))]
    pairs = [hash_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert len(pairs) > 3000
    assert sum(distance <= SAME for distance in pairs) / len(pairs) < 0.01


@pytest.mark.parametrize("digits", ["", "0" * 127, "g" * 128, "F" * 128, 3])
def test_hashes_of_files_are_checked(tmp_path: Path, digits: object) -> None:
    path = tmp_path / "me.safetensors"
    latent = Latent(torch.zeros(1, 2, 4), None, "f" * 64, "w+", crop_hash="0a" * 64)
    save_latent(path, latent)
    assert load_latent(path).crop_hash == "0a" * 64
    header = read_header(path, FORMAT, VERSION)
    write_tensors(path, FORMAT, VERSION, {**header, "crop_hash": digits}, {"ws": latent.ws})
    with pytest.raises(Error, match="me.safetensors: a latent file's crop_hash must be"):
        load_latent(path)
