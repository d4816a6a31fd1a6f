"""Loading torch quickly."""

import gc
import sys


def load_torch() -> None:
    """Import torch without Python's garbage collector, which has nothing to find meanwhile.

    The import makes a million objects that stay, and the collector looks at all of them again and
    again, as it also does when the program ends: a sixth of the import's time. They are set aside
    for good (`gc.freeze`).
    """
    if "torch" in sys.modules:
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        if enabled:
            gc.enable()
    gc.freeze()
