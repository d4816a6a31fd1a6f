"""A small good file of every kind that latentedit reads, and what is done with files of that
kind."""

import copyreg
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from latentedit.album.index import Index
from latentedit.directions import Direction, load_direction, read_labels
from latentedit.directions.classifiers import OnnxClassifier
from latentedit.directions.imported import read_array
from latentedit.directions.labelling.session import Labelling
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.formats.nvidia_writer import save_nvidia
from latentedit.formats.projections import load_projections
from latentedit.formats.rosinality import save_rosinality
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.preconditioner import Curvature
from latentedit.io.clips import open_clip
from latentedit.io.images import open_image
from latentedit.io.video import save_video
from latentedit.latent.deltas import compress_deltas
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.metrics import Judge, load_judge, save_judge
from latentedit.metrics.clip_words import FILE as VOCABULARY
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.config import AliasFree
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.photo.faces import find_faces
from latentedit.training import RunOptions, load_pictures, load_preset, write_pictures
from latentedit.training import train as train_model
from latentedit.training.encoders import (
    EncoderTrainer,
    EncoderTraining,
    saved_curvature,
    train_encoder,
)
from tests.clip_files import tiny_clip, write_state
from tests.foreign_files import seeds
from tests.helpers import CONFIG, works
from tests.onnx_files import classifier, yunet

Use = Callable[[Path], Any]
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 "
    b"16\n%%EndComments\n%%BeginProlog\n%%EndProlog\nshowpage\n%%EOF\n"
)
MODEL = ("--model", "{good}/native.safetensors")


@dataclass(frozen=True)
class Kind:
    """Files that are read alike."""

    file: str
    """Below the folder of good files."""
    read: Use | None = None
    """Reads it, in Python; what it returns must be finite all through."""
    commands: tuple[tuple[str, ...], ...] = ()
    """That read it: {file} is the file, {folder} its folder, {good} the folder of good files, {out}
    one for results."""
    within: str = ""
    """Folder below that of good files which has to be copied with it."""


class _Network:
    """Pickles as dnnlib's class does."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return copyreg.__newobj__, (_Network,), self.state  # type: ignore[attr-defined]


def make(folder: Path) -> None:
    """Write a good file of every kind below ``folder``."""
    folder.mkdir(parents=True)
    name = "dnnlib.tflib.network"
    stand_ins = {part: types.ModuleType(part) for part in ("dnnlib", "dnnlib.tflib", name)}
    _Network.__module__, _Network.__qualname__, _Network.__name__ = name, "Network", "Network"
    stand_ins[name].Network = _Network  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        seeds(folder, _Network)
    finally:
        for part in stand_ins:
            del sys.modules[part]
    model = load_model(folder / "native.safetensors")
    own = fingerprint(model.generator)
    Direction("hat", torch.tensor([0.0, 1, 0, 0]), 0.1, 1.0, own).save(folder / "other.safetensors")
    noise = [torch.zeros(shape) for shape in model.generator.synthesis.noise_shapes]
    corners = [[0.0, 0.0], [16.0, 0.0], [16.0, 16.0], [0.0, 16.0]]
    settings: dict[str, Any] = {"steps": 1, "edits": ["smile=1"]}
    ws = torch.linspace(-1, 1, model.generator.num_ws * 4).reshape(1, -1, 4)
    latent = Latent(
        ws, noise, own, "w+", corners, settings, {"psnr": 10.0}, safe={"smile": (-1.5, 3.0)}
    )
    save_latent(folder / "framed.safetensors", latent)
    changes = {
        name: 0.01 * torch.randn_like(parameter)
        for name, parameter in model.generator.synthesis.named_parameters()
        if name.endswith("conv1.weight")
    }
    tuned = {name: tensor.float() for name, tensor in compress_deltas(changes, 1).items()}
    save_latent(folder / "tuned.safetensors", replace(latent, tuned=tuned))
    _pictures(folder)
    _labels(folder / "labels", model)
    _trainings(folder, model)
    _other_networks(folder)
    _clips(folder)
    _frames(folder)
    write_state(folder / "clip", tiny_clip())
    (folder / "classifier.onnx").write_bytes(classifier())
    (folder / "yunet.onnx").write_bytes(yunet())
    save_judge(folder / "judge.safetensors", Judge(3, 8, {"hat": ("no", "yes")}, [(4, 3, 1)]), {})


def _other_networks(folder: Path) -> None:
    """A StyleGAN3 network as NVIDIA's and as a native file, one of non-square images, and parts of
    an encoder's checkpoint: a whole one has tens of megabytes, too many for every variant."""
    layers = AliasFree(layers=3, critical=1, margin=4)
    tiny = {"z_dim": 4, "w_dim": 4, "mapping_layers": 1, "channel_base": 64, "channel_max": 4}
    config = GeneratorConfig(16, architecture="stylegan3", alias_free=layers, **tiny)  # type: ignore[arg-type]
    model = Model(Generator(config).eval().requires_grad_(False))
    save_nvidia(folder / "stylegan3.pkl", model)
    save_model(folder / "stylegan3.safetensors", model)
    wide = Generator(GeneratorConfig(8, first_size=(4, 8), **tiny))  # type: ignore[arg-type]
    save_rosinality(folder / "wide.pt", Model(wide.eval().requires_grad_(False)))

    decoder = torch.load(folder / "rosinality.pt", weights_only=True)
    state = {f"decoder.{name}": tensor for name, tensor in decoder["g_ema"].items()}
    state["encoder.styles.0.linear.bias"] = torch.zeros(4)
    state["encoder.body.0.res_layer.0.num_batches_tracked"] = torch.zeros([], dtype=torch.long)
    opts = {"encoder_type": "Encoder4Editing", "start_from_latent_avg": True, "device": "cuda:0"}
    average = decoder["latent_avg"].reshape(1, -1)
    torch.save({"state_dict": state, "latent_avg": average, "opts": opts}, folder / "e4e.pt")


