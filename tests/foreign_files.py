"""Network files of other tools, made here: small ones that are right, and the means to make wrong
ones."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from latentedit.directions import Direction
from latentedit.formats.checkpoints import save_plain
from latentedit.formats.nvidia_writer import save_nvidia
from latentedit.formats.rosinality import save_rosinality
from latentedit.inversion.encoder import Encoder, EncoderConfig
from latentedit.inversion.preconditioner import Curvature
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    GrowingDiscriminator,
)
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator, GeneratorConfig
from tests.helpers import tiny_discriminator, tiny_generator
from tests.reference_nets import arrays

STYLEGAN1 = GeneratorConfig(
    16, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8, architecture="stylegan1"
)
SMALL = {"resolution": 8, "channels": 3, "channel_base": 32, "channel_max": 4}


def random_generator(config: GeneratorConfig = STYLEGAN1, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    generator = Generator(config).eval().requires_grad_(False)
    for tensor in generator.state_dict().values():
        if tensor.ndim:
            tensor += torch.randn_like(tensor) * 0.1
    return generator


def random_discriminator(channel_base: int = 64) -> GrowingDiscriminator:
    torch.manual_seed(1)
    config = DiscriminatorConfig(
        16, channel_base=channel_base, channel_max=8, architecture="stylegan1", mbstd_group_size=2
    )
    discriminator = GrowingDiscriminator(config).eval().requires_grad_(False)
    for parameter in discriminator.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return discriminator


def published_synthesis() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The published network but for its mapping, which is replaced by two random layers."""
    data = arrays("stylegan1_32_synthesis.npz")
    state = {key[2:]: torch.from_numpy(data[key]) for key in data if key.startswith("G/")}
    torch.manual_seed(0)
    for layer in range(2):
        state[f"mapping.dense{layer}.linear.weight"] = torch.randn(512, 512) * 100
        state[f"mapping.dense{layer}.wscale.bias"] = torch.randn(512) * 10
    return state, data


