"""Serves the studio: uvicorn on the loopback device, the guard, and NiceGUI behind it."""

import asyncio
import contextlib
import importlib.util
import logging
import os
import socket
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentedit.errors import NotFoundError, OutputError
from latentedit.studio.web.guard import LOOPBACK, Guard

STRANGERS = 32
FEWEST = 4
"""Connections at once that have not shown the secret: more than a browser opens; the oldest end
first. The second number is for a process that may open few files.
"""
WAITING = 8
"""Connections that are taken in at once; asyncio tries so often where there is no descriptor
left."""
QUEUE = 64
"""Connections that the system keeps until they are taken in."""
STATIC = Path(__file__).with_name("static")


def listening(port: int) -> socket.socket:
    """Return a socket that listens on the loopback device; port 0 lets the system choose.

    Raises:
        Error: the port is taken.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let another program take the port over
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((LOOPBACK, port))
        found.listen(QUEUE)
    except (OSError, OverflowError) as error:
        found.close()
        raise OutputError(
            f"cannot listen on port {port}: {getattr(error, 'strerror', None) or error}"
        ) from error

    return found


def most_strangers() -> int:
    """Return how many connections of strangers leave half of the descriptors that are free to the
    owner."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        taken = len(os.listdir("/dev/fd"))
    except (ImportError, OSError):  # Windows has no such limit
        return STRANGERS

    if most == resource.RLIM_INFINITY:
        return STRANGERS
    return min(max((most - taken - WAITING) // 2, FEWEST), STRANGERS)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a record is more than that there is no descriptor for a connection, which
    waits a second then."""
    return "out of system resource" not in record.getMessage()


class Strangers:
    """Connections that have not shown the secret: where they are too many, the oldest goes."""

    def __init__(self, most: int = STRANGERS) -> None:
        self.most = most
        self._open: OrderedDict[tuple[str, int], asyncio.Transport] = OrderedDict()

    def came(self, address: tuple[str, int], transport: asyncio.Transport) -> None:
        self._open[address] = transport
        while len(self._open) > self.most:
            self._open.popitem(last=False)[1].abort()

    def gone(self, address: tuple[str, int]) -> None:
        self._open.pop(address, None)

    def __len__(self) -> int:
        return len(self._open)


def protocol(strangers: Strangers) -> Any:
    """Return uvicorn's protocol, which tells ``strangers`` who comes and goes."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Watched(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if self.client:
                strangers.came(self.client, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.client:
                strangers.gone(self.client)

    return Watched


class Studio:
    """One server. NiceGUI keeps its pages in the process, so there is one in a process.

    Args:
        build: registers the pages and end points with NiceGUI, which is loaded when `run` begins.
        uploads: how many bytes a request may have, by the end of its path.

    Raises:
        Error: the port is taken, or ``latentedit[studio]`` is not installed.
    """

    def __init__(
        self,
        build: Callable[["Studio"], None],
        *,
        port: int = 0,
        title: str = "latentedit",
        uploads: dict[str, int] | None = None,
    ) -> None:
        if importlib.util.find_spec("nicegui") is None:
            raise NotFoundError('the studio needs NiceGUI: pip install "latentedit[studio]"')
        self._build = build
        self._title = title
        self._socket = listening(port)
        self.strangers = Strangers(most_strangers())
        number = self._socket.getsockname()[1]
        self.guard = Guard(self._missing, number, uploads=uploads, known=self.strangers.gone)
        self._server: Any = None

    async def _missing(self, scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the pages are not there yet")

    @property
    def address(self) -> str:
        """The address to open, secret and all."""
        return self.guard.address

    def run(self, ready: Callable[[], None] | None = None) -> bool:
        """Serve until `finish` or Ctrl-C; return whether it was Ctrl-C."""
        import uvicorn

        self.guard.app = self._pages()
        config = uvicorn.Config(
            self.guard,
            http=protocol(self.strangers),
            lifespan="on",
            log_level=logging.ERROR,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws_max_size=2**20,
            timeout_graceful_shutdown=1,
            backlog=WAITING,
            h11_max_incomplete_event_size=2**15,
        )
        for name in ("uvicorn", "uvicorn.error", "nicegui"):
            logging.getLogger(name).propagate = False
        logging.getLogger("asyncio").addFilter(_is_news)
        self._server = uvicorn.Server(config)
        try:
            asyncio.run(self._serve(ready))
        except KeyboardInterrupt:
            return True
        finally:
            self._socket.close()

        return False

    def close(self) -> None:
        """Free the port, where `run` was not called."""
        self._socket.close()

    def _pages(self) -> Any:
        """Return the application with NiceGUI's pages in it."""
        # What NiceGUI would keep for its users has no use here, and it looks for it in the working
        # folder.
        os.environ.setdefault(
            "NICEGUI_STORAGE_PATH", os.path.join(tempfile.gettempdir(), "latentedit-nothing")
        )
        # NiceGUI looks at every object of the process for its server, and some of torch's say that
        # they are old.
        warnings.filterwarnings(
            "ignore", message=".*torch.distributed.reduce_op", category=FutureWarning
        )
        from fastapi import FastAPI
        from nicegui import ui
        from nicegui.translations import translations

        words = translations["en-US"]
        words["connection_lost"] = "latentedit does not answer."
        words["trying_to_reconnect"] = (
            "Everything is kept. If it has ended, start it again in the terminal."
        )
        outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        self._build(self)
        ui.run_with(
            outer,
            mount_path=self.guard.place,
            title=self._title,
            favicon=STATIC / "favicon.svg",
            dark=None,
            language="en-US",
            tailwind=False,
            show_welcome_message=False,
            reconnect_timeout=60,  # also how soon a busy machine counts as gone
            binding_refresh_interval=None,
            cache_control_directives="private, max-age=3600",
            gzip_middleware_factory=None,
        )
        return outer

    async def _serve(self, ready: Callable[[], None] | None) -> None:
        async def tell() -> None:
            while not self._server.started:
                await asyncio.sleep(0.01)
            self._socket.listen(QUEUE)  # what is taken in at once is not all that may wait
            if ready is not None:
                ready()

        waiting = asyncio.create_task(tell())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    def finish(self) -> None:
        """End `run`, soon."""
        if self._server is not None:
            self._server.should_exit = True