def _clips(folder: Path) -> None:
    frames = [_picture(number, 32) for number in range(3)]
    for name in ("clip.gif", "clip.mp4", "clip.webm"):
        save_video(folder / name, frames)


def _frames(folder: Path) -> None:
    """The latents of a clip, by the command that writes them."""
    line = words("{model} --perceptual discriminator --aligned --steps 1 --later-steps 1")
    line = tuple(word.replace("{good}", str(folder)) for word in line)
    works("video", "invert", folder / "clip.gif", *line, "--out", folder / "frames")


def _picture(number: int, side: int = 24) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _pictures(folder: Path) -> None:
    for ending in ("png", "jpg", "webp", "bmp", "tif", "ppm"):
        _picture(0).save(folder / f"photo.{ending}")
    _picture(0).convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24) * 100).save(
        folder / "grey16.png"
    )
    _picture(0).save(folder / "lzw.tif", compression="tiff_lzw")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a note"
    _picture(1).save(folder / "turned.jpg", exif=exif)
    (folder / "holiday.jpg").write_bytes(EPS)
    (folder / "photos").mkdir()
    for number in range(3):
        _picture(number).save(folder / "photos" / f"{number}.png")
    (folder / "photos" / "photos.csv").write_text("file,hat\n0.png,yes\n1.png,no\n2.png,yes\n")
    pictures = [(f"{number}.png", _picture(number, 8)) for number in range(6)]
    write_pictures(
        folder / "pictures.zip", pictures, lambda name: "even" if int(name[0]) % 2 else "odd"
    )
    write_pictures(
        folder / "pictures", pictures, lambda name: "even" if int(name[0]) % 2 else "odd"
    )


def _labels(folder: Path, model: Model) -> None:
    generator = model.generator
    draws = torch.Generator().manual_seed(0)
    rows = []
    for number in range(12):
        ws = torch.randn(1, 1, generator.w_dim, generator=draws).expand(1, generator.num_ws, -1)
        save_latent(
            folder / f"{number:02d}.safetensors", Latent(ws, None, fingerprint(generator), "w")
        )
        _picture(number, 8).save(folder / f"{number:02d}.png")
        rows.append(
            f"{number:02d}.safetensors,{number:02d}.png,"
            f"{number % 2 if number < 8 else ''},{number / 2},p{number % 3}\n"
        )
    (folder / "labels.csv").write_text("file,picture,hat,age,person\n" + "".join(rows))


