"""The download of published networks, against a server on this machine."""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentedit.errors import Error
from latentedit.formats import zoo
from latentedit.formats.load_model import load_model
from latentedit.formats.zoo import Entry, catalogue
from latentedit.io import download
from latentedit.io.download import checksum, fetch
from latentedit.io.weights import WEIGHTS, YUNET, Weights, by_name
from latentedit.photo.faces import find_faces
from tests.helpers import complaint, works
from tests.reference_nets import REFERENCE

NETWORK = REFERENCE / "nvidia_32_resnet_generator_clamp.pkl"


class Server:
    """Serves ``data`` at /network.pkl; the other attributes say how it misbehaves."""

    def __init__(self) -> None:
        self.data = NETWORK.read_bytes()
        self.etag: str | None = '"one"'
        self.breaks_after: int | None = None
        self.ranges = True
        self.kind = "application/octet-stream"
        self.requests: list[str | None] = []
        self.leads_to: str | None = None
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/network.pkl"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path != "/network.pkl":
            request.send_error(404)
            return
        asked = request.headers.get("Range")
        self.requests.append(asked)
        if self.leads_to:
            request.send_response(302)
            request.send_header("Location", self.leads_to)
            request.end_headers()
            return
        start = 0
        if asked and self.ranges and request.headers.get("If-Range") == self.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(self.data):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(self.data)}")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header(
                "Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
            )
        else:
            request.send_response(200)
        request.send_header("Content-Type", self.kind)
        request.send_header("Content-Length", str(len(self.data) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        part = (
            self.data[start:]
            if self.breaks_after is None
            else self.data[start : start + self.breaks_after]
        )
        request.wfile.write(part)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def entry(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "CATALOGUE", tmp_path / "zoo.toml")
    (tmp_path / "zoo.toml").write_text(
        f"""
        [[publisher]]
        source = "a test"
        licence = "none"
        architecture = "StyleGAN2"
        networks = [
            {{ name = "net", resolution = 32, address = "{server.address}" }},
            {{ name = "lost", resolution = 32, address = "{server.address}x" }},
            {{ name = "manual", resolution = 32, address = "{server.address}", by_hand = true }},
            {{ name = "nowhere", resolution = 32, address = "http://127.0.0.1:9/x.pkl" }},
        ]
        """
    )
    return catalogue()["net"]


def left(entry: Entry) -> list[str]:
    folder = entry.path.parent
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_fetched_once_and_used_by_name(tmp_path: Path, entry: Entry, server: Server) -> None:
    line = complaint("sample", "net", "--out", tmp_path / "x.png")
    assert '"latentedit model fetch net" downloads it; without a network, put the file from' in line
    assert str(entry.path) in line
    assert server.requests == []
    shown = works("model", "fetch", "net").stdout
    assert "licence: none" in shown
    assert f"wrote {entry.path}" in shown
    assert left(entry) == ["net.pkl", "net.pkl.json"]
    assert entry.path.read_bytes() == server.data
    record = json.loads(entry.record.read_text())
    assert (record["sha256"], record["bytes"], record["address"]) == (
        checksum(entry.path),
        len(server.data),
        server.address,
    )
    works("sample", "net", "--seeds", "1", "--out", tmp_path / "x.png")
    assert load_model("net").generator.resolution == 32
    assert "already downloaded, checksum correct" in works("model", "fetch", "net").stdout
    assert len(server.requests) == 1
    assert "here" in works("model", "zoo").stdout


def test_changed_after_the_download(entry: Entry) -> None:
    fetch(entry)
    data = bytearray(entry.path.read_bytes())
    data[5000] ^= 1
    entry.path.write_bytes(data)
    for attempt in (lambda: load_model("net"), lambda: fetch(entry)):
        with pytest.raises(Error, match=r"delete it and download it again"):
            attempt()


def test_a_checksum_of_the_users_own(entry: Entry, server: Server) -> None:
    with pytest.raises(Error, match=r"its SHA-256 is \w{64}, expected 0000\w*; nothing was kept"):
        fetch(entry, "0" * 64)
    assert left(entry) == []
    assert "64 hexadecimal digits, got 'abc'" in complaint(
        "model", "fetch", "net", "--sha256", "abc"
    )
    right = checksum(NETWORK)
    works("model", "fetch", "net", "--sha256", right.upper())
    with pytest.raises(Error, match="expected 0000"):
        fetch(entry, "0" * 64)
    assert entry.path.is_file()


def test_a_broken_transfer_is_gone_on_with(entry: Entry, server: Server) -> None:
    server.breaks_after = 60_000
    seen: list[tuple[int, int | None]] = []
    for index in range(3):
        with pytest.raises(
            Error,
            match=r"interrupted after [\d,]+ of 225,398 bytes; run the command again to resume",
        ):
            fetch(entry, progress=lambda there, total: seen.append((there, total)))
        assert left(entry) == ["net.pkl.part", "net.pkl.part.json"]
        assert seen[-1] == (60_000 * (index + 1), 225_398)
    server.breaks_after = None
    assert fetch(entry)[1]
    assert entry.path.read_bytes() == server.data
    assert server.requests == [None, "bytes=60000-", "bytes=120000-", "bytes=180000-"]
    assert left(entry) == ["net.pkl", "net.pkl.json"]


@pytest.mark.parametrize("how", ["another version", "no ranges", "no mark"])
def test_begun_anew_where_it_cannot_be_gone_on_with(entry: Entry, server: Server, how: str) -> None:
    server.breaks_after = 60_000
    if how == "no mark":
        server.etag = None
    with pytest.raises(Error, match="was interrupted"):
        fetch(entry)
    server.breaks_after = None
    if how == "another version":
        server.etag, server.data = '"two"', server.data[::-1]
    server.ranges = how != "no ranges"
    fetch(entry)
    assert entry.path.read_bytes() == server.data


def test_what_a_server_can_answer(
    entry: Entry, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(Error, match="sent a web page instead of the file; put the file from"):
        fetch(entry)
    server.kind = "application/octet-stream"
    with pytest.raises(Error, match="the server answers 404 Not Found"):
        fetch(catalogue()["lost"])
    with pytest.raises(
        Error,
        match=r"cannot be reached \(.*refused\); put the file from http://127.0.0.1:9/x.pkl at",
    ):
        fetch(catalogue()["nowhere"])
    with pytest.raises(Error, match="cannot be downloaded automatically: put the file from"):
        fetch(catalogue()["manual"])
    monkeypatch.setattr(download, "LARGEST", 1000)
    with pytest.raises(Error, match="more than any published file"):
        fetch(entry)
    assert left(entry) == []
    entry.path.parent.parent.mkdir(parents=True, exist_ok=True)
    entry.path.parent.rmdir()
    entry.path.parent.write_text("a file where a folder should be")
    with pytest.raises(Error, match="cannot write"):
        fetch(replace(entry))


def test_killed_between_the_transfer_and_its_end(
    entry: Entry, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("latentedit.io.download.checksum", killed)
        fetch(entry)
    assert "net.pkl.part" in left(entry)
    fetch(entry)
    assert entry.path.read_bytes() == server.data
    entry.path.rename(entry.path.with_name("net.pkl.part"))  # longer than what the server has now
    (entry.path.with_name("net.pkl.part.json")).write_text('{"version": "\\"one\\""}')
    server.data = server.data[:200_000]
    fetch(entry)
    assert entry.path.read_bytes() == server.data


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("file:///etc/passwd", "is not followed|not allowed"),
        ("ftp://127.0.0.1/x", "which is not allowed"),
        ("http://[::1/x", "redirected to an invalid address"),
        ("http://a..b/", "redirected to an invalid address|cannot be reached"),
    ],
)
def test_redirects(entry: Entry, server: Server, address: str, message: str) -> None:
    server.leads_to = address
    with pytest.raises(Error, match=message):
        fetch(entry)
    assert left(entry) == []


@pytest.mark.parametrize("size", [0, 500])
def test_too_little_to_be_a_network(entry: Entry, server: Server, size: int) -> None:
    server.data = bytes(size)
    with pytest.raises(Error, match=f"the server sent {size} bytes, which is not the file"):
        fetch(entry)
    assert not entry.path.exists()


def test_a_file_put_there_by_hand(entry: Entry) -> None:
    manual = catalogue()["manual"]
    manual.path.parent.mkdir(parents=True)
    manual.path.write_bytes(NETWORK.read_bytes())
    assert load_model("manual").generator.resolution == 32
    assert not fetch(manual)[1]
    manual.path.write_bytes(NETWORK.read_bytes() + b"x")
    with pytest.raises(Error, match="not the file that was downloaded"):
        load_model("manual")


def test_the_list() -> None:
    entries = catalogue()
    assert len(entries) >= 40
    assert len({entry.file for entry in entries.values()}) == len(entries)
    for name, entry in entries.items():
        assert entry.address.startswith("https://"), name
        assert min(len(entry.licence), len(entry.source)) > 5, name
        assert entry.path.suffix in (".pkl", ".pth"), name
    assert entries["ada-ffhq"].address.endswith("/stylegan2-ada-pytorch/pretrained/ffhq.pkl")
    assert "ada-ffhq" in works("model", "zoo", "--json").stdout
    assert "unknown published network" in complaint("model", "fetch", "faces128")


@pytest.fixture
def weights(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """YuNet's entry, with what the local server has."""
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path / "cache"))
    sha256 = checksum(NETWORK)
    found = replace(YUNET, address=server.address, sha256=sha256, bytes=len(server.data))
    monkeypatch.setitem(WEIGHTS, "yunet", found)
    return found


def test_auxiliary_weights_are_fetched_and_verified(weights: Weights, server: Server) -> None:
    assert by_name("yunet") is None
    with pytest.raises(Error, match=r'no such face detector; "latentedit model fetch yunet"'):
        find_faces(Image.new("RGB", (64, 64)), "yunet")
    assert server.requests == []

    shown = works("model", "fetch", "yunet").stdout
    for fact in (weights.address, "licence: MIT", "size: 225,398 bytes", weights.sha256):
        assert fact in shown
    assert f"wrote {weights.path}" in shown
    assert weights.path.parent.name == "weights"
    assert by_name("yunet") == weights.path
    assert "checksum correct" in works("model", "fetch", "yunet").stdout
    assert len(server.requests) == 1
    with pytest.raises(Error, match="not a YuNet face detector"):  # as it is a network for faces
        find_faces(Image.new("RGB", (64, 64)), "yunet")

    weights.path.write_bytes(b"changed")
    with pytest.raises(Error, match=r"differs from the one published\); delete it and download it"):
        by_name("yunet")


def test_auxiliary_weights_are_resumed(weights: Weights, server: Server) -> None:
    server.breaks_after = 100_000
    assert "run the command again to resume" in complaint("model", "fetch", "yunet")
    server.breaks_after = None
    works("model", "fetch", "yunet")
    assert server.requests == [None, "bytes=100000-"]
    assert weights.path.read_bytes() == server.data


@pytest.mark.parametrize("change", ["size", "contents"])
def test_other_weights_are_refused(weights: Weights, server: Server, change: str) -> None:
    server.data = server.data[:-1] if change == "size" else server.data[::-1]
    expected = "sent 225,397 bytes, expected 225,398" if change == "size" else "nothing was kept"
    assert expected in complaint("model", "fetch", "yunet")
    assert not weights.path.exists()
    works("model", "fetch", "yunet", "--sha256", hashlib.sha256(server.data).hexdigest())


def test_the_auxiliary_weights() -> None:
    assert set(WEIGHTS) == {"vgg16", "inception", "yunet", "clip"}
    assert not set(WEIGHTS) & set(catalogue())
    for name, entry in WEIGHTS.items():
        assert entry.address.startswith("https://"), name
        assert entry.address.endswith(entry.file), name
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256), name
        assert min(len(entry.licence), len(entry.source), len(entry.use), len(entry.digest)) > 2
        assert f'"latentedit model fetch {name}" downloads it (' in entry.advice
    for name in ("vgg16", "inception"):  # whose names carry the first digits
        assert WEIGHTS[name].sha256[:8] in WEIGHTS[name].file
    assert WEIGHTS["clip"].sha256 in WEIGHTS["clip"].address
    listed = works("model", "zoo").stdout
    assert all(f"  {name} " in listed for name in WEIGHTS)
    assert {"vgg16", "ada-ffhq"} <= {
        one["name"] for one in json.loads(works("model", "zoo", "--json").stdout)
    }
