"""``directions from-text``: directions from words."""

import click

from latentedit.cli.common import (
    MOST,
    PSI,
    Finite,
    device_option,
    model_option,
    progress_bar,
    read_model,
    say,
    say_written,
    seed_option,
)
from latentedit.errors import ArgumentError


@click.command("from-text")
@click.argument("text")
@click.option("--neutral", required=True, metavar="TEXT", help="What TEXT is compared with.")
@click.option(
    "--clip",
    "weights",
    required=True,
    metavar="WEIGHTS",
    help='CLIP: "clip" (see "model fetch"), OpenAI\'s file, a state_dict, or a folder in Hugging '
    "Face's layout.",
)
@click.option(
    "--vocabulary",
    metavar="FILE",
    help="CLIP's list of word parts, bpe_simple_vocab_16e6.txt.gz or merges.txt (default: beside "
    'the weights, or from "latentedit[text]").',
)
@click.option(
    "--beta",
    default=0.13,
    show_default=True,
    type=Finite(0, 1),
    help="Smallest relevance of a channel. Higher values change less besides the attribute.",
)
@click.option(
    "--shortlist",
    default=200,
    show_default=True,
    type=click.IntRange(0, MOST),
    help="Channels to measure by rendering, after a screening by derivatives; 0 for all.",
)
@click.option(
    "--samples",
    default=16,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Random images to measure them on.",
)
@click.option("--psi", default=0.7, show_default=True, type=PSI, help="Truncation of these images.")
@click.option(
    "--vectors",
    metavar="FILE",
    help="Measured channels (.npy), such as StyleCLIP's fs3.npy, instead of measuring.",
)
@click.option(
    "--save-vectors",
    type=click.Path(),
    metavar="FILE",
    help="Write the measured channels (.npy) for other texts; needs --shortlist 0.",
)
@click.option("--name", help="Name of the direction (default: from TEXT).")
@model_option()
@click.option(
    "--out", type=click.Path(dir_okay=False), required=True, help="Direction file (.safetensors)."
)
@seed_option
@device_option
def from_text(
    text: str,
    neutral: str,
    weights: str,
    vocabulary: str | None,
    beta: float,
    shortlist: int,
    samples: int,
    psi: float,
    vectors: str | None,
    save_vectors: str | None,
    name: str | None,
    model_name: str,
    out: str,
    seed: int,
    device: str,
) -> None:
    """Make a direction in style space from TEXT, by CLIP (global directions of StyleCLIP).

    A style channel takes part if moving it changes images, in CLIP's space, as TEXT differs from
    the neutral text. The direction is not measured: no classifier has seen whether it changes the
    attribute, or what else it changes. Look at a sheet of it, and use "directions report".

    \b
    Example:
      latentedit directions from-text "a smiling face" --neutral "a face" --clip clip \\
        --out smiling.safetensors
    """
    from latentedit.directions.direction import check_name
    from latentedit.directions.text import (
        TextOptions,
        direction_from_text,
        measure_channel_vectors,
        read_channel_vectors,
        save_channel_vectors,
        text_difference,
    )
    from latentedit.metrics.clip import load_clip

    if not out.endswith(".safetensors"):
        raise ArgumentError(f"--out must end in .safetensors, got {out}")
    if save_vectors is not None and not save_vectors.endswith(".npy"):
        raise ArgumentError(f"--save-vectors must end in .npy, got {save_vectors}")
    if save_vectors is not None and (shortlist or vectors):
        raise ArgumentError("--save-vectors needs --shortlist 0, and no --vectors")
    if name is not None:
        check_name(name)
    options = TextOptions(beta, samples, psi=psi, shortlist=shortlist, seed=seed)
    generator = read_model(model_name, device).generator
    clip = load_clip(weights, vocabulary, generator.device)
    # Wrong texts end here, and not after the measurement.
    text_difference(clip, text, neutral)
    known = read_channel_vectors(vectors, generator) if vectors else None

    with progress_bar(None, "measuring", "step") as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        if save_vectors is not None:
            known = measure_channel_vectors(generator, clip, options, report)
            save_channel_vectors(save_vectors, known, generator)
        direction = direction_from_text(
            generator,
            clip,
            text,
            neutral,
            name=name,
            options=options,
            vectors=known,
            progress=report,
        )
    facts = direction.report
    strongest = ", ".join(
        f"{channel} {value:+.2f}" for channel, value in facts["relevance"].items()
    )
    say(
        f"{direction.name}: {facts['channels']} of {facts['channels_measured']} measured channels"
        f" reach a relevance of {beta:g}: {strongest}"
    )
    say(f"{direction.name}: {facts['note']}")
    direction.save(out)
    if save_vectors is not None:
        say_written(save_vectors)
    say_written(out)
