"""Reads every kind of latent file."""

import os
from pathlib import Path

from latentedit.errors import FormatError, path_text
from latentedit.io.files import is_picture
from latentedit.io.native_file import read_tensors
from latentedit.latent.latent_file import FORMAT, VERSION, Latent, _check_header, _floats, safe_in

ENDINGS = (".safetensors", ".npz", ".npy", ".pt")
"""Endings of the files that `load_latent` reads."""


def load_latent(path: str | os.PathLike[str]) -> Latent:
    """Read a latent file, or a file of another tool that contains one latent
    (`latentedit.formats.projections`).

    Raises:
        Error: the file does not exist, is damaged, or is another kind of file.
    """
    path_text(path, "a path of a latent file")
    if os.path.isfile(path) and is_picture(path):
        raise FormatError(
            "a photo, not a latent",
            path=path,
            advice=f'invert it first: "latentedit invert {path} --out latents"',
        )

    if Path(path).suffix in ENDINGS[1:]:
        from latentedit.formats.projections import load_projection

        return load_projection(path)

    header, tensors = read_tensors(path, FORMAT, VERSION)
    # Before the tensors: the header is small, and says what the tensors should be.
    _check_header(path, header)
    tensors = {name: _floats(path, name, tensor) for name, tensor in tensors.items()}
    ws = tensors.get("ws")
    if ws is None or ws.ndim != 3 or len(ws) != 1 or not ws.numel():
        raise FormatError(
            "a latent file needs ws of shape [1, num_ws, w_dim] and a fingerprint", path=path
        )

    maps = [tensors[name] for name in sorted(tensors) if name.startswith("noise/")]
    if any(map_.ndim != 4 or map_.shape[:2] != (1, 1) for map_ in maps):
        raise FormatError("a latent file's noise maps must have shape [1, 1, h, w]", path=path)

    offsets = [tensors[name] for name in sorted(tensors) if name.startswith("styles/")]
    if any(offset.ndim != 2 or len(offset) != 1 for offset in offsets):
        raise FormatError("a latent file's style offsets must have shape [1, channels]", path=path)
    return Latent(
        ws=ws,
        noise=maps or None,
        fingerprint=header["fingerprint"],
        space=header.get("space") or "w+",
        crop=header.get("crop"),
        crop_hash=header.get("crop_hash"),
        settings=header.get("settings") or {},
        distances=header.get("distances") or {},
        source=header.get("source"),
        styles=offsets,
        safe=safe_in(header),
        tuned={
            name.removeprefix("tuned/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("tuned/")
        },
    )
