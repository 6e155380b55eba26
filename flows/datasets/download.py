"""One file from the web, whole or not at all: what was begun is gone on with, and checked before it has its name.

Knows HTTP and checksums. Knows nothing of data sets. Proxies of the environment are used, as httpx uses them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import httpx

from prorec_core.artifacts import write_bytes
from prorec_core.errors import MachineError, UserError
from prorec_core.progress import Progress, Report, silent

_TRIES = 6
_PIECE = 1 << 20
_LONGEST_WAIT = 60.0
_LEFT_FREE = 256 << 20
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_TIMEOUT = httpx.Timeout(60, connect=30)
_HEADERS = {"User-Agent": "prorec", "Accept-Encoding": "identity"}
_WHOLE = re.compile(r"bytes \*/([0-9]{1,18})")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


@dataclass(frozen=True)
class Fetched:
    """A file that came."""

    address: str
    bytes: int
    sha256: str


class _UselessError(Exception):
    """An address that gives something else, and will again."""


class _InterruptedError(Exception):
    """What may go better the next time."""

    def __init__(self, said: str, wait: float | None = None) -> None:
        super().__init__(said)
        self.wait = wait


def download(
    addresses: Sequence[str],
    target: Path,
    *,
    checksum: tuple[str, str] | None = None,
    most: int = 1 << 40,
    report: Report = silent,
    tell: Callable[[str], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Fetch a file, from the first address that gives it.

    What was fetched of it before is kept beside it and gone on with, where the server says that it is still the same.

    Args:
        addresses: where it is; the next one is asked where one gives nothing, or something else.
        target: where it is put, in one step, once it is whole and its checksum right.
        checksum: algorithm and hex digest, where they are known.
        most: bytes that it may have.
        report: told how far it is, in bytes.
        tell: told of each try that failed, a line each.
        pause: waits between tries.

    Raises:
        UserError: no address gives it (says what each one did); another process fetches it; it is too large.
        MachineError: there is no room for it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    said = []
    with _begun(target) as part, httpx.Client(headers=_HEADERS, timeout=_TIMEOUT, follow_redirects=True) as client:
        for address in addresses:
            try:
                begun = part.size()
                _whole(client, address, part, checksum is not None, most, report, tell, pause)
                found = _checked(part, address, checksum)
                if found is None and begun:
                    # What was there could have been the beginning of another file.
                    _whole(client, address, part, checksum is not None, most, report, tell, pause)
                    found = _checked(part, address, checksum)
            except _UselessError as problem:
                said.append(f"{address}: {problem}")
                continue
            if found is None:
                said.append(
                    f"{address}: its {checksum[0] if checksum else 'checksum'} is another one than is published"
                )
                continue
            part.file.flush()
            os.fsync(part.file.fileno())
            part.path.replace(target)
            part.about.unlink(missing_ok=True)
            return found
    raise UserError(
        f"no address gives the file: {'; '.join(said)}",
        place=target.name,
        cure="Try again later, or fetch it in another way and hand it over with --from FOLDER",
    )


@dataclass(frozen=True)
class _Part:
    """What there is of a file: its beginning, and whose beginning it is."""

    path: Path
    about: Path
    file: BinaryIO

    def size(self) -> int:
        return self.file.seek(0, os.SEEK_END)

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()

    def said(self, address: str) -> tuple[str, int | None]:
        """What the server calls the version that this is the beginning of ("" where it is of none known), and the bytes
        that it said the whole has, where it said so.
        """
        with suppress(OSError, ValueError, AttributeError):
            about = json.loads(self.about.read_text())
            if about.get("address") == address:
                return str(about.get("validator", "")), about.get("total")
        return "", None

    def belongs_to(self, address: str, validator: str, total: int | None) -> None:
        """Keep that for whoever goes on with it."""
        write_bytes(self.about, json.dumps({"address": address, "validator": validator, "total": total}).encode())


@contextmanager
def _begun(target: Path) -> Iterator[_Part]:
    path = target.parent / f".{target.name}.part"
    while True:
        with path.open("a+b") as file:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except OSError as error:
                raise UserError("another process fetches this file", place=str(target), cure="Wait for it") from error
            # Whoever had it may have given it its name since it was opened: then it is not to be touched.
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    yield _Part(path, target.parent / f".{target.name}.about", file)
                    return


def _whole(
    client: httpx.Client,
    address: str,
    part: _Part,
    checked: bool,
    most: int,
    report: Report,
    tell: Callable[[str], None],
    pause: Callable[[float], None],
) -> None:
    """Ask until the file is whole; a try that came further than any before does not count."""
    failed, furthest = 0, part.size()
    while True:
        try:
            _ask(client, address, part, checked, most, report)
            return
        except (_InterruptedError, httpx.HTTPError, httpx.InvalidURL) as error:
            failed = failed + 1 if part.size() <= furthest else 1
            furthest = max(furthest, part.size())
            if failed >= _TRIES:
                raise _UselessError(
                    f"{type(error).__name__.removeprefix('_')}: {error}" if str(error) else "no answer"
                ) from error
            wait = error.wait if isinstance(error, _InterruptedError) else None
            wait = min(_LONGEST_WAIT, wait if wait is not None else 2.0 ** (failed - 1))
            tell(f"{urlsplit(address).hostname}: {error}; again in {wait:.0f} s")
            pause(wait)


def _ask(client: httpx.Client, address: str, part: _Part, checked: bool, most: int, report: Report) -> None:
    begun, (validator, said) = part.size(), part.said(address)
    # Without a name for the version only a checksum can tell whether two halves belong together.
    if begun and not validator and not checked:
        part.restart()
        begun = 0
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    if begun and validator:
        headers["If-Range"] = validator
    with client.stream("GET", address, headers=headers) as answer:
        if answer.status_code == 416 and begun:
            whole = _WHOLE.fullmatch(answer.headers.get("Content-Range", ""))
            if whole is not None and int(whole[1]) == begun and said in (None, begun):
                # All had come when whoever fetched it was stopped.
                return
            part.restart()
            raise _InterruptedError("the server has less than was fetched", 0.0)
        if answer.status_code in _AGAIN:
            raise _InterruptedError(f"status {answer.status_code}", _retry_after(answer))
        if answer.status_code not in {200, 206}:
            raise _UselessError(f"status {answer.status_code}")
        if address.startswith("https:") and answer.url.scheme != "https":
            raise _UselessError("it leads to an address that is not encrypted")
        if "html" in answer.headers.get("Content-Type", "") and not address.endswith((".html", ".htm")):
            raise _UselessError("it gives a web page and no file")
        total = _total(answer, part, begun)
        if total is not None:
            _expect_room(part, total, most)
        part.belongs_to(address, _validator(answer), total)
        _take(answer, part, total, most, report)


def _total(answer: httpx.Response, part: _Part, begun: int) -> int | None:
    """The size of the whole file, where the server says it; the part stands where the answer goes on."""
    if answer.status_code == 200:
        part.restart()
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != begun:
        part.restart()
        raise _InterruptedError("the server goes on from another place than was asked for", 0.0)
    part.file.seek(begun)
    return None if match[3] == "*" else int(match[3])


def _take(answer: httpx.Response, part: _Part, total: int | None, most: int, report: Report) -> None:
    size = part.file.tell()
    # As they come: what waited to make up a larger piece would be lost when the connection ends.
    for piece in answer.iter_raw():
        size += len(piece)
        if size > (most if total is None else total):
            part.restart()
            raise _UselessError(
                "it has more bytes than it may have" if total is None else "it has more bytes than it says"
            )
        part.file.write(piece)
        report(Progress(size, total or 0, "byte"))
    part.file.flush()
    if total is not None and size < total:
        raise _InterruptedError(f"the connection ended after {size:,} of {total:,} bytes")


def _expect_room(part: _Part, total: int, most: int) -> None:
    if total > most:
        raise _UselessError(f"it has {total:,} bytes, more than the {most:,} that it may have")
    free = shutil.disk_usage(part.path.parent).free
    if total - part.size() > free - _LEFT_FREE:
        raise MachineError(
            f"there is no room for {total:,} bytes ({free:,} are free)",
            place=str(part.path.parent),
            cure="Make room, or set PROREC_DATASETS to a folder on another disk",
        )


def _validator(answer: httpx.Response) -> str:
    tag = str(answer.headers.get("ETag", ""))
    return str(answer.headers.get("Last-Modified", "")) if not tag or tag.startswith("W/") else tag


def _retry_after(answer: httpx.Response) -> float | None:
    given = answer.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() and len(given) < 6 else None


def _checked(part: _Part, address: str, checksum: tuple[str, str] | None) -> Fetched | None:
    """The whole file, where its checksum is right; what is wrong is thrown away."""
    sha256, other = hashlib.sha256(), hashlib.new(checksum[0], usedforsecurity=False) if checksum else None
    size = 0
    part.file.seek(0)
    while piece := part.file.read(_PIECE):
        size += len(piece)
        sha256.update(piece)
        if other is not None:
            other.update(piece)
    if checksum is not None and other is not None and other.hexdigest() != checksum[1]:
        part.restart()
        return None
    if not size:
        raise _UselessError("the file is empty")
    return Fetched(address, size, sha256.hexdigest())
