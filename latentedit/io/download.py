"""Downloads on request: verified, resumable, and never of anything that was not asked for.

Where the publisher states no checksum, that of the first download is recorded next to the file and
compared whenever the file is used. A checksum that is known, or given by the user, is compared
before the file is kept.
"""

import hashlib
import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentedit.errors import (
    ArgumentError,
    DownloadError,
    Error,
    FormatError,
    NotFoundError,
    OutputError,
)
from latentedit.io.budget import read_json
from latentedit.io.files import cache_folder, write_bytes
from latentedit.io.locks import alone

CHUNK = 1 << 20
TIMEOUT = 30
"""Timeout of the server, in seconds."""
SMALLEST = 100_000
LARGEST = 4 << 30

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file that a publisher offers, and where it is kept."""

    name: str
    file: str
    """Name in the cache folder."""
    address: str
    licence: str
    source: str
    """Where the publisher states the licence."""
    sha256: str | None = None
    """Checksum of the file, if it is known."""
    bytes: int | None = None
    """Size of the file, if it is known exactly."""
    by_hand: bool = False
    """Whether only a browser can download from the address."""
    folder: str
    """Folder within the cache folder."""

    @property
    def path(self) -> Path:
        return cache_folder() / self.folder / self.file

    @property
    def record(self) -> Path:
        """Path of the record of the downloaded file."""
        return self.path.with_name(f"{self.path.name}.json")


def verify(entry: Download) -> None:
    """Raise `Error` if the file of ``entry`` is not the published one, or changed after the
    download."""
    recorded = entry.sha256 or _recorded(entry)
    if recorded is not None and recorded != checksum(entry.path):
        origin = "published" if entry.sha256 else "recorded then"
        raise FormatError(
            f"not the file that was downloaded (its SHA-256 differs from the one {origin});"
            f" delete it and download it again: latentedit model fetch {entry.name}",
            path=entry.path,
        )


def how(entry: Download) -> str:
    """Return a sentence that says how to get the file."""
    if entry.by_hand:
        return f"{_put(entry)} (only a browser can download it)"
    return f'"latentedit model fetch {entry.name}" downloads it; without a network, {_put(entry)}'


def _put(entry: Download) -> str:
    return f"put the file from {entry.address} at {entry.path}"


def checksum(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recorded(entry: Download) -> str | None:
    try:
        value = read_json(entry.record)["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def fetch(
    entry: Download, sha256: str | None = None, progress: Progress | None = None
) -> tuple[Path, bool]:
    """Download a file to the cache, or resume an interrupted download.

    Args:
        sha256: expected checksum, in place of the published one; without either, that of the first
            download is recorded.
        progress: called with the number of downloaded bytes and of all bytes, if the server states
            it.

    Returns:
        The file, and whether it was downloaded now.

    Raises:
        Error: the server cannot be reached, the download was interrupted (run again to resume), the
            server sent another file, the checksum is wrong, or another process is downloading the
            file.
    """
    expected = sha256.lower() if sha256 else entry.sha256
    if expected is not None and (len(expected) != 64 or set(expected) - set("0123456789abcdef")):
        raise ArgumentError(f"a SHA-256 has 64 hexadecimal digits, got {sha256!r}")
    if entry.path.is_file():
        found = checksum(entry.path)
        wanted = expected or _recorded(entry)
        if wanted is not None and wanted != found:
            raise FormatError(
                f"its SHA-256 is {found}, expected {wanted}; delete it and download it again",
                path=entry.path,
            )

        _write_record(entry, found, entry.path.stat().st_size)
        return entry.path, False

    if entry.by_hand:
        raise NotFoundError(f"{entry.name} cannot be downloaded automatically: {how(entry)}")

    part = _part(entry)
    size = entry.bytes if sha256 is None else None
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with alone(part.with_name(f"{part.name}.lock"), part):  # two would append to one file
            _transfer(entry, part, progress, size)
            found = checksum(part)
            if expected is not None and found != expected:
                part.unlink()
                _notes(part).unlink(missing_ok=True)
                raise DownloadError(
                    f"its SHA-256 is {found}, expected {expected}; nothing was kept",
                    path=entry.address,
                )

            _write_record(entry, found, part.stat().st_size)
            os.replace(part, entry.path)
            _notes(part).unlink(missing_ok=True)
    except ssl.SSLError as error:
        raise DownloadError(
            f"the connection is not secure, or was interrupted ({error.reason})", path=entry.address
        ) from error
    except urllib.error.HTTPError as error:
        raise DownloadError(
            f"the server answers {error.code} {error.reason}; {_put(entry)}", path=entry.address
        ) from error
    except urllib.error.URLError as error:
        raise DownloadError(
            f"{entry.address} cannot be reached ({error.reason}); {_put(entry)}"
        ) from error
    except http.client.HTTPException as error:
        raise DownloadError(
            f"an invalid response ({type(error).__name__}); run the command again to resume",
            path=entry.address,
        ) from error
    except (TimeoutError, ConnectionError) as error:
        raise DownloadError(
            f"the download was interrupted ({error}); run the command again to resume",
            path=entry.address,
        ) from error
    except OSError as error:
        raise OutputError.refused(part, error) from error
    except ValueError as error:
        if isinstance(error, Error):
            raise
        raise DownloadError(
            f"redirected to an invalid address ({error})", path=entry.address
        ) from error

    return entry.path, True


def _write_record(entry: Download, found: str, size: int) -> None:
    facts = {**asdict(entry), "sha256": found, "bytes": size}
    write_bytes(entry.record, json.dumps(facts, indent=2).encode())


def _part(entry: Download) -> Path:
    return entry.path.with_name(f"{entry.path.name}.part")


def _notes(part: Path) -> Path:
    """Beside an unfinished download: the server's mark of the version that it is of."""
    return part.with_name(f"{part.name}.json")


