"""Options and helpers that several commands share."""

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from latentedit.errors import Error, Interrupted, printable
from latentedit.io import outputs

if TYPE_CHECKING:
    from latentedit.model.model import Model

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")
T = TypeVar("T")


def device_option(function: F) -> F:
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")(function)


class Finite(click.FloatRange):
    """A number within a range; NaN and infinity, which pass any comparison or poison what they touch, are no numbers."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


SEED = click.IntRange(0, 2**32 - 1)
PSI = Finite(-5, 5)
"""Beyond that pictures are none; negative ones show the opposite."""
WEIGHT = Finite(0, 1e6)
LARGEST_AMOUNT = 1000
"""Sigmas of an edit; more is a slip of the keyboard."""


def seed_option(function: F) -> F:
    return click.option("--seed", default=0, show_default=True, type=SEED, help="Of every random draw.")(function)


def model_option(default: str | None = "faces128") -> Callable[[F], F]:
    text = "Bundled name or model file." if default else "Bundled name or model file; by default the bundled one that fits."
    return click.option("--model", "model_name", default=default, show_default=bool(default), help=text)


def options_here() -> list[str]:
    """The options of the command that runs, so that messages advise no others; in other threads those of ``invert``."""
    context = click.get_current_context(silent=True)
    if context is None:
        return ["--framing", "--crop", "--aligned", "--landmarks", "--face-detector"]
    return [name for parameter in context.command.params for name in parameter.opts]


def crop_options(function: F) -> F:
    function = click.option("--aligned", is_flag=True, help="The pictures are crops already.")(function)
    return click.option("--crop", metavar="X,Y,SIZE", help="Square of the photo to take, in pixels.")(function)


def framing_option(function: F) -> F:
    text = "How faces are framed, for models whose file does not say."
    return click.option("--framing", type=click.Choice(["ffhq"]), help=text)(function)


def face_options(function: F) -> F:
    which, marks = "Which face; 1 is the largest.", "Centres of left eye, right eye and mouth, in pixels."
    function = click.option("--face", default="1", show_default=True, metavar="N|all", help=which)(function)
    function = click.option("--landmarks", metavar="AX,AY,BX,BY,MX,MY", help=marks)(function)
    return click.option("--face-detector", metavar="FILE", help="A YuNet model (.onnx) to find faces with.")(function)


def perceptual_options(function: F) -> F:
    function = click.option("--perceptual-weights", metavar="FILE", help="vgg16-397923af.pth, for LPIPS.")(function)
    kinds, text = (
        click.Choice(["auto", "lpips", "stlpips", "discriminator"]),
        "Distance to minimise; auto is LPIPS where its weights are at hand, else the discriminator's, with ST-LPIPS"
        " where the extra latentedit[perceptual] is installed.",
    )
    return click.option("--perceptual", type=kinds, default="auto", show_default=True, help=text)(function)


def read_model(name: str, device: str, framing: str | None = None) -> "Model":
    """The model; ``framing`` is the name of one that it gets if its file says nothing of how faces are framed."""
    from latentedit.formats.load_model import load_model
    from latentedit.runtime.devices import resolve_device

    model = load_model(name, resolve_device(device))
    for note in model.notes:
        click.echo(f"{Path(model.path).name}: {note}", err=True)
    if framing is not None:
        from latentedit.photo.framing import FRAMINGS

        if model.framing is not None and model.framing != FRAMINGS[framing]:
            raise Error(f"{name}: its file says how faces are framed, so --framing {framing} cannot be")
        model.framing = FRAMINGS[framing]
    return model


def parse_numbers(text: str, count: int, what: str) -> list[float]:
    """``"30,22,64"`` as ``count`` numbers."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise Error(f"{what} takes {count} finite numbers separated by commas, got {text!r}")
    return numbers


MARGIN = 1.0
"""How far a crop may reach beyond the photo, in its longer sides; faces at an edge do reach a little beyond."""


