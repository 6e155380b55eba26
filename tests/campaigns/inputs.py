"""Small folders of data, spoilt at random: each is refused in one line, or read without the loss of a row.

Knows how files are written badly, and how to count the rows of a file simply and slowly, with Python's own parsers.
What it tries is `preprocess`, and the file of users of `recommend-all`.

    python -m tests.campaigns.inputs --seconds 3600 --seed 0

draws until the time is up and prints its figures as JSON; `--only N` runs the N-th draw of a seed alone, with its
traceback, and leaves its folder. Exit status 1 if one ended otherwise than it may.
"""

from __future__ import annotations

import argparse
import codecs
import csv
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from prorec_core.config_data import DataConfig
from prorec_core.data.formats import TextRules
from prorec_core.data.histories import Columns, FileHistories
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError, one_line

FORMATS = ("csv", "tsv", "jsonl", "ndjson", "parquet", "inter")
SLOW = 20.0
"""Seconds after which an input of a few kilobytes took too long."""
_LONGEST_LINE = 500
_ODD = [
    '"',
    "'",
    ",",
    ";",
    "\t",
    "\\",
    "\n",
    "\r\n",
    "\r",
    "é",
    "\u2028",
    "\ufeff",
    "😀",
    "[x]",
    "&amp;",
    " ",
    "\x1b[1m",
]
_NAMES = ["shop", "shop[1]", "s*", "s?p", "^s.*$", "a b%20", "ключ", "x" * 200, "~", "s\n2", "{a,b}", "s3:"]
_COLUMNS = ["user_id", "customer", "^u.*$", "*", "a.b", "ключ", 'q"u', "user id", "line\nend"]
_IDS: list[Callable[[random.Random], Any]] = [
    lambda _: "",
    lambda _: None,
    lambda _: " u1",
    lambda _: "007",
    lambda _: 7,
    lambda _: 7.0,
    lambda _: True,
    lambda _: ["u1"],
    lambda _: "nan",
    lambda _: 2**63,
    lambda chance: "x" * chance.randrange(10_000),
    lambda chance: "".join(chance.choices(_ODD, k=3)),
]
_TIMES = [
    "2024-01-31",
    "01/31/2024",
    "2024-01-31T10:00:00Z",
    "2024-02-30",
    -1,
    1.5,
    "soon",
    "",
    None,
    2**62,
    "1e9",
    "P3D",
]

Row = dict[str, Any]


@dataclass
class Case:
    """One folder: what is in its files, how they are written, and the settings that read it."""

    form: str
    interactions: list[Row]
    items: list[Row]
    settings: dict[str, Any]
    dialect: dict[str, Any]


