"""Pasting a rendered crop back into the photo that it came from."""

import os
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from latentedit.errors import ArgumentError, IncompatibleError
from latentedit.inversion.result import psnr
from latentedit.io.images import (
    EDITED,
    WITH_ALPHA,
    check_picture,
    on_white,
    opened,
    transparent,
    write_picture,
)
from latentedit.latent.latent_file import Latent
from latentedit.photo.alignment import Quad, crop_tensor
from latentedit.photo.crop_hash import SAME, crop_hash, hash_distance

FEATHER = 0.15
"""Share of the crop's side over which the edge fades."""
GPS = 0x8825
MAKER_NOTE = 0x927C
EXIF_IFD = 0x8769
ORIENTATION = 0x0112
DESCRIPTION = 0x010E

FARTHER = 3.0
"""Largest decrease of the PSNR between photo and latent, in dB; saving a copy of the photo again
changes it by less."""
ALIKE = 0.5
"""Smallest correlation of small greyscale images, used if the latent file has no PSNR."""


def check_belongs(photo: Image.Image, latent: Latent, rendered: Tensor, name: str) -> None:
    """Raise `Error` if ``latent`` was not made from the crop of ``photo``.

    Both must hold, as far as the latent file knows them: the crop has the hash that it had, and is
    as near to the latent's image as it was. The PSNR alone would accept some strangers' photos for
    inversions of less than about 20 dB, the hash alone one photo in a few hundred.

    Args:
        rendered: the latent's own image before this edit, ``[1, C, R, R]``.
    """
    if latent.crop is None:
        return

    here = crop_tensor(photo, latent.crop, rendered.shape[3], rendered.shape[1])
    wrong = _differences(here, latent, rendered.cpu())
    if wrong:
        what = "the photo does not show the latent's image at the position of its crop"
        raise IncompatibleError(
            f"{what} ({', '.join(wrong)})", path=name, advice="use `force=True` to paste anyway"
        )


def _differences(here: Tensor, latent: Latent, rendered: Tensor) -> list[str]:
    """Say in what the crop ``here`` differs from that of ``latent``."""
    found = []
    if latent.crop_hash is not None:
        share = hash_distance(crop_hash(here), latent.crop_hash)
        if share > SAME:
            found.append(f"{share:.0%} of the bits of its hash differ, at most {SAME:.0%} may")

    expected = latent.distances.get("psnr_tuned", latent.distances.get("psnr"))
    if expected is not None:
        # The latent file says how similar the two were; a much lower value means another photo or
        # a photo that has changed.
        reached = float(psnr(here, rendered)[0])
        if reached < expected - FARTHER:
            found.append(f"PSNR {reached:.1f} dB, expected {expected:.1f} dB")
    elif latent.crop_hash is None:
        small = [
            torch.nn.functional.adaptive_avg_pool2d(image.mean(dim=1), 16)
            for image in (here, rendered)
        ]
        alike = float(torch.corrcoef(torch.stack([image.flatten() for image in small]))[0, 1])
        if not alike >= ALIKE:
            found.append(f"correlation {alike:.2f}")
    return found


def fade(size: int, feather: float = FEATHER) -> Any:
    """Return weights ``[size, size]`` float32: 1 inside, falling to 0 at the edge over ``feather``
    of the side."""
    position = (np.arange(size) + 0.5) / size
    edge = np.clip(np.minimum(position, 1 - position) / max(feather, 1e-6), 0, 1)
    # Smoothstep: a linear fade has visible kinks at both ends.
    smooth = edge * edge * (3 - 2 * edge)
    return np.minimum.outer(smooth, smooth).astype(np.float32)


def paste_back(
    photo: Image.Image,
    picture: Image.Image,
    quad: Quad,
    *,
    feather: float = FEATHER,
    before: Image.Image | None = None,
) -> Image.Image:
    """Paste ``picture`` into ``photo`` at the position of its crop; pixels outside ``quad`` do not
    change.

    Args:
        photo: upright, "L" or "RGB", as `latentedit.io.images.open_image` returns it.
        picture: a square image; a greyscale one changes only the brightness of a colour photo.
        quad: corners of the crop in the photo, in pixels.
        feather: 0 to 0.5, see `fade`.
        before: the rendering before the edit, of the size and mode of ``picture``. If given, only
            the difference is added to the photo, which keeps its own detail; otherwise ``picture``
            replaces the photo.

    Raises:
        Error: the crop lies outside the photo, or ``feather`` is out of range.
    """
    if not 0 <= feather <= 0.5:
        raise ArgumentError.of("feather", "between 0 and 0.5", feather)

    size = picture.width
    if picture.size != (size, size):
        raise ArgumentError(
            f"the image to paste must be square, got {picture.width} x {picture.height}"
        )

    corners = np.array(quad, dtype=np.float64)
    left, top = np.floor(corners.min(axis=0)).clip(0, photo.size).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).clip(0, photo.size).astype(int)
    if left >= right or top >= bottom:
        raise IncompatibleError(
            f"the crop lies outside the photo of {photo.width} x {photo.height} pixels; is it "
            "another photo?"
        )

    # All in the box around the crop, from here on.
    corners -= (left, top)
    where: dict[str, Any] = {"dsize": (int(right - left), int(bottom - top))}
    source = np.array([[0, 0], [size, 0], [size, size]], dtype=np.float32) - 0.5
    transform = cv2.getAffineTransform(source, (corners[:3] - 0.5).astype(np.float32))
    drawn = np.asarray(picture).astype(np.float32)

    if before is not None:
        if (before.size, before.mode) != (picture.size, picture.mode):
            raise IncompatibleError(
                f"the image before the edit is {before.mode} {before.size}, the edited one "
                f"{picture.mode} {picture.size}"
            )
        drawn = drawn - np.asarray(before).astype(np.float32)

    new = cv2.warpAffine(
        drawn, transform, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE, **where
    )
    share = cv2.warpAffine(
        fade(size, feather),
        transform,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
        **where,
    )
    share = share.clip(0, 1) * _inside(corners, *where["dsize"])
    mode = "RGB" if "RGB" in (photo.mode, picture.mode) else "L"
    whole = np.array(photo.convert(mode))
    base = whole[top:bottom, left:right]

    if picture.mode == "L" and mode == "RGB":
        # A grey model knows nothing of colour, so the photo's own stays.
        parts = cv2.cvtColor(base, cv2.COLOR_RGB2YCrCb)
        parts[..., 0] = _mixed(parts[..., 0], new, share, add=before is not None)
        result = cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB)
    else:
        result = _mixed(
            base, new, share if mode == "L" else share[..., None], add=before is not None
        )

    on = share > 0  # a change of colour space rounds, also where nothing is pasted
    base[on] = result[on]
    return Image.fromarray(whole)


