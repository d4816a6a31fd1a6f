"""What tests of pages share: requests to an ASGI application without a network, and the command in
a process of its own."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from latentedit.studio.web.guard import App, Guard

PORT = 4321
HOST = f"127.0.0.1:{PORT}"
ROOT = Path(__file__).parent.parent
PATIENCE = 120
"""Seconds until a page that does not come is a failure."""


class Caller:
    """Sends requests through a guard to ``app``, as the studio's own page does; ``headers`` change
    that."""

    def __init__(self, app: App) -> None:
        self.known: list[tuple[str, int]] = []
        self.guard = Guard(app, PORT, uploads={"/upload": 2**20}, known=self.known.append)
        self.cookie = f"studio={self.guard.secret}"

    def __call__(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        kind: str = "http",
        query: str = "",
        chunks: tuple[bytes, ...] = (b"",),
        headers: Mapping[str, str | None] | None = None,
        **more: str | None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status (of a web socket: 0 where it is accepted, or the code that it is closed
        with), headers and body."""
        given: dict[str, str | None] = {"host": HOST, "cookie": self.cookie}
        given |= {
            name.replace("_", "-"): value for name, value in {**(headers or {}), **more}.items()
        }
        if (method != "GET" or kind == "websocket") and "origin" not in given:
            given["origin"] = f"http://{HOST}"
        whole = f"{self.guard.place}{path}" if path.startswith("/") else path[1:]
        scope = {
            "type": kind,
            "method": method,
            "path": whole,
            "raw_path": whole.encode(),
            "root_path": self.guard.place if path.startswith("/") else "",
            "query_string": query.encode(),
            "headers": [
                (name.encode(), value.encode("latin-1"))
                for name, value in given.items()
                if value is not None
            ],
            "client": ("127.0.0.1", 999),
            "server": ("127.0.0.1", PORT),
            "scheme": "http",
            "http_version": "1.1",
        }
        sent: list[Any] = []
        parts = [
            {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1}
            for i, chunk in enumerate(chunks)
        ]

        async def receive() -> Any:
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, receive, send))
        if kind == "websocket":
            return (0 if sent[0]["type"] == "websocket.accept" else sent[0]["code"]), {}, b""
        if not sent:
            return 0, {}, b""
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


@dataclass
class Served:
    """A page that is served by a process of its own."""

    process: "subprocess.Popen[str]"
    address: str

    @property
    def port(self) -> int:
        return int(self.address.split(":")[2].split("/")[0])

    @property
    def place(self) -> str:
        return "/" + self.address.split("/")[3]

    @property
    def secret(self) -> str:
        return self.address.partition("?key=")[2]

    @property
    def headers(self) -> dict[str, str]:
        """Headers of requests that the page sends."""
        origin = f"http://127.0.0.1:{self.port}"
        return {
            "Cookie": f"studio={self.secret}",
            "Origin": origin,
            "Content-Type": "application/json",
        }

    def interrupt(self) -> tuple[str, str]:
        """Press Ctrl-C, and return what the command still says."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@contextlib.contextmanager
def served(*arguments: object, cwd: Path | None = None, **environment: str) -> Iterator[Served]:
    """Run a command that serves a page, in a process of its own, until the block ends."""
    command = [sys.executable, "-u", "-m", "latentedit.cli.main", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=variables, cwd=cwd, **streams)  # type: ignore[call-overload]
    try:
        first = process.stdout.readline()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/[\w-]+/\?key=[\w-]+)\n", first)
        if found is None:
            process.kill()
            raise AssertionError(f"{first}{process.communicate()}")
        yield Served(process, found[1])
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        for stream in (process.stdout, process.stderr):
            stream.close()


@contextlib.contextmanager
def browser(**options: Any) -> Iterator[Any]:
    """A headless Chromium with one context; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = found.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(1000 * PATIENCE)
        api.expect.set_options(timeout=1000 * PATIENCE)
        yield context
        found.close()
