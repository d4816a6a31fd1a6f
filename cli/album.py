"""What ``invert`` says while an album is made, and which crops it takes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.album.cropping import Cropping
from latentedit.album.runner import Finished, Listener
from latentedit.cli import log
from latentedit.cli.common import progress_bar, quad_of, quads_of, say, say_video, say_written
from latentedit.inversion.projector import Projector
from latentedit.photo.framing import Framed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from PIL import Image

    from latentedit.model.model import Model


def crops_for(model: "Model", cropping: Cropping) -> "Callable[[Image.Image, Path], list[Framed]]":
    """Return a function that finds the crops in an open photo, as the options of the command
    say."""
    face = cropping.face
    landmarks = cropping.landmarks
    detector = cropping.face_detector

    def crops(photo: "Image.Image", path: Path) -> list[Framed]:
        if cropping.crop or cropping.aligned:
            return [Framed("", quad_of(photo, cropping.crop, cropping.aligned, str(path)), [])]
        return quads_of(
            photo, model, str(path), face, landmarks, None if detector is None else str(detector)
        )

    return crops


class Told(Listener):
    """Prints what an album tells: lines of text, or with ``as_json`` an object for every face."""

    def __init__(self, projector: Projector, as_json: bool) -> None:
        self.projector = projector
        self.as_json = as_json
        self._context: AbstractContextManager[Any] | None = None
        self._bar: Any = None

    def began(self, what: str, total: int | None) -> None:
        self._context = progress_bar(total, what)
        self._bar = self._context.__enter__()

    def stepped(self, step: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(step - self._bar.n)

    def ended(self) -> None:
        if self._context is not None:
            self._context.__exit__(None, None, None)

    def warned(self, photo: Path, text: str) -> None:
        log.warn(f"{photo.name}: {text}")

    def noted(self, photo: Path, text: str) -> None:
        log.remark(f"{photo.name}: {text}")

    def skipped(self, photo: Path, latent: str) -> None:
        log.remark(f"{photo.name}: already done")
        self._record({"photo": str(photo), "latent": latent, "status": "done before"})

    def failed(self, photo: Path, message: str) -> None:
        self._record({"photo": str(photo), "latent": None, "status": "failed", "error": message})

    def finished(self, face: Finished) -> None:
        if face.video is not None:
            say_video(face.video_note, face.video)
        if self.as_json:
            self._record(facts_of(face))
            return
        self._describe(face)
        for path in face.written:
            say_written(path)

    def overview(self, drawn: Path, problem: str | None, faces: int, seconds: float) -> None:
        say(
            f"latentedit: {problem}" if problem else f"wrote {drawn}",
            err=bool(problem) or self.as_json,
        )
        log.remark(f"{faces} photos, {faces / seconds * 60:.1f} per minute")

    def _record(self, facts: dict[str, Any]) -> None:
        if self.as_json:
            click.echo(json.dumps(facts))

    def _describe(self, face: Finished) -> None:
        name = face.photo.name
        found = face.distances
        latent = face.latent
        say(
            f"{name}: {self.projector.perceptual.name} {found['perceptual']:.4f} / "
            f"{found['perceptual_own_noise']:.4f}, PSNR"
            f" {found['psnr']:.1f} / {found['psnr_own_noise']:.1f} dB (optimised / own noise); "
            "distance from the mean w"
            f" {found['w_distance']:.2f} (random w: about 1; more than "
            f"{found['w_percentile']:.0f} % of them)"
        )
        say(f"{name}: {face.verdict}")
        if limits := face.verdict.limits():
            say(f"{name}: {limits}")

        if latent.tuned:
            if shared := latent.settings.get("tune_together"):
                say(f"{name}: the generator is tuned to {shared['photos']} photos")
            say(
                f"{name}: PSNR after tuning {latent.distances['psnr_tuned']:.1f} dB; PSNR "
                "between the images with the"
                " compressed and the full change of the generator "
                f"{latent.settings['tune_loss_db']:.0f} dB"
            )


class Briefly(Told):
    """Tells of an inversion in one line, as what the command is about comes after it."""

    def __init__(self, projector: Projector) -> None:
        super().__init__(projector, as_json=False)

    def finished(self, face: Finished) -> None:
        likeness = face.latent.distances.get("psnr_tuned", face.distances["psnr"])
        took = f"inverted in {face.seconds:.0f} s, PSNR {likeness:.1f} dB"
        log.remark(f"{face.photo.name}: {took}; {face.verdict}")

    def overview(self, drawn: Path, problem: str | None, faces: int, seconds: float) -> None:
        """There is none."""


def facts_of(face: Finished) -> dict[str, Any]:
    """Return what ``--json`` prints of a face."""
    facts = {"photo": str(face.photo), "latent": f"{face.name}.safetensors", **face.distances}
    facts |= {"seconds": round(face.seconds, 1)}
    facts |= {
        name: value for name, value in face.latent.distances.items() if name.endswith("_tuned")
    }
    facts |= {
        "verdict": str(face.verdict),
        "verdict_parts": face.verdict.facts(),
        "remarks": face.remarks,
        "notes": list(face.notes),
    }
    facts |= {"crop": face.latent.crop, "interrupted": face.interrupted}
    return facts | {"status": "interrupted" if face.interrupted else "ok"}
