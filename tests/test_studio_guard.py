"""Who may talk to the studio: hosts, sites, secrets, lengths, and what every answer says."""

import asyncio
import logging
import os
import stat
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from latentedit.errors import Error
from latentedit.studio.web.guard import LARGEST_BODY, doorway, with_nonce
from latentedit.studio.web.server import WAITING, Strangers, _is_news, listening, most_strangers
from tests.web import HOST, PORT, Caller


class Inner:
    """An application that notes what comes through, and answers with a page."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope["path"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.bodies.append(b"disconnected")
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/html"), (b"content-length", b"9")],
            }
        )
        await send({"type": "http.response.body", "body": b"<script>", "more_body": True})
        await send({"type": "http.response.body", "body": b"</script>"})


class Call(Caller):
    """Requests to an `Inner`."""

    def __init__(self) -> None:
        self.inner = Inner()
        super().__init__(self.inner)


@pytest.fixture
def call() -> Call:
    return Call()


def test_the_page_comes_with_its_policy_and_a_nonce(call: Call) -> None:
    status, headers, body = call()
    assert status == 200
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    nonce = policy["script-src"].split("'nonce-")[1].split("'")[0]
    assert body == f'<script nonce="{nonce}"></script>'.encode()
    assert headers["content-length"] == str(len(body))
    assert (
        policy["default-src"]
        == policy["frame-ancestors"]
        == policy["base-uri"]
        == policy["form-action"]
        == "'none'"
    )
    assert "unsafe-inline" not in policy["script-src"]
    assert policy["connect-src"] == f"'self' ws://{HOST}"
    assert not any(
        "*" in value or "http:" in value or "https:" in value for value in policy.values()
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert (
        headers["cross-origin-resource-policy"]
        == headers["cross-origin-opener-policy"]
        == "same-origin"
    )
    assert headers["cache-control"] == "no-store"
    assert call()[2] != body  # another nonce
    assert call.known == [("127.0.0.1", 999)] * 2


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        f"evil.example:{PORT}",
        "127.0.0.1",
        "127.0.0.1:1",
        f"127.0.0.1.evil.example:{PORT}",
        f"[::1]:{PORT}",
        "",
        None,
    ],
)
def test_other_names_of_this_machine_are_refused(call: Call, host: str | None) -> None:
    """DNS rebinding: a stranger's name that points here."""
    assert call(host=host)[0] == 403
    assert call(kind="websocket", host=host, origin=f"http://{host}")[0] == 4403
    assert call(query=f"key={call.guard.secret}", host=host)[0] == 403
    assert not call.inner.seen


def test_two_hosts_are_refused(call: Call) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", HOST.encode())] * 2,
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(call.guard(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        f"https://{HOST}",
        f"http://{HOST}.evil.example",
        "",
        None,
    ],
)
def test_other_origins_cannot_post_or_connect(call: Call, origin: str | None) -> None:
    """Cross-site posts, cookie and all, and web sockets of other pages."""
    assert call("/upload", method="POST", origin=origin)[0] == 403
    assert call("/_nicegui_ws/socket.io/", kind="websocket", origin=origin)[0] == 4403
    if origin is not None:
        assert call(origin=origin)[0] == 403
    assert not call.inner.seen


def test_sites_that_fetch(call: Call) -> None:
    for site in ("cross-site", "same-site"):
        assert call(sec_fetch_site=site, sec_fetch_mode="no-cors", sec_fetch_dest="image")[0] == 403
        assert (
            call(sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="iframe")[0] == 403
        )
        assert (
            call(
                "/upload",
                method="POST",
                sec_fetch_site=site,
                sec_fetch_mode="navigate",
                sec_fetch_dest="document",
            )[0]
            == 403
        )
        # The file that leads here is such a site.
        assert (
            call(
                query=f"key={call.guard.secret}",
                cookie=None,
                sec_fetch_site=site,
                sec_fetch_mode="navigate",
                sec_fetch_dest="document",
            )[0]
            == 200
        )
    assert call(sec_fetch_site="same-origin")[0] == 200
    assert (
        call(sec_fetch_site="none", sec_fetch_mode="navigate", sec_fetch_dest="document")[0] == 200
    )


def test_the_secret_becomes_a_cookie_and_leaves_the_address(call: Call) -> None:
    status, headers, body = call(query=f"key={call.guard.secret}", cookie=None)
    assert status == 200
    assert not call.inner.seen
    cookie = [part.strip() for part in headers["set-cookie"].split(";")]
    assert cookie == [
        f"studio={call.guard.secret}",
        f"Path={call.guard.place}",
        "HttpOnly",
        "SameSite=Strict",
    ]
    assert f'location.replace("{call.guard.place}/")' in body.decode()
    assert call.guard.secret not in body.decode()
    assert headers["referrer-policy"] == "no-referrer"
    assert call(query="key=wrong")[0] == 403
    assert call(query=f"key={call.guard.secret}&key=x", cookie=None)[0] == 403


