"""What else is made of faces: mixtures, grids, sweeps, and pictures pasted back into their
photos."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from latentedit.errors import ArgumentError, DataError, NotFoundError
from latentedit.io.contact_sheet import Row, sheet
from latentedit.io.images import open_image, save_image, to_pil
from latentedit.io.video import save_video, there_and_back
from latentedit.latent.blending import interpolated, mixed
from latentedit.latent.latent_file import Latent
from latentedit.latent.layers import parse_layers
from latentedit.photo.pasting import FEATHER, check_belongs, paste_back, save_like
from latentedit.studio.history import State
from latentedit.studio.keeping import free_file
from latentedit.studio.open_face import OpenFace
from latentedit.studio.saving import command_line
from latentedit.studio.session import Session

Report = Callable[[int, int], None]
"""Called with the pictures done and their number."""
MOST = 81
"""Cells of a grid, and pictures of a sweep."""


def amounts(low: float, high: float, count: int) -> list[float]:
    """Return ``count`` amounts from ``low`` to ``high``, in sigmas.

    Raises:
        Error: fewer than 2 or too many, or numbers that are none.
    """
    if not 2 <= count <= MOST:
        raise ArgumentError(f"a sweep has 2 to {MOST} pictures, got {count}")
    if not (abs(low) <= 1000 and abs(high) <= 1000):  # a NaN neither
        raise ArgumentError(f"amounts lie between -1000 and 1000 sigmas, got {low} to {high}")
    return [low + (high - low) * i / (count - 1) for i in range(count)]


def blended(
    session: Session, a: OpenFace, b: OpenFace, *, share: float | None = None, layers: str = ""
) -> Latent:
    """Return ``a`` with ``layers`` of ``b``, or the latent at ``share`` of the way from ``a`` to
    ``b``.

    Raises:
        Error: no layers of this network; a latent with style offsets, which only fit its own w.
    """
    generator = session.model.generator
    if share is not None:
        if not 0 <= share <= 1:
            raise ArgumentError(f"a share lies between 0 and 1, got {share}")
        return interpolated(generator, a.latent, b.latent, share)
    return mixed(generator, a.latent, b.latent, parse_layers(layers, generator.num_ws))


def between(
    session: Session, a: OpenFace, b: OpenFace, count: int, report: Report | None = None
) -> list[Tensor]:
    """Return the pictures on the way from ``a`` to ``b``."""
    found = []
    for number, share in enumerate(amounts(0, 1, count)):
        found.append(session.render(blended(session, a, b, share=share)))
        if report is not None:
            report(number + 1, count)
    return found


def at(state: State, name: str, amount: float) -> State:
    """Return the state with one slider elsewhere, locked or not."""
    return replace(state.moved(name, amount), locks=state.locks - {name})


def swept(
    session: Session, name: str, steps: Sequence[float], report: Report | None = None
) -> list[Tensor]:
    """Return the pictures of the open face along one slider; the others stay where they are."""
    state = session.state
    found: list[Tensor] = []
    for number, amount in enumerate(steps):
        found.append(session.render(session.edited(at(state, name, amount))))
        if report is not None:
            report(number + 1, len(steps))
    return found


def crossed(
    session: Session,
    across: str,
    down: str,
    xs: Sequence[float],
    ys: Sequence[float],
    report: Report | None = None,
) -> list[list[Tensor]]:
    """Return the pictures of the open face along two sliders, row by row.

    Raises:
        Error: the same slider twice, or too many pictures.
    """
    if across == down:
        raise ArgumentError("a grid takes two different sliders")
    if len(xs) * len(ys) > MOST:
        raise ArgumentError(f"a grid has at most {MOST} pictures, got {len(xs)} x {len(ys)}")
    state = session.state
    rows: list[list[Tensor]] = []
    for y in ys:
        row = []
        for x in xs:
            row.append(session.render(session.edited(at(at(state, down, y), across, x))))
            if report is not None:
                report(len(rows) * len(xs) + len(row), len(xs) * len(ys))
        rows.append(row)
    return rows


def save_sweep(
    session: Session, pictures: Sequence[Tensor], name: str, ending: str, steps: Sequence[float]
) -> tuple[Path, str]:
    """Write a sweep as .gif or .mp4, forth and back, or as a strip (.png); return the file, and
    what to know of it."""
    place = free_file(session.keeper.folder, name, ending)
    if ending == ".png":
        save_image(sheet([Row("", list(pictures), [f"{amount:+.1f}" for amount in steps])]), place)
        return place, ""
    return place, save_video(place, there_and_back(list(pictures)), fps=12) or ""


def save_grid(
    session: Session,
    rows: Sequence[Sequence[Tensor]],
    name: str,
    xs: Sequence[float],
    ys: Sequence[float],
    titles: tuple[str, str],
) -> Path:
    """Write a grid as a labelled sheet."""
    place = free_file(session.keeper.folder, name, ".png")
    across, down = titles
    lines = [
        Row(f"{down} {y:+.1f}", list(row), [f"{across} {x:+.1f}" for x in xs])
        for y, row in zip(ys, rows, strict=True)
    ]
    save_image(sheet(lines), place)
    return place


class Pasting:
    """The edited face in the photo that it came from.

    Raises:
        Error: the face comes from no photo, or its photo is gone.
    """

    def __init__(self, session: Session) -> None:
        face = session.face
        if face is None or face.photo is None or face.latent.crop is None:
            raise DataError("this face was not found in a photo, so there is none to paste it into")
        if not face.photo.is_file():
            raise NotFoundError(f"the photo {face.photo} is not there any more")
        self.session = session
        self.face = face
        self.quad = face.latent.crop
        # What a drag has changed is in the face itself, and no difference to it.
        self.whole = bool(face.latent.settings.get("edits"))
        self.photo = open_image(face.photo)
        if face.latent.crop_hash is not None:
            # Since the search, another photo may have got its name.
            check_belongs(self.photo, face.latent, session.render(face.latent), str(face.photo))

    def paste(self, *, feather: float = FEATHER, difference: bool = True) -> Image.Image:
        """Return the photo with the edited face in it.

        Args:
            feather: share of the crop's side over which its edge fades, 0 to 0.5.
            difference: add only what the sliders changed, so that the photo keeps its own detail;
                a face that was dragged is pasted as a whole.
        """
        drawn = to_pil(self.session.render(self.session.edited()))
        if self.whole:
            difference = False
        before = to_pil(self.session.render(self.face.latent)) if difference else None
        return paste_back(self.photo, drawn, self.quad, feather=feather, before=before)

    def save(self, name: str, *, feather: float = FEATHER, difference: bool = True) -> Path:
        """Write the photo with the face in it, as a JPEG that says that it is edited, and return
        the file."""
        assert self.face.photo is not None
        place = free_file(self.session.keeper.folder, name, ".jpg")
        save_like(self.paste(feather=feather, difference=difference), place, self.face.photo)
        return place

    def command(self, out: str, *, feather: float = FEATHER, difference: bool = True) -> str:
        """Return the command line that does the same."""
        import shlex

        more = ["--paste-back", str(self.face.photo)]
        more += ["--difference"] if difference and not self.whole else []
        more += ["--feather", f"{feather:g}"] if feather != FEATHER else []
        return f"{command_line(self.session, out)} {shlex.join(more)}"
