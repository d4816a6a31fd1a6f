"""Options of a training run: their checks and presets."""

import math
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from latentedit.errors import (
    ArgumentError,
    Error,
    FormatError,
    NotFoundError,
    check_number,
    is_number,
    meant,
    reason,
)
from latentedit.io.budget import read_toml
from latentedit.training.augmentation import preset

PRESETS = Path(__file__).parent / "presets"
SWITCHED_OFF = ("ema_rampup", "ada_target")
"""Options of which None says that they are not used, which a file says by false."""


@dataclass(frozen=True)
class TrainingConfig:
    """Options of a run. ``kimg`` counts thousands of real images shown to the discriminator."""

    generator: dict[str, Any] = field(default_factory=dict)
    """Overrides for `GeneratorConfig`; resolution, channels and c_dim come from the data."""
    discriminator: dict[str, Any] = field(default_factory=dict)
    """Overrides for `DiscriminatorConfig`."""
    batch: int = 32
    micro_batch: int | None = None
    """Images at a time per device, to save memory; None means the batch divided by the processes.
    Changes only rounding."""
    learning_rate: float = 0.0025
    """Learning rate of Adam for both networks, before the adjustment for lazy regularisation
    (StyleGAN2, appendix B)."""
    r1_gamma: float = 1.0
    """Weight of the R1 penalty."""
    r1_interval: int = 16
    path_weight: float = 2.0
    """Weight of the path-length regularisation; 0 switches it off."""
    path_interval: int = 4
    path_decay: float = 0.01
    style_mixing: float = 0.9
    """Style mixing: the probability that an image is generated from two w."""
    ema_kimg: float = 10.0
    """Half-life of the moving average of the generator's weights."""
    ema_rampup: float | None = 0.05
    """The half-life is at most this fraction of the images seen; None for no ramp-up."""
    grow_from: int = 0
    """Progressive growing (first StyleGAN only): the initial image size; 0 trains at the full size
    from the start."""
    grow_kimg: float = 600.0
    """Thousands of images at each size during progressive growing ..."""
    fade_kimg: float = 600.0
    """... and while the next one is faded in (Karras et al. 2018, figure 2)."""
    freeze_d: int = 0
    """Number of discriminator layers, counted from the image, that are not trained (FreezeD, Mo et
    al. 2020)."""
    augment: str = "bgc"
    """Augmentations, see `latentedit.training.augmentation.preset`, or "none"."""
    augment_p: float = 0.0
    """Initial augmentation strength: the probability of every transformation."""
    ada_target: float | None = 0.6
    """Target of adaptive augmentation: the mean sign of the discriminator's logits for real images;
    None keeps the strength."""
    ada_kimg: float = 500.0
    """Thousands of images in which the strength can change by 1."""
    mirror: bool = False
    """Whether to train on mirrored images as well."""
    precision: str = "fp32"
    """Precision of the blocks from 16 x 16 up: fp32, bf16, fp16, or auto
    (`latentedit.runtime.devices.auto_precision`)."""
    seed: int = 0
    kimg: float = 25000.0
    snapshot_kimg: float = 20.0

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.augment != "none":
            preset(self.augment)

        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise ArgumentError.of("precision", "auto, fp32, bf16 or fp16", self.precision)

        for name in ("batch", "r1_interval", "path_interval", "grow_from", "freeze_d", "seed"):
            value = getattr(self, name)
            least = 0 if name in ("grow_from", "freeze_d", "seed") else 1
            if not isinstance(value, int) or not least <= value < 2**32:
                raise ArgumentError.of(
                    name, f"a whole number of at least {least} below 2^32", value
                )

        for name in ("r1_gamma", "path_weight", "path_decay", "fade_kimg", "ema_rampup"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 0)

        if self.ada_target is not None:
            check_number("ada_target", self.ada_target, -1, 1)

        if self.micro_batch is not None and not 1 <= self.micro_batch < 2**32:
            raise ArgumentError.of("micro_batch", "at least 1 and below 2^32", self.micro_batch)

        for name in ("learning_rate", "kimg", "snapshot_kimg", "ada_kimg", "ema_kimg", "grow_kimg"):
            if not (is_number(getattr(self, name)) and getattr(self, name) > 0):
                raise ArgumentError.of(name, "a finite number greater than 0", getattr(self, name))

        if self.snapshot_kimg < 0.001:
            raise ArgumentError.of("snapshot_kimg", "at least 0.001", self.snapshot_kimg)

        for name in ("style_mixing", "augment_p"):
            check_number(name, getattr(self, name), 0, 1)

    def _check_kinds(self) -> None:
        """Raise `Error` if an option has another type than its default, as one from a file may
        have."""
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in ("generator", "discriminator"):
                expected = "a table"
                fits = isinstance(value, dict)
            elif option.name in ("augment", "precision"):
                expected = "a word"
                fits = isinstance(value, str)
            elif option.name == "mirror":
                expected = "true or false"
                fits = isinstance(value, bool)
            else:
                optional = option.name in ("micro_batch", "ema_rampup", "ada_target")
                number = isinstance(value, int | float) and not isinstance(value, bool)
                expected = "a number"
                fits = number or (optional and value is None)
            if not fits:
                raise ArgumentError.of(option.name, expected, value)

        if self.micro_batch is not None and not isinstance(self.micro_batch, int):
            raise ArgumentError.of("micro_batch", "a whole number", self.micro_batch)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lod(self, images_seen: int, resolution: int) -> float:
        """Return the level of detail after ``images_seen`` images: log2 of ``resolution`` over the
        present image size.

        Every size is trained alone for ``grow_kimg``; then the next one is faded in linearly over
        ``fade_kimg``.
        """
        if not self.grow_from:
            return 0.0
        sizes, rest = divmod(images_seen / 1000, self.grow_kimg + self.fade_kimg)
        fade = max(rest - self.grow_kimg, 0.0) / self.fade_kimg if self.fade_kimg else 0.0
        return max(math.log2(resolution / self.grow_from) - sizes - fade, 0.0)

    def changed(self, **options: Any) -> "TrainingConfig":
        """Return a copy with ``options`` that are not None."""
        return replace(
            self, **{name: value for name, value in options.items() if value is not None}
        )

    def toml(self) -> str:
        """As a preset file."""
        options = self.as_dict()
        # TOML has no null. What is null because it is switched off is false; what is null because
        # it is not set is left out.
        for name in SWITCHED_OFF:
            options[name] = False if options[name] is None else options[name]
        for name in ("generator", "discriminator"):
            options[name] = {
                key: value for key, value in options[name].items() if value is not None
            }
        return tomli_w.dumps({name: value for name, value in options.items() if value is not None})


