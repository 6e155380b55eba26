"""How a run looks in a terminal: stages, epochs, losses, time left. Knows events; knows nothing of stages' work.

On a screen, a live table; elsewhere plain lines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from prorec.flows.terminal.screen import console, plain, say
from prorec.tasks.execution.events import (
    Beside,
    Event,
    Notice,
    PartEnded,
    PartStarted,
    StageEnded,
    StageProgress,
    StageStarted,
)
from prorec_core.progress import duration

_SECONDS_BETWEEN_LINES = 5.0
_METRICS_SHOWN = 3
_BAR = 10


class Display(Protocol):
    """What shows a run: a context, told of every event."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def handle(self, event: Event) -> None:
        """Show an event."""
        ...

    def say(self, text: str) -> None:
        """Show a line."""
        ...


def make_display(stages: list[str]) -> Display:
    """A live table where standard error is a screen, plain lines elsewhere."""
    screen = console(error=True)
    return LiveDisplay(stages, screen) if screen.is_terminal else PlainDisplay()


class _Row:
    """What is known of one stage."""

    def __init__(self) -> None:
        self.state = "waiting"
        self.begun = 0.0
        self.seconds = 0.0
        self.step = 0
        self.total = 0
        self.unit = ""
        self.metrics: dict[str, float] = {}
        self.unit_begun = 0.0
        self.steps_before = 0

    def take(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case StageStarted():
                self.state, self.begun = "running", now
            case StageProgress(progress=progress):
                # Of one unit there may be several passes, each with a pace of its own.
                if not self.unit:
                    # After a crash the first step that is told of is not the first one.
                    self.unit_begun = self.begun
                    self.steps_before = progress.step - 1 if progress.unit == "epoch" else 0
                elif progress.unit != self.unit or progress.step < self.step:
                    # When this pass began is not told: its pace is that from its first step told of on.
                    self.unit_begun, self.steps_before = now, progress.step
                self.unit = progress.unit
                self.step, self.total = progress.step, progress.total
                self.metrics.update(progress.metrics)
            case StageEnded():
                self.state, self.seconds = "cached" if event.cached else "done", event.seconds
            case _:
                pass

    def seconds_left(self) -> float | None:
        """Time left, from the pace of the present unit so far."""
        if not self.steps_before < self.step < self.total:
            return None
        pace = (time.monotonic() - self.unit_begun) / (self.step - self.steps_before)
        return pace * (self.total - self.step)


class LiveDisplay:
    """A table with a line a stage, redrawn as things happen."""

    def __init__(self, stages: list[str], console: Console) -> None:
        self._rows = {stage: _Row() for stage in stages}
        self._spinners = {stage: Spinner("dots") for stage in stages}
        self._head = "starting"
        self._title = ""
        self._beside: dict[str, tuple[str, _Row]] = {}
        self._console = console
        self._live = Live(get_renderable=self._shown, console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._head = ""
        self._live.__exit__(kind, error, trace)

    def handle(self, event: Event) -> None:
        if isinstance(event, Notice | PartEnded):
            noted = isinstance(event, Notice) or event.failed
            self._console.print(plain(event.text, "yellow" if noted else ""))
            self._beside.pop(event.beside if isinstance(event, PartEnded) else "", None)
            return
        self._head = ""
        if isinstance(event, Beside):
            self._handle_beside(event)
            return
        if isinstance(event, PartStarted):
            self._title = _part(event)
            if event.beside:
                self._beside[event.beside] = "", _Row()
                self._rows = {}
                return
            self._rows = {stage: _Row() for stage in event.stages}
            self._spinners |= {stage: Spinner("dots") for stage in event.stages}
            return
        stage = event.ref.stage if isinstance(event, StageEnded) else event.stage
        self._rows[stage].take(event)

    def _handle_beside(self, event: Beside) -> None:
        match event.event:
            case Notice(text=text):
                self._console.print(plain(f"{event.name}: {text}", "yellow"))
            case StageStarted(stage=stage):
                self._spinners.setdefault(event.name, Spinner("dots"))
                self._beside[event.name] = stage, _Row()
                self._beside[event.name][1].take(event.event)
            case StageProgress() | StageEnded():
                self._beside[event.name][1].take(event.event)

    def say(self, text: str) -> None:
        self._head = text

    def _shown(self) -> Group:
        return Group(*([plain(self._title, "bold")] if self._title else []), self._table())

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 1), show_header=False)
        for width in (1, max(map(len, self._rows), default=0), _BAR, 23, None):
            table.add_column(no_wrap=True, min_width=width)
        for name, (stage, row) in self._beside.items():
            about = plain(f"{name}  {stage}")
            table.add_row(self._mark(name, row), about, self._bar(row), self._time(row), plain(_numbers(row.metrics)))
        for stage, row in self._rows.items():
            table.add_row(
                self._mark(stage, row), plain(stage), self._bar(row), self._time(row), plain(_numbers(row.metrics))
            )
        if self._head:
            table.add_row("", plain(self._head, "dim"))
        return table

    def _mark(self, stage: str, row: _Row) -> Spinner | Text:
        if row.state == "running":
            return self._spinners[stage]
        marks = {"waiting": plain("·", "dim"), "cached": plain("✓", "cyan"), "done": plain("✓", "green")}
        return marks[row.state]

    def _bar(self, row: _Row) -> ProgressBar | Text:
        if row.state == "running" and row.total:
            return ProgressBar(row.total, row.step, width=_BAR)
        return plain({"cached": "cached", "done": "done"}.get(row.state, ""), "dim")

    def _time(self, row: _Row) -> Text:
        if row.state == "running":
            left = row.seconds_left()
            shown = f"{row.unit} {row.step}/{row.total}" if row.total else ""
            ends = f"{duration(left)} left" if left is not None else duration(time.monotonic() - row.begun)
            return plain(f"{shown} {ends}".strip())
        return plain(duration(row.seconds) if row.state in {"done", "cached"} else "", "dim")


