"""Pictures in and out: the only place where float [-1, 1] meets uint8, and the only one that opens
files of pictures."""

import importlib
import importlib.util
import io
import os
import textwrap
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError, features
from torch import Tensor

from latentedit.errors import ArgumentError, Error, FormatError, NotFoundError, OutputError
from latentedit.io import outputs
from latentedit.io.files import is_safetensors, write_bytes

SMALLEST = 8
"""Pictures with a shorter side are refused: there is nothing in them to invert."""
MEGAPIXELS = 64.0
"""Larger pictures are refused before they are decoded; LATENTEDIT_MEGAPIXELS and ``--megapixels``
say otherwise."""
REDUCED = 4
"""Times as many pixels as that may be in a JPEG that is read at a half or a quarter of its size."""
STRIP = 2**20
"""Pixels that are converted at once."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF", "AVIF", "HEIF")
"""What Pillow may take a file for, whatever its name: all of it is decoded in this process, and
nothing is started."""
PLUGINS = ("Png", "Jpeg", "WebP", "Bmp", "Tiff", "Ppm", "Gif", "Avif")
"""The modules of Pillow that read these."""
HEIC = (".heic", ".heif")
HEIC_EXTRA = 'pip install "latentedit[heic]"'
_ALWAYS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".gif"),
)
EXTENSIONS = (
    *_ALWAYS,
    *((".avif",) if features.check("avif") else ()),
    *(HEIC if importlib.util.find_spec("pillow_heif") else ()),
)
"""Endings of the files in a folder that are read as images."""
WRITTEN = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".gif": "GIF",
    ".avif": "AVIF",
}
"""Endings of the pictures that are written, and Pillow's names of their formats."""
WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF")
"""Formats that have transparency."""

EDITED = "Rendered by latentedit from a generative model: this picture is synthetic or edited."
CUT = "Cut by latentedit from a photograph."
"""What crops say, which nothing has been rendered in."""
_OURS = (EDITED, CUT)
DESCRIPTION = ExifTags.Base.ImageDescription

PICTURES = "a path, a PIL image, or a uint8 array [H, W] or [H, W, 3]"
"""What pictures are read from, for messages."""
Source = str | os.PathLike[str] | np.ndarray[Any, Any] | Image.Image


@cache
def _formats() -> tuple[str, ...]:
    for name in PLUGINS:  # not all of Pillow's, as Image.init() would
        with suppress(ModuleNotFoundError):  # AVIF came with Pillow 11.3
            importlib.import_module(f"PIL.{name}ImagePlugin")
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def megapixels() -> float:
    """Return the most millions of pixels that a picture may have."""
    text = os.environ.get("LATENTEDIT_MEGAPIXELS", "")
    try:
        found = float(text) if text else MEGAPIXELS
    except ValueError:
        found = -1.0
    if not 0 < found < 1e6:
        raise ArgumentError.of("LATENTEDIT_MEGAPIXELS", "a number above 0", text)
    return found


_opening = threading.Lock()