@dataclass
class Figures:
    """What a campaign found."""

    seed: int
    inputs: int = 0
    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    users_files: int = 0
    slowest: float = 0.0
    bad: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For print."""
        return {
            "seed": self.seed,
            "inputs": self.inputs,
            "read": dict(self.read),
            "refused": dict(self.refused),
            "of_them_files_of_users": self.users_files,
            "slowest_seconds": round(self.slowest, 2),
            "bad": self.bad,
        }


def draw(chance: random.Random) -> Case:
    """A folder as a tool might write it, with up to three odd values."""
    form = chance.choice(FORMATS)
    users, items = chance.randrange(3, 9), chance.randrange(3, 7)
    log: list[Row] = [
        {"user_id": f"u{user}", "item_id": f"i{(user + step) % items}", "timestamp": step, "note": _text(chance)}
        for user in range(users)
        for step in range(chance.randrange(3, 6))
    ]
    stock: list[Row] = [{"item_id": f"i{n}", "title": _text(chance), "categories": _text(chance)} for n in range(items)]
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 3])):
        row = chance.choice(chance.choice([log, stock]))
        column = chance.choice(list(row))
        row[column] = chance.choice(_TIMES) if column == "timestamp" else chance.choice(_IDS)(chance)
    if chance.random() < 0.2:
        log += chance.choices(log, k=3)
    settings: dict[str, Any] = {"min_user_interactions": 3, "min_item_interactions": 1}
    if form == "inter":
        settings["source"] = "recbole"
        log = [{name: value for name, value in row.items() if name != "note"} for row in log]
    else:
        settings["source"] = "tables"
        settings |= {name: True for name in ("multiline",) if chance.random() < 0.3}
        settings |= {name: False for name in ("quotes",) if chance.random() < 0.1}
    if chance.random() < 0.3:
        settings["user_column"] = chance.choice(_COLUMNS)
        log = [{settings["user_column"] if name == "user_id" else name: row[name] for name in row} for row in log]
    dialect = {
        "quoting": chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE]),
        "lineterminator": chance.choice(["\n", "\n", "\r\n", "\r"]),
        "doublequote": chance.random() < 0.9,
    }
    return Case(form, log, stock, settings, dialect)


def _text(chance: random.Random) -> str:
    words = [chance.choice(["red", "blue", '7" wide', "a, b", "x"]) for _ in range(chance.randrange(4))]
    if chance.random() < 0.15:
        words.insert(chance.randrange(len(words) + 1), chance.choice(_ODD))
    return " ".join(words)


def encode(rows: list[Row], form: str, dialect: dict[str, Any]) -> bytes:
    """The rows as a file of a format."""
    names = list(rows[0])
    if form in {"jsonl", "ndjson"}:
        return "".join(json.dumps(row, ensure_ascii=len(rows) % 2 == 0) + "\n" for row in rows).encode()
    if form == "parquet":
        return _parquet(rows, names)
    if form == "inter":
        lines = ["\t".join(f"{name}:token" for name in names)]
        lines += ["\t".join("" if row[name] is None else str(row[name]) for name in names) for row in rows]
        return ("\n".join(lines) + "\n").encode()
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if form == "tsv" else ",", escapechar="\\", **dialect)
    writer.writerows([names, *([row[name] for name in names] for row in rows)])
    return text.getvalue().encode()


def _parquet(rows: list[Row], names: list[str]) -> bytes:
    columns = []
    for name in names:
        values = [row[name] for row in rows]
        try:
            columns.append(pa.array(values))
        except (pa.ArrowException, OverflowError):
            columns.append(pa.array([None if value is None else str(value) for value in values]))
    file = io.BytesIO()
    parquet.write_table(pa.table(columns, names=names), file)
    return file.getvalue()


def spoil(raw: bytes, chance: random.Random) -> bytes:
    """The same file with a fault of the kinds that files have."""
    if not raw:
        return raw
    place = chance.randrange(len(raw))
    lines = raw.split(b"\n")
    line = chance.randrange(len(lines))
    kinds: list[Callable[[], bytes]] = [
        lambda: raw[:place] + bytes([raw[place] ^ (1 << chance.randrange(8))]) + raw[place + 1 :],
        lambda: (
            raw[:place]
            + chance.choice([b'"', b",", b"\n", b"\r", b"\\", b"{", b"[", b"\0", b"\xff", b"\t"])
            + raw[place:]
        ),
        lambda: raw[:place] + raw[place + chance.randrange(1, 20) :],
        lambda: raw[:place],
        lambda: b"\n".join([*lines[:line], lines[line], *lines[line:]]),
        lambda: b"\n".join([*lines[:line], b"", *lines[line:]]),
        lambda: b"\n".join([*lines[:line], *lines[line + 1 :]]),
        lambda: b"\xef\xbb\xbf" + raw,
        lambda: raw.rstrip(b"\r\n"),
        lambda: raw.replace(b",", chance.choice([b";", b"\t", b"|"])),
        lambda: b"sep=,\r\n" + raw,
        lambda: raw.decode("utf-8", "replace").encode(chance.choice(["latin-1", "utf-16", "utf-16-le"]), "replace"),
        lambda: raw.replace(b"\n", chance.choice([b"\r\n", b"\r", b"\n\n"])),
        lambda: raw.replace(b'"', b'\\"', chance.randrange(3)),
        lambda: raw + raw[chance.randrange(len(raw)) :],
        lambda: bytes(chance.randrange(256) for _ in range(chance.randrange(200))),
        lambda: _in_two_lines(lines, chance),
    ]
    return chance.choice(kinds)()


def _in_two_lines(lines: list[bytes], chance: random.Random) -> bytes:
    """A stray quote at the begin of a field of one line, and at the end of a field of a later one."""
    changed = list(lines)
    first, last = sorted(chance.choices(range(len(lines)), k=2))
    for line, after in ((first, True), (last, False)):
        cuts = [n for n, byte in enumerate(changed[line]) if byte in b",\t"]
        if cuts:
            cut = chance.choice(cuts) + after
            changed[line] = changed[line][:cut] + b'"' + changed[line][cut:]
    return b"\n".join(changed)


def count(raw: bytes, form: str, quotes: bool) -> int:
    """Rows of a file by Python's own parsers; of Parquet by its footer."""
    if form == "parquet":
        return int(parquet.read_metadata(io.BytesIO(raw)).num_rows)
    if form in {"jsonl", "ndjson"}:
        return sum(bool(line.strip()) for line in raw.removeprefix(codecs.BOM_UTF8).split(b"\n"))
    text = raw.decode("utf-8-sig")
    separator = "," if form == "csv" else "\t"
    if form == "inter" or not quotes:
        rows = [line for line in text.split("\n") if line.strip("\r")]
    else:
        csv.field_size_limit(1 << 30)
        rows = ["".join(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    return len(rows) - 1 - len(list(takewhile(lambda row: row.strip().lower().startswith("sep="), rows)))


def try_one(seed: int, number: int, base: Path, figures: Figures) -> None:
    """Draw, write and read one folder, and note how it ended.

    Raises:
        AssertionError: rows were lost, or what was said is no line.
        Exception: anything else than a user's mistake.
    """
    chance = random.Random(zlib.crc32(f"{seed}/{number}".encode()))
    case = draw(chance)
    folder = base / chance.choice(_NAMES)
    folder.mkdir(parents=True)
    suffixes = ("inter", "item") if case.form == "inter" else (case.form, case.form)
    raw = [encode(rows, case.form, case.dialect) for rows in (case.interactions, case.items)]
    for _ in range(chance.choice([0, 1, 1, 1, 2])):
        which = chance.choice([0, 0, 1])
        raw[which] = spoil(raw[which], chance)
    stems = [chance.choice(["interactions", *_NAMES[:5]]), "items"]
    paths = [folder / f"{stem}.{suffix}" for stem, suffix in zip(stems, suffixes, strict=True)]
    for path, content in zip(paths, raw, strict=True):
        path.write_bytes(content)
    config = DataConfig(path=str(folder), interactions_file=paths[0].name, items_file=paths[1].name, **case.settings)
    users_file = case.form != "inter" and number % 5 == 0
    figures.users_files += users_file
    try:
        found = _users(paths[0], config) if users_file else _interactions(config)
    except UserError as error:
        said = one_line(error)
        assert said and len(said) <= _LONGEST_LINE and "\n" not in said, said
        figures.refused[case.form] += 1
        return
    expected = count(raw[0], case.form, config.quotes)
    assert found == expected, f"{found} rows of {expected}"
    figures.read[case.form] += 1


def _interactions(config: DataConfig) -> int:
    dataset = preprocess(config)
    # Values that are broken inside are found when they are looked at.
    assert all(isinstance(value, str) for frame in (dataset.items, dataset.users) for value in frame[:, 1].to_list())
    assert all(isinstance(value, str) for name in ("title", "text") for value in dataset.items[name].to_list())
    funnel = dataset.profile["filters"]
    return int(funnel[0]["before"]["interactions"])


def _users(path: Path, config: DataConfig) -> int:
    """Interactions in the histories of a file of users."""
    columns = Columns(user=config.user_column)
    histories = FileHistories(path, columns, TextRules(config.quotes, config.multiline))
    chunks = list(histories.chunks(3))
    assert sum(len(chunk.user_ids) for chunk in chunks) == histories.n_users
    lists = [items for chunk in chunks for items in chunk.histories.to_list()]
    assert {item for items in lists for item in items} == set(histories.item_ids())
    return sum(map(len, lists))


def campaign(seconds: float, seed: int, *, say: bool = False) -> Figures:
    """Try inputs until the time is up."""
    figures, begun, told = Figures(seed), time.monotonic(), time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="prorec-inputs-"))
    try:
        while time.monotonic() - begun < seconds:
            start = time.monotonic()
            try:
                try_one(seed, figures.inputs, base / str(figures.inputs), figures)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                figures.bad.append(f"--seed {seed} --only {figures.inputs}: {type(error).__name__}: {str(error)[:300]}")
            shutil.rmtree(base / str(figures.inputs), ignore_errors=True)
            took = time.monotonic() - start
            if took > SLOW:
                figures.bad.append(f"--seed {seed} --only {figures.inputs}: {took:.0f} seconds")
            figures.slowest = max(figures.slowest, took)
            figures.inputs += 1
            if say and time.monotonic() - told > 60:
                told = time.monotonic()
                print(json.dumps(figures.as_json()), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return figures


def main() -> None:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one draw, run alone")
    chosen = parser.parse_args()
    if chosen.only is not None:
        base = Path(tempfile.mkdtemp(prefix="prorec-inputs-"))
        figures = Figures(chosen.seed)
        print(base)
        try:
            try_one(chosen.seed, chosen.only, base, figures)
        except BaseException:
            traceback.print_exc()
            sys.exit(1)
        print(json.dumps(figures.as_json(), indent=1))
        return
    figures = campaign(chosen.seconds, chosen.seed, say=True)
    print(json.dumps(figures.as_json(), indent=1))
    sys.exit(bool(figures.bad))


if __name__ == "__main__":
    main()
