"""``encoder``: training the network that predicts w from images."""

from pathlib import Path

import click

from latentedit.cli import log
from latentedit.cli.common import (
    MOST,
    Finite,
    device_option,
    perceptual_options,
    progress_bar,
    read_model,
    say_written,
    seed_option,
)
from latentedit.cli.groups import Forgiving
from latentedit.errors import ArgumentError, Interrupted


@click.group(cls=Forgiving)
def encoder() -> None:
    """Train an encoder, which gives inversions a better starting point."""


@encoder.command()
@click.argument("model_name", metavar="MODEL")
@click.option(
    "--data", type=click.Path(), help="Additional photos: a training set of the model's size."
)
@click.option(
    "--steps", default=5000, show_default=True, type=click.IntRange(1, MOST), help="Training steps."
)
@click.option(
    "--batch", default=16, show_default=True, type=click.IntRange(2, MOST), help="Images per step."
)
@click.option(
    "--max-minutes", type=Finite(0, 1e7), help="Stop after this time; run again to resume."
)
@click.option(
    "--probes",
    default=2000,
    show_default=True,
    type=click.IntRange(1, MOST),
    help="Number of random probes for the Gauss-Newton preconditioner.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="Encoder file (default: NAME.encoder.safetensors next to MODEL, where it is found).",
)
@perceptual_options
@device_option
@seed_option
def train(
    model_name: str,
    data: str | None,
    steps: int,
    batch: int,
    max_minutes: float | None,
    probes: int,
    out: str | None,
    perceptual: str,
    perceptual_weights: str | None,
    device: str,
    seed: int,
) -> None:
    """Train an encoder for MODEL on images that MODEL generates, whose w are known.

    Ctrl-C and --max-minutes stop the training and save the encoder. Run the same command again to
    resume, until --steps are done.

    \b
    Example:
      latentedit encoder train my-model.safetensors --data photos64.zip
      latentedit invert me.jpg --model my-model.safetensors --out latents
    """
    from latentedit.inversion.options import ProjectorSettings
    from latentedit.inversion.preconditioner import Curvature
    from latentedit.inversion.projector import Projector
    from latentedit.model.bundled import BUNDLED, ENCODER
    from latentedit.model.native import save_encoder
    from latentedit.training.data import load_pictures
    from latentedit.training.encoders import (
        EncoderTrainer,
        EncoderTraining,
        saved_curvature,
        train_encoder,
    )

    model = read_model(model_name, device)
    path = Path(model.path)
    if out is None and path.parent == BUNDLED:
        raise ArgumentError(
            "this model is bundled with latentedit; name the encoder file with --out"
        )

    target = Path(out) if out else path.with_name(path.stem + ENCODER)
    state = target.with_name(target.name + ".state.pt")
    projector = Projector(model, ProjectorSettings(perceptual, perceptual_weights))
    log.remark(projector.perceptual_line)
    photos = load_pictures(data) if data else None
    kept = saved_curvature(state)
    if kept is None:
        with progress_bar(probes, "measuring the model", "probe") as bar:
            kept = Curvature.of(
                model.generator,
                projector.loss(),
                projector.statistics,
                probes,
                seed=seed,
                progress=lambda n: bar.update(n - bar.n),
            )

    options = EncoderTraining(steps, batch=batch, seed=seed)
    trainer = EncoderTrainer(model.generator, projector.perceptual, kept, options, photos=photos)
    with progress_bar(steps, "training") as bar:

        def report(step: int, terms: dict[str, float]) -> None:
            bar.update(step - bar.n)
            if step % 10 == 0:
                texts = {name: f"{value:.3f}" for name, value in terms.items()}
                bar.set_postfix(texts, refresh=False)

        model.encoder = train_encoder(trainer, state, max_minutes=max_minutes, report=report)

    model.curvature = kept
    facts = {
        "steps": trainer.step_number,
        "batch": batch,
        "perceptual": projector.perceptual.name,
        "photographs": len(photos) if photos else 0,
        "seed": seed,
        "probes": probes,
    }
    save_encoder(target, model, facts)
    say_written(target)
    if trainer.interrupted:
        raise Interrupted(
            f"interrupted at step {trainer.step_number} of {steps}; run the same command again "
            "to resume"
        )

    if trainer.step_number < steps:
        log.remark(
            f"stopped at step {trainer.step_number} of {steps}; run the same command again to "
            "resume"
        )
    else:
        state.unlink(missing_ok=True)
