"""Taking up what a training state holds: everything is checked against what it is put into before
anything is changed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from latentedit.errors import FormatError, IncompatibleError, shown


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise `Error` where the tensor called ``name`` has values that are not finite numbers."""
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise FormatError(
            f"the training state's {shown(name)} has values that are not finite numbers"
        )


def restore_network(network: nn.Module, state: Mapping[str, Any], name: str) -> None:
    """Give ``network`` the tensors ``state[name]``.

    Raises:
        Error: tensors of other names or shapes, or of numbers that are not finite.
    """
    tensors = state[name]
    own = network.state_dict()
    if not isinstance(tensors, dict) or tensors.keys() != own.keys():
        raise IncompatibleError(
            f"the run's networks are of another shape (the training state's {name} has other "
            "tensors)"
        )

    for key, tensor in own.items():
        check_like(tensors[key], tensor, f"{name}/{key}")
    # A plain dictionary, as one of torch's carries versions of its layout that a file can set.
    network.load_state_dict(dict(tensors))


def check_like(found: Any, own: Tensor, name: str) -> None:
    """Raise `Error` unless ``found`` is a tensor of the kind, shape and numbers that ``own`` may
    have."""
    if not isinstance(found, Tensor):
        raise FormatError.of(f"the training state's {shown(name)}", "a tensor", found)
    if found.shape != own.shape:
        shapes = f"{list(found.shape)}, expected {list(own.shape)}"
        raise IncompatibleError(
            f"the run's networks are of another shape (the training state's {shown(name)} has "
            f"{shapes})"
        )

    if found.dtype != own.dtype:
        raise FormatError(
            f"the training state's {shown(name)} is of {found.dtype}, expected {own.dtype}"
        )
    check_finite(name, found)


def restore_optimiser(
    optimiser: torch.optim.Optimizer, state: Mapping[str, Any], name: str
) -> None:
    """Give ``optimiser``, an Adam, the moments of ``state[name]``.

    Its options stay: they follow from those of the run. A kernel that was given moments of another
    shape would write beyond them.

    Raises:
        Error: moments of other parameters, or of numbers that are not finite.
    """
    saved = state[name]
    moments = saved.get("state") if isinstance(saved, dict) else None
    own = optimiser.state_dict()
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if not isinstance(moments, dict) or not all(
        type(key) is int and 0 <= key < len(parameters) for key in moments
    ):
        raise IncompatibleError(f"the training state's {name} has moments of other parameters")

    for key, values in moments.items():
        where = f"{name}/{key}"
        if not isinstance(values, dict) or values.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise FormatError(f"the training state's {where} must have a step and two moments")
        for part in ("exp_avg", "exp_avg_sq"):
            check_like(values[part], parameters[key], f"{where}/{part}")
        step = values["step"]
        if not isinstance(step, Tensor) or step.numel() != 1 or not 0 <= float(step) < 2**53:
            raise FormatError(f"the training state's {where}/step must be a number of at least 0")

    optimiser.load_state_dict({"state": moments, "param_groups": own["param_groups"]})