def _trainings(folder: Path, model: Model) -> None:
    config = CONFIG.changed(kimg=0.008, snapshot_kimg=0.004)
    (folder / "preset.toml").write_text(config.toml())
    options = RunOptions(framing={"kind": "window", "box": [0, 0, 8, 8]})
    train_model(config, load_pictures(folder / "pictures.zip"), folder / "run", options)
    (folder / "run" / "best.json").write_text(
        '{"kimg": "000004", "name": "metric/kid", "value": 1.5}'
    )
    assert model.discriminator is not None
    curvature = Curvature(torch.ones(2, model.generator.num_ws, model.generator.w_dim))
    trainer = EncoderTrainer(
        model.generator,
        DiscriminatorDistance(model.discriminator),
        curvature,
        EncoderTraining(2, batch=2),
    )
    train_encoder(trainer, folder / "encoder.safetensors.state.pt", max_minutes=0)
    index = Index(folder / "album")
    save_latent(
        folder / "album" / "0.safetensors", load_latent(folder / "labels" / "00.safetensors")
    )
    index.add(photo="0.png", latent="0.safetensors", status="ok", perceptual=0.5, key="0" * 16)


def labelling(path: Path) -> Any:
    found = Labelling(path, "hat", order="file")
    found.answer(found.samples[0].file, "0")
    return found.progress()


def logged(path: Path) -> Any:
    from latentedit.training.curves import read_log

    return [sorted(record) for record in read_log(path)]


def scored(path: Path) -> Any:
    return OnnxClassifier(path, size=16)(torch.ones(1, 3, 8, 8))


def detected(path: Path) -> Any:
    return find_faces(Image.new("RGB", (32, 32), "white"), path)


def watched(path: Path) -> Any:
    clip = open_clip(path)
    return clip.fps, [np.asarray(frame).astype(float).mean() for frame in clip]


MODELS = (
    "native.safetensors",
    "stylegan3.pkl",
    "stylegan3.safetensors",
    "wide.pt",
    "rosinality.pt",
    "plain.pt",
    "genforce.pth",
    "legacy.pt",
    "nvidia.pkl",
    "written.pkl",
    "tensorflow.pkl",
)
PICTURES = (
    *("photo.png", "photo.jpg", "photo.webp", "photo.bmp", "photo.tif", "photo.ppm"),
    *("palette.png", "grey16.png", "lzw.tif", "turned.jpg", "holiday.jpg"),
)


def words(line: str) -> tuple[str, ...]:
    """A command line with {model} for options that name the good model."""
    return tuple(
        word for part in line.split() for word in (MODEL if part == "{model}" else (part,))
    )


def _kind(file: str, read: Use | None, *lines: str, within: str = "") -> Kind:
    return Kind(file, read, tuple(words(line) for line in lines), within)


