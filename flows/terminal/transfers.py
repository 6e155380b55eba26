"""How far files are, on a screen or line by line. Knows bytes and names; knows nothing of where files come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prorec.flows.terminal.screen import console, say
from prorec.flows.terminal.sizes import size
from prorec_core.progress import Progress, Report
from prorec_core.visible import visible

_STEP = 0.1


@contextmanager
def transfers() -> Iterator[Callable[[str], Report]]:
    """What makes, for a file's name, the report of how many bytes of it there are."""
    screen = console(error=True)
    if not screen.is_terminal:
        yield _in_lines
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=screen, transient=True) as bars:

        def report_of(name: str) -> Report:
            task = bars.add_task(visible(name), total=None)
            return lambda each: bars.update(task, completed=each.step, total=each.total or None)

        yield report_of


def _in_lines(name: str) -> Report:
    told = 0.0

    def report(each: Progress) -> None:
        nonlocal told
        share = each.step / each.total if each.total else 0.0
        if share >= told + _STEP:
            told = share - share % _STEP
            say(f"{name}: {size(each.step)} of {size(each.total)}", error=True)

    return report