FREE_TO_CHANGE = ("kimg", "snapshot_kimg", "micro_batch")
"""Options that may change when a run is resumed."""


AUTO = "auto"


def presets() -> list[str]:
    return sorted([AUTO, *(path.stem for path in PRESETS.glob("*.toml"))])


def load_preset(name: str, resolution: int = 256, processes: int = 1) -> TrainingConfig:
    """Load the preset called ``name``, or the TOML file at that path.

    "auto" chooses by ``resolution`` and the number of ``processes`` (one per GPU); other presets
    ignore these.
    """
    if name == AUTO:
        return _auto(resolution, processes)

    path = PRESETS / f"{name}.toml" if name in presets() else Path(name)
    if not os.path.isfile(path):
        advice = meant(os.fspath(name), presets(), f"presets: {', '.join(presets())}")
        raise NotFoundError("no such preset or file", path=name, advice=advice)

    try:
        options = read_toml(path)
        options.update({key: None for key in SWITCHED_OFF if options.get(key) is False})
        return TrainingConfig(**options)
    except (Error, TypeError) as error:
        said = error.reason if isinstance(error, Error) else reason(error)
        raise FormatError(f"not a training preset ({said})", path=path) from error


def _auto(resolution: int, processes: int) -> TrainingConfig:
    """Return the published configuration for new data, from the resolution and the number of GPUs
    (ADA, released code)."""
    batch = max(min(processes * min(4096 // resolution, 32), 64), processes)
    widths = {"channel_base": 32768 if resolution >= 512 else 16384, "channel_max": 512}
    return TrainingConfig(
        generator={**widths, "z_dim": 512, "w_dim": 512, "mapping_layers": 2},
        discriminator={**widths, "mbstd_group_size": min(batch // processes, 4)},
        batch=batch,
        learning_rate=0.002 if resolution >= 1024 else 0.0025,
        r1_gamma=0.0002 * resolution**2 / batch,
        ema_kimg=batch * 10 / 32,
        snapshot_kimg=200.0,
    )
