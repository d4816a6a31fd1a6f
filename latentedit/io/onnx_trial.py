"""Opens an ONNX file and gives it one picture, in a process of its own, as OpenCV crashes over some
damaged files.

    python onnx_trial.py FILE CHANNELS HEIGHT WIDTH MEMORY COMPUTATIONS [OUTPUT NUMBERS]...

The status is 0 where it may be opened in earnest; else the last line of the output says why not, as
far as that is known. It imports nothing of latentedit, so that it begins at once.
"""

import os
import sys

import cv2
import numpy as np

SECONDS = 5
RATE = 16 << 20
"""Processor time to open a network, and the bytes of a file that count as one second more."""
SPEED = 1_000_000_000
"""Computations a second at least."""


def limit(seconds: float, memory: int | None = None) -> None:
    """Lets this process take so many seconds and bytes more than it has; where the system has no
    limits, it has none."""
    try:
        import resource
    except ImportError:  # Windows
        return

    limits = [(resource.RLIMIT_CPU, sum(os.times()[:2]), seconds)]
    limits += [] if memory is None else [(resource.RLIMIT_AS, _addresses(), memory)]
    for what, taken, more in limits:
        hard = resource.getrlimit(what)[1]
        most = int(taken + more) + 1
        resource.setrlimit(
            what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _addresses() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # systems without /proc, whose limit does not bind either
        return 1 << 40


def attempt(
    file: str, shape: list[int], most_memory: int, most_computed: int, outputs: dict[str, int]
) -> str | None:
    """Why the network in ``file`` cannot be used; None where it can."""
    limit(SECONDS + os.path.getsize(file) / RATE, most_memory)
    network = cv2.dnn.readNetFromONNX(file)
    computed = network.getFLOPS(shape)
    if not 0 <= computed <= most_computed:
        return (
            f"it needs {computed:.1g} computations for a picture, expected at most "
            f"{most_computed:.1g}"
        )

    limit(SECONDS + computed / SPEED)
    network.setInput(np.zeros(shape, dtype=np.float32))
    found = network.forward(list(outputs)) if outputs else [network.forward()]
    for (name, count), numbers in zip(outputs.items(), found, strict=False):
        if numbers.size != count or numbers.dtype != np.float32:
            return f"it gives {numbers.size} numbers as {name}, expected {count}"

    return None


def main(arguments: list[str]) -> int:
    file, *numbers = arguments[:6]
    channels, height, width, memory, computed = (int(number) for number in numbers)
    outputs = {
        name: int(count) for name, count in zip(arguments[6::2], arguments[7::2], strict=True)
    }
    cv2.setNumThreads(0)
    try:
        found = attempt(file, [1, channels, height, width], memory, computed, outputs)
    except (cv2.error, MemoryError, ValueError) as error:
        lines = [line.removeprefix(">").strip() for line in str(error).splitlines()]
        found = " ".join(line for line in lines if line) or type(error).__name__

    if found:
        print(found)
    return int(found is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
