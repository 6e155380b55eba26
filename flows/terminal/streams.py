"""Standard output and error: what they cannot show is replaced, and one that cannot be written ends in a line.

Knows streams and their descriptors; knows nothing of what is shown.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any


class _Watched(io.FileIO):
    """A descriptor that remembers why it could not be written: the error itself does not say of which file it is."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> Any:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


_output: _Watched | None = None


def set_up() -> None:
    """Watch standard output, and have letters that an encoding lacks replaced, where they would be an error."""
    global _output  # noqa: PLW0603 there is one standard output
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    # PYTHONUNBUFFERED leaves the buffer out.
    below: object = sys.stdout.buffer
    buffered = isinstance(below, io.BufferedWriter)
    if isinstance(below.raw if isinstance(below, io.BufferedWriter) else below, io.FileIO):
        _output = _Watched(sys.stdout.fileno(), "wb", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_output) if buffered else _output,
            encoding=sys.stdout.encoding,
            errors="backslashreplace",
            line_buffering=sys.stdout.line_buffering,
            write_through=sys.stdout.write_through,
        )


def print_error(line: str) -> None:
    """Show a line on standard error, if it can be."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _lead_nowhere(2)


def output_lost() -> str:
    """Write what standard output still holds back; why something was not written, or nothing where all was.

    One that nobody reads any more (`prorec … | head -1`) is no reason to complain.
    """
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
    if _output is None or (failure := _output.failure) is None:
        return ""
    _lead_nowhere(_output.fileno())
    return "" if failure.errno == errno.EPIPE else f"standard output cannot be written ({failure.strerror})"


def _lead_nowhere(descriptor: int) -> None:
    """Python tries once more to write a stream at its end, and would complain then."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
