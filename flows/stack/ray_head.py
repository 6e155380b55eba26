"""The local stack's Ray cluster, run as a program: `python -m prorec.flows.stack.ray_head PORT PORT_OF_ITS_PAGES`.

Knows signals, and how the cluster says that it is there; knows nothing of who uses it. All that Ray starts ends with
this process, however it ends, and its folder goes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from prorec.flows.stack import state
from prorec.flows.stack.children import MARK
from prorec.flows.terminal.screen import say
from prorec.tasks.execution.cluster import head
from prorec_core.errors import UserError

_SECONDS = 1.0


def came_up(since: datetime) -> bool:
    """Whether the cluster was ready since then."""
    try:
        return datetime.fromtimestamp(_sign().stat().st_mtime, UTC) >= since
    except OSError:
        return False


def _sign() -> Path:
    return state.folder() / "ray.ready"


def main() -> int:
    """Run until told to end, or until the cluster is gone; status 0 only where it was told."""
    told = threading.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: told.set())
    # What Ray starts is its own, and the process that removes what is left of it must outlive what the mark stands for.
    os.environ.pop(MARK, None)
    try:
        with head(int(sys.argv[1]), int(sys.argv[2])) as goes_on:
            _sign().touch()
            while not told.wait(_SECONDS):
                if not goes_on():
                    say("the cluster is gone", error=True)
                    return 1
    except UserError as error:
        say(f"prorec: {error}", error=True)
        return 2
    finally:
        _sign().unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
