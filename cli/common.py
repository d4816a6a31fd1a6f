"""Options and helpers that several commands share."""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from latentedit.cli import defaults, log
from latentedit.cli.defaults import Configured, put_back
from latentedit.cli.tables import describe
from latentedit.errors import (
    ArgumentError,
    DataError,
    Error,
    IncompatibleError,
    Interrupted,
    NotFoundError,
    printable,
)
from latentedit.inversion.quality import QUALITIES, USUAL
from latentedit.io import outputs
from latentedit.photo.framing import Framed

if TYPE_CHECKING:
    from latentedit.model.model import Model
    from latentedit.photo.faces import Seen

F = TypeVar("F", bound=Callable[..., Any])


def device_option(function: F) -> F:
    return click.option(
        "--device",
        cls=Configured,
        key="device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda, cuda:1 or mps.",
    )(function)


def folder_option(text: str, default: str | None = None) -> Callable[[F], F]:
    """Add ``--out`` of a command that writes into a folder, whose default the user can set."""
    built_in: dict[str, Any] = (
        {"required": True} if default is None else {"default": default, "show_default": True}
    )
    return click.option(
        "--out", cls=Configured, key="out", type=click.Path(), help=text, **built_in
    )


def is_typed(name: str) -> bool:
    """Return whether the user typed the option that the running command calls ``name``, as opposed
    to a default."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE


class Finite(click.FloatRange):
    """A number within a range. NaN and infinity are refused, because comparisons with them
    mislead."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


SEED = click.IntRange(0, 2**32 - 1)
MOST = 10_000_000
"""Largest number of steps, images and the like; far larger numbers overflow in libraries."""
PSI = Finite(-5, 5)
"""Outside this range images are meaningless; negative values show the opposite face."""
WEIGHT = Finite(0, 1e6)
LARGEST_AMOUNT = 1000
"""Largest edit in sigmas; more is a typing error."""


def seed_option(function: F) -> F:
    return click.option("--seed", default=0, show_default=True, type=SEED, help="Random seed.")(
        function
    )


def model_option(default: str | None = "faces128") -> Callable[[F], F]:
    """Add ``--model``; without a ``default``, the model is found by the fingerprint of what the
    user names."""
    if not default:
        text = (
            "Model: bundled name or file (default: the one that matches, if it is bundled or was "
            "used before)."
        )
        return click.option("--model", "model_name", help=text)
    return click.option(
        "--model",
        "model_name",
        cls=Configured,
        key="model",
        default=default,
        show_default=True,
        help="Model: bundled name or file.",
    )


