"""A part of the campaign: commands with arguments and options that nobody should give."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tests.campaign import Case, Part, Place
from tests.hostile_files import damage, left_behind, overwritten
from tests.mutations import ODD
from tests.watching import Outcome, command, current, judged

POSITIONAL = {
    "PHOTO...": "{good}/photo.png",
    "LATENT...": "{good}/labels/00.safetensors",
    "PHOTO|LATENT...": "{good}/labels/00.safetensors",
    "PHOTO|LATENT": "{good}/labels/00.safetensors",
    "KEY": "threads",
    "VALUE": "1",
    "[PHOTO|LATENT]...": "{good}/labels/00.safetensors",
    "CLIP": "{good}/photos",
    "TEXT": "smiling",
    "[COMMAND]...": "edit",
    "FOLDER": "{good}/labels",
    "LATENT": "{good}/labels/00.safetensors",
    "[PHOTO|LATENT]": "{good}/labels/00.safetensors",
    "OTHER": "{good}/labels/01.safetensors",
    "MODEL": "{good}/native.safetensors",
    "IN": "{good}/native.safetensors",
    "OUT": "{out}/x.safetensors",
    "NAME": "a-name",
    "NAME|FILE": "{good}/direction.safetensors",
    "NAME|FILE...": "{good}/direction.safetensors",
    "CSV": "{good}/labels/labels.csv",
    "[CSV|FOLDER]": "{good}/labels/labels.csv",
    "CSV|FOLDER": "{good}/labels/labels.csv",
    "SOURCE": "{good}/photos",
    "DATA": "{good}/pictures.zip",
    "FILE": "{good}/boundary.npy",
    "FILE...": "{good}/projected_w.npz",
}
"""Good arguments by what they are called in the usage."""
FOLDERS = (
    *("align", "invert", "video invert", "latent import", "train", "demo", "studio"),
    *(
        "directions channels",
        "directions pca",
        "directions sefa",
        "directions sample",
        "directions report",
    ),
)
"""Commands whose --out is a folder."""
GOOD = dict(
    pair.split(" ")
    for pair in """\
