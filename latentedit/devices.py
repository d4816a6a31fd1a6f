"""Which device work runs on."""

import torch

from latentedit.errors import Error


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA, then MPS, then the CPU; `Error` where a device that is named is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Error(f"device {name!r} is not available here ({str(error).splitlines()[0]})") from error
    return device
