"""The fingerprint of a generator, which identifies the network of a latent or a direction."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from latentedit.errors import FormatError
from latentedit.networks.generator import Generator


def fingerprint(generator: Generator) -> str:
    """Compute the SHA-256 that identifies a generator, as 64 hexadecimal digits.

    It covers the parameter names in sorted order, each followed by a zero byte, the number of its
    dimensions and each dimension as little-endian uint32, and its values as little-endian float32.
    Noise constants are included, the running mean of w is not. A lossless conversion does not
    change it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(generator.state_dict().items()):
        if name == "mapping.w_avg":
            continue
        digest.update(name.encode() + b"\0")
        digest.update(np.array([tensor.ndim, *tensor.shape], dtype="<u4").tobytes())
        digest.update(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def fingerprint_in(path: str | os.PathLike[str], header: Mapping[str, Any]) -> str:
    """Return the fingerprint in a file's header; raise `Error` if there is none."""
    found = header.get("fingerprint")
    if not isinstance(found, str):
        raise FormatError.of("the header's fingerprint", "64 hexadecimal digits", found, path=path)
    return found