class PlainDisplay:
    """A line for each thing that happens, fast ones thinned out."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._last = 0.0

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        if text:
            say(text, error=True)

    def handle(self, event: Event) -> None:
        self._handle(event, "")

    def _handle(self, event: Event, of: str) -> None:
        before = f"{of}: " if of else ""
        match event:
            case Beside(name=name, event=inner):
                self._handle(inner, name)
            case Notice(text=text) | PartEnded(text=text):
                self.say(before + text)
            case PartStarted():
                self.say(_part(event))
            case StageStarted(stage=stage):
                self._rows[of, stage] = _Row()
                self._rows[of, stage].take(event)
                self.say(f"{before}{stage}: started")
            case StageEnded(ref=ref, cached=cached, seconds=seconds):
                self.say(f"{before}{ref.stage}: {'cached' if cached else 'done'} in {duration(seconds)}")
            case StageProgress(stage=stage, progress=progress):
                row = self._rows[of, stage]
                row.take(event)
                # An epoch is worth a line each; texts and users are not.
                if progress.unit != "epoch" and time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
                    return
                self._last = time.monotonic()
                left = row.seconds_left()
                parts = [
                    f"{before}{stage}: {progress.unit} {progress.step}/{progress.total}",
                    _numbers(dict(progress.metrics)),
                    f"{duration(left)} left" if left is not None else "",
                ]
                self.say("  ".join(part for part in parts if part))


def _part(event: PartStarted) -> str:
    left = "" if event.seconds_left is None else f", about {duration(event.seconds_left)} left"
    return f"{event.number} of {event.total}{left}: {event.title}"


def _numbers(metrics: Mapping[str, float]) -> str:
    chosen = [name for name in metrics if name == "loss"] + [name for name in metrics if "ndcg" in name]
    chosen += [name for name in metrics if name not in chosen]
    return "  ".join(
        f"{name.removeprefix('validation_').replace('_at_', '@')} {metrics[name]:.4g}"
        for name in chosen[:_METRICS_SHOWN]
    )


def result_table(metrics: Mapping[str, Any]) -> Table:
    """The test result of every scorer."""
    from prorec_core.metrics import scorers
    from prorec_core.metrics.table import columns, figure, label

    more = ", validation items trained on too" if metrics.get("protocol", {}).get("trained_on_validation") else ""
    table = Table(title=f"Test, whole catalogue, item level{more}")
    shown = columns("terminal")
    table.add_column("scorer")
    for metric in shown:
        table.add_column(label(metric), justify="right")
    for scorer in scorers.in_order(metrics.get("test", {})):
        values = metrics["test"][scorer]
        table.add_row(
            scorers.label(scorer), *(figure(metric, values[metric]) if metric in values else "" for metric in shown)
        )
    return table


def plain_table(title: str, rows: Sequence[Sequence[str]], names: int = 1) -> Table:
    """Rows of text, a header first; the first `names` columns name what the row is of, the others are figures."""
    table = Table(title=title)
    for place, column in enumerate(rows[0]):
        table.add_column(column, justify="left" if place < names else "right")
    for row in rows[1:]:
        table.add_row(*row)
    return table
