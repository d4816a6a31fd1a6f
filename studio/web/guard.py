"""Who may talk to the studio: the holder of a secret, from this machine, from the studio's own
page.

Other pages in the same browser can send requests here, a name that a stranger owns can be made to
point here (DNS rebinding), and other users of the machine can connect. So every request must be
addressed to this machine by its own name, come from a page of the same origin, and carry a cookie
that only the address printed in the terminal gives. The cookie is bound to a path that no one can
guess, as browsers send cookies to every port of a host.
"""

import html
import os
import re
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from hmac import compare_digest
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = "127.0.0.1"
COOKIE = "studio"
LARGEST_BODY = 2**16
"""Bytes of a request, but for uploads."""
POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self'"
    " data: blob:; font-src 'self'; connect-src 'self' ws://{host}; base-uri 'none'; form-action "
    "'none'; frame-ancestors 'none'"
)
"""NiceGUI compiles its page in the browser and sends what is to run there as text, which takes
'unsafe-eval', and writes styles into elements, which takes 'unsafe-inline' for styles alone.
Scripts in the page need the nonce, and nothing comes from elsewhere.
"""
ENTRANCE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<title>latentedit</title>
<noscript>The studio needs JavaScript.</noscript>
<script nonce="{nonce}">location.replace({place});</script></html>
"""
DOOR = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={0}">
<title>latentedit</title>
<a href="{0}">to the page</a>
"""
REFUSED = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>latentedit</title>
<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;
padding:0 1.5rem}}</style><h1>This page is closed to you</h1><p>{0}</p></html>
"""


class RefusedError(Exception):
    """A request that gets ``status`` and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """An ASGI application around another one, which sees only requests that may come in.

    Args:
        port: the port that is listened on.
        uploads: how many bytes a request may have, by the end of its path.
        known: called with the address of whoever has shown the secret.
    """

    def __init__(
        self,
        app: App,
        port: int,
        *,
        uploads: dict[str, int] | None = None,
        known: Callable[[tuple[str, int]], None] | None = None,
    ) -> None:
        self.app = app
        self.port = port
        self.uploads = uploads or {}
        self.known = known
        self.secret = secrets.token_urlsafe(32)
        self.place = f"/{secrets.token_urlsafe(12)}"

    @property
    def address(self) -> str:
        """The address to open, secret and all."""
        return f"http://{LOOPBACK}:{self.port}{self.place}/?key={self.secret}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        nonce = secrets.token_urlsafe(16)
        host = ""
        try:
            headers = _headers(scope)
            host = self._check_host(headers)
            self._check_site(scope, headers, host)
            if self._is_entrance(scope):
                await self._let_in(scope, send, nonce, host)
                return
            self._check_cookie(scope, headers)
            limit = self._check_length(scope, headers)
        except RefusedError as refused:
            await _refuse(scope, send, refused, nonce, host or f"{LOOPBACK}:{self.port}")
            return

        if self.known is not None and scope.get("client"):
            self.known(tuple(scope["client"]))

        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return

        await self.app(scope, _counted(receive, limit), _dressed(send, nonce, host))

    def _check_host(self, headers: dict[str, list[str]]) -> str:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0] not in (f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"):
            raise RefusedError(
                403,
                "Only this machine can open the studio, by the address that latentedit printed.",
            )
        return hosts[0]

    def _check_site(self, scope: Scope, headers: dict[str, list[str]], host: str) -> None:
        """Refuse what a page of another origin sends; opening the address itself is no such
        request."""
        origins = headers.get("origin", [])
        must = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if (must and len(origins) != 1) or any(origin != f"http://{host}" for origin in origins):
            raise RefusedError(403, "Only the studio's own page can send this.")

        site = headers.get("sec-fetch-site", ["none"])[0]
        opening = (
            headers.get("sec-fetch-mode", [""])[0] == "navigate"
            and headers.get("sec-fetch-dest", [""])[0] == "document"
        )
        if site not in ("same-origin", "none") and not (opening and not must):
            raise RefusedError(403, "Only the studio's own page can send this.")

    def _is_entrance(self, scope: Scope) -> bool:
        """Return whether the request shows the secret in its address.

        Raises:
            RefusedError: it shows a wrong one.
        """
        if (
            scope["type"] != "http"
            or scope["method"] != "GET"
            or scope["path"].rstrip("/") != self.place
        ):
            return False

        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key")
        if given is None:
            return False
        if len(given) != 1 or not _same(given[0], self.secret):
            raise RefusedError(
                403,
                "Open the address that latentedit printed: this one does not hold the right key.",
            )
        return True

    async def _let_in(self, scope: Scope, send: Send, nonce: str, host: str) -> None:
        """Give the cookie, and lead on to the address without the secret.

        A redirect would not do: browsers count it to the page that led here, and send no strict
        cookie along.
        """
        if self.known is not None and scope.get("client"):
            self.known(tuple(scope["client"]))
        place = f'"{self.place}/"'
        cookie = f"{COOKIE}={self.secret}; Path={self.place}; HttpOnly; SameSite=Strict"
        body = ENTRANCE.format(nonce=nonce, place=place).encode()
        await _answer(send, 200, body, nonce, host, [(b"set-cookie", cookie.encode())])

    def _check_cookie(self, scope: Scope, headers: dict[str, list[str]]) -> None:
        path = scope["path"]
        if path == self.place:
            scope["path"] = path = f"{self.place}/"

        given = ""
        for line in headers.get("cookie", []):
            try:
                found = SimpleCookie(line).get(COOKIE)
            except CookieError:
                found = None
            given = found.value if found is not None else given

        if not _same(given, self.secret):
            raise RefusedError(
                403,
                "Open the address that latentedit printed in its terminal: it holds the key to "
                "this page.",
            )
        if not path.startswith(f"{self.place}/"):
            raise RefusedError(404, "There is nothing at this address.")

    def _check_length(self, scope: Scope, headers: dict[str, list[str]]) -> int:
        """Return how many bytes the request may have, and refuse one that says it has more."""
        if scope["type"] != "http":
            return 0
        limit = next(
            (most for end, most in self.uploads.items() if scope["path"].endswith(end)),
            LARGEST_BODY,
        )
        lengths = headers.get("content-length", [])
        if lengths and (
            not lengths[0].isascii() or not lengths[0].isdecimal() or len(lengths[0]) > 12
        ):
            raise RefusedError(400, "This request has no valid length.")
        if lengths and int(lengths[0]) > limit:
            raise RefusedError(
                413, f"This file is too large: at most {limit // 2**20} MB are taken."
            )
        return limit


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _same(given: str, secret: str) -> bool:
    return compare_digest(given.encode(errors="replace"), secret.encode())


def _counted(receive: Receive, limit: int) -> Receive:
    """Return ``receive`` that fails once a body without a stated length is too long."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            return {"type": "http.disconnect"}
        return message

    return counted


def _dressed(send: Send, nonce: str, host: str) -> Send:
    """Return ``send`` that adds the headers of every answer, and the nonce to the scripts in the
    page."""
    started: Message = {}
    page = bytearray()

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            message["headers"] = _with(message["headers"], nonce, host)
            if kinds and kinds[0].startswith(b"text/html"):
                started.update(message)
                return
        elif message["type"] == "http.response.body" and started:
            page.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            body = with_nonce(bytes(page), nonce)
            kept = [
                (name, value)
                for name, value in started["headers"]
                if name.lower() != b"content-length"
            ]
            await send(
                {**started, "headers": [*kept, (b"content-length", str(len(body)).encode())]}
            )
            started.clear()
            await send({"type": "http.response.body", "body": body})
            return

        await send(message)

    return dressed


def with_nonce(page: bytes, nonce: str) -> bytes:
    """Return the page with the nonce in each of its script elements.

    Text that came from a user cannot be one: NiceGUI writes its elements with every < escaped.
    """
    return re.sub(rb"<script(?=[\s>])", b'<script nonce="' + nonce.encode() + b'"', page)


def _with(headers: Any, nonce: str, host: str) -> list[tuple[bytes, bytes]]:
    own = {
        b"content-security-policy": POLICY.format(nonce=nonce, host=host).encode(),
        b"x-content-type-options": b"nosniff",
        b"x-frame-options": b"DENY",
        b"cross-origin-resource-policy": b"same-origin",
        b"cross-origin-opener-policy": b"same-origin",
        b"referrer-policy": b"no-referrer",
    }
    kept = [(name, value) for name, value in headers if name.lower() not in own]
    if not any(name.lower() == b"cache-control" for name, _ in kept):
        kept.append((b"cache-control", b"no-store"))
    return [*kept, *own.items()]


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    nonce: str,
    host: str,
    more: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *(more or []),
    ]
    await send(
        {"type": "http.response.start", "status": status, "headers": _with(headers, nonce, host)}
    )
    await send({"type": "http.response.body", "body": body})


async def _refuse(scope: Scope, send: Send, refused: RefusedError, nonce: str, host: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403, "reason": str(refused)})
        return
    await _answer(
        send, refused.status, REFUSED.format(html.escape(str(refused))).encode(), nonce, host
    )


@contextmanager
def doorway(address: str) -> Iterator[str]:
    """The address of a file that leads to ``address``, for the block; only this user can read the
    file.

    A browser is started with an address on its command line, which every user of the machine can
    read, secret and all.
    """
    text = html.escape(address)
    with tempfile.TemporaryDirectory(prefix="latentedit-") as folder:  # of mode 0700
        place = Path(folder) / "studio.html"
        with open(
            place, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)
        ) as file:
            file.write(DOOR.format(text))
        yield place.as_uri()
