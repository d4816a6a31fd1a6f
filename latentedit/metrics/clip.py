"""CLIP (Radford et al. 2021): images and texts as vectors of one space. The variant with a vision
transformer (Dosovitskiy et al. 2021).

Weights are never downloaded here. They are read without executing anything from them.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import FormatError, IncompatibleError, NotFoundError, complete, listed
from latentedit.io.native_file import check_numbers
from latentedit.io.torch_files import read_state
from latentedit.io.torchscript import is_torchscript, read_torchscript
from latentedit.io.weights import by_name
from latentedit.metrics.clip_words import Words, find_vocabulary

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the training images, by which pixels in [0, 1] are normalised."""
HEAD = 64
"""Width of an attention head."""
LARGEST_CONFIG = 1 << 20
MOST = 1 << 16
"""Largest width, number of layers, positions and word parts that are accepted from a file."""


@dataclass(frozen=True)
class ClipConfig:
    """Everything needed to build a CLIP network; it follows from the shapes of its weights."""

    resolution: int
    """Side of the images in pixels."""
    patch: int
    """Side of a patch in pixels."""
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    length: int
    """Number of word parts of a text, with start and end."""
    vocabulary: int
    embedding: int
    """Width of the common space."""


class Attended(nn.Module):
    """A layer of a transformer: attention and a perceptron, each after a normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, max(width // HEAD, 1), batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` is ``[N, positions, width]``."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        # The approximation of GELU that CLIP was trained with (Hendrycks & Gimpel 2016).
        added: Tensor = self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))
        return x + added


class Transformer(nn.Module):
    """Layers one after the other."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Attended(width) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.resblocks:
            x = layer(x, mask)
        return x