@pytest.mark.parametrize(
    "cookie", [None, "studio=", "studio=x", "other=1", "studio", "\xff=;;;", "studio=x; studio=y"]
)
def test_without_the_cookie_nothing_answers(call: Call, cookie: str | None) -> None:
    for path in ("/", "/static/studio.js", "/file/0", "/_nicegui/x/static/nicegui.js"):
        assert call(path, cookie=cookie)[0] == 403
    assert call("/upload", method="POST", cookie=cookie)[0] == 403
    assert call(kind="websocket", cookie=cookie)[0] == 4403
    assert not call.inner.seen
    assert not call.known


def test_the_cookie_among_others(call: Call) -> None:
    assert call(cookie=f"a=b; {call.cookie}; c=d")[0] == 200
    assert call(kind="websocket")[0] == 0


def test_other_paths_do_not_exist(call: Call) -> None:
    for path in ("./", ".", f".{call.guard.place}x/", "./etc/passwd"):
        assert call(path)[0] == 404
    assert call("")[0] in (200, 404)


def test_secrets_differ_between_sessions() -> None:
    """So one session's cookie opens no other, whose path it is not sent to either."""
    one, two = Call(), Call()
    assert one.guard.place != two.guard.place
    assert two(cookie=one.cookie)[0] == 403


def test_too_long_a_request(call: Call) -> None:
    assert call(method="POST", content_length=str(LARGEST_BODY + 1))[0] == 413
    assert call("/upload", method="POST", content_length=str(2**20 + 1))[0] == 413
    for length in ("-1", "x", "1" * 30, "٣"):
        assert call(method="POST", content_length=length.encode().decode("latin-1"))[0] == 400
    assert not call.inner.seen
    assert call("/upload", method="POST", content_length="3", chunks=(b"abc",))[0] == 200
    assert call.inner.bodies == [b"abc"]


def test_too_long_a_request_that_does_not_say_so(call: Call) -> None:
    call(method="POST", chunks=(b"x" * LARGEST_BODY, b"y"))
    assert call.inner.bodies == [b"disconnected"]


def test_the_nonce_goes_to_scripts_alone() -> None:
    page = b'<script type="module">a</script><scripted><SCRIPT >&lt;script>'
    assert (
        with_nonce(page, "N")
        == b'<script nonce="N" type="module">a</script><scripted><SCRIPT >&lt;script>'
    )


def test_the_doorway_is_for_its_owner_alone() -> None:
    address = "http://127.0.0.1:1/x/?key=a&b"
    with doorway(address) as door:
        assert "key" not in door
        place = Path(url2pathname(urlsplit(door).path))
        assert escape(address) in place.read_text()
        if os.name == "posix":
            assert stat.S_IMODE(place.stat().st_mode) == 0o600
            assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert not place.parent.exists()


def test_the_socket_is_on_the_loopback_device_alone() -> None:
    with listening(0) as found:
        assert found.getsockname()[0] == "127.0.0.1"
        with pytest.raises(Error, match="cannot listen on port"):
            listening(found.getsockname()[1])


@pytest.mark.skipif(os.name != "posix", reason="limits descriptors as Unix does")
@pytest.mark.parametrize(("free", "strangers"), [(1000, 32), (50, 21), (26, 9), (10, 4), (0, 4)])
def test_strangers_leave_descriptors_to_the_owner(
    monkeypatch: pytest.MonkeyPatch, free: int, strangers: int
) -> None:
    import resource

    monkeypatch.setattr(os, "listdir", lambda place: ["0"] * 14)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (14 + free, 4096))
    assert most_strangers() == strangers
    assert free < 26 or most_strangers() + WAITING < free
    monkeypatch.setattr(
        resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    assert most_strangers() == 32


def test_what_asyncio_says_again_and_again_is_left_out() -> None:
    def record(text: str) -> logging.LogRecord:
        return logging.LogRecord("asyncio", logging.ERROR, "", 0, text, None, None)

    assert not _is_news(record("socket.accept() out of system resource\nsocket: x"))
    assert _is_news(record("Task exception was never retrieved"))


def test_the_oldest_strangers_go() -> None:
    class Transport:
        def __init__(self) -> None:
            self.aborted = False

        def abort(self) -> None:
            self.aborted = True

    strangers = Strangers(3)
    transports: list[Any] = [Transport() for _ in range(5)]
    for number, transport in enumerate(transports[:3]):
        strangers.came(("x", number), transport)
    strangers.gone(("x", 0))  # has shown the secret
    for number, transport in enumerate(transports[3:], 3):
        strangers.came(("x", number), transport)
    assert [transport.aborted for transport in transports] == [False, True, False, False, False]
    assert len(strangers) == 3