def as_tensorflow(state: dict[str, Tensor], fused: bool) -> dict[str, Any]:
    """The state of a pickled network with the same weights, as the first StyleGAN's code wrote
    it."""
    levels = sum(name.startswith("synthesis.output") and name.endswith("bias") for name in state)
    width = state["truncation.w_avg"].numel()
    settings = {
        "num_channels": 3,
        "resolution": 2 ** (levels + 1),
        "label_size": 0,
        "mapping_layers": 2,
        "fused_scale": fused,
    }
    settings |= {"latent_size": width, "dlatent_size": width}
    mapping: list[Any] = []
    synthesis: list[Any] = [("lod", state["synthesis.lod"].numpy())]

    def add(to: list[Any], name: str, tensor: Tensor, axes: tuple[int, ...] | None = None) -> None:
        to.append(
            (
                name,
                np.ascontiguousarray(
                    tensor.numpy() if axes is None else tensor.numpy().transpose(axes)
                ),
            )
        )

    for layer in range(2):
        add(mapping, f"Dense{layer}/weight", state[f"mapping.dense{layer}.linear.weight"], (1, 0))
        add(mapping, f"Dense{layer}/bias", state[f"mapping.dense{layer}.wscale.bias"])
    add(synthesis, "4x4/Const/const", state["synthesis.layer0.first_layer"])
    for layer in range(2 * levels):
        r = 4 * 2 ** (layer // 2)
        name = f"{r}x{r}/" + (("Const", "Conv") if r == 4 else ("Conv0_up", "Conv1"))[layer % 2]
        there = f"synthesis.layer{layer}"
        if layer:
            weight = state[f"{there}.conv.weight"]
            add(
                synthesis,
                f"{name}/weight",
                weight.flip(2, 3) if fused and name.endswith("up") else weight,
                (2, 3, 1, 0),
            )
        add(synthesis, f"{name}/bias", state[f"{there}.epilogue.bias"])
        add(synthesis, f"{name}/Noise/weight", state[f"{there}.epilogue.apply_noise.weight"])
        add(synthesis, f"noise{layer}", state[f"{there}.epilogue.apply_noise.noise"])
        add(
            synthesis,
            f"{name}/StyleMod/weight",
            state[f"{there}.epilogue.style_mod.dense.linear.weight"],
            (1, 0),
        )
        add(
            synthesis,
            f"{name}/StyleMod/bias",
            state[f"{there}.epilogue.style_mod.dense.wscale.bias"],
        )
    for index in range(levels):
        add(
            synthesis,
            f"ToRGB_lod{levels - 1 - index}/weight",
            state[f"synthesis.output{index}.conv.weight"],
            (2, 3, 1, 0),
        )
        add(
            synthesis, f"ToRGB_lod{levels - 1 - index}/bias", state[f"synthesis.output{index}.bias"]
        )

    def part(name: str, variables: list[Any], components: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": 3,
            "name": name,
            "static_kwargs": settings,
            "components": components,
            "build_module_src": "raise SystemExit",
            "build_func_name": name,
            "variables": variables,
        }

    own = [("dlatent_avg", state["truncation.w_avg"].numpy())]
    return part(
        "G_style",
        own,
        {
            "mapping": part("G_mapping", mapping, {}),
            "synthesis": part("G_synthesis", synthesis, {}),
        },
    )


def pickled(path: Path, network: Any, *states: dict[str, Any] | None) -> Path:
    def wrapped(state: dict[str, Any]) -> Any:
        return network(
            {
                **state,
                "components": {name: wrapped(part) for name, part in state["components"].items()},
            }
        )

    path.write_bytes(pickle.dumps(tuple(state and wrapped(state) for state in states), 4))
    return path


def small() -> Model:
    generator = tiny_generator(**SMALL, z_dim=4, w_dim=4)
    return Model(
        generator,
        tiny_discriminator(**SMALL),
        raw_generator=tiny_generator(1, **SMALL, z_dim=4, w_dim=4),
    )


class Instructions:
    """Pickles as an attacker writes them: instruction by instruction."""

    def __init__(self) -> None:
        self.code = b"\x80\x04"

    def name(self, module: str, name: str) -> "Instructions":
        self.code += b"c" + module.encode() + b"\n" + name.encode() + b"\n"
        return self

    def value(self, value: object) -> "Instructions":
        self.code += pickle.dumps(value, 2)[2:-1]
        return self

    def __add__(self, code: bytes) -> "Instructions":
        self.code += code
        return self

    def write(self, path: Path) -> Path:
        path.write_bytes(self.code + b".")
        return path


def nvidia_pickle(path: Path, model: Model, protocol: int = 2) -> Path:
    """``model`` as stylegan2-ada-pytorch pickles it, with source code that must not run."""

    def tensor(value: torch.Tensor) -> Any:
        return value.detach().clone()

    def module(
        name: str,
        attributes: dict[str, Any],
        parts: dict[str, Any],
        tensors: dict[str, torch.Tensor],
    ) -> Any:
        return Persistent(
            name,
            {
                **attributes,
                "_modules": parts,
                "_parameters": {k: tensor(v) for k, v in tensors.items()},
                "_buffers": {},
            },
        )

    def own(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
        return {
            k[len(prefix) :]: v
            for k, v in state.items()
            if k.startswith(prefix) and "." not in k[len(prefix) :]
        }

    def layer(state: dict[str, torch.Tensor], prefix: str, **attributes: Any) -> Any:
        affine = {"affine": module("FullyConnectedLayer", {}, {}, own(state, f"{prefix}affine."))}
        return module(
            "Layer",
            attributes,
            affine if f"{prefix}affine.weight" in state else {},
            own(state, prefix),
        )

    def filtered(block: Any) -> Any:
        block.state["_buffers"]["resample_filter"] = torch.outer(
            *[torch.tensor([1.0, 3, 3, 1]) / 8] * 2
        )
        return block

    def generator(network: Generator) -> Any:
        state, config = network.state_dict(), network.config
        blocks = {}
        for r in config.block_resolutions:
            prefix = f"synthesis.b{r}."
            names = [
                name for name in ("conv0", "conv1", "torgb") if f"{prefix}{name}.weight" in state
            ]
            layers = {
                name: layer(state, f"{prefix}{name}.", use_noise=True, conv_clamp=None)
                for name in names
            }
            blocks[f"b{r}"] = filtered(
                module("SynthesisBlock", {"architecture": "skip"}, layers, own(state, prefix))
            )
        mapping = {
            f"fc{i}": layer(state, f"mapping.fc{i}.", bias_gain=0.01)
            for i in range(config.mapping_layers)
        }
        sizes = {
            "z_dim": config.z_dim,
            "w_dim": config.w_dim,
            "c_dim": 0,
            "num_layers": config.mapping_layers,
        }
        parts = {
            "synthesis": module("SynthesisNetwork", {"img_channels": config.channels}, blocks, {}),
            "mapping": module("MappingNetwork", sizes, mapping, own(state, "mapping.")),
        }
        return module("Generator", {}, parts, {})

    def discriminator(network: Discriminator) -> Any:
        state, config = network.state_dict(), network.config
        blocks = {}
        for r in config.block_resolutions:
            names = sorted({name.split(".")[1] for name in state if name.startswith(f"b{r}.")})
            layers = {name: layer(state, f"b{r}.{name}.", conv_clamp=None) for name in names}
            blocks[f"b{r}"] = filtered(
                module("DiscriminatorBlock", {"architecture": "resnet"}, layers, {})
            )
        head = {name: layer(state, f"b4.{name}.") for name in ("conv", "fc", "out")}
        head["mbstd"] = module("MinibatchStdLayer", {"group_size": 4, "num_channels": 1}, {}, {})
        blocks["b4"] = module("DiscriminatorEpilogue", {}, head, {})
        return module("Discriminator", {"img_channels": config.channels, "c_dim": 0}, blocks, {})

    assert model.discriminator is not None
    document = {
        "G_ema": generator(model.generator),
        "D": discriminator(model.discriminator),
        "training_set_kwargs": {},
    }
    buffer = io.BytesIO()
    NvidiaPickler(buffer, protocol).dump(document)
    path.write_bytes(buffer.getvalue())
    return path


class Persistent:
    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state


class NvidiaPickler(pickle._Pickler):
    """Writes `Persistent` objects under the name that NVIDIA's code gives them."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is _reconstruct:
            writer: Any = self
            writer.write(b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n")
            writer.memoize(obj)
        else:
            super().save_global(obj, name)  # type: ignore[misc]

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Persistent):
            meta = {
                "type": "class",
                "version": 6,
                "module_src": "raise SystemExit",
                "class_name": obj.class_name,
                "state": obj.state,
            }
            return _reconstruct, (meta,)
        return NotImplemented

    dispatch: ClassVar[Any] = {**pickle._Pickler.dispatch, type(lambda: 0): save_global}


def _reconstruct(meta: Any) -> None:
    raise AssertionError("never called")


def storage(count: int, claimed: int | None = None) -> bytes:
    """``count`` floats as torch's older format stores them, with the number of them as
    ``claimed``."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = torch.zeros(count).storage()
    torch.save(whole, buffer, _use_new_zipfile_serialization=False)
    data = buffer.getvalue()
    if claimed is not None:
        data = data.replace(
            b"K" + bytes([count]) + b"N", b"\x8a\x08" + claimed.to_bytes(8, "little") + b"N"
        )
    return data


def rezipped(
    source: Path,
    target: Path,
    change: Callable[[str, bytes], bytes | None],
    method: int = zipfile.ZIP_STORED,
) -> Path:
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(target, "w", method) as b:
        for name in a.namelist():
            data = change(name, a.read(name))
            if data is not None:
                b.writestr(name, data)
    return target


def seeds(folder: Path, network: Any) -> dict[str, tuple[Path, str]]:
    """A small file of every format that is read, and what it is read as."""
    model = small()
    generator = model.generator
    sizes = (generator.resolution, generator.channels, generator.num_ws, generator.w_dim)
    encoder = Encoder(EncoderConfig(*sizes, channel_base=32, channel_max=4, hidden=4, passes=1))
    curvature = Curvature(torch.ones(2, generator.num_ws, generator.w_dim))
    save_model(folder / "native.safetensors", replace(model, encoder=encoder, curvature=curvature))
    save_rosinality(folder / "rosinality.pt", model)
    save_plain(folder / "plain.pt", model)
    save_nvidia(folder / "written.pkl", model)
    torch.save(genforce_state(), folder / "genforce.pth")
    torch.save(
        torch.load(folder / "rosinality.pt", weights_only=True),
        folder / "legacy.pt",
        _use_new_zipfile_serialization=False,
    )
    nvidia_pickle(folder / "nvidia.pkl", model)
    first = tensorflow_state()
    pickled(folder / "tensorflow.pkl", network, first, None, first)
    noise = [torch.zeros(shape) for shape in generator.synthesis.noise_shapes]
    offsets = [
        torch.zeros_like(style[:1])
        for style in generator.synthesis.styles(torch.zeros(1, generator.num_ws, 4))
    ]
    latent = Latent(
        torch.zeros(1, generator.num_ws, 4), noise, fingerprint(generator), "s", styles=offsets
    )
    save_latent(folder / "latent.safetensors", latent)
    np.savez(folder / "projected_w.npz", w=latent.ws.numpy())
    torch.save({"me.png": {"latent": latent.ws[0], "noise": noise}}, folder / "projected.pt")
    np.save(folder / "boundary.npy", np.ones((1, 4)))
    Direction("smile", torch.tensor([1.0, 0, 0, 0]), 0.0, 1.0, fingerprint(generator)).save(
        folder / "direction.safetensors"
    )
    kinds = {
        "latent.safetensors": "latent",
        "projected_w.npz": "latents",
        "projected.pt": "latents",
        "boundary.npy": "array",
    }
    kinds["direction.safetensors"] = "direction"
    return {path.name: (path, kinds.get(path.name, "model")) for path in sorted(folder.iterdir())}


def genforce_state() -> dict[str, torch.Tensor]:
    state, _ = published_synthesis()
    small = {}
    for name, tensor in state.items():
        if any(f"layer{i}." in name for i in range(4, 8)) or "output2" in name or "output3" in name:
            continue
        axes = [slice(0, min(n, 4)) if n >= 32 else slice(None) for n in tensor.shape]
        small[name] = tensor[tuple(axes)].clone()
    for layer in range(4):
        name = f"synthesis.layer{layer}.epilogue.style_mod.dense"
        small[f"{name}.linear.weight"] = torch.zeros(8, 4)
        small[f"{name}.wscale.bias"] = torch.zeros(8)
    small["truncation.truncation"] = torch.ones(1, 4, 1)
    return small


def tensorflow_state() -> dict[str, Any]:
    return as_tensorflow(genforce_state(), fused=False)
