"""Standard output and error: what they cannot show is replaced, and one that cannot be written ends in a line.

Knows streams and their descriptors; knows nothing of what is shown.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys


def replace_what_cannot_be_shown() -> None:
    """Have letters that the terminal's encoding lacks shown as `?`, where they would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def tell(line: str) -> None:
    """Show a line on standard error, if it can be."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def output_lost() -> str:
    """Write what standard output still holds back; why that cannot be, or nothing where it can.

    One that nobody reads any more (`prorec … | head -1`) is no reason to complain.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        # Python tries once more at its end, and would complain then.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        if isinstance(error, OSError) and error.errno != errno.EPIPE:
            return f"standard output cannot be written ({(error.strerror or str(error)).lower()})"
    return ""
