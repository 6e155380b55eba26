"""A data set made whole: its files fetched or taken from a folder, checked, unpacked, and recorded.

Knows declarations, downloads, archives and records. Knows nothing of who asks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from prorec.flows.datasets import kept
from prorec.flows.datasets.declared import DataSet, File
from prorec.flows.datasets.download import Fetched, download
from prorec.flows.datasets.unpack import unpack
from prorec_core.artifacts import sha256_file
from prorec_core.errors import UserError
from prorec_core.progress import Progress, Report

Tell = Callable[[str], None]
ReportOf = Callable[[str], Report]
"""Makes, for a file's name, what is told how far it is."""


def fetch(dataset: DataSet, tell: Tell, report_of: ReportOf, given: Path | None = None) -> Path:
    """Have all files of a data set in its folder, those that are there already as they are.

    Args:
        dataset: the data set.
        tell: told of each step, a line each.
        report_of: told of progress.
        given: a folder in which the user has its files already; what is there is copied and not fetched.

    Returns:
        Its folder.

    Raises:
        UserError: its licence was not accepted, it must be fetched by hand, or a file cannot be had or is another one.
    """
    if not kept.accepted(dataset.licence):
        raise UserError(
            f"its licence has not been accepted: {dataset.licence.name} ({dataset.licence.url}); it forbids "
            f"{dataset.licence.forbids}",
            place=dataset.name,
            cure=f"Read it, and accept it with: prorec data fetch {dataset.name} --accept-licence",
        )
    folder = kept.folder_of(dataset)
    with kept.at_work(dataset, lambda: tell(f"Another process fetches {dataset.name}; waiting for it.")):
        files = [_have(dataset, file, folder, tell, report_of, given) for file in dataset.files]
        kept.note_whole(dataset, files)
    return folder


def _have(
    dataset: DataSet, file: File, folder: Path, tell: Tell, report_of: ReportOf, given: Path | None
) -> dict[str, Any]:
    target = folder / file.name
    source = given / file.name if given is not None and (given / file.name).is_file() else None
    if source is not None and source.resolve() != target.resolve():
        tell(f"{file.name}: copied from {given}")
        _copy(source, target, report_of(file.name), lambda begun: _checked(begun, file, str(source)))
    if target.is_file():
        found = _checked(target, file, str(target))
        found = replace(found, address=kept.came_from(dataset, file, found.sha256))
        tell(f"{file.name}: {found.bytes:,} bytes, there")
    elif file.addresses:
        tell(f"{file.name}: from {file.addresses[0]}")
        found = download(
            file.addresses, target, checksum=file.checksum(), most=file.most, report=report_of(file.name), tell=tell
        )
        tell(f"{file.name}: {found.bytes:,} bytes, {_compared(file, found, target)}")
    else:
        raise UserError(
            f"{file.name} is not there, and cannot be fetched without you. {dataset.by_hand}",
            place=dataset.name,
            cure=f"Put it into {folder}, or hand it over with --from FOLDER, and give this command again",
        )
    if file.unpack:
        place = file.unpacked_in(folder)
        if not kept.is_unpacked(place, found.sha256):
            inside = unpack(target, place, file.most)
            kept.note_unpacked(place, found.sha256, inside)
            tell(f"{file.name}: {len(inside)} files unpacked")
    return {"name": file.name, "bytes": found.bytes, "sha256": found.sha256, "from": found.address}


def _checked(path: Path, file: File, place: str) -> Fetched:
    """A file that is there already, held against what the publisher says of it; `place` says where it came from."""
    checksum = file.checksum()
    if checksum is not None:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.new(checksum[0], usedforsecurity=False)).hexdigest()
        if digest != checksum[1]:
            raise UserError(
                f"its {checksum[0]} is {digest}, and should be {checksum[1]}",
                place=place,
                cure="Delete it, and fetch it again",
            )
    return Fetched("", path.stat().st_size, sha256_file(path))


def _compared(file: File, found: Fetched, target: Path) -> str:
    """What is known of a file that came, in words; where the publisher gives no checksum, the first time decides.

    Raises:
        UserError: it is another one than the first time.
    """
    if file.checksum() is not None:
        return "checksum right"
    before = kept.known(found.address)
    if before and before["sha256"] != found.sha256:
        target.unlink(missing_ok=True)
        raise UserError(
            f"it is another file than on {before['when']}: its sha256 is {found.sha256}, and was {before['sha256']}",
            place=found.address,
            cure=f"If that is meant, take this address out of {kept.root() / 'known.json'}",
        )
    kept.note_known(found.address, found.sha256, found.bytes)
    return "the same as before" if before else f"sha256 {found.sha256}, noted"


def _copy(source: Path, target: Path, report: Report, check: Callable[[Path], object]) -> None:
    """Copy a file whole or not at all, and only if it is right: `check` raises where it is not."""
    begun = target.with_name(f".{target.name}.copy")
    size, done = source.stat().st_size, 0
    try:
        with source.open("rb") as reading, begun.open("wb") as writing:
            while piece := reading.read(1 << 22):
                writing.write(piece)
                done += len(piece)
                report(Progress(done, size, "byte"))
            writing.flush()
            os.fsync(writing.fileno())
        check(begun)
        begun.replace(target)
    finally:
        begun.unlink(missing_ok=True)
