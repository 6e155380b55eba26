"""The one exception that carries a user's mistake. Knows nothing of who shows it, or how."""

from __future__ import annotations

import difflib
import os
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prorec_core.visible import shortened, visible

_LONGEST = 500
_LONGEST_PART = 1500
_LONGEST_WORD = 200
_LONGEST_LIST = 600
_LIBRARIES = tuple(f"{sysconfig.get_paths()[kind]}{os.sep}" for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
_OURS = tuple(f"{Path(__file__).parents[1] / name}{os.sep}" for name in ("prorec", "prorec_core"))
"""The folders of libraries, and of this project, which may be installed as one."""


class UserError(Exception):
    """Something that the user can put right: says what is wrong, where, and what to do.

    The command line prints it as one line and exits with status 2; a task fails with it and is not retried. It is one
    line whatever stands in the values, names and paths that it quotes.
    """

    def __init__(self, problem: str, *, place: str = "", cure: str = "") -> None:
        self.problem = _told(problem).rstrip(".")
        self.place = _told(place)
        self.cure = _told(cure).rstrip(".")
        super().__init__(str(self))

    def __str__(self) -> str:
        end = "" if self.problem.endswith("?") else "."
        text = f"{self.place}: {self.problem}{end}" if self.place else f"{self.problem}{end}"
        if not self.cure:
            return text
        return f"{text} {self.cure}" if self.cure.endswith("?") else f"{text} {self.cure}."

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.problem, self.place, self.cure))


class MachineError(UserError):
    """What the machine refuses, whatever is asked of it: a full disk, a folder of another user's."""


class SeveralMistakesError(UserError):
    """Several mistakes at once, a line each."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        self.errors = tuple(errors)
        super().__init__("")

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))

    def __reduce__(self) -> tuple[object, ...]:
        return (SeveralMistakesError, (self.errors,))


def one_line(error: BaseException) -> str:
    """Why something failed, in one line: a user's mistake as it is, any other error with the name of its class."""
    text = visible(" ".join(str(error).split()))
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def with_line(error: BaseException) -> str:
    """As `one_line`; of what is no user's mistake also the line of one's own, or the project's, code that it came from.

    So that whoever brings a method learns where it failed from what a page or a table tells.
    """
    text = one_line(error)
    if isinstance(error, UserError):
        return text
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [each for each in frames if not each[0].startswith((*_LIBRARIES, "<")) or each[0].startswith(_OURS)]
    return f"{text} ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else text


def _told(text: str) -> str:
    # A place knows its table, which must not travel with an error to another process.
    return str(visible(shortened(text, _LONGEST_PART)))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _rebuild(kind: type[UserError], problem: str, place: str, cure: str) -> UserError:
    return kind(problem, place=place, cure=cure)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The cure for a misspelt name: the nearest known one, or the list of them, as far as a line has room."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5) if len(word) <= _LONGEST_WORD else []
    if near:
        return f"Did you mean '{near[0]}'?"
    told: list[str] = []
    room = _LONGEST_LIST
    for name in names:
        room -= len(name) + 2
        if told and room < 0:
            return f"Known: {', '.join(told)} and {len(names) - len(told)} more"
        told.append(name)
    return f"Known: {', '.join(told)}"
