"""One open page: it shows the session, and tells it what the person does."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from nicegui import Client, background_tasks, run

from latentedit.errors import Error
from latentedit.studio.session import Session


class PagePart(Protocol):
    """A page of the studio: what is in the middle, and what is in the panel beside it."""

    def refresh(self, what: str) -> None:
        """Show what has changed; ``what`` is one of the names of `Session.listen`."""


class View:
    """What the parts of one page share: the session, messages, work in threads, scripts in the
    browser."""

    def __init__(
        self, session: Session, client: Client, files: "Files", shared: dict[str, Any]
    ) -> None:
        self.session = session
        self.client = client
        self.files = files
        self.shared = shared
        self.parts: list[PagePart] = []
        self.loop = asyncio.get_running_loop()
        self.goto: Callable[[str], None] = lambda mode: None
        self.seen = 0
        """Number of the newest position that the page has sent: it has newer ones of its own where
        it has sent more."""
        self._pending: set[str] = set()

    # -- To the browser

    def js(self, call: str, *arguments: Any) -> None:
        """Call ``studio.CALL(arguments)`` in the browser."""
        if self.client.is_deleted:
            return
        text = ", ".join(json.dumps(argument) for argument in arguments)
        self.client.run_javascript(f"studio.{call}({text})")

    def toast(self, text: str, kind: str = "", path: Path | None = None) -> None:
        """Show a message for some seconds, with a link to a file that was saved."""
        link = None
        if path is not None:
            link = {"href": f"/file/{self.files.add(path)}", "text": "Download", "name": path.name}
        self.js("toast", text, kind, link)

    # -- From the session, in any thread

    def told(self, what: str) -> None:
        """Take note of a change; several of one kind are shown once."""
        self.loop.call_soon_threadsafe(self._soon, what)

    def _soon(self, what: str) -> None:
        if what in self._pending or self.client.is_deleted:
            return
        self._pending.add(what)
        self.loop.call_soon(self._show, what)

    def _show(self, what: str) -> None:
        self._pending.discard(what)
        if self.client.is_deleted:
            return
        if what == "picture":
            self._picture()
        elif what == "marks":
            self._marks()
        elif what == "trouble":
            self.toast(self.session.trouble, "bad")

        with self.client:
            for part in self.parts:
                part.refresh(what)

    def _picture(self) -> None:
        picture = self.session.picture
        if picture is not None:
            self.js("picture", picture.number, data_url(picture.data))

    def _marks(self) -> None:
        self.js(
            "marks", {name: round(value, 3) for name, value in self.session.marks.moved.items()}
        )

    # -- Work

    def start(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], Any] | None = None,
        last: Callable[[], Any] | None = None,
    ) -> None:
        """Do ``work`` in a thread, ``then`` with its result on the page, and ``last`` in any case.

        An `Error` becomes a message.
        """
        background_tasks.create(self._started(work, then, last))

    async def _started(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], Any] | None,
        last: Callable[[], Any] | None,
    ) -> None:
        found = await self.done(work)
        if self.client.is_deleted:
            return
        with self.client:
            if last is not None:
                last()
            if then is not None and not isinstance(found, Failed):
                then(found)

    async def done(self, work: Callable[[], Any]) -> Any:
        """Return the result of ``work`` in a thread; `Failed`, after a message, where it raises an
        `Error`."""
        try:
            return await run.io_bound(work)
        except Error as error:
            self.toast(str(error), "bad")
            return Failed()
        except OSError as error:
            self.toast(f"{error.filename or 'a file'}: {error.strerror or error}", "bad")
            return Failed()

    def attempt(self, work: Callable[[], Any]) -> Any:
        """Return the result of quick ``work``; `Failed`, after a message, where it raises an
        `Error`."""
        try:
            return work()
        except Error as error:
            self.toast(str(error), "bad")
            return Failed()


class Failed:
    """Stands for the result of work that failed, and said so."""


class Files:
    """The files that were saved while the server runs: the page can fetch these, by number, and no
    others."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def add(self, path: Path) -> int:
        if path not in self._paths:
            self._paths.append(path)
        return self._paths.index(path)

    def path(self, number: str) -> Path | None:
        if not (number.isascii() and number.isdecimal() and len(number) < 7) or int(number) >= len(
            self._paths
        ):
            return None
        return self._paths[int(number)]


def data_url(data: bytes, kind: str = "image/jpeg") -> str:
    """Return a picture as text for ``src``."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


Handler = Callable[[dict[str, Any]], Awaitable[None] | None]
