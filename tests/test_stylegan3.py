"""StyleGAN3: the published numbers, filters and gradients, files, transforms, and what the commands
do with it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentedit.directions.sefa import factorised
from latentedit.errors import Error
from latentedit.formats.load_model import load_generator, load_model
from latentedit.formats.pickle_allow_list import Record, read_pickle
from latentedit.formats.stylegan3 import stylegan3_generator
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.pivotal_tuning import TuningOptions, tune
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.projector import invert
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.latent.blending import mixed
from latentedit.latent.deltas import expand_deltas
from latentedit.latent.latent_file import Latent, render
from latentedit.latent.transforms import Transform, transform_offsets
from latentedit.model.native import save_model
from latentedit.networks import filtered_activation as activations
from latentedit.networks.alias_free import filtered_layers, lowpass
from latentedit.networks.config import AliasFree, GeneratorConfig
from latentedit.networks.filtered_activation import ActivationPlan, filtered_activation
from latentedit.networks.fingerprint import fingerprint
from latentedit.ops import upfirdn2d
from tests.helpers import complaint, hopper, works
from tests.reference_nets import REFERENCE, arrays, relative_error

NAMES = ("stylegan3_t_32", "stylegan3_r_32")
TOLERANCE = 1e-4
GEOMETRIES = [  # up, down, padding, whether the downsampling filter is radial
    (2, 2, (9, 8), False),
    (4, 2, (2, -1), False),
    (2, 2, (-3, -4), False),
    (2, 2, (11, 10), True),
    (4, 2, (6, 3), True),
    (2, 2, (4, 5), True),
    (4, 4, (3, 2), False),
    (1, 1, (0, 0), False),
]


def file(name: str) -> Path:
    return REFERENCE / f"{name}.pkl"


@pytest.mark.parametrize("gradients", [False, True], ids=["rendering", "differentiable"])
@pytest.mark.parametrize("name", NAMES)
def test_matches_the_published_numbers(name: str, gradients: bool) -> None:
    data, model = arrays(f"{name}.npz"), load_model(file(name))
    generator, c = model.generator, torch.from_numpy(data["c"])
    with torch.set_grad_enabled(gradients):
        ws = generator.mapping(torch.from_numpy(data["z"]), c, truncation_psi=0.7)
        assert relative_error(ws, data["ws_psi07"]) <= TOLERANCE
        assert relative_error(generator.synthesis(ws), data["image"]) <= TOLERANCE
        assert (
            relative_error(
                generator.synthesis(torch.from_numpy(data["wplus"])), data["image_wplus"]
            )
            <= TOLERANCE
        )
        assert model.discriminator is not None
        assert (
            relative_error(model.discriminator(torch.from_numpy(data["image"]), c), data["logits"])
            <= TOLERANCE
        )
        generator.synthesis.input.transform = torch.from_numpy(data["transform"])
        assert relative_error(generator.synthesis(ws), data["image_transform"]) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_gradient_matches_the_published_one(name: str) -> None:
    data, generator = arrays(f"{name}.npz"), load_generator(file(name))
    ws = torch.from_numpy(data["ws_psi07"]).requires_grad_()
    (gradient,) = torch.autograd.grad(
        (generator.synthesis(ws) * torch.from_numpy(data["probe"])).sum(), ws
    )
    assert relative_error(gradient, data["grad_ws"]) <= 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_filters_are_those_of_the_files(name: str) -> None:
    synthesis = read_pickle(file(name))["G_ema"]["_modules"]["synthesis"]["_modules"]
    for layer in load_generator(file(name)).synthesis.layers:
        for kind in ("up_filter", "down_filter"):
            held, own = synthesis[layer.design.name]["_buffers"][kind], getattr(layer, kind)
            assert (held is None) == (own is None)
            if own is not None:
                assert torch.allclose(held.value, own, atol=1e-7, rtol=0), (layer.design.name, kind)


def _case(
    up: int, down: int, padding: tuple[int, int], radial: bool
) -> tuple[Any, Any, ActivationPlan, Tensor]:
    rise = None if up == 1 else lowpass(3 * up, 1.0, 1.0, 8)
    fall = None if down == 1 else lowpass(4 * down, 1.0, 1.0, 8, radial=radial)
    draws = torch.Generator().manual_seed(up)
    x = 1.5 * torch.randn(2, 3, 14, 13, generator=draws, dtype=torch.float64)
    rise, fall = (None if filter is None else filter.double() for filter in (rise, fall))
    return rise, fall, ActivationPlan(up, down, padding, 0.2, 1.3, 1.0), x


def _plainly(x: Tensor, rise: Any, fall: Any, plan: ActivationPlan) -> Tensor:
    one = x.new_ones(1)
    before, after = plan.padding
    padding = (before, after, before, after)
    u = upfirdn2d(x, one if rise is None else rise, up=plan.up, padding=padding, gain=plan.up**2)
    u = (torch.nn.functional.leaky_relu(u, plan.slope) * plan.gain).clamp(-plan.clamp, plan.clamp)  # type: ignore[operator]
    return upfirdn2d(u, one if fall is None else fall, down=plan.down)


@pytest.mark.parametrize(("up", "down", "padding", "radial"), GEOMETRIES)
def test_phases_and_strips_make_no_difference(
    up: int, down: int, padding: tuple[int, int], radial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rise, fall, plan, x = _case(up, down, padding, radial)
    expected = _plainly(x, rise, fall, plan)
    assert torch.allclose(filtered_activation(x, rise, fall, plan), expected, atol=1e-12)
    monkeypatch.setattr(activations, "STRIP", 1)
    assert torch.allclose(filtered_activation(x, rise, fall, plan), expected, atol=1e-12)
    x.requires_grad_()
    probe = torch.randn(
        expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    (ours,) = torch.autograd.grad((filtered_activation(x, rise, fall, plan) * probe).sum(), x)
    (theirs,) = torch.autograd.grad((_plainly(x, rise, fall, plan) * probe).sum(), x)
    assert torch.allclose(ours, theirs, atol=1e-12)
    # What other devices do.
    assert torch.allclose(
        activations.forward_whole(x.detach(), None, rise, fall, plan), expected, atol=1e-12
    )
    assert torch.allclose(
        activations.adjoint_whole(probe, x.detach(), rise, fall, plan), theirs, atol=1e-12
    )


@pytest.mark.parametrize(("up", "down", "padding", "radial"), [GEOMETRIES[1], GEOMETRIES[3]])
def test_gradients_of_gradients(up: int, down: int, padding: tuple[int, int], radial: bool) -> None:
    rise, fall, plan, x = _case(up, down, padding, radial)
    x = x[:1, :1, :6, :5].clone().requires_grad_()

    def squared(x: Tensor) -> Tensor:
        return filtered_activation(x, rise, fall, plan).square()

    assert torch.autograd.gradcheck(squared, x, eps=1e-7, atol=1e-5, fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, x, eps=1e-7, atol=1e-5, fast_mode=True)


def test_a_batch_is_its_pictures() -> None:
    generator = load_generator(file("stylegan3_t_32"))
    ws = generator.mapping(torch.randn(3, 24))
    together = generator.synthesis(ws)
    for index in range(3):
        assert (
            relative_error(
                generator.synthesis(ws[index : index + 1]), together[index : index + 1].numpy()
            )
            <= 1e-5
        )


def test_reduced_precision() -> None:
    generator = load_generator(file("stylegan3_r_32"))
    ws = generator.mapping(torch.randn(2, 24), torch.eye(3)[:2])
    full, reduced = generator.synthesis(ws), generator.synthesis(ws, precision="bf16")
    assert 10 * math.log10(float(full.square().max() / (full - reduced).square().mean())) > 35
    with pytest.raises(Error, match="expected 0 noise maps"):
        generator.synthesis(ws, noise=[torch.zeros(1, 1, 4, 4)])


def test_the_published_sizes() -> None:
    """Names of layers say side and width; these are the ones of the 1024 px networks."""
    t = GeneratorConfig(1024, architecture="stylegan3", alias_free=AliasFree())
    names = [layer.name for layer in filtered_layers(t)]
    assert names[:5] == ["L0_36_512", "L1_36_512", "L2_52_512", "L3_52_512", "L4_84_512"]
    assert names[-5:] == ["L10_1044_81", "L11_1044_51", "L12_1044_32", "L13_1024_32", "L14_1024_3"]
    r = replace(
        t, channel_base=65536, channel_max=1024, alias_free=AliasFree(kernel=1, radial=True)
    )
    assert filtered_layers(r)[9].name == "L9_532_256"
    assert [layer.down_filter().ndim for layer in filtered_layers(r)[11:14]] == [2, 1, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_our_own(tmp_path: Path, name: str) -> None:
    own = load_model(file(name))
    works("model", "convert", file(name), tmp_path / "x.safetensors")
    works("model", "convert", file(name), tmp_path / "x.pt", "--layout", "nvidia")
    # as someone takes it out of a network
    torch.save(dict(own.generator.state_dict()), tmp_path / "bare.pt")
    for converted in ("x.safetensors", "x.pt", "bare.pt"):
        model = load_model(tmp_path / converted)
        assert model.generator.config == own.generator.config, converted
        assert fingerprint(model.generator) == fingerprint(own.generator), converted
    assert "rosinality's layout has no place for" in complaint(
        "model", "convert", file(name), tmp_path / "y.pt"
    )
    kind = "R" if "_r_" in name else "T"
    assert (
        f"StyleGAN3, configuration {kind}"
        in works("model", "info", tmp_path / "x.safetensors").output
    )


def _changed(changes: dict[str, Any], layer: str = "L2_44_32") -> Record:
    record: Record = read_pickle(file("stylegan3_t_32"))["G_ema"]
    record["_modules"]["synthesis"]["_modules"][layer].update(changes)
    return record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"up_factor": 2, "up_taps": 12}, "L2_44_32 has another up_factor"),
        ({"padding": [1, 0, 1, 0]}, "L2_44_32 has another padding"),
        ({"conv_clamp": None}, "L2_44_32 has another conv_clamp"),
        ({"in_size": [28, 30]}, "where the side of a square was expected"),
    ],
)
def test_layers_of_another_design(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Error, match=message):
        stylegan3_generator(_changed(changes), "x.pkl")


def test_filters_of_another_design() -> None:
    record = _changed({})
    record["_modules"]["synthesis"]["_modules"]["L3_44_32"]["_buffers"]["down_filter"].value[3] += (
        1e-3
    )
    with pytest.raises(
        Error, match=r"L3_44_32.down_filter is another filter than the published design"
    ):
        stylegan3_generator(record, "x.pkl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alias_free": None}, 'alias_free belongs to the architecture "stylegan3"'),
        ({"architecture": "skip"}, 'alias_free belongs to the architecture "stylegan3"'),
        ({"alias_free": {"layers": 5, "depth": 2}}, "alias_free has the unknown entry 'depth'"),
        ({"alias_free": {"layers": 1}}, "layers must be a whole number from 2"),
        ({"alias_free": {"kernel": 2}}, "kernel must be odd"),
        ({"alias_free": {"first_cutoff": 64}}, "first_cutoff must be below 16"),
        ({"alias_free": {"first_stopband": "much"}}, "first_stopband must be a number"),
        (
            {"channel_widths": (4, 4, 4, 4)},
            "widths and filters of a StyleGAN3 follow from alias_free",
        ),
    ],
)
def test_configurations_that_no_network_has(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Error, match=message):
        GeneratorConfig(
            **{
                "resolution": 32,
                "architecture": "stylegan3",
                "alias_free": {"layers": 6, "margin": 6},
                **options,
            }
        )


def test_transforms_move_and_turn_the_picture() -> None:
    generator = load_generator(file("stylegan3_r_32"))
    ws = generator.mapping(
        torch.randn(2, 24, generator=torch.Generator().manual_seed(0)), torch.eye(3)[:2], 0.7
    )
    image = generator.synthesis(ws)

    def drawn(transform: Transform) -> Tensor:
        return render(generator, ws, styles=transform_offsets(generator, ws, transform))

    quarter = torch.rot90(image, 1, (2, 3))  # anticlockwise
    assert relative_error(drawn(Transform(degrees=90)), quarter.numpy()) <= 1e-5
    # Whole pixels: the interior is the same up to what filters of finite length let through.
    assert relative_error(drawn(Transform(x=4 / 32))[..., 4:], image[..., :-4].numpy()) <= 0.01
    assert relative_error(drawn(Transform(y=-4 / 32))[:, :, :-4], image[:, :, 4:].numpy()) <= 0.01
    both = drawn(Transform(x=4 / 32, degrees=90))
    assert relative_error(both[..., 4:], quarter[..., :-4].numpy()) <= 0.01
    offsets = transform_offsets(generator, ws, Transform(0.1, 0.05, 30))
    offsets = transform_offsets(generator, ws, Transform(-0.1, -0.05, 0), offsets)
    offsets = transform_offsets(generator, ws, Transform(degrees=-30), offsets)
    assert relative_error(render(generator, ws, styles=offsets), image.numpy()) <= 1e-5


@pytest.mark.parametrize("text", ["0.1,0", "0.1,0,x", "", "nan,0,0", "11,0,0", "0,0,1e9"])
def test_transforms_that_are_none(text: str) -> None:
    with pytest.raises(Error, match=r"a transform is X,Y,DEGREES|a transform takes shares"):
        Transform.parse(text)


def test_inverted_and_tuned() -> None:
    model = load_model(file("stylegan3_t_32"))
    assert model.discriminator is not None
    generator, perceptual = model.generator, DiscriminatorDistance(model.discriminator)
    image = generator.synthesis(
        generator.mapping(torch.randn(1, 24, generator=torch.Generator().manual_seed(3)))
    )
    curvature = Curvature(torch.eye(generator.num_ws * 24).reshape(-1, generator.num_ws, 24))
    found = {
        space: invert(generator, image, space, 12, perceptual=perceptual, curvature=curvature)
        for space in ("w", "w+", "s")
    }
    for space, result in found.items():
        loss = result.history["perceptual"][:, 0]
        assert float(loss.min()) < 0.8 * float(loss[0]), space
        assert torch.equal(result.latent().render(generator), result.image), space
    assert found["w+"].noise == []
    tuning = tune(
        generator, image, found["w+"].ws, [], ReconstructionLoss(perceptual), TuningOptions(steps=6)
    )
    assert tuning.after["psnr"] > tuning.before["psnr"]
    # A tuned layer goes where its w goes.
    plain, tuned = (
        Latent(found["w+"].ws, None, "", "w+", tuned=stored) for stored in ({}, tuning.stored)
    )
    taken = expand_deltas(mixed(generator, plain, tuned, (3, 3)).tuned)
    assert {name.split(".")[0] for name in taken} == {"L2_44_32"}


def test_directions_of_the_affine_layers() -> None:
    generator = load_generator(file("stylegan3_t_32"))
    found = factorised(generator, 2, layers=(7, 7))
    weight = generator.synthesis.layers[-1].affine.weight.double()
    rows = weight / weight.norm(dim=1, keepdim=True)
    assert found[0].report["eigenvalue"] == pytest.approx(float(torch.linalg.svdvals(rows)[0] ** 2))


@pytest.mark.slow
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path / "cache"))
    t, r = file("stylegan3_t_32"), file("stylegan3_r_32")
    works("sample", t, "--seeds", "0-1", "--transform", "0.1,0,20", "--out", "moved.png")
    works("sample", r, "--seeds", "3", "--class", "2", "--out", "a.safetensors")
    works(
        "sample",
        r,
        "--seeds",
        "3",
        "--class",
        "2",
        "--transform",
        "0,0,90",
        "--out",
        "turned.safetensors",
    )
    works(
        "edit",
        "a.safetensors",
        "--model",
        r,
        "--transform",
        "0,0,90",
        "--out",
        "edited.safetensors",
    )
    for name in ("turned", "edited"):
        works(
            "edit",
            f"{name}.safetensors",
            "--model",
            r,
            "--transform",
            "0,0,-90",
            "--out",
            f"{name}.png",
        )
    works("sample", r, "--seeds", "3", "--class", "2", "--out", "a.png")
    assert Path("turned.png").read_bytes() == Path("edited.png").read_bytes()
    works("directions", "pca", "--model", r, "--samples", "50", "--count", "1", "--out", "found")
    works(
        "edit",
        "a.safetensors",
        "--model",
        r,
        "--set",
        "found/pc-00.safetensors=1",
        "--out",
        "b.safetensors",
    )
    works(
        "mix",
        "a.safetensors",
        "b.safetensors",
        "--model",
        r,
        "--layers",
        "0-2",
        "--out",
        "mixed.png",
    )
    works(
        "interpolate",
        "a.safetensors",
        "b.safetensors",
        "--model",
        r,
        "--count",
        "2",
        "--out",
        "between.png",
    )
    invert_it = (
        "invert",
        hopper(),
        "--model",
        t,
        "--crop",
        "100,20,300",
        "--perceptual",
        "discriminator",
        "--steps",
        "2",
    )
    works(*invert_it, "--method", "adam", "--out", "found")
    assert "only StyleGAN3 networks can turn" in complaint(
        "sample",
        REFERENCE / "nvidia_32_torch.pkl",
        "--seeds",
        "0",
        "--transform",
        "0,0,1",
        "--out",
        "x.png",
    )


def test_it_is_not_trained(tmp_path: Path) -> None:
    from PIL import Image

    from latentedit.training import write_pictures

    write_pictures(
        tmp_path / "x.zip",
        [(f"{i}.png", Image.new("RGB", (32, 32), (40 * i, 90, 200))) for i in range(4)],
    )
    (tmp_path / "x.toml").write_text('batch = 4\n[generator]\narchitecture = "stylegan3"\n')
    (tmp_path / "y.toml").write_text(
        "batch = 4\n[generator]\nz_dim = 8\nw_dim = 8\nchannel_max = "
        "8\n[discriminator]\nchannel_max = 8\n"
    )
    line = complaint(
        "train", tmp_path / "x.zip", "--preset", tmp_path / "x.toml", "--out", tmp_path / "run"
    )
    assert "StyleGAN3 networks are read, rendered and inverted, but not trained" in line
    start = ("--init-from", file("stylegan3_t_32"))
    line = complaint(
        "train",
        tmp_path / "x.zip",
        "--preset",
        tmp_path / "y.toml",
        *start,
        "--out",
        tmp_path / "run",
    )
    assert "StyleGAN3 networks are read, rendered and inverted, but not trained" in line


def test_older_files_keep_their_header(tmp_path: Path) -> None:
    """The header of other networks has no entry that earlier versions do not know."""
    model = load_model(REFERENCE / "nvidia_32_torch.pkl")
    save_model(tmp_path / "x.safetensors", model)
    with open(tmp_path / "x.safetensors", "rb") as opened:
        assert b"alias_free" not in opened.read(20_000)


@pytest.mark.parametrize(
    "text",
    ["", "0", "1,2", "1,2,3,4", "a,b,c", "nan,0,0", "0,0,nan", "inf,-inf,0", "1e400,0,0", ",,"],
)
def test_odd_transforms_get_one_line(text: str, tmp_path: Path, tiny_file: Path) -> None:
    into = ("--out", tmp_path / "x.png")
    said = complaint("sample", tiny_file, "--seeds", "0", f"--transform={text}", *into)
    assert "a transform" in said
    works("sample", tiny_file, "--seeds", "0", "--out", tmp_path / "a.safetensors")
    given = ("edit", tmp_path / "a.safetensors", "--model", tiny_file, f"--transform={text}")
    assert "a transform" in complaint(*given, *into)


def test_a_transform_needs_a_network_that_can_turn(tmp_path: Path, tiny_file: Path) -> None:
    into = ("--out", tmp_path / "x.png")
    moved = complaint("sample", tiny_file, "--seeds", "0", "--transform", "0.1,0,0", *into)
    assert "only StyleGAN3 networks can turn and move their pictures" in moved