@contextmanager
def opened(file: str | os.PathLike[str] | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """The picture in ``file``, of a size within bounds but not decoded yet; ``name`` is for
    messages.

    What goes wrong within the block is reported as a fault of the file.

    Raises:
        Error: no such file, not a picture of the kinds in `FORMATS`, too many pixels, damaged or
            truncated.
    """
    with _readable(name):
        if not isinstance(file, io.BytesIO):
            if not os.path.isfile(file):
                raise NotFoundError("no such file", path=name)
            outputs.given(file)
        with _header(file) as image:
            check_size(*image.size, name)
            yield image


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except Error:
        raise
    except UnidentifiedImageError as error:
        raise FormatError(f"not an image that Pillow can read{_hint(name)}", path=name) from error
    except PermissionError as error:
        raise FormatError(f"{error.strerror}", path=name) from error
    except MemoryError as error:
        raise FormatError("there is not enough memory to decode it", path=name) from error
    # Decoders meet whatever the file makes them meet.
    except Exception as error:
        text = (
            textwrap.shorten(str(error).splitlines()[0], 100, placeholder=" ...")
            if str(error)
            else type(error).__name__
        )
        raise FormatError(f"damaged or truncated image ({text})", path=name) from error


def _hint(name: str) -> str:
    if name.lower().endswith(HEIC) and not name.lower().endswith(EXTENSIONS):
        return f"; {HEIC_EXTRA} reads {HEIC[0]}"
    with suppress(OSError):
        if os.path.isfile(name) and is_safetensors(name):
            return "; it is a safetensors file, as latents and models are"
    return ""


def _header(file: str | os.PathLike[str] | io.BytesIO) -> Image.Image:
    # Pillow's limit cannot be lifted by a picture's reader and is not named by its message; ours
    # can and is.
    with _opening:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(file, formats=_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = before


def check_size(width: int, height: int, name: str) -> None:
    """Raise `Error` for a picture of more pixels than are accepted (`megapixels`)."""
    found = width * height / 1e6
    most = megapixels()
    if found > most:
        least = int(found) + 1
        raise FormatError(
            f"has {found:.0f} megapixels ({width} x {height}), more than {most:g}",
            path=name,
            actual=found,
            advice=f"`megapixels={least}` (or LATENTEDIT_MEGAPIXELS) accepts it, with about "
            f"{found / 100:.1f} GB of memory",
        )


def open_image(
    source: Source, background: tuple[int, int, int] = (255, 255, 255), name: str = "picture"
) -> Image.Image:
    """Return a picture as PIL "RGB" or "L", upright, 8-bit.

    EXIF rotation is applied; 16-bit grey is scaled; palettes and CMYK are converted; transparency
    is laid on ``background``. ``name`` is what messages call a source that is no file.

    Raises:
        Error: no such file, not a picture, truncated, too many pixels, or shorter than 8 pixels on
            a side.
    """
    if isinstance(source, str | os.PathLike):
        with opened(source, os.fspath(source)) as file:
            return _upright(file, os.fspath(source), background)
    if not isinstance(source, np.ndarray | Image.Image):
        raise ArgumentError.of(name, PICTURES, source)
    if isinstance(source, np.ndarray) and source.dtype.kind == "f":
        raise ArgumentError(f"{name} must be {PICTURES}, got an array of {source.dtype}")
    with _readable(name):
        return _upright(
            Image.fromarray(source) if isinstance(source, np.ndarray) else source, name, background
        )


def open_reduced(source: str | os.PathLike[str]) -> tuple[Image.Image, int]:
    """As `open_image`, but a JPEG of too many pixels is read at a half or a quarter of its size; by
    how much comes second.

    Raises:
        Error: as `open_image`; also a progressive JPEG that is too large, as it is decoded whole.
    """
    name = os.fspath(source)
    with _readable(name):
        if not os.path.isfile(source):
            raise NotFoundError("no such file", path=name)
        outputs.given(source)
        with _header(source) as file:
            width, height = file.size
            found = width * height / 1e6
            most = megapixels()
            factor = 1
            if (
                file.format in ("JPEG", "MPO")
                and not file.info.get("progressive")
                and found <= REDUCED**2 * most
            ):
                factor = next(f for f in (1, 2, REDUCED) if found <= f**2 * most)

            if factor > 1:
                file.draft(None, (width // factor, height // factor))
            check_size(*file.size, name)
            return _upright(file, name, (255, 255, 255)), factor


def _upright(image: Image.Image, name: str, background: tuple[int, int, int]) -> Image.Image:
    if min(image.size) < SMALLEST:
        raise FormatError(
            f"{image.width} x {image.height} pixels is too small, the minimum is {SMALLEST} x "
            f"{SMALLEST}",
            path=name,
        )

    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return _to_8bit(image, background)


def transparent(image: Image.Image) -> bool:
    """Return whether pixels of ``image`` may be transparent."""
    return image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info


def _to_8bit(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """In strips, where a conversion takes more memory than the picture."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if transparent(image):
        return _on_background(image, background)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    rows = max(STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        yield (0, top, image.width, min(top + rows, image.height))


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit and float grey as "L": the range is guessed from the largest value, and what is no
    number is black."""

    def values(box: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
        return np.nan_to_num(np.asarray(image.crop(box), dtype=np.float64), posinf=0.0, neginf=0.0)

    largest = max(float(values(box).max()) for box in _strips(image))
    top = 65535.0 if largest > 255 else 255.0 if largest > 1 or image.mode != "F" else 1.0
    found = np.empty((image.height, image.width), dtype=np.uint8)
    for box in _strips(image):
        found[box[1] : box[3]] = (values(box) / top * 255).clip(0, 255).round()
    return _kept_info(Image.fromarray(found, "L"), image)


def opaque(image: Image.Image) -> Image.Image:
    """``image`` on white where it may be transparent, and as it is elsewhere."""
    return on_white(image) if transparent(image) else image


def on_white(image: Image.Image) -> Image.Image:
    """Return ``image`` as `open_image` shows it: transparent pixels on white."""
    return _on_background(image, (255, 255, 255))


def _on_background(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    found = Image.new("RGB", image.size)
    for box in _strips(image):
        part = image.crop(box)
        # A palette's transparency is an entry beside the pixels.
        if "transparency" in image.info:
            part.info["transparency"] = image.info["transparency"]
        part = part.convert("RGBA")
        ground = Image.new("RGBA", part.size, (*background, 255))
        found.paste(Image.alpha_composite(ground, part).convert("RGB"), box[:2])

    return _kept_info(found, image)


def _kept_info(image: Image.Image, source: Image.Image) -> Image.Image:
    for name in ("exif", "icc_profile"):
        if name in source.info:
            image.info[name] = source.info[name]
    return image


def note_of(path: str | os.PathLike[str]) -> str:
    """Return what the picture in ``path`` says of itself; "" where it says nothing or is no
    picture."""
    try:
        with _header(path) as image:
            return note_in(image)
    except Exception:  # a file that is no picture can fail in any way
        return ""


def note_in(image: Image.Image) -> str:
    """Return what a picture that was `opened` says of itself; "" where it says nothing."""
    found = image.info.get("Description") or image.info.get("comment") or ""
    # A PNG without such an entry would be decoded for it.
    if not found and (image.format != "PNG" or "exif" in image.info):
        found = image.getexif().get(DESCRIPTION, "")
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


def is_rendering(path: str | os.PathLike[str]) -> bool:
    """Return whether the picture in ``path`` was rendered here and is no photograph; .bmp, .ppm and
    videos do not say so."""
    return note_of(path).startswith(EDITED)


def is_foreign(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is at ``path`` that does not say that latentedit wrote it; empty files
    count as none."""
    place = Path(path)
    return (
        os.path.isfile(place) and place.stat().st_size > 0 and not note_of(place).startswith(_OURS)
    )


def check_picture(path: str | os.PathLike[str]) -> str:
    """Return the format that a picture is written in as ``path``.

    Raises:
        Error: unknown ending; or, while a command runs, an input or a picture that latentedit did
            not write is there.
    """
    kind = WRITTEN.get(Path(path).suffix.lower())
    if kind is None or (kind == "AVIF" and ".avif" not in EXTENSIONS):
        raise ArgumentError(
            f"the name of an image must end in one of {', '.join(WRITTEN)}", path=path
        )

    if outputs.in_force():
        outputs.check(path)
        if is_foreign(path):
            raise OutputError(
                "already exists, and latentedit did not write it; give the output another name, "
                "or remove that file",
                path=path,
            )

    return kind


def is_free(path: Path) -> bool:
    """Return whether a command may write to ``path``, of a name that it chose itself."""
    if not outputs.in_force():
        return True
    return not outputs.is_given(path) and not (path.suffix.lower() in WRITTEN and is_foreign(path))


def own_path(path: Path, what: str, others: Container[str] = ()) -> Path:
    """Return ``path``, or where an input or a picture of other origin is there, NAME-``what``,
    NAME-``what``-2, ... beside it.

    ``others`` are names of files, in small letters, that such a second choice must not have.
    """
    found = path
    number = 1
    while not is_free(found) or (number > 1 and found.name.casefold() in others):
        found = path.with_name(
            f"{path.stem}-{what}{f'-{number}' if number > 1 else ''}{path.suffix}"
        )
        number += 1
    return found


def load_image(source: Source, size: int | None = None, channels: int = 3) -> Tensor:
    """Return a picture as float ``[1, channels, H, W]`` in [-1, 1].

    Args:
        source: a path, a PIL image, or a uint8 array ``[H, W]`` or ``[H, W, 3]``.
        size: side in pixels of the square result: the central square, resampled. None keeps the
            picture as it is.
        channels: 1 (grey) or 3 (RGB).

    Raises:
        Error: as `open_image`.
    """
    if channels not in (1, 3):
        raise ArgumentError.of("channels", "1 or 3", channels)
    image = open_image(source)
    if size is not None:
        side = min(image.size)
        left = (image.width - side) // 2
        top = (image.height - side) // 2
        image = resample(image, (left, top, left + side, top + side), size)
    return to_tensor(image.convert("L" if channels == 1 else "RGB"))


def resample(image: Image.Image, box: Sequence[float], size: int) -> Image.Image:
    """Return the rectangle ``box`` (left, top, right, bottom; in pixels, inside the picture) at
    ``size`` x ``size``."""
    left, top, right, bottom = box
    if (right - left, bottom - top) == (size, size) and all(float(v).is_integer() for v in box):
        return image.crop((int(left), int(top), int(right), int(bottom)))
    return image.resize(
        (size, size), Image.Resampling.LANCZOS, box=(left, top, right, bottom), reducing_gap=None
    )


def to_tensor(image: Image.Image) -> Tensor:
    """PIL "L" or "RGB" to float ``[1, C, H, W]`` in [-1, 1]."""
    array = np.asarray(image)
    return from_uint8(
        torch.from_numpy(np.array(array if array.ndim == 3 else array[:, :, None])).permute(
            2, 0, 1
        )[None]
    )


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float -1..1, any shape."""
    return pixels.float() / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Float -1..1 to uint8 0..255 (clamped, rounded), any shape."""
    return ((image.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def to_pil(image: Tensor) -> Image.Image:
    """Float ``[C, H, W]`` or ``[1, C, H, W]`` in [-1, 1], C 1, 3 or 4, to PIL "L", "RGB" or
    "RGBA"."""
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise ArgumentError.of_shape("an image to write", "[1, 3 or 4, H, W]", image.shape)
    array = to_uint8(image).permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def grid(images: Tensor, columns: int) -> Tensor:
    """Return ``[N, C, H, W]`` as one picture ``[C, rows * H, columns * W]``, row by row; missing
    cells are white."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    cells = torch.ones(rows * columns, c, h, w)
    cells[:n] = images.detach().float().cpu()
    return (
        cells.reshape(rows, columns, c, h, w)
        .permute(2, 0, 3, 1, 4)
        .reshape(c, rows * h, columns * w)
    )


def save_image(
    image: Tensor | Image.Image, path: str | os.PathLike[str], note: str = EDITED
) -> None:
    """Write a picture (by its ending) that says it is edited, and carries no other metadata.

    Args:
        image: float ``[C, H, W]`` or ``[1, C, H, W]`` in [-1, 1], or a PIL image.
        path: .png, .jpg, .webp and the like.
        note: what the picture says of itself; .bmp and .ppm have no place for it.

    Raises:
        Error: unknown ending, or the file cannot be written; or as `check_picture`.
    """
    kind = check_picture(path)
    picture = to_pil(image) if isinstance(image, Tensor) else image
    if kind not in WITH_ALPHA:
        picture = opaque(picture)
    options: dict[str, Any] = {}

    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Description", note)
    elif kind == "GIF":
        options["comment"] = note.encode()
    elif kind in ("JPEG", "WEBP", "TIFF", "AVIF"):
        exif = Image.Exif()
        exif[DESCRIPTION] = note
        options["exif"] = exif

    if kind in ("JPEG", "WEBP", "AVIF"):
        options["quality"] = 95

    write_picture(picture, path, kind, options)


def write_picture(
    picture: Image.Image, path: str | os.PathLike[str], kind: str, options: dict[str, Any]
) -> None:
    """Encode ``picture`` with Pillow's ``options`` of ``kind`` and write it whole.

    Raises:
        Error: the format cannot hold it, or the file cannot be written.
    """
    buffer = io.BytesIO()
    try:
        picture.save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot write {path}: {kind} does not take {picture.width} x {picture.height} "
            f"pixels ({error})"
        ) from error

    write_bytes(path, buffer.getvalue())
