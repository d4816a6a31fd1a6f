"""What a campaign consists of, and a first use of everything that it needs."""

import os
import shutil
from pathlib import Path

from tests.campaign import Part, Place
from tests.disturbances import Descriptors, Disk, Kills
from tests.hostile_files import Files, damage, reading, undrawn
from tests.odd_arguments import Arguments, base, commands
from tests.specimens import KINDS
from tests.watching import Outcome, command


def parts(place: Place) -> dict[str, Part]:
    return {
        part.name: part
        for part in (Files(place), Arguments(place), Kills(place), Disk(place), Descriptors(place))
    }


REFUSED = ("holiday.jpg", "e4e.pt")
"""Good files that are refused: one starts Ghostscript elsewhere, the other has a small backbone."""


def use_everything(place: Place) -> None:
    """Read every good file, run every command: what these import need not be imported in the
    children, and what does not work here would be no test of anything.
    """
    from latentedit.studio.web.server import Studio

    kept, home = Studio.run, Path.cwd()
    Studio.run = lambda page, ready=None: page.close()  # type: ignore[method-assign, assignment, return-value]
    shutil.copytree(place.good, place.work / "spare", symlinks=True)
    wrong = []
    for kind in KINDS:
        scratch = place.fresh()
        file = scratch / (kind.file if kind.within else Path(kind.file).name)
        for arguments in [(), *kind.commands]:
            scratch = place.fresh()
            if kind.within:
                shutil.copytree(place.good / kind.within, scratch / kind.within)
            shutil.copyfile(place.good / kind.file, file)
            if not arguments and kind.read is None:
                continue
            with undrawn(kind):
                outcome = (
                    command(place.filled(arguments, file)) if arguments else reading(kind, file)
                )
            if outcome != Outcome(None, "ok") and kind.file not in REFUSED:
                wrong.append(f"{kind.file}: {' '.join(arguments)}: {outcome}")
    for path, found in commands():
        # the one draws large pictures, the other needs a network
        if path in ("demo", "model fetch"):
            continue
        # What a command writes by default, it writes beside itself.
        os.chdir(place.fresh() / "out")
        positional, options, flags = base(path, found)
        words = [*path.split(), *(word for pair in options for word in pair), *flags, *positional]
        outcome = command(place.filled(words))
        os.chdir(home)
        if outcome != Outcome(None, "ok"):
            wrong.append(f"{' '.join(words)}: {outcome}")
    Studio.run = kept  # type: ignore[method-assign]
    damage(place, {})
    if wrong:
        raise RuntimeError("these should work:\n" + "\n".join(wrong))
