"""``invert``: from photos to latents, one or a folder of them."""

from typing import TYPE_CHECKING, Any

import click

from latentedit.cli import log
from latentedit.cli.common import (
    MOST,
    WEIGHT,
    crop_options,
    device_option,
    face_options,
    folder_option,
    found_files,
    framing_option,
    is_typed,
    list_failures,
    megapixels_option,
    model_option,
    perceptual_options,
    progress_bar,
    quality_option,
    read_model,
    recursive_option,
    report_failures,
    seed_option,
)
from latentedit.cli.looks import onlooker_of
from latentedit.cli.sample import class_number
from latentedit.errors import ArgumentError, Interrupted, NotFoundError
from latentedit.inversion.quality import QUALITIES

if TYPE_CHECKING:
    from latentedit.inversion.options import InversionOptions
    from latentedit.inversion.projector import Projector

TUNE_STEPS = 200
LARGE = 256
"""Resolution from which the duration is estimated beforehand."""


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@model_option()
@folder_option("Folder for latent files and images.")
@quality_option
@click.option(
    "--space",
    type=click.Choice(["w", "w+", "s"]),
    default="w+",
    show_default=True,
    help="Latent space: one w (w), one w per layer (w+), or w+ with style offsets (s).",
)
@click.option(
    "--method",
    type=click.Choice(["quasi-newton", "adam"]),
    default="quasi-newton",
    show_default=True,
    help="Optimiser; adam is the published projector.",
)
@click.option(
    "--steps",
    type=click.IntRange(0, MOST),
    help="Optimisation steps (default: 100, or 1000 with adam; fast: 30 %). 0 uses the encoder's "
    "output as is.",
)
@click.option(
    "--init",
    type=click.Choice(["auto", "mean", "encoder"]),
    default="auto",
    show_default=True,
    help="Starting point. auto: the encoder's output with quasi-newton, if the model has an "
    "encoder; otherwise the mean w.",
)
@click.option(
    "--encoder",
    "encoder_file",
    metavar="FILE",
    help="Encoder file, if it is not next to the model: one of latentedit, or a checkpoint of "
    "e4e, pSp or ReStyle.",
)
@click.option(
    "--patience",
    type=click.IntRange(1, MOST),
    help="Stop after this many steps without improvement.",
)
@click.option(
    "--restarts",
    default=0,
    show_default=True,
    type=click.IntRange(0, MOST),
    help="Additional searches from other starting points.",
)
@click.option(
    "--noise",
    type=click.Choice(["optimise", "frozen", "off"]),
    default="optimise",
    show_default=True,
    help="Noise maps: optimised, the model's own, or none.",
)
@click.option(
    "--prior-weight",
    default=0.1,
    show_default=True,
    type=WEIGHT,
    help="Weight that keeps w near its mean. Higher values lower fidelity and improve editability.",
)
@click.option(
    "--delta-weight",
    default=0.0,
    show_default=True,
    type=WEIGHT,
    help="Weight that keeps the layers of W+ similar, which improves editability; try 0.01.",
)
@click.option(
    "--adversarial-weight",
    default=0.0,
    show_default=True,
    type=WEIGHT,
    help="Weight of a latent discriminator, which keeps w realistic; try 0.1.",
)
@click.option(
    "--tune/--no-tune",
    default=None,
    help="Then tune the generator to the photo; the latent file stores the change.  [default: by "
    "--quality]",
)
@click.option(
    "--tune-steps",
    type=click.IntRange(1, MOST),
    help=f"Steps of --tune.  [default: {TUNE_STEPS}]",
)
@click.option(
    "--together",
    is_flag=True,
    help="With --tune: tune one generator to all photos, instead of one to each.",
)
@click.option(
    "--mask",
    metavar="FILE",
    help="Image of the crop's shape: white pixels count, black ones do not.",
)
@crop_options
@face_options
@framing_option
@click.option(
    "--class",
    "label",
    help="Label of the photos, for a conditional model: number or name. The search then stays near"
    " the faces with this label.",
)
@perceptual_options
@click.option(
    "--batch",
    type=click.IntRange(1, MOST),
    help="Photos per batch (default: 8, or 1 for models of 256 px and more; on CUDA as many as "
    "fit).",
)
@click.option("--video", is_flag=True, help="Also write a video of the search, NAME.mp4.")
@click.option(
    "--remember-source", is_flag=True, help="Store the photo's name and SHA-256 in the latent file."
)
@click.option("--again", is_flag=True, help="Reprocess photos that index.csv lists as done.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result of every photo as JSON, one object per line.",
)
@recursive_option
@megapixels_option
@device_option
@seed_option
def invert(
    photos: tuple[str, ...],
    model_name: str,
    out: str,
    quality: str,
    space: str,
    method: Any,
    steps: int | None,
    init: Any,
    encoder_file: str | None,
    patience: int | None,
    restarts: int,
    noise: Any,
    prior_weight: float,
    delta_weight: float,
    adversarial_weight: float,
    tune: bool | None,
    tune_steps: int | None,
    together: bool,
    mask: str | None,
    crop: str | None,
    aligned: bool,
    face: str,
    landmarks: str | None,
    face_detector: str | None,
    framing: str | None,
    label: str | None,
    perceptual: str,
    perceptual_weights: str | None,
    batch: int | None,
    video: bool,
    remember_source: bool,
    again: bool,
    as_json: bool,
    recursive: bool,
    device: str,
    seed: int,
) -> None:
    """Find the latent that reproduces each PHOTO (or each image in a folder).

    For every photo it writes NAME.safetensors (the latent), NAME.png (the image it renders),
    NAME-compare.png (photo, image with the optimised noise, image with the model's own noise) and a
    row of index.csv. If a photo fails, the others are still processed. Run the same command again
    to resume; it skips photos that are done. Ctrl-C keeps the best result so far. Started by
    torchrun, the processes share the photos.

    With --tune --together, the command searches for all photos first. Then it tunes one generator
    to all of them, and every latent file stores the same change. If you add a photo later, it
    searches for that one only, and tunes again to all.

    NAME is the photo's name. Photos that share a name become NAME-ENDING or FOLDER-NAME. A file
    that would replace a photo, or the latent of another photo, becomes NAME-inverted.

    \b
    Example:
      latentedit invert me.jpg --out latents
      latentedit invert photos --out latents --space w
      latentedit invert photos --out family --tune --together
    """
    from latentedit.album.cropping import Cropping
    from latentedit.album.index import share
    from latentedit.album.options import AlbumOptions
    from latentedit.album.runner import AlbumRunner
    from latentedit.album.together import SharedAlbum
    from latentedit.cli.album import Told, crops_for
    from latentedit.formats.load_model import add_encoder
    from latentedit.inversion.options import InversionOptions, ProjectorSettings
    from latentedit.inversion.projector import Projector
    from latentedit.io.images import EXTENSIONS
    from latentedit.latent.spaces import S, space_of

    everything = found_files(photos, EXTENSIONS, "images", recursive=recursive, photos=True)
    files = share(everything)
    usual = QUALITIES[quality]
    if not is_typed("space"):
        space = usual.space
    if not is_typed("noise"):
        noise = usual.noise
    if tune is None:
        tune = usual.tune_steps > 0 and space != "s"
    if tune_steps is None:
        tune_steps = usual.tune_steps or TUNE_STEPS
    if steps is None and usual.share < 1:
        steps = usual.steps(method)
    search = InversionOptions(
        space=space,
        method=method,
        steps=steps,
        init=init,
        patience=patience,
        restarts=restarts,
        noise=noise,
        prior_weight=prior_weight,
        delta_weight=delta_weight,
        adversarial_weight=adversarial_weight,
        seed=seed,
    )

    model = read_model(model_name, device, framing)
    number = None if label is None else class_number(model, label)
    projector = Projector(model, ProjectorSettings(perceptual, perceptual_weights, label=number))
    log.remark(projector.perceptual_line)
    if encoder_file:
        add_encoder(encoder_file, model)
    if init == "encoder" and model.encoder is None:
        raise NotFoundError(
            f'{model_name} has no encoder; train one with "latentedit encoder train"'
        )
    if not search.step_count and not projector.starts_from_encoder(search):
        raise ArgumentError("--steps 0 needs an encoder")
    if tune and space_of(space) is S:
        raise ArgumentError("--tune needs --space w or w+")
    if together and not tune:
        raise ArgumentError("--together needs --tune")

    options = AlbumOptions(
        inversion=search,
        cropping=Cropping(crop, aligned, face, landmarks, face_detector),
        tune_steps=tune_steps if tune else 0,
        mask=mask,
        encoder=encoder_file,
        batch=batch,
        video=video,
        remember_source=remember_source,
        again=again,
    )
    prepare_projector(projector, search)
    runner = (SharedAlbum if together else AlbumRunner)(
        projector,
        out,
        options,
        crops=crops_for(model, options.cropping),
        onlooker=onlooker_of(model, projector.domain),
        listener=Told(projector, as_json),
    )
    try:
        runner.run(files, everything)
    except Interrupted:
        list_failures(runner.failures)
        raise
    report_failures(runner.failures, files)


def prepare_projector(projector: "Projector", search: "InversionOptions") -> None:
    """Have what takes long ready before the first photo, and say how long large photos will
    take."""
    from latentedit.inversion.preconditioner import PROBES
    from latentedit.model.cost import estimate_cost

    model = projector.model
    unmeasured = search.needs_preconditioner and not projector.has_curvature()
    if model is not None and model.generator.resolution >= LARGE:
        cost = estimate_cost(model, projector.device)
        total = cost.step_seconds * search.step_count * (search.restarts + 1) / 60
        once = (
            f", plus {cost.step_seconds * PROBES / 60:.2g} minutes once for this model"
            if unmeasured
            else ""
        )
        log.remark(
            f"estimate, within a factor of two: {total:.2g} minutes and {cost.step_gb:.2g} GB "
            f"per photo{once}"
        )

    if search.adversarial_weight:
        _ = projector.critic
    if unmeasured:
        with progress_bar(PROBES, "measuring the model") as bar:
            projector.curvature(progress=lambda n: bar.update(n - bar.n))
    # A model that was cached before takes a moment too, and the first photo should not.
    _ = projector.statistics