def options_here() -> list[str]:
    """Return the options of the running command by argument (``face_detector`` for
    ``--face-detector``).

    Messages suggest no others. In other threads the options are those of ``invert``.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return ["framing", "crop", "aligned", "landmarks", "face_detector"]
    names = (name for parameter in context.command.params for name in parameter.opts)
    return [name.removeprefix("--").replace("-", "_") for name in names]


def quality_option(function: F) -> F:
    text = (
        "Usual choices: fast (30 steps on w), balanced, or best (then tune the generator to the "
        "photo). Options that you give win."
    )
    return click.option(
        "--quality",
        cls=Configured,
        key="quality",
        type=click.Choice(list(QUALITIES)),
        default=USUAL,
        show_default=True,
        help=text,
    )(function)


def crop_options(function: F) -> F:
    function = click.option("--aligned", is_flag=True, help="The images are already crops.")(
        function
    )
    return click.option(
        "--crop", metavar="X,Y,SIZE", help="Square to take from the photo, in pixels."
    )(function)


def framing_option(function: F) -> F:
    text = "Framing of faces, for models whose file does not define it."
    return click.option(
        "--framing", cls=Configured, key="framing", type=click.Choice(["ffhq"]), help=text
    )(function)


def transform_option(function: F) -> F:
    text = (
        "Turn the image DEGREES anticlockwise, then move it right by X and down by Y, in fractions "
        "of its side. StyleGAN3 only."
    )
    return click.option("--transform", metavar="X,Y,DEGREES", help=text)(function)


def face_options(function: F) -> F:
    which = "Which face; 1 is the largest."
    marks = "Centres of the left eye, right eye and mouth, in pixels."
    function = click.option("--face", default="1", show_default=True, metavar="N|all", help=which)(
        function
    )
    function = click.option("--landmarks", metavar="AX,AY,BX,BY,MX,MY", help=marks)(function)
    return click.option(
        "--face-detector",
        metavar="FILE",
        help='YuNet model (.onnx), or yunet after "latentedit model fetch yunet".',
    )(function)


def perceptual_options(function: F) -> F:
    function = click.option(
        "--perceptual-weights",
        metavar="FILE",
        help='LPIPS weights (default: those that "latentedit model fetch vgg16" downloaded).',
    )(function)
    kinds = click.Choice(["auto", "lpips", "stlpips", "discriminator"])
    text = (
        "Distance to minimise. auto: LPIPS if its weights are available, otherwise the "
        "discriminator's features, plus"
        " ST-LPIPS if latentedit[perceptual] is installed."
    )
    return click.option("--perceptual", type=kinds, default="auto", show_default=True, help=text)(
        function
    )


def read_model(
    name: str, device: str, framing: str | None = None, *, encoder: bool = True
) -> "Model":
    """Load the model; ``framing`` names the framing that it gets if its file defines none.
    Without ``encoder``, an encoder beside it is not read."""
    from latentedit.formats.load_model import load_model
    from latentedit.runtime.devices import resolve_device

    with blamed("device", "device", device):
        where = resolve_device(device)
    with blamed("model", "model_name", name):
        model = load_model(name, where, encoder=encoder)
    for note in model.notes:
        log.remark(f"{Path(model.path).name}: {note}")
    if framing is not None:
        from latentedit.photo.framing import FRAMINGS

        if model.framing is None:
            model.framing = FRAMINGS[framing]
        elif model.framing != FRAMINGS[framing] and is_typed("framing"):
            reason = (
                f"the model file defines another framing of faces; leave out --framing {framing}"
            )
            raise IncompatibleError(reason, path=name)
    # So that a latent finds its network again without --model.
    remember_network(model)
    return model


def remember_network(model: "Model") -> None:
    """Have the file of a network found again by its fingerprint, unless it is bundled."""
    from latentedit.model.bundled import BUNDLED
    from latentedit.model.remembered import remember
    from latentedit.networks.fingerprint import fingerprint

    if Path(model.path).parent != BUNDLED:
        remember(fingerprint(model.generator), model.path)


@contextmanager
def blamed(key: str, parameter: str, value: str) -> Iterator[None]:
    """Have errors inside say where the default ``key`` was set, if ``value`` is that and the user
    did not type it."""
    try:
        yield
    except Error as error:
        found = None if is_typed(parameter) else defaults.user_default(key)
        if found is not None and found.value == value:
            origin = f"the default {key} is set in {found.place}"
            error.advice = f"{error.advice}; {origin}" if error.advice else origin
        raise


def parse_numbers(text: str, count: int, what: str) -> list[float]:
    """Return ``"30,22,64"`` as ``count`` numbers."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ArgumentError(
            f"{what} takes {count} finite numbers separated by commas, got {text!r}"
        )
    return numbers


MARGIN = 1.0
"""How far a crop may extend beyond the photo, in multiples of its longer side; faces at an edge
extend a little."""


def check_quad(quad: list[list[float]], photo: Any, name: str) -> None:
    """Raise `Error` for a crop much larger than the photo, which reflections of the photo would
    fill."""
    most = MARGIN * max(photo.size)
    inside = all(
        -most <= x <= photo.width + most and -most <= y <= photo.height + most for x, y in quad
    )
    if not inside:
        raise IncompatibleError(
            f"{name} extends far beyond the image of {photo.width} x {photo.height} pixels"
        )


