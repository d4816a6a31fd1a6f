"""The layers of a network as texts and numbers: "0-3", "coarse", (0, 3)."""

from latentedit.errors import ArgumentError, meant

Layers = tuple[int, int] | None
"""First and last layer, or None for all."""

NAMED_LAYERS = {"coarse": (0, 3), "middle": (4, 7), "fine": (8, 10**6), "all": (0, 10**6)}
"""Layers by name: coarse is 4 x 4 and 8 x 8, middle is 16 x 16 and 32 x 32, fine is the rest
(StyleGAN, section 3.1)."""


def parse_layers(text: str, num_ws: int) -> tuple[int, int]:
    """Parse ``"0-3"``, ``"5"``, ``"coarse"``, ``"middle"``, ``"fine"`` or ``"all"`` into the first
    and the last layer.

    Raises:
        Error: not a range, or outside the network's ``num_ws`` layers.
    """
    if text in NAMED_LAYERS:
        first, last = NAMED_LAYERS[text]
        last = min(last, num_ws - 1)
    else:
        parts = text.split("-")
        if len(parts) not in (1, 2) or not all(part.isdigit() for part in parts):
            expected = f"a range such as 0-3, or one of {', '.join(NAMED_LAYERS)}"
            raise ArgumentError.of("layers", expected, text, advice=meant(text, NAMED_LAYERS))
        first = int(parts[0])
        last = int(parts[-1])

    if first > last:
        raise ArgumentError(f"layers go from low to high: write {last}-{first} instead of {text}")
    if last >= num_ws:
        raise ArgumentError(
            f"layers {text} lie outside this network, whose layers are 0-{num_ws - 1}"
        )
    return first, last


def layer_range(chosen: str | Layers, num_ws: int) -> tuple[int, int]:
    """Return the first and the last of the ``chosen`` layers of a network with ``num_ws``.

    Raises:
        ArgumentError: layers outside the network.
    """
    if isinstance(chosen, str):
        return parse_layers(chosen, num_ws)
    first, last = chosen if chosen is not None else (0, num_ws - 1)
    if not 0 <= first <= last < num_ws:
        raise ArgumentError(
            f"layers {first}-{last} lie outside this network, whose layers are 0-{num_ws - 1}"
        )
    return first, last
