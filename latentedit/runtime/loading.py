"""Loading torch quickly, and leaving it quickly."""

import atexit
import gc
import os
import sys
import threading


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


def end_at_once(status: int) -> None:
    """End the process as the interpreter would, but do not take torch apart, which takes 0.3 s.

    Returns where that would leave something out: threads that are waited for, or output that
    cannot be written, which the interpreter reports.
    """
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        return
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(status)
