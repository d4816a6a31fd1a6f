"""Which device work runs on."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from latentedit.errors import NotFoundError, quoted, reason

LOG = logging.getLogger(__name__)


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA, then MPS, then the CPU; `Error` where a device that is named is not
    there."""
    if name == "auto":
        found = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
        LOG.debug(
            "device %s, with %d threads, by torch %s",
            found,
            torch.get_num_threads(),
            torch.__version__,
        )
        return torch.device(found)

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # "meta" is a device too, which computes nothing
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        raise NotFoundError(
            f"device {quoted(name)} is not available here ({reason(error)})"
        ) from error

    return device


def auto_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """Return the faster one to train in: bfloat16 where ``device`` computes it natively, else
    float32 (where it is emulated, it takes twice the time of float32)."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return "bf16" if native else "fp32"


@contextmanager
def tf32(allowed: bool, device: torch.device) -> Iterator[None]:
    """Whether float32 products inside are rounded to ten bits before, which CUDA then computes
    several times as fast.

    Training and search allow it, as their steps are approximate anyway; rendering does not.
    PyTorch's own default differs for convolutions and matrices. It is a setting of the process,
    which is put back afterwards.
    """
    if device.type != "cuda":
        yield
        return

    try:
        before = _switch([allowed] * 2)
    # whoever has set PyTorch's newer switches, which do not go with these, has decided already
    except RuntimeError:
        yield
        return

    try:
        yield
    finally:
        _switch(before)


def _switch(values: list[bool]) -> list[bool]:
    """Set what is allowed for products of matrices and for convolutions; returns what was."""
    switches: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    with warnings.catch_warnings():
        # some versions advise the newer switches, which not all of PyTorch can read yet
        warnings.simplefilter("ignore")
        before = [bool(switch.allow_tf32) for switch in switches]
        for switch, value in zip(switches, values, strict=True):
            switch.allow_tf32 = value
    return before


@contextmanager
def exact_rendering(device: torch.device) -> Iterator[None]:
    """No `tf32` inside, unless gradients are wanted: those are for training or a search, which say
    themselves how exact."""
    if torch.is_grad_enabled():
        yield
        return
    with tf32(False, device):
        yield
