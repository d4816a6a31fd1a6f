"""``video``: the face in a clip inverted frame by frame, edited, and pasted back."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli import log
from latentedit.cli.common import (
    MOST,
    WEIGHT,
    Finite,
    crop_options,
    device_option,
    framing_option,
    megapixels_option,
    model_option,
    perceptual_options,
    progress_bar,
    quad_of,
    read_model,
    say,
    say_video,
    say_written,
    seed_option,
)
from latentedit.cli.groups import Forgiving
from latentedit.cli.invert import prepare_projector
from latentedit.cli.moves import direction_for, model_for, parse_move
from latentedit.cli.moving import is_video
from latentedit.errors import ArgumentError, IncompatibleError, Interrupted, NotFoundError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from latentedit.io.clips import Clip
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model
    from latentedit.photo.alignment import Quad

FRAME = "frame-{:05d}.safetensors"
LONGEST_SMOOTHING = 1000


@click.group(cls=Forgiving)
def video() -> None:
    """Edit the face in a video: "invert" finds the latents of its frames, "edit" moves sliders."""


@video.command("invert")
@click.argument("clip_name", metavar="CLIP")
@model_option()
@click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder for latents.")
@click.option(
    "--space",
    type=click.Choice(["w", "w+"]),
    default="w+",
    show_default=True,
    help="Latent space: one w (w), or one per layer (w+).",
)
@click.option(
    "--steps", type=click.IntRange(1, MOST), help="Steps of the first frame.  [default: 100]"
)
@click.option(
    "--later-steps",
    default=30,
    show_default=True,
    type=click.IntRange(1, MOST),
    help="Steps of every other frame, from the answer of the one before.",
)
@click.option(
    "--neighbour-weight",
    default=1.0,
    show_default=True,
    type=WEIGHT,
    help="Weight that keeps w near that of the frame before.",
)
@click.option(
    "--smooth-crop",
    default=2.0,
    show_default=True,
    type=Finite(0, LONGEST_SMOOTHING),
    help="Standard deviation of the smoothing of the crop over time, in frames.",
)
@click.option("--alone", is_flag=True, help="Invert every frame alone, as a photo.")
@crop_options
@click.option(
    "--face",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Which face of the first frame; 1 is the largest.",
)
@click.option(
    "--face-detector", metavar="FILE", help="YuNet model (.onnx, or yunet) that finds faces."
)
@framing_option
@perceptual_options
@megapixels_option
@device_option
@seed_option
def invert(
    clip_name: str,
    model_name: str,
    out: str,
    space: Any,
    steps: int | None,
    later_steps: int,
    neighbour_weight: float,
    smooth_crop: float,
    alone: bool,
    crop: str | None,
    aligned: bool,
    face: int,
    face_detector: str | None,
    framing: str | None,
    perceptual: str,
    perceptual_weights: str | None,
    device: str,
    seed: int,
) -> None:
    """Find a latent for every frame of CLIP: a video, a GIF, or a folder of images.

    The face is followed through the clip, and its crop is smoothed over time. The search of every
    frame starts from the answer of the one before and stays near it, so that the result does not
    flicker. The latents become frame-00001.safetensors and so on. Sound is not read.

    \b
    Example:
      latentedit video invert clip.mp4 --out frames
      latentedit video edit frames --clip clip.mp4 --set smile=1 --out smiling.mp4
    """
    from latentedit.inversion.clip import ClipOptions, TemporalChange, invert_clip
    from latentedit.inversion.options import InversionOptions, ProjectorSettings
    from latentedit.inversion.projector import Projector
    from latentedit.io.clips import open_clip
    from latentedit.latent.latent_file import save_latent
    from latentedit.photo.alignment import crop_tensor
    from latentedit.photo.crop_hash import crop_hash

    clip = open_clip(clip_name)
    if list(Path(out).glob("frame-*.safetensors")):
        raise ArgumentError(f"{out}: has latents of frames; give --out another folder")
    model = read_model(model_name, device, framing)
    generator = model.generator
    quads = _quads(clip, model, crop, aligned, face, face_detector, smooth_crop)
    search = InversionOptions(
        space=space, steps=steps, noise="frozen", neighbour_weight=neighbour_weight, seed=seed
    )
    later = (steps or search.step_count) if alone else later_steps
    options = ClipOptions(search, later, linked=not alone)
    projector = Projector(model, ProjectorSettings(perceptual, perceptual_weights))
    log.remark(projector.perceptual_line)
    prepare_projector(projector, search)

    def targets() -> "Iterator[Tensor]":
        for frame, quad in zip(clip, quads, strict=True):
            target = crop_tensor(frame, quad, generator.resolution, generator.channels)
            shown.append(target)
            yield target

    shown: list[Tensor] = []
    change = TemporalChange(projector.statistics)
    wanted = TemporalChange(projector.statistics)
    with progress_bar(len(quads), "inverting", "frame") as bar:
        for number, found in enumerate(invert_clip(projector, targets(), options)):
            if found.interrupted:
                raise Interrupted(f"interrupted; the latents of {number} frames are kept in {out}")
            latent = found.latent()
            latent.crop = quads[number]
            latent.crop_hash = crop_hash(shown[-1])
            latent.settings = {**latent.settings, "frame": number + 1}
            save_latent(Path(out) / FRAME.format(number + 1), latent)
            change.add(found.ws, found.image)
            wanted.add(found.ws, shown.pop())
            bar.update()

    if len(quads) > 1:
        of_w, of_pixels = change.means
        say(
            f"from frame to frame, w changes by {of_w:.3f} (two random w: about 1.4), pixels by"
            f" {of_pixels:.2%}, and those of the clip by {wanted.means[1]:.2%}"
        )
    say(f"wrote {len(quads)} latents into {out}")


def _quads(
    clip: "Clip",
    model: "Model",
    crop: str | None,
    aligned: bool,
    face: int,
    detector: str | None,
    smoothing: float,
) -> "list[Quad]":
    from latentedit.photo.tracking import steady, track_face

    if crop or aligned:
        return [quad_of(frame, crop, aligned, str(clip.path)) for frame in clip]
    tracked = track_face(clip, model.framing, number=face, detector=detector, name=str(clip.path))
    found = []
    with progress_bar(None, "finding the face", "frame") as bar:
        for quad in tracked:
            found.append(quad)
            bar.update()
    missing = sum(quad is None for quad in found)
    if missing:
        log.remark(f"{clip.path.name}: no face in {missing} of {len(found)} frames, filled in")
    return steady(found, smoothing)


@video.command("edit")
@click.argument("folder", metavar="FOLDER")
@click.option("--clip", "clip_name", metavar="CLIP", help="Paste the faces back into this clip.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=AMOUNT[@LAYERS]",
    help="Slider and amount in sigmas. Repeatable.",
)
@click.option(
    "--difference",
    is_flag=True,
    help="With --clip: add only the change, and keep the clip's own detail.",
)
@click.option(
    "--feather",
    default=0.15,
    show_default=True,
    type=Finite(0, 0.5),
    help="Width of the crop's faded edge, as a share of its side.",
)
@click.option("--fps", type=Finite(1, 240), help="Images a second.  [default: those of --clip]")
@model_option(None)
@click.option(
    "--out",
    type=click.Path(),
    required=True,
    help="Video (.mp4, .webm or .gif), or a folder for images.",
)
@click.option("--force", is_flag=True, help="Accept latents and directions of another generator.")
@megapixels_option
@device_option
def edit(
    folder: str,
    clip_name: str | None,
    sets: tuple[str, ...],
    difference: bool,
    feather: float,
    fps: float | None,
    model_name: str | None,
    out: str,
    force: bool,
    device: str,
) -> None:
    """Move sliders in all latents in FOLDER, which "video invert" wrote, and write the video.

    Without --clip it shows the faces alone. The same amount is added in every frame.

    \b
    Example:
      latentedit video edit frames --clip clip.mp4 --set smile=1 --difference --out smiling.mp4
      latentedit video edit frames --set turn=-1 --out faces.gif
    """
    from latentedit.directions.sweeps import move_latent
    from latentedit.formats.load_latent import load_latent
    from latentedit.io.clips import FPS, open_clip
    from latentedit.io.images import save_image, to_pil
    from latentedit.io.video import save_video
    from latentedit.photo.pasting import check_belongs, paste_back

    moves = [parse_move(text) for text in sets]
    if any(move.absolute for move in moves):
        raise ArgumentError(
            "--set takes NAME=AMOUNT here: a score would differ from frame to frame"
        )
    if difference and clip_name is None:
        raise ArgumentError("--difference needs --clip")
    if not is_video(out) and Path(out).suffix:
        raise ArgumentError(f"--out takes a video (.mp4, .webm or .gif) or a folder, got {out}")
    files = sorted(Path(folder).glob("frame-*.safetensors"))
    if not files:
        raise NotFoundError(
            'no latents of frames; "latentedit video invert" writes them', path=folder
        )
    clip = None if clip_name is None else open_clip(clip_name)
    first = load_latent(files[0])
    model = model_for(first, model_name, device, force)
    generator = model.generator
    wanted = [(direction_for(move.name, model, force), move) for move in moves]

    def drawn(latent: "Latent") -> "Image.Image":
        for direction, move in wanted:
            latent = move_latent(generator, latent, direction, move.amount, move.layers)
        return to_pil(latent.render(generator))

    def pasted(number: int, frame: "Image.Image", latent: "Latent") -> "Image.Image":
        if latent.crop is None:
            raise IncompatibleError("this latent has no crop position", path=files[number])
        unedited = latent.render(generator) if difference or number == 0 else None
        if number == 0 and not force and unedited is not None:
            check_belongs(frame, latent, unedited, str(clip_name))
        before = to_pil(unedited) if difference and unedited is not None else None
        return paste_back(frame, drawn(latent), latent.crop, feather=feather, before=before)

    def pictures() -> "Iterator[Image.Image]":
        frames = iter(()) if clip is None else iter(clip)
        for number, file in enumerate(files):
            latent = load_latent(file)
            model_for(latent, model.path, device, force)
            if clip is None:
                yield drawn(latent)
                continue
            frame = next(frames, None)
            if frame is None:
                raise IncompatibleError(
                    f"has {number} frames, and {folder} latents of {len(files)}", path=clip.path
                )
            yield pasted(number, frame, latent)
        if clip is not None and next(frames, None) is not None:
            raise IncompatibleError(
                f"has more frames than {folder}, with latents of {len(files)}", path=clip.path
            )

    with progress_bar(len(files), Path(out).name, "frame") as bar:

        def counted() -> "Iterator[Image.Image]":
            for picture in pictures():
                yield picture
                bar.update()

        if is_video(out):
            rate = fps or (FPS if clip is None else clip.fps)
            say_video(save_video(out, counted(), rate), out)
        else:
            for number, picture in enumerate(counted(), 1):
                save_image(picture, Path(out) / f"{number:05d}.png")
    say_written(out)