def check_quad(quad: list[list[float]], photo: Any, name: str) -> None:
    """Raise `Error` for a crop much larger than the photo, which would be filled up with its reflections."""
    most = MARGIN * max(photo.size)
    inside = all(-most <= x <= photo.width + most and -most <= y <= photo.height + most for x, y in quad)
    if not inside:
        raise Error(f"{name} reaches far beyond the picture of {photo.width} x {photo.height} pixels")


def quad_of(photo: Any, model: "Model", crop: str | None, aligned: bool, name: str) -> list[list[float]]:
    """The crop that the options ask for, else the one around the face; ``photo`` is a PIL picture."""
    from latentedit.photo.alignment import quad_for, quad_of_window

    if crop and aligned:
        raise Error("--crop and --aligned exclude each other")
    if crop:
        left, top, side = parse_numbers(crop, 3, "--crop")
        if side < 1 or left + side <= 0 or top + side <= 0 or left >= photo.width or top >= photo.height:
            raise Error(f"{name}: --crop {crop} lies outside the picture of {photo.width} x {photo.height} pixels")
        check_quad(quad_of_window(left, top, side), photo, f"{name}: --crop {crop}")
        return quad_of_window(left, top, side)
    if aligned:
        side = min(photo.size)
        return quad_of_window((photo.width - side) // 2, (photo.height - side) // 2, side)
    return quad_for(photo, model.framing, name, ways=options_here())


class Framed(NamedTuple):
    """A crop that is to be taken from a photo."""

    suffix: str
    """What to add to the photo's name."""
    quad: list[list[float]]
    warnings: list[str]
    """Sentences about a face that may be framed wrongly."""


def quads_of(photo: Any, model: "Model", name: str, face: str, landmarks: str | None, detector: str | None) -> list[Framed]:
    """The crops around faces that the options ask for."""
    from latentedit.photo.alignment import faces_for, nth_face, quad_from_face
    from latentedit.photo.face import Face
    from latentedit.photo.faces import warnings_of

    framing = model.framing or {}
    if landmarks is not None:
        if "eyes" not in framing:
            raise Error(f"{name}: this model's file does not say how faces are framed; give --framing ffhq")
        ax, ay, bx, by, mx, my = parse_numbers(landmarks, 6, "--landmarks")
        if ax >= bx:
            raise Error(f"--landmarks begins with the eye at the viewer's left, got {landmarks}")
        if not all(0 <= x <= photo.width and 0 <= y <= photo.height for x, y in ((ax, ay), (bx, by), (mx, my))):
            raise Error(f"{name}: --landmarks {landmarks} lie outside the picture of {photo.width} x {photo.height} pixels")
        quad = quad_from_face(Face((0, 0, 0, 0), (ax, ay), (bx, by), True, (mx, my)), framing)
        check_quad(quad, photo, f"{name}: the crop around --landmarks {landmarks}")
        return [Framed("", quad, [])]
    if face != "all" and (not face.isdecimal() or int(face) < 1):
        raise Error(f"--face takes a number from 1, or all; got {face!r}")
    ways = options_here()
    faces = faces_for(photo, framing, name, detector=detector, ways=ways)
    if face == "all":
        return [Framed(f"-{n}", quad_from_face(one, framing), warnings_of(one, ways)) for n, one in enumerate(faces, 1)]
    one = nth_face(faces, int(face), name)
    return [Framed("", quad_from_face(one, framing), warnings_of(one, ways))]


def recursive_option(function: F) -> F:
    return click.option("--recursive", is_flag=True, help="Look into the sub-folders of folders too.")(function)


def megapixels_option(function: F) -> F:
    """Sets what `latentedit.io.images.megapixels` says while the command runs."""

    def set_limit(context: click.Context, _: click.Parameter, value: float | None) -> None:
        if value is not None:
            before = os.environ.get("LATENTEDIT_MEGAPIXELS")
            os.environ["LATENTEDIT_MEGAPIXELS"] = str(value)
            context.call_on_close(lambda: _put_back("LATENTEDIT_MEGAPIXELS", before))

    return click.option(
        "--megapixels",
        type=Finite(0, 1e5, min_open=True),
        callback=set_limit,
        expose_value=False,
        help="Largest picture that is read, in millions of pixels.  [default: 64]",
    )(function)


def _put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def expand(
    paths: Sequence[str], endings: tuple[str, ...], what: str, *, recursive: bool = False, photos: bool = False
) -> list[Path]:
    """The files that ``paths`` name; a folder stands for the files in it that have one of ``endings``, but for hidden ones.

    ``photos`` are taken once each, and not where they were rendered here; what else is in a folder is counted and named
    on stderr.
    """
    from latentedit.io.folders import listing

    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if not path.is_dir():
            found.append(path)
            continue
        inside = listing(path, endings, recursive=recursive, photos=photos)
        if not inside.files:
            raise Error("; ".join([f"{path}: no {what} in this folder", *inside.lines()]))
        for line in inside.lines() if photos else ():
            say(f"{path}: {line}", err=True)
        found += inside.files
    if photos:
        once = {os.path.realpath(path): path for path in reversed(found)}
        found = [path for path in found if once[os.path.realpath(path)] is path]
    for path in found:
        outputs.given(path)
    return found


@contextmanager
def progress_bar(total: int | None, what: str, unit: str = "step", scale: bool = False) -> Iterator[Any]:
    """A tqdm bar on stderr; ``bar.update(n)``."""
    from tqdm import tqdm

    with tqdm(total=total, desc=printable(what), unit=unit, unit_scale=scale, dynamic_ncols=True, mininterval=0.3) as bar:
        yield bar


class SeveralError(Error):
    """What went wrong with several files at once."""

    def __init__(self, found: Sequence[tuple[Path, str]]) -> None:
        super().__init__("; ".join(dict.fromkeys(message for _, message in found)))
        self.found = list(found)


def each(items: Sequence[Path], work: Callable[[Path], None]) -> None:
    """Do ``work`` for every item; bad ones are listed at the end, with exit status 1, or 130 where Ctrl-C ended it."""
    bad: dict[Path, list[str]] = {}
    for item in items:
        try:
            work(item)
        except (Interrupted, KeyboardInterrupt):
            _list(bad)
            raise
        except Error as error:
            if len(items) == 1:
                raise
            several = error.found if isinstance(error, SeveralError) else [(item, str(error))]
            for path, message in several:
                bad.setdefault(path, []).append(message)
    if bad:
        _list(bad)
        raise Error(f"{len(bad)} of {len(items)} failed")


def _list(bad: Mapping[Path, Sequence[str]]) -> None:
    for messages in bad.values():
        for message in messages:
            say(f"latentedit: {message}", err=True)


@contextmanager
def ahead(items: Sequence[T], prepare: Callable[[T], S], count: int) -> Iterator[Callable[[], S]]:
    """In the block every call gives what ``prepare`` makes of the next item, or raises what it raised; a thread makes up to
    ``count`` beforehand, while the caller is busy with earlier ones.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        left = iter(items)
        waiting: deque[Future[S]] = deque()

        def following() -> S:
            while len(waiting) <= count and (item := next(left, None)) is not None:
                waiting.append(thread.submit(prepare, item))
            return waiting.popleft().result()

        try:
            yield following
        finally:
            thread.shutdown(cancel_futures=True)


def say(line: str, err: bool = False) -> None:
    """Print one line; names from files can hold anything, and what would move a terminal's cursor is replaced."""
    click.echo(printable(line), err=err)


def say_video(note: str | None, path: str | Path) -> None:
    """On stderr what `latentedit.io.video.save_video` says of the file, if anything."""
    if note:
        click.echo(f"{path}: {note}", err=True)


def say_written(path: str | Path) -> None:
    say(f"wrote {path}")


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """``facts`` for people, one a line, or as JSON."""
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{key}:")
            for name, item in value.items():
                click.echo(printable(f"  {name}: {item}"))
        else:
            click.echo(printable(f"{key}: {', '.join(value) if isinstance(value, list) else value}"))
