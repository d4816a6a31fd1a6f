"""Imports that need help on some installations."""

import importlib
import sys
from typing import Any

import torch

_operators: list[Any] = []


def import_with_torchvision(name: str) -> Any:
    """``import name`` for a module that imports torchvision, also where torchvision's binary was
    built for CUDA and torch's was not: its operators are then missing, of which none is used here.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise

    for loaded in [
        loaded
        for loaded in sys.modules
        if loaded.split(".")[0] in ("torchvision", name.split(".")[0])
    ]:
        del sys.modules[loaded]

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    _operators.append(library)  # the definitions last as long as the object
    return importlib.import_module(name)
