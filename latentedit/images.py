"""Pictures in and out: the only place where float [-1, 1] meets uint8."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from latentedit.errors import Error
from latentedit.files import write_bytes

SMALLEST = 8
"""Pictures with a shorter side are refused: there is nothing in them to invert."""
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
EDITED = "Rendered by latentedit from a generative model: this picture is synthetic or edited."

Source = str | os.PathLike[str] | np.ndarray[Any, Any] | Image.Image


def open_image(source: Source) -> Image.Image:
    """A picture as PIL "RGB" or "L", upright, 8-bit.

    EXIF rotation is applied; 16-bit grey is scaled; palettes and CMYK are converted; transparency is laid on white.

    Raises:
        Error: no such file, not a picture, truncated, or shorter than 8 pixels on a side.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "picture"
    try:
        if isinstance(source, Image.Image):
            image = source
        elif isinstance(source, np.ndarray):
            image = Image.fromarray(source)
        else:
            if not Path(source).is_file():
                raise Error(f"{name}: no such file")
            with Image.open(source) as file:
                file.load()
                image = ImageOps.exif_transpose(file)  # a copy, also where there is nothing to turn
        image.load()
        image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise Error(f"{name}: not a picture that Pillow can read") from error
    except Error:
        raise
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise Error(f"{name}: damaged or truncated picture ({str(error).splitlines()[0]})") from error
    if min(image.size) < SMALLEST:
        raise Error(f"{name}: {image.width} x {image.height} pixels is too small, {SMALLEST} x {SMALLEST} is the least")
    return _to_8bit(image)


def _to_8bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max() > 255 else 255.0 if values.max() > 1 or image.mode != "F" else 1.0
        return Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8), "L")
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def load_image(source: Source, size: int | None = None, channels: int = 3) -> Tensor:
    """A picture as float ``[1, channels, H, W]`` in [-1, 1].

    Args:
        source: a path, a PIL image, or a uint8 array ``[H, W]`` or ``[H, W, 3]``.
        size: side in pixels of the square result: the central square, resampled. None keeps the picture as it is.
        channels: 1 (grey) or 3 (RGB).

    Raises:
        Error: as `open_image`.
    """
    if channels not in (1, 3):
        raise Error(f"channels must be 1 or 3, got {channels}")
    image = open_image(source)
    if size is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = resample(image, (left, top, left + side, top + side), size)
    return to_tensor(image.convert("L" if channels == 1 else "RGB"))


def resample(image: Image.Image, box: Sequence[float], size: int) -> Image.Image:
    """The rectangle ``box`` (left, top, right, bottom; in pixels, inside the picture) at ``size`` x ``size``."""
    left, top, right, bottom = box
    if (right - left, bottom - top) == (size, size) and all(float(v).is_integer() for v in box):
        return image.crop((int(left), int(top), int(right), int(bottom)))
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, right, bottom), reducing_gap=None)


def to_tensor(image: Image.Image) -> Tensor:
    """PIL "L" or "RGB" to float ``[1, C, H, W]`` in [-1, 1]."""
    array = np.asarray(image)
    return from_uint8(torch.from_numpy(np.array(array if array.ndim == 3 else array[:, :, None])).permute(2, 0, 1)[None])


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float -1..1, any shape."""
    return pixels.float() / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Float -1..1 to uint8 0..255 (clamped, rounded), any shape."""
    return ((image.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def to_pil(image: Tensor) -> Image.Image:
    """Float ``[C, H, W]`` or ``[1, C, H, W]`` in [-1, 1], C 1 or 3, to PIL "L" or "RGB"."""
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise Error(f"a picture to write must have shape [1 or 3, H, W], got {list(image.shape)}")
    array = to_uint8(image).permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def grid(images: Tensor, columns: int) -> Tensor:
    """``[N, C, H, W]`` as one picture ``[C, rows * H, columns * W]``, row by row; missing cells are white."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    cells = torch.ones(rows * columns, c, h, w)
    cells[:n] = images.detach().float().cpu()
    return cells.reshape(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)


def save_image(image: Tensor | Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture (by its ending) that says it is edited, and carries no other metadata.

    Args:
        image: float ``[C, H, W]`` or ``[1, C, H, W]`` in [-1, 1], or a PIL image.
        path: .png, .jpg, .webp and the like.

    Raises:
        Error: unknown ending, or the file cannot be written.
    """
    picture = to_pil(image) if isinstance(image, Tensor) else image
    suffix = Path(path).suffix.lower()
    kind = Image.registered_extensions().get(suffix)
    if kind is None:
        raise Error(f"{path}: pictures are written as one of {', '.join(EXTENSIONS)}")
    options: dict[str, Any] = {}
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Description", EDITED)
    elif kind in ("JPEG", "WEBP", "TIFF"):
        exif = Image.Exif()
        exif[0x010E] = EDITED  # ImageDescription
        options.update(exif=exif, quality=95) if kind != "TIFF" else options.update(exif=exif)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    write_bytes(path, buffer.getvalue())
