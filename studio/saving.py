"""What a session leaves outside itself: pictures, latent files, and the command line that draws the
same."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

from latentedit.errors import ArgumentError
from latentedit.io.images import save_image
from latentedit.latent.latent_file import save_latent
from latentedit.latent.spaces import space_of_latent
from latentedit.model.bundled import bundled_with
from latentedit.studio.keeping import free_file
from latentedit.studio.session import Session


def command_line(session: Session, out: str = "edited.png") -> str:
    """Return the command line that draws the same picture.

    Raises:
        Error: no face is open.
    """
    face = session.face
    if face is None:
        raise ArgumentError("open a photo or a face first")
    # The user's own file where there is one, as the session's copy goes when the session ends.
    source = face.file or session.keeper.latent_file(face.key)
    words = ["latentedit", "edit", short(source)]
    if bundled_with(session.fingerprint) is None:
        words += ["--model", session.model_name]

    options = {name: slider.option for name, slider in session.sliders.items()}
    moving = [(name, setting) for name, setting in session.state.settings.items() if setting.amount]
    for name, setting in moving:
        layers = f"@{setting.layers}" if setting.layers else ""
        words += ["--set", f"{options[name]}={setting.amount:g}{layers}"]
    if session.state.locks and moving:
        words += ["--hold", ",".join(options[name] for name in sorted(session.state.locks))]
    # `edit` wants at least one --set.
    if not moving and options:
        words += ["--set", f"{next(iter(options.values()))}=0"]
    return shlex.join([*words, "--out", out])


def save_picture(session: Session, name: str, ending: str = ".png") -> Path:
    """Draw the edited face at full precision into the chosen folder, and return the file; nothing
    is overwritten."""
    place = free_file(session.keeper.folder, name, ending)
    save_image(session.render(session.edited()), place)
    return place


def save_face(session: Session, name: str) -> Path:
    """Write the edited face as a latent file into the chosen folder, and return the file; nothing
    is overwritten."""
    latent = replace(session.edited())
    settings = session.state.settings.items()
    edits = [
        f"{name}={s.amount:g}" + (f"@{s.layers}" if s.layers else "")
        for name, s in settings
        if s.amount
    ]
    if edits:
        latent.settings = {**latent.settings, "edits": [*latent.settings.get("edits", []), *edits]}
        latent.space = space_of_latent(latent.ws, latent.styles).name
        # Distances and limits are those of the face before the edit.
        latent.distances = {}
        latent.safe = None
    place = free_file(session.keeper.folder, name, ".safetensors")
    save_latent(place, latent)
    return place


def suggested_name(session: Session) -> str:
    """Return a name for what is saved: the face's, and the sliders that are moved."""
    face = session.face
    moving = [name for name, setting in session.state.settings.items() if setting.amount]
    return "-".join([face.name if face else "face", *moving[:3]])


def short(path: Path) -> str:
    """Return ``path`` as it can be typed here: relative where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
    return min(relative, str(path), key=len)
