"""The page on which samples are labelled: a server of the standard library that only this machine, and only the holder of
a random token, can talk to.

Other pages in the same browser can send requests here, and a name that a stranger owns can be made to point here (DNS
rebinding); so every request needs the token and must be addressed to this machine by its own name. Samples are numbers, and
no path that a request names is ever opened.
"""

import html
import json
import os
import secrets
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from latentedit.directions.labelling.session import VALUES, Labelling, Sample
from latentedit.errors import ArgumentError, Error
from latentedit.io.budget import parse_json
from latentedit.io.images import open_image

LOOPBACK = "127.0.0.1"
PAGE = Path(__file__).with_name("page.html")
LARGEST_BODY = 1024
"""Bytes of a request: an answer has less than 50."""
DRAINED = 2**16
STRANGERS = 16
"""Connections at once that have not shown the token: more than a browser opens, and few enough that descriptors are left to
read pictures and write answers."""
PAUSE, PATIENCE = 0.1, 1.0
"""Seconds before another attempt where no descriptor is left, and that a connection may take to end."""
LARGEST, EXACT = 1024, 256
"""Pixels of the longer side of a picture that is sent, and up to which it is sent without loss."""
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOOR = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={0}">
<title>latentedit</title>
<a href="{0}">to the page</a>
"""
GET, POST = {"/", "/state", "/picture"}, {"/answer", "/undo", "/done"}


class RefusedError(Exception):
    """A request that gets ``status`` and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LabelPage(ThreadingHTTPServer):
    """Serves ``labelling`` on the loopback device; `run` ends with the page's Done button or Ctrl-C.

    Args:
        port: 0 lets the system choose.

    Raises:
        Error: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64  # the 5 of the standard library are soon full, and whoever comes then waits for a second or three
    allow_reuse_address = os.name == "posix"  # elsewhere it would let another program take the port over

    def __init__(self, labelling: Labelling, port: int = 0) -> None:
        try:
            super().__init__((LOOPBACK, port), Handler)
        except (OSError, OverflowError) as error:
            raise ArgumentError(f"cannot listen on port {port}: {getattr(error, 'strerror', None) or error}") from error
        self.labelling = labelling
        self.lock = threading.Lock()
        self.finished = threading.Event()
        self.token = secrets.token_urlsafe()
        self._strangers: list[Any] = []
        """Connections that have not shown the token, the oldest first."""
        self._known = threading.Condition()

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks the name service who this machine is
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/?token={self.token}"

    def run(self) -> bool:
        """Answer until the page's Done button or Ctrl-C; whether it was Ctrl-C."""
        interrupted = False
        worker = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        worker.start()
        try:
            while not self.finished.wait(0.2):  # with a timeout, as Ctrl-C does not end an endless one on Windows
                pass
        except KeyboardInterrupt:
            interrupted = True
        finally:
            self.shutdown()
            worker.join()
            with self.lock:  # an answer that is being written
                self.server_close()
        return interrupted

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; where too many wait without the token, or no descriptor is left, the oldest of them ends."""
        try:
            connection, address = super().get_request()
        except OSError:
            if not self._make_room(0):
                self.finished.wait(PAUSE)  # else the next attempt would follow at once, and fail as this one
            raise
        self._make_room(STRANGERS - 1)
        with self._known:
            self._strangers.append(connection)
        return connection, address

    def _make_room(self, most: int) -> bool:
        """End the oldest connection that has not shown the token, if there are more than ``most``; returns whether it has
        gone.
        """
        with self._known:
            if len(self._strangers) <= most:
                return False
            oldest = self._strangers[0]
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
            return self._known.wait_for(lambda: oldest not in self._strangers, PATIENCE)

    def know(self, connection: Any) -> None:
        """Count ``connection`` no longer among those that may have to go."""
        with self._known:
            self._strangers = [stranger for stranger in self._strangers if stranger is not connection]
            self._known.notify_all()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.know(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection early is no news, and the rest has been answered with status 500."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: LabelPage
    server_version, sys_version = "latentedit", ""
    timeout = 20
    _read = 0

    def do_GET(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a log of requests would show the token."""

    def _reply(self) -> None:
        try:
            address = urlsplit(self.path)
            query = parse_qs(address.query)
            self._check_origin(query)
            status, kind, body = self._answer(address.path, query)
        except RefusedError as refused:
            status, kind, body = refused.status, "application/json", _json({"error": str(refused)})
        except Error as error:
            status, kind, body = 409, "application/json", _json({"error": str(error)})
        except Exception as error:  # whatever it is, the page must be able to show it
            status, kind, body = 500, "application/json", _json({"error": f"{type(error).__name__}: {error}"})
        self._drain()
        self._send(status, kind, body)
        if status == 200 and self.path.startswith("/done"):
            self.server.finished.set()

    def _check_origin(self, query: dict[str, list[str]]) -> None:
        port = self.server.server_port
        if self.headers.get_all("Host", []) not in ([f"{LOOPBACK}:{port}"], [f"localhost:{port}"]):
            raise RefusedError(403, "only this machine can open this page")
        given = self.headers.get("X-Token") or query.get("token", [""])[0]
        if not compare_digest(given.encode(errors="replace"), self.server.token.encode()):
            raise RefusedError(403, "open the address that latentedit printed, it contains the token")
        self.server.know(self.connection)

    def _answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, str, bytes]:
        if path not in GET | POST:
            raise RefusedError(404, "no such page")
        if self.command != ("POST" if path in POST else "GET"):
            raise RefusedError(405, f"{path} does not take {self.command}")
        if path == "/":
            return 200, "text/html; charset=utf-8", PAGE.read_bytes()
        if path == "/picture":
            return 200, *encoded(self._sample(query.get("number", [""])[0]).picture)
        body = self._body() if path in POST else {}
        with self.server.lock:
            labelling = self.server.labelling
            if path == "/answer":
                sample, value = self._sample(body.get("sample")), body.get("value")
                if not isinstance(value, str) or value not in VALUES:
                    raise RefusedError(400, 'the value of an answer is "1", "0" or ""')
                labelling.answer(sample.file, value)
            elif path == "/undo":
                labelling.undo()
            return 200, "application/json", _json(state(labelling))

    def _sample(self, number: object) -> Sample:
        text, samples = str(number), self.server.labelling.samples
        if not (text.isascii() and text.isdecimal() and len(text) < 10) or int(text) >= len(samples):
            raise RefusedError(404, "no such sample")
        return samples[int(text)]

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise RefusedError(411, "a request needs its length")
        if len(length) > 9 or int(length) > LARGEST_BODY:
            raise RefusedError(413, f"a request has at most {LARGEST_BODY} bytes")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(415, "a request must be JSON")
        self._read = int(length)
        try:
            body = parse_json(self.rfile.read(self._read), LARGEST_BODY)
        except Error as error:
            raise RefusedError(400, "not JSON") from error
        if not isinstance(body, dict):
            raise RefusedError(400, "a request must be a JSON object")
        return body

    def _drain(self) -> None:
        """Read what a refused request still sends, within reason: else the system resets the connection, reply and all."""
        length = self.headers.get("Content-Length", "")
        if length.isascii() and length.isdecimal() and len(length) < 9:
            self.rfile.read(max(0, min(int(length), DRAINED) - self._read))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        nonce = secrets.token_urlsafe(16)
        body = body.replace(b"{{nonce}}", nonce.encode()) if kind.startswith("text/html") else body
        self.close_connection = True
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": POLICY.format(nonce),
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def doorway(address: str) -> Iterator[str]:
    """The address of a file that leads to ``address``, for the block; only this user can read the file.

    A browser is started with an address on its command line, which every user of the machine can read, token and all.
    """
    text = html.escape(address)
    with tempfile.TemporaryDirectory(prefix="latentedit-") as folder:  # of mode 0700
        place = Path(folder) / "label.html"
        with open(place, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(DOOR.format(text))
        yield place.as_uri()


def state(labelling: Labelling) -> dict[str, Any]:
    """What the page shows: the question, the picture to fetch beforehand, and how far it is."""
    progress, upcoming = labelling.progress(), labelling.upcoming(2)
    numbers = [sample.number for sample in upcoming] + [None, None]
    return {
        "column": labelling.column,
        "number": numbers[0],
        "following": numbers[1],
        "file": upcoming[0].file if upcoming else None,
        "yes": progress.yes,
        "no": progress.no,
        "left": progress.left,
        "auc": progress.auc,
        "can_undo": labelling.can_undo,
    }


def encoded(path: Path) -> tuple[str, bytes]:
    """Media type and bytes of a picture for a browser: upright, at most 1024 pixels on a side, nothing but the pixels.

    Raises:
        Error: not a picture.
    """
    image, buffer = open_image(path), BytesIO()
    image.info.clear()
    if max(image.size) <= EXACT:
        image.save(buffer, "PNG")
        return "image/png", buffer.getvalue()
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=92)
    return "image/jpeg", buffer.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