def reduced(photo: Image.Image, quad: Quad, longest: int) -> tuple[Image.Image, Quad]:
    """Return ``photo`` with a longer side of at most ``longest`` pixels, and ``quad`` in its
    pixels."""
    factor = longest / max(photo.size)
    if factor >= 1:
        return photo, quad
    width, height = (max(round(side * factor), 1) for side in photo.size)
    along = width / photo.width, height / photo.height
    small = photo.resize((width, height), Image.Resampling.LANCZOS)
    return small, [[x * along[0], y * along[1]] for x, y in quad]


def _inside(corners: Any, width: int, height: int) -> Any:
    """Return whether the centre of every pixel lies in the square of ``corners``:
    ``[height, width]`` bool."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inside = np.ones((height, width), dtype=bool)
    for axis in (corners[1] - corners[0], corners[3] - corners[0]):
        along = ((x - corners[0, 0]) * axis[0] + (y - corners[0, 1]) * axis[1]) / (axis @ axis)
        inside &= (along >= 0) & (along <= 1)
    return inside


def _mixed(base: Any, new: Any, share: Any, *, add: bool) -> Any:
    old = base.astype(np.float32)
    mixed = old + new * share if add else old * (1 - share) + new.clip(0, 255) * share
    return mixed.round().clip(0, 255).astype(np.uint8)


def save_like(
    picture: Image.Image, path: str | os.PathLike[str], photo: str | os.PathLike[str]
) -> None:
    """Write ``picture`` upright, with the EXIF data of the file ``photo`` and a description that
    says that it is edited.

    The position, the thumbnail and the maker's notes of the photo are left out. Its colour profile
    is kept, and so is its transparency, if the format of ``path`` has any: over white, the picture
    looks as it was given.

    Args:
        picture: the photo on white, as `latentedit.io.images.open_image` returns it, with something
            pasted into it.

    Raises:
        Error: ``photo`` cannot be read, the ending is unknown, or the file cannot be written.
    """
    kind = check_picture(path)
    with opened(photo, os.fspath(photo)) as file:
        exif = file.getexif()
        inner = dict(exif.get_ifd(EXIF_IFD))
        profile = file.info.get("icc_profile")
        original = _whole(file) if kind in WITH_ALPHA and transparent(file) else None

    if original is not None:
        picture = _transparent_again(picture, original)
    if not _fits(profile, picture.mode):
        profile = None

    kept = Image.Exif()
    for tag, value in exif.items():
        if tag not in (GPS, EXIF_IFD, ORIENTATION, DESCRIPTION):
            kept[tag] = value

    inner.pop(MAKER_NOTE, None)
    if inner:
        kept._ifds[EXIF_IFD] = inner
        kept[EXIF_IFD] = 0  # replaced by the place of the inner table when it is written

    kept[ORIENTATION] = 1
    kept[DESCRIPTION] = EDITED
    options: dict[str, Any] = {"exif": kept, **({"icc_profile": profile} if profile else {})}
    if kind in ("JPEG", "WEBP", "AVIF"):
        options["quality"] = 95

    if kind not in ("JPEG", "WEBP", "AVIF", "PNG", "TIFF"):
        options = {"comment": EDITED.encode()} if kind == "GIF" else {}

    write_picture(picture, path, kind, options)


def _whole(file: Image.Image) -> Image.Image:
    """Return the picture in ``file`` upright as "RGBA"."""
    file.load()
    return (ImageOps.exif_transpose(file) or file).convert("RGBA")


def _transparent_again(picture: Image.Image, original: Image.Image) -> Image.Image:
    """Return "RGBA" that over white is ``picture``, with the transparency of ``original``, whose
    pixels stay where they can.

    A colour c of opacity a is seen over white as a c + (1 - a); this is solved for c where
    ``picture`` has changed.
    """
    if picture.size != original.size:
        return picture
    pixels = np.array(original)
    opacity = pixels[..., 3:].astype(np.float32) / 255
    shown = np.asarray(picture.convert("RGB"))
    before = np.asarray(on_white(original))
    under = (shown - 255 * (1 - opacity)) / opacity.clip(min=1e-6)
    changed = (shown != before) & (opacity > 0)
    pixels[..., :3] = np.where(changed, under.round().clip(0, 255), pixels[..., :3]).astype(
        np.uint8
    )
    return Image.fromarray(pixels, "RGBA")


def _fits(profile: bytes | None, mode: str) -> bool:
    """Return whether an ICC ``profile`` describes pictures of ``mode``, by the colour space in its
    header (ICC.1, 7.2.6)."""
    space = {"L": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB "}.get(mode)
    return profile is not None and profile[16:20] == space