def quad_of(photo: Any, crop: str | None, aligned: bool, name: str) -> list[list[float]]:
    """Return the crop of --crop or --aligned, one of which must be given; ``photo`` is a PIL
    image."""
    from latentedit.photo.alignment import quad_of_window

    if crop and aligned:
        raise ArgumentError("--crop and --aligned cannot be used together")
    if crop:
        left, top, side = parse_numbers(crop, 3, "--crop")
        if (
            side < 1
            or left + side <= 0
            or top + side <= 0
            or left >= photo.width
            or top >= photo.height
        ):
            raise ArgumentError(
                f"{name}: --crop {crop} lies outside the image of {photo.width} x {photo.height} "
                "pixels"
            )
        check_quad(quad_of_window(left, top, side), photo, f"{name}: --crop {crop}")
        return quad_of_window(left, top, side)
    side = min(photo.size)
    return quad_of_window((photo.width - side) // 2, (photo.height - side) // 2, side)


def quads_of(
    photo: Any, model: "Model", name: str, face: str, landmarks: str | None, detector: str | None
) -> list[Framed]:
    """Return the crops around the faces that the options ask for."""
    from latentedit.photo.alignment import faces_for, nth_face, quad_from_face
    from latentedit.photo.face import DetectedFace
    from latentedit.photo.faces import notes_on, turn_of, warnings_of

    framing = model.framing or {}
    if landmarks is not None:
        if "eyes" not in framing:
            raise DataError(
                f"{name}: the model file does not define the framing of faces; add --framing ffhq"
            )
        ax, ay, bx, by, mx, my = parse_numbers(landmarks, 6, "--landmarks")
        if ax >= bx:
            raise ArgumentError(
                f"--landmarks must start with the eye on the left of the image, got {landmarks}"
            )
        if not all(
            0 <= x <= photo.width and 0 <= y <= photo.height
            for x, y in ((ax, ay), (bx, by), (mx, my))
        ):
            raise ArgumentError(
                f"{name}: --landmarks {landmarks} lie outside the image of {photo.width} x "
                f"{photo.height} pixels"
            )
        quad = quad_from_face(
            DetectedFace((0, 0, 0, 0), (ax, ay), (bx, by), True, (mx, my)), framing
        )
        check_quad(quad, photo, f"{name}: the crop around --landmarks {landmarks}")
        return [Framed("", quad, [])]
    if face != "all" and (not face.isdecimal() or int(face) < 1):
        raise ArgumentError(f"--face takes a number from 1 up, or all; got {face!r}")
    ways = options_here()
    number = 1 if face == "all" else int(face)
    faces = faces_for(photo, framing, name, detector=detector, number=number, ways=ways)
    if face == "all":
        return [
            Framed(f"-{n}", quad_from_face(one, framing), warnings_of(one, ways), turn_of(one))
            for n, one in enumerate(faces, 1)
        ]
    one = nth_face(faces, number, name)
    notes = notes_on(faces, number, ways)
    return [Framed("", quad_from_face(one, framing), warnings_of(one, ways), notes)]


def json_option(function: F) -> F:
    text = "Print JSON, one object per line."
    return click.option("--json", "as_json", is_flag=True, help=text)(function)


def recursive_option(function: F) -> F:
    return click.option("--recursive", is_flag=True, help="Include sub-folders.")(function)


def megapixels_option(function: F) -> F:
    """Sets what `latentedit.io.images.megapixels` says while the command runs."""

    def set_limit(context: click.Context, _: click.Parameter, value: float | None) -> None:
        if value is not None:
            before = os.environ.get("LATENTEDIT_MEGAPIXELS")
            os.environ["LATENTEDIT_MEGAPIXELS"] = str(value)
            context.call_on_close(lambda: put_back("LATENTEDIT_MEGAPIXELS", before))

    return click.option(
        "--megapixels",
        type=Finite(0, 1e5, min_open=True),
        callback=set_limit,
        expose_value=False,
        help="Largest image that is accepted, in millions of pixels.  [default: 64]",
    )(function)


def found_files(
    paths: Sequence[str],
    endings: tuple[str, ...],
    what: str,
    *,
    recursive: bool = False,
    photos: bool = False,
) -> list[Path]:
    """Return the files that ``paths`` name; a folder stands for its visible files with one of
    ``endings``.

    With ``photos``, each file is taken once and images that latentedit rendered are left out. Other
    contents of a folder are counted and reported on stderr; without ``photos`` only sub-folders, as
    latents lie among images of them.
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
            raise NotFoundError("; ".join([f"{path}: no {what} in this folder", *inside.lines()]))
        for line in inside.lines() if photos else inside.deeper():
            log.remark(f"{path}: {line}")
        found += inside.files
    if photos:
        once = {os.path.realpath(path): path for path in reversed(found)}
        found = [path for path in found if once[os.path.realpath(path)] is path]
    for path in found:
        outputs.given(path)
    return found


@contextmanager
def progress_bar(
    total: int | None, what: str, unit: str = "step", scale: bool = False
) -> Iterator[Any]:
    """A tqdm bar on stderr; ``bar.update(n)``. With ``--quiet`` it is not shown.

    Where stderr is no terminal, it is a line a minute.
    """
    from tqdm import tqdm

    with tqdm(
        total=total, desc=printable(what), unit=unit, unit_scale=scale, **bar_options()
    ) as bar:
        yield bar


A_MINUTE = 60.0


def bar_options(bar_format: str | None = None) -> dict[str, Any]:
    """Return the options of every bar, which say how often it is drawn and what becomes of it in a
    file.

    Args:
        bar_format: tqdm's, on a terminal.
    """
    hidden = {"disable": True} if log.is_quiet() else {}  # else TQDM_DISABLE counts
    if log.is_terminal():
        return {"dynamic_ncols": True, "mininterval": 0.3, "bar_format": bar_format, **hidden}
    line = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt}, {elapsed} gone, {remaining} left"
    return {
        "file": log.Lines(),
        "delay": A_MINUTE,
        "mininterval": A_MINUTE,
        "maxinterval": A_MINUTE,
        "miniters": 1,
        "leave": False,
        "bar_format": (bar_format or line).replace("|{bar}|", ""),
        **hidden,
    }


@contextmanager
def lazy_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for ``progress(done, total)`` from its first call on; some work turns out not to
    be needed."""
    with ExitStack() as stack:
        bars: list[Any] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress_bar(total, what, unit)))
            bars[0].update(done - bars[0].n)

        yield progress


