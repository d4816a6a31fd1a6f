"""Published networks: their addresses and licences. `latentedit.io.download` fetches them.

Naming a network does not download it.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from latentedit.errors import NotFoundError
from latentedit.io.download import Download, how, verify

CATALOGUE = Path(__file__).parent / "zoo.toml"


@dataclass(frozen=True, kw_only=True)
class Entry(Download):
    """A published network."""

    resolution: int
    architecture: str
    labels: int = 0
    megabytes: int | None = None
    """Size of the file, if known."""
    framing: str | None = None
    """Framing of its images: a name in `latentedit.photo.framing.FRAMINGS`."""
    folder: str = "models"


def catalogue() -> dict[str, Entry]:
    """Return all published networks by name."""
    entries = {}
    for publisher in tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))["publisher"]:
        for network in publisher.pop("networks"):
            file = network.pop("file", f"{network['name']}.pkl")
            address = network.pop("address", None) or f"{publisher['address']}{file}"
            facts = {key: value for key, value in publisher.items() if key != "address"}
            name = (
                file
                if file.startswith(network["name"])
                else f"{network['name']}{Path(file).suffix}"
            )
            entries[network["name"]] = Entry(file=name, address=address, **network, **facts)

    return entries


def cached_network(name: str, *, verified: bool = True) -> Path | None:
    """Return the file of the network ``name`` in the cache; None if the name is unknown.

    Args:
        verified: compare its checksum, which takes a second.

    Raises:
        Error: the file is not downloaded yet, or has changed since.
    """
    entry = catalogue().get(name)
    if entry is None:
        return None
    if not entry.path.is_file():
        raise NotFoundError(
            f"{name} is a published network that is not on this machine: {how(entry)}"
        )

    if verified:
        verify(entry)
    return entry.path
