"""Small CLIP networks with random weights, as files of every kind that is read."""

import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from latentedit.metrics.clip import ClipConfig, ClipNetwork
from latentedit.metrics.clip_words import FILE

MERGES = ("f a", "fa c", "fac e</w>", "s m", "sm i", "smi l", "smil ing</w>", "i n", "in g</w>")
CONFIG = ClipConfig(32, 8, 128, 2, 64, 2, 77, 512 + 2 + len(MERGES), 32)


def tiny_clip(seed: int = 0) -> ClipNetwork:
    torch.manual_seed(seed)
    clip = ClipNetwork(CONFIG).eval().requires_grad_(False)
    for parameter in clip.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return clip


def write_vocabulary(path: Path, packed: bool = True) -> Path:
    text = "\n".join(["#version: 0.2", *MERGES, "more t</w>", "than needed</w>"]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def write_state(folder: Path, clip: ClipNetwork) -> Path:
    """A ``state_dict`` with its vocabulary beside it."""
    folder.mkdir(exist_ok=True)
    write_vocabulary(folder / FILE)
    torch.save(
        {name: tensor.half() for name, tensor in clip.state_dict().items()}, folder / "clip.pt"
    )
    return folder / "clip.pt"


class _Traced(nn.Module):
    """A forward that touches all weights, so that a trace keeps them."""

    def __init__(self, clip: ClipNetwork) -> None:
        super().__init__()
        for name, module in clip.named_children():
            self.add_module(name, module)
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.register_buffer("input_resolution", torch.tensor(CONFIG.resolution))

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(parameter.sum() for parameter in self.parameters())


def write_script(folder: Path, clip: ClipNetwork) -> Path:
    """A TorchScript archive, as OpenAI publishes CLIP."""
    folder.mkdir(exist_ok=True)
    write_vocabulary(folder / FILE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced: Any = torch.jit.trace(_Traced(clip), torch.zeros(1), check_trace=False)
        torch.jit.save(traced, folder / "clip.pt")
    return folder / "clip.pt"


def write_folder(folder: Path, clip: ClipNetwork, pickled: bool = False) -> Path:
    """A folder in Hugging Face's layout."""
    folder.mkdir(exist_ok=True)
    write_vocabulary(folder / "merges.txt", packed=False)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    state: dict[str, Tensor] = {}
    for name, tensor in clip.state_dict().items():
        vision = name.startswith("visual.")
        short = name.removeprefix("visual.")
        side = "vision_model" if vision else "text_model"
        if short.startswith("transformer.resblocks."):
            _, _, number, part = short.split(".", 3)
            place = f"{side}.encoder.layers.{number}"
            if part.startswith("attn.in_proj_"):
                kind = part.removeprefix("attn.in_proj_")
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    state[f"{place}.self_attn.{letter}_proj.{kind}"] = third.clone()
                continue
            for old, new in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_", "layer_norm"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                part = part.replace(old, new)
            state[f"{place}.{part}"] = tensor
            continue
        state[
            {
                "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
                "visual.class_embedding": "vision_model.embeddings.class_embedding",
                "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
                "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
                "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
                "visual.ln_post.weight": "vision_model.post_layernorm.weight",
                "visual.ln_post.bias": "vision_model.post_layernorm.bias",
                "visual.proj": "visual_projection.weight",
                "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
                "positional_embedding": "text_model.embeddings.position_embedding.weight",
                "ln_final.weight": "text_model.final_layer_norm.weight",
                "ln_final.bias": "text_model.final_layer_norm.bias",
                "text_projection": "text_projection.weight",
            }[name]
        ] = tensor.t().contiguous() if name in ("visual.proj", "text_projection") else tensor
    state["logit_scale"] = torch.tensor(4.6)
    state["text_model.embeddings.position_ids"] = torch.arange(CONFIG.length)[None]
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()},
            folder / "model.safetensors",
        )
    return folder