EDIT = "edit {file} {model} --set {good}/direction.safetensors=1 --out {out}/x.png"
TRAIN = "train {good}/pictures.zip --preset {good}/preset.toml"
INVERT = "invert {model} --perceptual discriminator --aligned"
KINDS: tuple[Kind, ...] = (
    *(
        _kind(
            name,
            load_model,
            "sample {file} --seeds 0 --out {out}/x.png",
            "model info {file}",
            "model convert {file} {out}/x.safetensors",
        )
        for name in MODELS
    ),
    _kind(
        "stylegan3.pkl",
        None,
        "sample {file} --seeds 0 --transform 0.1,0,20 --out {out}/x.png",
        "interpolate --seeds 0,1 --model {file} --count 2 --path spline --out {out}/x.png",
    ),
    _kind(
        "e4e.pt",
        load_model,
        f"{INVERT} --encoder {{file}} --steps 0 --out {{out}} {{good}}/photo.png",
        "model info {file}",
    ),
    *(
        _kind(
            name,
            watched,
            "video invert {file} {model} --perceptual discriminator --aligned --steps 1"
            " --later-steps 1 --out {out}",
        )
        for name in ("clip.gif", "clip.mp4", "clip.webm")
    ),
    _kind(
        "clip/clip.pt",
        None,
        "directions from-text smiling --neutral face --clip {file} --vocabulary {good}/clip/"
        f"{VOCABULARY} --shortlist 5 --samples 2 {{model}} --out {{out}}/x.safetensors",
    ),
    _kind(
        "native.safetensors",
        None,
        f"{INVERT} --encoder {{file}} --steps 0 --out {{out}} {{good}}/photo.png",
    ),
    *(
        _kind(name, load_projections, EDIT, "latent import {file} {model} --out {out}")
        for name in ("projected_w.npz", "projected.pt")
    ),
    _kind("latent.safetensors", load_latent, EDIT, "latent export {file} --out {out}/x.npz"),
    _kind(
        "framed.safetensors",
        load_latent,
        EDIT,
        f"{EDIT} --paste-back {{good}}/photo.png",
        "mix {file} {good}/labels/00.safetensors {model} --out {out}/x.png",
        "interpolate {good}/labels/00.safetensors {file} {model} --count 2 --out {out}/x.png",
        "latent export {file} --out {out}/x.npz",
    ),
    _kind(
        "tuned.safetensors",
        load_latent,
        EDIT,
        "latent bake {file} {model} --out {out}/x.safetensors",
        "interpolate {good}/labels/00.safetensors {file} {model} --count 2 --out {out}/x.png",
    ),
    _kind(
        "classifier.onnx",
        scored,
        "directions fit --classifier {file} --name x --size 16 --samples 100 {model} --out "
        "{out}/x.safetensors",
    ),
    _kind("yunet.onnx", detected),
    _kind(
        "boundary.npy",
        read_array,
        "directions import {file} {model} --name a --out {out}/a.safetensors",
    ),
    _kind(
        "direction.safetensors",
        lambda path: load_direction(str(path)),
        "directions show {file}",
        "edit {good}/labels/00.safetensors {model} --set {file}=1 --out {out}/x.png",
        "directions sheet {file} {model} --seeds 0 --out {out}/x.png",
        "directions compare {file} {good}/direction.safetensors {model}",
        "directions condition {good}/other.safetensors --keep {file} {model} --out "
        "{out}/x.safetensors",
    ),
    *(
        _kind(
            name,
            open_image,
            f"{INVERT} --steps 1 --out {{out}} {{file}}",
            "align {file} {model} --framing ffhq --landmarks 6,8,14,8,10,14 --out {out}",
        )
        for name in PICTURES
    ),
    _kind(
        "pictures.zip",
        load_pictures,
        "dataset info {file}",
        "dataset build {file} --size 8 --out {out}/x.zip",
    ),
    _kind("pictures/dataset.json", None, "dataset info {folder}", within="pictures"),
    _kind(
        "pictures/3.png",
        None,
        "dataset info {folder}",
        "dataset build {folder} --size 8 --out {out}/x",
        within="pictures",
    ),
    _kind(
        "labels/labels.csv",
        labelling,
        "directions fit {file} --column hat {model} --samples 100 --out {out}/x.safetensors",
        within="labels",
    ),
    _kind("labels/labels.csv", lambda path: read_labels(path, "age"), within="labels"),
    _kind(
        "photos/photos.csv",
        None,
        "dataset build {folder} --size 8 --labels {file} --column hat --out {out}/x.zip",
        within="photos",
    ),
    _kind(
        "album/index.csv",
        lambda path: Index(path.parent),
        f"{INVERT} --steps 1 --out {{folder}} {{good}}/photos",
        within="album",
    ),
    _kind(
        "preset.toml",
        lambda path: load_preset(str(path)),
        "train {good}/pictures.zip --preset {file} --dry-run --out {out}",
    ),
    _kind(
        "run/state.pt",
        None,
        f"{TRAIN} --out {{folder}}",
        f"{TRAIN} --kimg 0.012 --out {{folder}}",
        within="run",
    ),
    _kind("run/log.jsonl", logged, f"{TRAIN} --kimg 0.012 --out {{folder}}", within="run"),
    _kind("run/best.json", None, f"{TRAIN} --kimg 0.012 --out {{folder}}", within="run"),
    _kind(
        "run/model.safetensors",
        load_model,
        f"{TRAIN} --init-from {{file}} --out {{out}}",
        "sample {file} --seeds 0 --class 0 --out {out}/x.png",
    ),
    _kind(
        "encoder.safetensors.state.pt",
        saved_curvature,
        "encoder train {good}/native.safetensors --steps 3 --batch 2 --perceptual discriminator"
        " --out {folder}/encoder.safetensors",
    ),
    _kind(
        "judge.safetensors",
        load_judge,
        "directions report {good}/direction.safetensors --judge {file} --ask hat --pictures 4 "
        "{model} --out {out}",
    ),
)