--model {good}/native.safetensors, --encoder {good}/native.safetensors, --init-from
{good}/native.safetensors, --set {good}/direction.safetensors=1, --keep
{good}/other.safetensors, --sweep {good}/direction.safetensors=-1:1:2, --latent
{good}/labels/00.safetensors, --judge {good}/judge.safetensors, --features
{good}/judge.safetensors, --ask hat, --photo {good}/photo.png, --paste-back {good}/photo.png,
--mask {good}/photo.png, --preset {good}/preset.toml, --data {good}/pictures.zip, --held-out
{good}/pictures.zip, --labels folders, --metrics kid, --framing ffhq, --column hat, --attribute
hat, --hold hat, --positive 1, --negative 0, --group person, --exclude p1, --order file, --name
x, --seeds 0-1, --count 2, --samples 100, --steps 1, --tune-steps 1, --pictures 4, --probes 16,
--batch 2, --micro-batch 2, --size 8, --crop 0,0,8, --landmarks 6,8,14,8,10,14, --eyes
0.3,0.4,0.7,0.4, --mouth 0.5,0.7, --feather 2, --psi 0.7, --cutoff 2, --layers 0-1, --amounts
-1:1:2, --amount 1, --class 0, --component 0, --port 0, --seed 1, --transform 0, --kimg 0.004,
--max-minutes 0.01, --from 2,3, --to 5,4, --gif {out}/g.gif, --perceptual discriminator,
--neutral face, --clip {good}/clip/clip.pt, --shortlist 5, --device cpu, --grid {out}/g.png,
--sheet {out}/s.png\
""".replace("\n", " ").split(", ")
)
"""Good values of options, small ones where there is a choice."""
QUICK = ("--model", "--steps", "--samples", "--pictures", "--probes", "--count")
"""Options that are always given, because what they are by default takes long."""
NEEDED = {
    "align": ("--framing", "--landmarks"),
    "edit": ("--set",),
    "drag": ("--from", "--to"),
    "invert": ("--perceptual",),
    "video invert": ("--perceptual",),
    "directions condition": ("--keep",),
    "directions fit": ("--column",),
    "directions refine": ("--column",),
    "directions label": ("--column", "--order"),
    "directions import": ("--name",),
    "directions from-text": ("--neutral", "--clip", "--shortlist"),
    "directions report": ("--judge", "--ask"),
    "directions channels": ("--layers", "--seeds"),
    "directions pca": ("--seeds",),
    "directions sefa": ("--seeds",),
    "directions sheet": ("--seeds",),
    "dataset build": ("--size",),
    "train": ("--preset", "--kimg"),
    "encoder train": ("--batch", "--perceptual"),
    "metrics": ("--data", "--metrics", "--features"),
}
OUTPUTS = ("--out", "--grid", "--sheet", "--gif", "--latents", "--save-vectors")
FLAGS = {
    "invert": ("--aligned",),
    "video invert": ("--aligned",),
    "metrics": ("--count=10",),
    "directions label": ("--no-browser",),
    "studio": ("--no-browser",),
    "directions fit": ("--aligned",),
    "directions refine": ("--aligned",),
}
PATHS = (
    *(
        "{good}/photo.png",
        "{good}/photos",
        "{good}/native.safetensors",
        "{good}/labels/labels.csv",
        "{good}/labels",
    ),
    *(
        "{good}/pictures.zip",
        "{good}/nvidia.pkl",
        "{good}/latent.safetensors",
        "{good}/direction.safetensors",
    ),
    *(
        "{good}/boundary.npy",
        "{good}/holiday.jpg",
        "{good}/run",
        "{good}/run/state.pt",
        "{good}/preset.toml",
        "{good}",
    ),
    *(
        "{out}",
        "{out}/no/such/file",
        "{out}/x.safetensors",
        "{out}/x.png",
        "{out}/x.unknown",
        "{out}/x",
        "{out}/" + "n" * 300,
    ),
    *(
        "{out}/\udcff\udcfe.png",
        "{out}/new\nline.png",
        "{out}/\x1b[31m.png",
        "a\x00b",
        "*.png",
        "file:///x",
        "con",
        "~",
    ),
    *(
        ".",
        "..",
        "/",
        "",
        "-",
        "--",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "/proc/nonexistent/x.png",
    ),
)
TEXTS = (
    *dict.fromkeys(str(value) for value in ODD if not isinstance(value, dict | list)),
    *(
        "0-3",
        "3-0",
        "-",
        "0-",
        "-5",
        "0-1000000000",
        "1,2,3",
        "1,,2",
        "nan,nan,nan",
        "inf,0,1",
        "1e400,0,8",
        "0,0,0",
    ),
    *(
        "-8,-8,4",
        "9,9,1e18",
        "0:1:2",
        "1:0:-1",
        "0:1:1000000000",
        "nan:1:3",
        "::",
        ":",
        "/",
        "0.5,0.5",
        "all",
        "auto",
        "none",
    ),
    *(
        "a=b",
        "=",
        "=1",
        "hat=",
        "hat=1@9-3",
        "hat=1@x",
        "x=:1",
        "hat:yes/no",
        "hat:",
        "kid,fid",
        "kid,",
        "ffhq",
    ),
    *("cpu", "cuda", "cuda:99", "meta", "cpu:7", "mps", "xla", "vulkan"),
)
COMPUTED = 2.0
"""Seconds of processor time until Ctrl-C is pressed: many odd numbers are only large."""


class Arguments(Part):
    """Commands with arguments and options that they should take, and a few that they should not."""

    name = "arguments"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.commands = commands()

    def case(self, number: int) -> Case:
        path, found = self.commands[number % len(self.commands)]
        rng = self.place.rng(self.name, number)
        positional, options, flags = base(path, found)
        for _ in range(rng.choice([1, 1, 2, 3])):
            self._disturb(rng, found, positional, options, flags)
        words = [word for pair in options for word in pair]
        return Case(
            self.name, self.place.seed, number, path, [*path.split(), *words, *flags, *positional]
        )

    def _disturb(
        self,
        rng: Any,
        found: click.Command,
        positional: list[str],
        options: list[tuple[str, str]],
        flags: list[str],
    ) -> None:
        settable = [p for p in found.params if isinstance(p, click.Option) and not p.is_flag]
        switches = [
            p
            for p in found.params
            if isinstance(p, click.Option) and p.is_flag and p.opts[0] != "--tensorboard"
        ]
        kind = rng.randrange(10)
        if kind == 0 and options:
            del options[rng.randrange(len(options))]
        elif kind == 1 and positional:
            positional[rng.randrange(len(positional))] = rng.choice(PATHS + TEXTS)
        elif kind == 2:
            positional.insert(
                rng.randrange(len(positional) + 1), rng.choice([*PATHS, *POSITIONAL.values()])
            )
        elif kind == 3 and switches:
            flags.append(rng.choice([*rng.choice(switches).opts]))
        elif settable:
            option = rng.choice(settable)
            name = option.opts[-1]
            value = self._value(rng, option)
            if not option.multiple or rng.random() < 0.5:
                options[:] = [pair for pair in options if pair[0] != name]
            options.append((name, value))

    def _value(self, rng: Any, option: click.Option) -> str:
        if isinstance(option.type, click.Choice) and rng.random() < 0.7:
            return str(rng.choice(option.type.choices))
        if option.opts[-1] in GOOD and rng.random() < 0.2:
            return GOOD[option.opts[-1]]
        if isinstance(option.type, click.Path):
            return str(rng.choice(PATHS))
        numeric = isinstance(
            option.type,
            click.types.IntParamType
            | click.types.FloatParamType
            | click.IntRange
            | click.FloatRange,
        )
        return str(rng.choice(TEXTS if numeric or rng.random() < 0.7 else PATHS))

    def run(self, case: Case) -> Outcome:
        from latentedit.studio.web.server import Studio

        Studio.run = lambda page, ready=None: page.close()  # type: ignore[method-assign, assignment, return-value]
        scratch, before = self.place.fresh(), self.place.signature()
        filled = self.place.filled(case.arguments)
        if any("\0" in word for word in filled):  # no shell can pass it on
            return Outcome(None, "refused")
        os.chdir(scratch / "out")
        told = [Path(word).absolute() for word in told_to_write(case.name, filled)]
        outcome = judged(lambda: command(filled), current[0], COMPUTED, interrupt=True, told=told)
        os.chdir("/")
        if outcome.fault == "memory" and "MB" in outcome.detail:
            outcome = Outcome(None, "much memory")  # asked for, not smuggled in
        inputs = [path for path in damage(self.place, before) if self._is_input(path, case)]
        if outcome.fault is None:
            outcome = overwritten(self.place, inputs) or left_behind(scratch) or outcome
        if outcome == Outcome(None, "ok") and (odd := self._nonsense(case)):
            return Outcome("accepted", odd)
        return outcome

    def _is_input(self, path: Path, case: Case) -> bool:
        """Whether the command was given the file to read, or its folder; one that it was told to
        write may be replaced."""
        if case.name == "directions label":  # answers go into the table
            return False
        given = case.arguments[:-1] if case.name == "model convert" else case.arguments
        pairs = zip(["", *given], given, strict=False)
        named = [
            word for before, word in pairs if word.startswith("{good}") and before not in OUTPUTS
        ]
        places = [
            Path(word).resolve()
            for word in self.place.filled([word.split("=")[0] for word in named])
        ]
        return any(
            path == place or (place in path.parents and place != self.place.good)
            for place in places
        )

    def _nonsense(self, case: Case) -> str | None:
        """An option with a number that is none, which the command took."""
        found = dict(self.commands)[case.name]
        floats = {
            p.opts[-1]
            for p in found.params
            if isinstance(p.type, click.types.FloatParamType | click.FloatRange)
        }
        pairs = itertools.pairwise(case.arguments)
        return next(
            (
                f"{name} {value}"
                for name, value in pairs
                if name in floats and value.strip("-") in ("nan", "inf")
            ),
            None,
        )


def told_to_write(name: str, arguments: list[str]) -> list[str]:
    """The outputs that are named in the ``arguments`` of the command called ``name``."""
    named = [word for before, word in itertools.pairwise(arguments) if before in OUTPUTS]
    return [*named, arguments[-1]] if name == "model convert" else named


def commands() -> list[tuple[str, click.Command]]:
    """Every command by its path."""
    from latentedit.cli.main import main

    def below(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            inner = group.get_command(context, name)
            assert inner is not None
            if isinstance(inner, click.Group):
                yield from below(inner, f"{path}{name} ")
            else:
                yield f"{path}{name}", inner

    return list(below(main, ""))


def base(path: str, found: click.Command) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """Arguments, options and flags with which the command works."""
    context = click.Context(found, info_name=path)
    positional, options = [], []
    for parameter in found.params:
        if isinstance(parameter, click.Argument):
            positional.append(POSITIONAL[_metavar(parameter, context)])
            continue
        name = parameter.opts[-1]
        if name == "--out" and parameter.required:
            options.append((name, "{out}" if path in FOLDERS else _single(path)))
        elif (name in QUICK and path != "demo") or name in NEEDED.get(path, ()):
            options.append((name, GOOD[name]))
    if path == "interpolate":
        positional = positional * 2
    if path == "latent bake":
        positional = ["{good}/tuned.safetensors"]
    if path == "video edit":
        positional = ["{good}/frames"]
    if path == "encoder train":
        options.append(("--out", "{out}/e.safetensors"))
    if path == "directions name":
        positional = ["{good}/direction.safetensors", "a-name"]
        options.append(("--out", "{out}/a.safetensors"))
    return positional, options, list(FLAGS.get(path, ()))


def _metavar(parameter: click.Argument, context: click.Context) -> str:
    """What the usage calls it; click 8.2 began to ask for the context."""
    make: Any = parameter.make_metavar
    name: str = make(context) if make.__code__.co_argcount > 1 else make()
    return name


def _single(path: str) -> str:
    if path in ("latent export",):
        return "{out}/x.npz"
    if path == "dataset build":
        return "{out}/x.zip"
    if path == "video edit":
        return "{out}/x.gif"
    if path == "latent bake":
        return "{out}/x.safetensors"
    return (
        "{out}/x.safetensors"
        if path.startswith("directions ") and path != "directions sheet"
        else "{out}/x.png"
    )
