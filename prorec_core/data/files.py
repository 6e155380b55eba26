"""Which files hold a table: one, those that a pattern means, or all of a folder.

Knows names of files and folders. Knows nothing of what is in files or of what columns mean.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prorec_core.artifacts import sha256_file
from prorec_core.data.formats import TextRules, ends_in, is_file, open_file
from prorec_core.data.opening import bare, format_of
from prorec_core.data.parts import NOT_THERE, PartsReader, is_pattern, matching, once
from prorec_core.data.tables import RawTable, reading
from prorec_core.errors import UserError
from prorec_core.paths import path_of

STATE, SPLITS = "state.json", "dataset_dict.json"
"""What Hugging Face's `datasets` keeps beside the files of a table, and beside the folders of several."""
_SHOWN = 12
_BESIDE = (".md", ".crc")


@dataclass(frozen=True)
class Files:
    """One file, or those that a pattern means or a folder holds."""

    path: Path
    """The file, the pattern or the folder."""
    parts: tuple[Path, ...] | None = None
    """The files of a pattern or a folder in their order."""

    def digest(self) -> list[Any]:
        """Format and content."""
        found = []
        for file in self.parts or (self.path,):
            with reading(str(file)):
                found.append(sha256_file(file))
        # All parts of a folder are of one format.
        suffix = format_of(self.path) or (format_of(self.parts[0]) if self.parts else "")
        return [suffix, found[0] if self.parts is None else found]

    def open(self, folder: Path, rules: TextRules) -> RawTable:
        """The table; messages leave `folder` out of the names of its parts."""
        if self.parts is None:
            return open_file(self.path, rules)
        return RawTable(PartsReader(folder, self.parts, lambda file: open_file(file, rules)), str(self.path))

    def name(self, folder: Path) -> str:
        """How they are named in a folder."""
        if self.parts is None or not self.path.is_relative_to(folder):
            return self.path.name
        return self.path.relative_to(folder).as_posix()


def folder_of(given: str) -> Path:
    """The folder that is meant: a path as it is, `~` at its beginning being the home folder.

    Raises:
        UserError: there is none.
    """
    folder = path_of(given)
    with reading(str(folder)):
        if folder.is_dir():
            return folder
    if "://" in given:
        raise UserError("URLs are not read", place=f"data.path={given}", cure="Copy the data and name their folder")
    raise UserError(
        "this is a file and no folder" if is_file(folder) else "there is no such folder",
        place=str(folder),
        cure="Set data.path to the folder of the data",
    )


def find_files(
    folder: Path, given: str | None, setting: str, stem: str, *, suffixes: Collection[str], other: str
) -> Files:
    """The files of one table in a folder.

    Args:
        folder: where they are looked for.
        given: the name, pattern or folder that a setting gives, if it does.
        setting: the setting of `data`, for messages.
        stem: how the file is named by default: this, or where it begins with a dot, anything before it.
        suffixes: of the formats that are read here.
        other: another source that could be meant, for messages.

    Raises:
        UserError: there is no such file, it is of no such format, or several could be meant.
    """
    if given is not None:
        path = folder / given
        if path.is_dir():
            return in_folder(path, suffixes)
        if format_of(path) not in suffixes:
            raise UserError(
                f"a file of this kind is not read here (data.{setting})",
                place=str(path),
                cure=f"Give a file that {ends_in(suffixes)}, or set data.source={other}",
            )
        if is_file(path):
            return Files(path)
        if is_pattern(given):
            return Files(path, tuple(matching(folder, given)))
        raise UserError("there is no such file", place=str(path), cure=f"Set data.{setting} to {present(folder)}")
    files = [path for path in folder.iterdir() if path.is_file()]
    if stem.startswith("."):
        found = sorted(path for path in files if bare(format_of(path)) == stem)
        sought = f"*{stem}"
    else:
        names = [stem + suffix for suffix in suffixes]
        found = sorted(path for path in files if path.name in names)
        found += [path for path in (folder / stem,) if path.is_dir()]
        sought = f"{stem} that {ends_in(suffixes)}"
    if len(found) == 1:
        return in_folder(found[0], suffixes) if found[0].is_dir() else Files(found[0])
    if found:
        raise UserError(
            f"several files could be meant: {', '.join(path.name for path in found)}",
            place=str(folder),
            cure=f"Name one in data.{setting}",
        )
    raise UserError(
        f"there is no file {sought}",
        place=str(folder),
        cure=f"Set data.{setting} to {present(folder)}, or set data.source={other}",
    )


def in_folder(folder: Path, suffixes: Collection[str]) -> Files:
    """All files of a folder and those below it, of one format, in the order of their paths; or what `datasets` saved.

    Names that begin with a dot or `_` are no data, as programs that write such folders have it.

    Raises:
        UserError: it holds none, files of several formats, or some of no known one.
    """
    place = str(folder)
    with reading(place):
        if is_file(folder / STATE):
            return Files(folder, _saved(folder))
        if is_file(folder / SPLITS):
            splits = sorted(path.parent.name for path in folder.glob(f"*/{STATE}"))
            raise UserError(f"it holds several tables: {', '.join(splits)}", place=place, cure="Name the folder of one")
        found = sorted(_below(folder), key=lambda path: path.parts)
        files = once(path for path in found if path.suffix.lower() not in _BESIDE)
    if lost := [path for path in files if not path.is_file()]:
        raise UserError(NOT_THERE, place=str(lost[0]), cure="Fetch it, or take it out of the folder")
    formats = dict.fromkeys(map(format_of, files))
    strange = [path for path in files if format_of(path) not in suffixes]
    if strange or len(formats) > 1:
        problem = f"{strange[0].name} in it is of no known format" if strange else "it holds files of several formats"
        raise UserError(problem, place=place, cure=f"Name those that are meant, as {folder.name}/*.parquet")
    if not files:
        raise UserError("the folder holds no files", place=place, cure=f"The name of a file {ends_in(suffixes)}")
    return Files(folder, tuple(files))


def _below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """What is in a folder and those below it, links to folders included, but for names that are no data.

    Raises:
        OSError: a folder cannot be read.
    """
    here = folder.resolve()
    # A link to a folder above would lead round and round.
    for path in folder.iterdir() if here not in above else ():
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield from _below(path, above | {here})
        else:
            yield path


def _saved(folder: Path) -> tuple[Path, ...]:
    """The files of a table that `datasets` saved, in their order."""
    place = str(folder / STATE)
    try:
        state = json.loads((folder / STATE).read_bytes())
        names = [each["filename"] for each in state["_data_files"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError("it names no files of a table", place=place, cure="Save the data set again") from error
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            "the data set is a selection of rows of its files", place=place, cure="Save it after `flatten_indices()`"
        )
    odd = [name for name in names if Path(str(name)).name != name or not is_file(folder / name)]
    if odd or not names:
        problem = f"there is no file '{odd[0]}', which it names" if odd else "it names no file"
        raise UserError(problem, place=place, cure="Copy all of the folder")
    return tuple(folder / name for name in names)


def present(folder: Path) -> str:
    """The names of a folder's files, for a cure."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return f"one of: {', '.join(names[:_SHOWN])}" if names else "a file of this folder, which is empty"
