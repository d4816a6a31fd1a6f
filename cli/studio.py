"""``studio``: sliders in a browser."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentedit.cli import log
from latentedit.cli.common import (
    device_option,
    folder_option,
    framing_option,
    is_typed,
    megapixels_option,
    model_option,
    read_model,
)
from latentedit.cli.moves import known_model
from latentedit.errors import NotFoundError

if TYPE_CHECKING:
    from latentedit.studio.session import Session


@click.command()
@click.argument("source", metavar="[PHOTO|LATENT]", type=click.Path(), required=False)
@model_option()
@folder_option("Folder for what you save, and for the session.", "latentedit-studio")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the page (default: chosen by the system).",
)
@click.option("--no-browser", is_flag=True, help="Print the address, do not open a browser.")
@framing_option
@megapixels_option
@device_option
def studio(
    source: str | None,
    model_name: str,
    out: str,
    port: int,
    no_browser: bool,
    framing: str | None,
    device: str,
) -> None:
    """Open the studio: a photo or a face with its sliders, on a web page that only this machine can
    open.

    The page inverts PHOTO, or shows LATENT; without either, it asks for a photo. The session is
    saved in the --out folder after every change, and you can continue it the next time. Apart from
    that, only what you save is written.

    \b
    Example:
      latentedit studio me.jpg
      latentedit studio latents/me.safetensors --out edits
    """
    from latentedit.formats.load_latent import load_latent
    from latentedit.io.files import is_picture
    from latentedit.io.locks import alone
    from latentedit.studio.keeping import Keeper
    from latentedit.studio.session import Session

    if source is not None and not Path(source).is_file():
        raise NotFoundError("no such file", path=source)

    photo = source if source is not None and is_picture(source) else None
    latent = load_latent(source) if source is not None and photo is None else None
    if latent is not None and latent.fingerprint and not is_typed("model_name"):
        # A network that was used before, or an older version of the bundled one.
        model_name = known_model(latent.fingerprint, f"{source}: this latent")

    keeper = Keeper(out)
    session = Session(read_model(model_name, device, framing), model_name, keeper)
    try:
        # What is wrong is said before anything is written.
        if latent is not None:
            session.check(latent)
        if photo is not None:
            session.intake.open(photo)
        keeper.prepare()
        with alone(keeper.hidden / "lock", out):
            if source is not None and photo is None:
                session.open_latent(source)
            _serve(session, port, not no_browser)
    finally:
        session.close()


def _serve(session: "Session", port: int, browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    import webbrowser

    from latentedit.studio.intake import LARGEST_UPLOAD
    from latentedit.studio.web.guard import doorway
    from latentedit.studio.web.server import Studio

    def pages(studio: Studio) -> None:
        from latentedit.studio.web.app import build_pages

        build_pages(studio, session)

    page = Studio(pages, port=port, title="latentedit studio", uploads={"/upload": LARGEST_UPLOAD})
    with ExitStack() as stack:

        def ready() -> None:
            click.echo(
                f"{page.address}\nOpen this page if your browser does not. Ctrl-C here ends the "
                "studio."
            )
            if browser:
                webbrowser.open(stack.enter_context(doorway(page.address)))

        page.run(ready)

    log.remark("the session is kept; run the same command again to go on")