def _transfer(entry: Download, part: Path, progress: Progress | None, size: int | None) -> None:
    there = part.stat().st_size if part.is_file() else 0
    version = _version(part)
    headers = {"User-Agent": "latentedit"}
    if there and version:
        headers |= {"Range": f"bytes={there}-", "If-Range": version}

    request = urllib.request.Request(entry.address, headers=headers)
    try:
        opened = urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not there:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{there}":
            return  # all of it is there, and only the last step was missing

        part.unlink()
        _transfer(entry, part, progress, size)
        return

    with opened as answer:
        if answer.headers.get_content_type() == "text/html":
            raise DownloadError(
                f"the server sent a web page instead of the file; {_put(entry)}", path=entry.address
            )

        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {there}-"
        )
        if answer.status == 206 and not resumed:
            raise DownloadError(
                f"the server sent another part of the file than asked for; delete {part}",
                path=entry.address,
            )

        length = answer.headers.get("Content-Length")
        start = there if resumed else 0
        total = start + int(length) if length and length.isdecimal() else None
        if total is not None and size is not None and total != size:
            raise DownloadError(
                f"the server sent {total:,} bytes, expected {size:,}; {_put(entry)}",
                path=entry.address,
            )
        if total is not None and total < SMALLEST:
            raise DownloadError(
                f"the server sent {total} bytes, which is not the file; {_put(entry)}",
                path=entry.address,
            )
        if total is not None and total > LARGEST:
            raise DownloadError(
                f"{total / 2**30:.0f} GiB, more than any published file", path=entry.address
            )

        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if mark and not mark.startswith("W/"):
            write_bytes(_notes(part), json.dumps({"version": mark}).encode())
        else:
            _notes(part).unlink(missing_ok=True)
        count = start
        with open(part, "ab" if resumed else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                count += len(chunk)
                if count > LARGEST:
                    raise DownloadError(
                        f"more than {LARGEST >> 30} GiB, which no published file has",
                        path=entry.address,
                    )
                if progress:
                    progress(count, total)
            file.flush()
            os.fsync(file.fileno())

    if total is None and count < SMALLEST:
        part.unlink()
        raise DownloadError(
            f"the server sent {count} bytes, which is not the file; {_put(entry)}",
            path=entry.address,
        )

    if total is not None and count != total:
        raise DownloadError(
            f"the download was interrupted after {count:,} of {total:,} bytes; run the command "
            "again to resume",
            path=entry.address,
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect from https to anything else, nor from http to other kinds of
    addresses."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        allowed = ("https://",) if req.full_url.startswith("https://") else ("https://", "http://")
        if not newurl.startswith(allowed):
            raise DownloadError(
                f"{req.full_url}: the server redirects to {newurl[:100]}, which is not allowed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _version(part: Path) -> str | None:
    try:
        found: Any = read_json(_notes(part))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and "\n" not in found else None