class VisionTransformer(nn.Module):
    """Images ``[N, 3, resolution, resolution]`` to vectors ``[N, embedding]``."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width = config.vision_width
        side = config.resolution // config.patch
        self.conv1 = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(side**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.vision_layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, config.embedding))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)  # [N, patches, width]
        first = self.class_embedding.expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        found: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return found


class ClipNetwork(nn.Module):
    """Images and texts to unit vectors of one space, ``[N, embedding]``."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        width = config.text_width
        self.visual = VisionTransformer(config)
        self.transformer = Transformer(width, config.text_layers)
        self.token_embedding = nn.Embedding(config.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(config.length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, config.embedding))
        self.words: Words | None = None
        """What splits texts; None in a network without a vocabulary."""

    @property
    def dimensions(self) -> int:
        return self.config.embedding

    def images(self, images: Tensor) -> Tensor:
        """Return the vectors of images ``[N, C, H, W]`` in [-1, 1]; differentiable."""
        side = self.config.resolution
        x = (images.clamp(-1, 1) + 1) / 2
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
        smaller = x.shape[-1] > side
        x = F.interpolate(x, (side, side), mode="bicubic", align_corners=False, antialias=smaller)
        mean, std = (x.new_tensor(value)[:, None, None] for value in (MEAN, STD))
        return F.normalize(self.visual((x - mean) / std), dim=1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of ``texts``.

        Raises:
            Error: a text that is too long.
        """
        assert self.words is not None
        parts = self.words(texts, self.config.length).to(self.text_projection.device)
        length = parts.shape[1]
        # Every part attends to itself and those before it.
        mask = torch.full((length, length), -torch.inf, device=parts.device).triu(1)
        x = self.transformer(self.token_embedding(parts) + self.positional_embedding, mask)
        # The vector is that of the end.
        ends = (parts == self.words.end).int().argmax(dim=1)
        x = self.ln_final(x)[torch.arange(len(x), device=x.device), ends]
        return F.normalize(x @ self.text_projection, dim=1)


def load_clip(
    path: str | os.PathLike[str],
    vocabulary: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> ClipNetwork:
    """Read CLIP weights.

    Args:
        path: "clip" (the file of ``latentedit model fetch clip``); OpenAI's file, which is a
            TorchScript archive; a file with its ``state_dict``; or a folder in Hugging Face's
            layout (``config.json``, and ``model.safetensors`` or ``pytorch_model.bin``).
        vocabulary: the list of word parts (default: see
            `latentedit.metrics.clip_words.find_vocabulary`).

    Raises:
        Error: no such file, other weights, or no list of word parts.
    """
    text = os.fspath(path)
    where = Path(text) if os.path.exists(text) else by_name(text)
    if where is None:
        raise NotFoundError(
            'no such CLIP weights; "latentedit model fetch clip" downloads them', path=path
        )
    with complete(where, "CLIP network"):
        state = _folder_state(where) if where.is_dir() else _file_state(where)
        clip = _filled(where, state)
    clip.words = Words(vocabulary or find_vocabulary(where), clip.config.vocabulary)
    return clip.eval().requires_grad_(False).to(device)


NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "logit_scale", "logit_bias")
"""Numbers beside the weights, which follow from shapes or only matter for training."""


def _file_state(path: Path) -> dict[str, Tensor]:
    found: Mapping[str, Any] = read_torchscript(path) if is_torchscript(path) else read_state(path)
    inner = found.get("state_dict")
    if isinstance(inner, dict):
        found = inner
    return {
        name.removeprefix("module."): tensor
        for name, tensor in found.items()
        if isinstance(tensor, Tensor)
    }


def _filled(path: Path, state: dict[str, Tensor]) -> ClipNetwork:
    if "visual.layer1.0.conv1.weight" in state:
        raise FormatError("a CLIP with a ResNet; only those with a vision transformer", path=path)
    needed = {"visual.conv1.weight", "visual.proj", "token_embedding.weight", "text_projection"}
    if not needed <= state.keys():
        raise FormatError(
            f"expected the weights of a CLIP with a vision transformer; it has {listed(state)}",
            path=path,
        )
    patches = state["visual.positional_embedding"].shape[0] - 1
    patch = state["visual.conv1.weight"].shape[-1]
    config = ClipConfig(
        resolution=round(patches**0.5) * patch,
        patch=patch,
        vision_width=state["visual.conv1.weight"].shape[0],
        vision_layers=_layers(state, "visual.transformer.resblocks"),
        text_width=state["token_embedding.weight"].shape[1],
        text_layers=_layers(state, "transformer.resblocks"),
        length=state["positional_embedding"].shape[0],
        vocabulary=state["token_embedding.weight"].shape[0],
        embedding=state["text_projection"].shape[1],
    )
    if max(config.vision_width, config.text_width, config.resolution, config.embedding) > MOST:
        raise FormatError("sizes that no CLIP network has", path=path)
    with torch.device("meta"):
        clip = ClipNetwork(config)
    expected = clip.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        if name in NOT_WEIGHTS:
            continue
        if name not in expected:
            raise FormatError(f"CLIP has no tensor {name[:80]}", path=path)
        if name not in state or state[name].shape != expected[name].shape:
            shape = list(state[name].shape) if name in state else "none"
            raise IncompatibleError(
                f"the tensor {name} has shape {shape}, expected {list(expected[name].shape)}",
                path=path,
            )
        check_numbers(path, name, state[name].float())
    weights = {name: state[name].detach().float().clone() for name in expected}
    clip.load_state_dict(weights, assign=True)
    return clip


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return sum(name.startswith(f"{prefix}.") and name.endswith(".ln_1.weight") for name in state)


def _folder_state(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a folder in Hugging Face's layout, under OpenAI's names."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = folder / "config.json"
    if not config.is_file() or config.stat().st_size > LARGEST_CONFIG:
        raise FormatError(
            "expected a folder in Hugging Face's layout, with a config.json", path=folder
        )
    try:
        kind = json.loads(config.read_text()).get("model_type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise FormatError("config.json is not one of a network", path=folder) from error
    if kind != "clip":
        raise FormatError.of("the model_type in config.json", "clip", kind, path=folder)
    weights = folder / "model.safetensors"
    pickled = folder / "pytorch_model.bin"
    if weights.is_file():
        try:
            found = load_file(weights)
        except (SafetensorError, ValueError, OSError) as error:
            raise FormatError("not a safetensors file, or damaged", path=weights) from error
    elif pickled.is_file():
        found = {k: v for k, v in read_state(pickled).items() if isinstance(v, Tensor)}
    else:
        raise NotFoundError(
            "the folder has no model.safetensors and no pytorch_model.bin", path=folder
        )
    return _renamed(found)


NAMES = (
    (r"vision_model\.embeddings\.patch_embedding\.weight", "visual.conv1.weight"),
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm\.", "ln_final."),
    (r"vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)
"""Hugging Face's names of CLIP's parts, and OpenAI's."""


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.endswith("position_ids"):
            continue
        for old, new in NAMES:
            name = re.sub(old, new, name)
        if match := re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
            parts.setdefault(f"{match[1]}.attn.in_proj_{match[3]}", {})[match[2]] = tensor
        elif name in ("visual_projection.weight", "text_projection.weight"):
            ours = "visual.proj" if name.startswith("visual") else "text_projection"
            found[ours] = tensor.t()
        else:
            found[name] = tensor
    for name, three in parts.items():
        if set(three) != set("qkv"):
            raise FormatError(f"{name} lacks a part")
        found[name] = torch.cat([three[letter] for letter in "qkv"])
    return found
