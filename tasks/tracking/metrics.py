"""Metrics on their way to the tracking store, sent behind the back of the training that measures them.

Knows runs and metrics by name; knows nothing of stages. A store that is away delays nothing and loses nothing.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prorec.tasks.local.disk_space import full_disk
from prorec.tasks.tracking.retries import TrackingAwayError, is_passing, patience, pauses
from prorec_core.errors import MachineError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_BATCH = 1000
_log = logging.getLogger(__name__)


class MetricSender:
    """Sends the metrics of one run in the order in which they came, each step's in one batch."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._pending: list[Metric] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._full: MachineError | None = None
        self.refused: list[str] = []
        """Why the store refused metrics, where it did."""

    def send(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand over what was measured at a step; returns at once."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._changed:
            self._pending += [Metric(name, float(value), now, step) for name, value in metrics.items()]
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="metrics", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, at_most: float | None = None) -> None:
        """Wait until all is sent, `patience()` seconds or `at_most`.

        Raises:
            TrackingAwayError: the store stayed away as long as that.
            MachineError: its disk has no room for them.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is None:
            return
        self._thread.join(patience() if at_most is None else at_most)
        if self._full is not None:
            raise self._full
        if self._thread.is_alive() or self._pending:
            raise TrackingAwayError(
                f"The tracking store stayed away; {len(self._pending)} metrics of run {self._run_id} are unsent"
            )

    def _work(self) -> None:
        pause = pauses()
        while True:
            with self._changed:
                while not self._pending and not self._closing:
                    self._changed.wait()
                batch, last = self._pending[:_BATCH], self._closing
            if not batch:
                return
            try:
                self._client.log_batch(self._run_id, metrics=batch)
            except Exception as error:
                self._full = full_disk(error)
                if self._full is not None:
                    # Somebody may make room before the training ends; after that it is tried once more.
                    if last:
                        return
                    _log.warning("The metrics are kept and sent later: %s", self._full)
                    with self._changed:
                        self._changed.wait_for(lambda: self._closing, next(pause))
                    continue
                if is_passing(error):
                    _log.warning("The tracking store does not answer; metrics are kept and sent later (%s)", error)
                    time.sleep(next(pause))
                    continue
                self.refused.append(str(error))
                _log.warning("The tracking store refused metrics: %s", error)
            self._full = None
            pause = pauses()
            with self._changed:
                del self._pending[: len(batch)]


def numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers in nested mappings, by their path joined with '/'; all else is left out."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            found[f"{prefix}{name}"] = float(value)
    return found


def measured(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an evaluation (metrics.json) that are logged: on test, on validation and on new items."""
    return numbers({part: metrics[part] for part in ("test", "validation", "new_items") if part in metrics})
