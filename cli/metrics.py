"""``metrics``: quality measures of a model."""

from typing import Any, Literal

import click

from latentedit.cli.common import device_option, print_facts, progress_bar, read_model, seed_option
from latentedit.errors import ArgumentError, meant


@click.command()
@click.argument("model_name", metavar="MODEL")
@click.option(
    "--data", type=click.Path(), help="Training set to compare with (kid, fid, precision)."
)
@click.option(
    "--metrics",
    "names",
    default="kid",
    show_default=True,
    metavar="NAME,...",
    help="Metrics: kid, fid, precision (with recall), ppl, separability, inversion.",
)
@click.option(
    "--features",
    default="inception",
    show_default=True,
    metavar="inception|efficientnet-lite0|FILE|MODEL",
    help="Network whose features are compared: Inception, EfficientNet-Lite0 (needs "
    "latentedit[metrics]), an attribute"
    " classifier, or another model's discriminator.",
)
@click.option(
    "--ppl-space",
    type=click.Choice(["z", "w"]),
    default="w",
    show_default=True,
    help="Latent space of the paths for ppl.",
)
@click.option(
    "--ppl-sampling",
    type=click.Choice(["end", "full"]),
    default="end",
    show_default=True,
    help="Part of the path for ppl: its start, or all of it.",
)
@click.option("--ppl-crop", is_flag=True, help="For ppl: measure only the face, in FFHQ's framing.")
@click.option(
    "--inception-weights",
    type=click.Path(),
    help='Inception weights (default: those of "latentedit model fetch inception").',
)
@click.option(
    "--count",
    default=10_000,
    show_default=True,
    type=click.IntRange(10, 10_000_000),
    help="Number of random images (for ppl: pairs, at most 1000).",
)
@click.option(
    "--seeds",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Repeat with this many seeds and report the spread.",
)
@click.option(
    "--mirror", is_flag=True, help="Also compare with mirrored images, as train --mirror uses them."
)
@click.option(
    "--held-out",
    type=click.Path(),
    help="For inversion: images that were not used for training (zip or folder).",
)
@click.option(
    "--steps",
    default=300,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="For inversion: optimisation steps.",
)
@click.option(
    "--perceptual-weights", type=click.Path(), help="For ppl and inversion: VGG weights of LPIPS."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@seed_option
@device_option
def metrics(
    model_name: str,
    data: str | None,
    names: str,
    features: str,
    ppl_space: Literal["z", "w"],
    ppl_sampling: Literal["end", "full"],
    ppl_crop: bool,
    inception_weights: str | None,
    count: int,
    seeds: int,
    mirror: bool,
    held_out: str | None,
    steps: int,
    perceptual_weights: str | None,
    as_json: bool,
    seed: int,
    device: str,
) -> None:
    """Measure the quality of MODEL (a bundled name or a file).

    Use KID for small data sets; FID needs tens of thousands of images. "separability" needs an
    attribute classifier (--features FILE). "inversion" inverts the images of --held-out into W. The
    name of the perceptual path length includes its distance; only ppl_lpips compares with published
    figures.

    \b
    Example:
      latentedit metrics faces128 --data photos128.zip --features judge.safetensors --metrics
          kid,precision
    """
    from latentedit.metrics import METRICS, load_features, load_judge, measure
    from latentedit.metrics.measures import (
        BATCH,
        OTHERS,
        inversion_of,
        path_length_of,
        separability_of,
        steps_of,
    )
    from latentedit.training import load_pictures

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in (*METRICS, *OTHERS)]

    if unknown or not wanted:
        known = (*METRICS, *OTHERS)
        advice = meant(unknown[0], known) if unknown else ""
        raise ArgumentError(
            f"--metrics takes {', '.join(known)}; got {', '.join(unknown) or 'none'}", advice=advice
        )

    compared = [name for name in wanted if name in METRICS]
    if compared and data is None:
        raise ArgumentError(f"{compared[0]} needs a training set to compare with; add --data")
    if "inversion" in wanted and held_out is None:
        raise ArgumentError(
            "inversion needs images that were not used for training; add --held-out"
        )
    if "separability" in wanted and features in ("inception", "efficientnet-lite0"):
        raise ArgumentError(
            "separability needs an attribute classifier; name its file with --features"
        )

    model = read_model(model_name, device)
    found: dict[str, list[float]] = {}
    notes: dict[str, str] = {}

    if compared and data is not None:
        pictures = load_pictures(data)
        network = load_features(features, model.generator.device, inception_weights)
        notes["features"] = f"{network.name} ({features})"
        with progress_bar(seeds * steps_of(pictures, compared, count), "measuring") as bar:
            for number in range(seeds):
                # Seeds are far apart: images within one measurement take consecutive ones.
                own_seed = seed + number * 1_000_003
                figures = measure(
                    model,
                    pictures,
                    network,
                    compared,
                    count,
                    seed=own_seed,
                    mirror=mirror,
                    progress=bar.update,
                )
                for name, value in figures.items():
                    found.setdefault(name, []).append(value)

    lpips: dict[str, Any] = {"perceptual_weights": perceptual_weights, "seed": seed}
    single: dict[str, float] = {}
    if "ppl" in wanted:
        pairs = min(count, 1000)
        single.update(
            path_length_of(
                model, pairs, space=ppl_space, sampling=ppl_sampling, crop=ppl_crop, **lpips
            )
        )

    if "separability" in wanted:
        with progress_bar(count, "classifying", "image") as bar:
            judge = load_judge(features).to(model.generator.device)
            single.update(separability_of(model, judge, count, seed=seed, progress=bar.update))

    if "inversion" in wanted and held_out is not None:
        unseen = load_pictures(held_out)
        with progress_bar(steps * -(-len(unseen) // BATCH), f"inverting {len(unseen)}") as bar:
            single.update(inversion_of(model, unseen, steps, progress=bar.update, **lpips))

    found.update({name: [value] for name, value in single.items()})
    facts: dict[str, object] = {"model": model.path, **notes}
    if as_json:
        facts.update(found)
    else:
        facts.update({name: _spread(values) for name, values in found.items()})

    print_facts(facts, as_json)


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.5g}"
    mean = sum(values) / len(values)
    return f"{mean:.5g} ({min(values):.5g} to {max(values):.5g} over {len(values)} seeds)"
