"""The session's own folder: what is written after every change, and read again after a crash."""

import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentedit.errors import Error, NotFoundError
from latentedit.formats.load_latent import load_latent
from latentedit.io.budget import read_json
from latentedit.io.files import make_folder, write_bytes
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.studio.history import History, State

HIDDEN = ".studio"
STATE = "session.json"
ASIDE = re.compile(r"session-[a-z0-9]{8}\.json")
VERSION = 1
KEY = re.compile(r"[a-z0-9]{8}")
MOST = 6
"""Sessions that are kept; the oldest go first."""


@dataclass(frozen=True)
class Kept:
    """A session that was found."""

    fingerprint: str
    saved: float
    """Seconds since 1970."""
    history: History
    faces: dict[str, dict[str, Any]]
    """Name, photo and origin of every latent, by key."""
    file: str = STATE
    """Its name in the hidden folder."""

    @property
    def name(self) -> str:
        """What the face is called that was open."""
        return str(self.faces.get(self.history.state.face, {}).get("name", "a face"))

    @property
    def keys(self) -> set[str]:
        """What the names of its latents and copies of photos begin with."""
        photos = [Path(str(facts.get("photo") or "")).name for facts in self.faces.values()]
        return set(self.faces) | {found[0] for name in photos if (found := KEY.match(name))}

    @property
    def when(self) -> str:
        """The local time at which it was written."""
        return time.strftime("%d %B, %H:%M", time.localtime(self.saved))


class Keeper:
    """Writes and reads the hidden folder in the folder that the user chose."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.hidden = self.folder / HIDDEN

    def prepare(self) -> None:
        """Make the folders; the hidden one is for the user alone, as it holds photos."""
        make_folder(self.folder)
        self.hidden.mkdir(mode=0o700, exist_ok=True)

    def write(self, fingerprint: str, history: History, faces: dict[str, dict[str, Any]]) -> None:
        """Write the session whole, or leave the one before."""
        facts = {
            "version": VERSION,
            "fingerprint": fingerprint,
            "saved": time.time(),
            "place": history.place,
            "states": [state.facts() for state in history.states],
            "faces": faces,
        }
        write_bytes(self.hidden / STATE, json.dumps(facts).encode(), in_place=True)

    def read(self, file: str = STATE) -> Kept | None:
        """Return the session in ``file``; None if there is none that can be read."""
        with suppress(Error, OSError, KeyError, TypeError, ValueError, IndexError):
            facts = read_json(self.hidden / file)
            if facts["version"] != VERSION:
                return None
            history = History()
            history.states = [State.of(state) for state in facts["states"]]
            history.place = int(facts["place"])
            if not 0 <= history.place < len(history.states):
                return None
            faces = {key: dict(face) for key, face in facts["faces"].items() if KEY.fullmatch(key)}
            saved = float(facts["saved"])
            return Kept(str(facts["fingerprint"]), saved, history, faces, file)
        return None

    def sessions(self) -> list[Kept]:
        """Return the sessions that were left, the newest first."""
        try:
            names = [path.name for path in self.hidden.iterdir()]
        except OSError:
            return []
        found = [self.read(name) for name in names if name == STATE or ASIDE.fullmatch(name)]
        kept = [one for one in found if one is not None]
        return sorted(kept, key=lambda one: one.saved, reverse=True)

    def begin(self, photo: Path | None = None) -> None:
        """Lay the session of before aside, as a new one begins; the oldest ones go.

        Args:
            photo: the copy of a photo that the new session needs.
        """
        if (self.hidden / STATE).is_file():
            os.replace(self.hidden / STATE, self.hidden / f"session-{new_key()}.json")
        for kept in self.sessions()[MOST - 1 :]:
            (self.hidden / kept.file).unlink(missing_ok=True)
        self._tidy({photo.name.partition(".")[0]} if photo is not None else set())

    def take(self, kept: Kept) -> None:
        """Make ``kept`` the session that is written, and lay the other aside."""
        if kept.file != STATE:
            if (self.hidden / STATE).is_file():
                os.replace(self.hidden / STATE, self.hidden / f"session-{new_key()}.json")
            os.replace(self.hidden / kept.file, self.hidden / STATE)

    def forget(self, kept: Kept) -> None:
        """Remove a session, its latents and its copies of photos."""
        with suppress(OSError):
            (self.hidden / kept.file).unlink(missing_ok=True)
        self._tidy(set())

    def _tidy(self, keys: set[str]) -> None:
        """Remove latents and photos that belong to no session and to none of ``keys``."""
        needed = keys.union(*(kept.keys for kept in self.sessions()))
        with suppress(OSError):
            for path in self.hidden.iterdir():
                if (found := KEY.match(path.name)) and found[0] not in needed:
                    path.unlink()

    def latent_file(self, key: str) -> Path:
        """Return where the latent of ``key`` is."""
        return self._place(key, ".safetensors")

    def add(self, latent: Latent) -> str:
        """Write a latent and return its new key."""
        key = new_key()
        save_latent(self.latent_file(key), latent)
        return key

    def latent(self, key: str) -> Latent:
        """Read a latent; raise `Error` if it is gone or damaged."""
        return load_latent(self.latent_file(key))

    def add_upload(self, data: bytes, ending: str) -> Path:
        """Keep a copy of what was uploaded, which only the user can read, and return its place."""
        place = self._place(new_key(), ending)
        self.prepare()
        handle = os.open(
            place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600
        )
        with open(handle, "wb") as file:
            file.write(data)
        return place

    def _place(self, key: str, ending: str) -> Path:
        if not KEY.fullmatch(key) or not re.fullmatch(r"\.[a-z0-9]{2,12}", ending):
            raise NotFoundError("there is no such file in this session")
        return self.hidden / f"{key}{ending}"


def new_key() -> str:
    """Return a key that nobody has."""
    return secrets.token_hex(4)


def free_file(folder: Path, name: str, ending: str) -> Path:
    """Return ``folder``/NAME, or NAME-2, NAME-3, ...: never a file that is there.

    ``name`` comes from the page: only letters, digits, - and _ remain of it.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:80] or "untitled"
    number = 1
    place = folder / f"{stem}{ending}"
    while os.path.lexists(place):
        number += 1
        place = folder / f"{stem}-{number}{ending}"
    return place