@contextmanager
def rendering_bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar of images, to be called after each; a single image has none."""
    if total < 2:
        yield lambda: None
        return
    with progress_bar(total, "rendering", "image") as bar:
        yield lambda: bar.update(1)


def each(items: Sequence[Path], work: Callable[[Path], None]) -> None:
    """Call ``work`` for every item and list the failures at the end; exit status 1, or 130 after
    Ctrl-C."""
    bad: list[tuple[Path, str]] = []
    for item in items:
        try:
            work(item)
        except (Interrupted, KeyboardInterrupt):
            list_failures(bad)
            raise
        except Error as error:
            if len(items) == 1:
                raise
            bad.append((item, str(error)))
    report_failures(bad, items)


class FailedItemsError(Error):
    """Some of the files of a command failed; the messages of several are printed before."""


def report_failures(failures: Sequence[tuple[Path, str]], items: Sequence[Path]) -> None:
    """Raise an error for the ``failures`` of a run over ``items``, each an item and a message;
    several are listed first."""
    if not failures:
        return
    if len(items) == 1:
        raise FailedItemsError("; ".join(dict.fromkeys(message for _, message in failures)))
    list_failures(failures)
    raise FailedItemsError(f"{len({item for item, _ in failures})} of {len(items)} failed")


def list_failures(failures: Sequence[tuple[Path, str]]) -> None:
    """Print the messages of ``failures``, those of an item below one another."""
    messages: dict[Path, list[str]] = {}
    for item, message in failures:
        messages.setdefault(item, []).append(message)
    for found in messages.values():
        for message in found:
            say(f"latentedit: {message}", err=True)


def say(line: str, err: bool = False) -> None:
    """Print one line; control characters, which names from files may contain, are replaced."""
    click.echo(printable(line), err=err)


def say_video(note: str | None, path: str | Path) -> None:
    """Print the note of `latentedit.io.video.save_video`, if there is one, on stderr."""
    if note:
        log.remark(f"{path}: {note}")


def say_seen(seen: "Seen", total: int) -> None:
    """Tell what was seen of the faces in a collection of ``total`` images."""
    for line in seen.remarks(total):
        log.remark(line)
    if warning := seen.warning(total):
        log.warn(warning)


def say_written(path: str | Path) -> None:
    say(f"wrote {path}")


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print ``facts`` in columns, or as JSON."""
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for line in describe(facts):
        click.echo(line)
