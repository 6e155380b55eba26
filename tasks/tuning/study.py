"""A study: the trials of a tuning, kept in an SQLite file so that a tuning that was killed goes on.

Knows Optuna, and what makes two studies the same; knows nothing of stages or of what is measured. The higher the value
of a trial, the better.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec.tasks.local import databases, paths
from prorec_core import versions
from prorec_core.artifacts import sha256_json
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
"""How a trial may end."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SETTINGS, _RUN, _SECONDS, _REASON = "settings", "mlflow_run", "seconds", "reason"
_PROGRAM = "program"
"""The setting that holds the hash of the sources."""
_AGAIN = "again"
"""On a trial with the values of one that its process left: the number of that one."""

_TRIALS_BEFORE_PRUNING, _EPOCHS_BEFORE_PRUNING = 4, 5
_DRAWS, _DRAWS_BY_MODEL = 60, 20
_DIGITS = 4
_DIFFERENCES_SHOWN = 3
_log = logging.getLogger(__name__)
_ANOTHER = "Choose another --study, or move the file away"


def path(name: str) -> Path:
    """The file of a study.

    Raises:
        UserError: it cannot be a name.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot be a name", place="--study", cure="Use letters, digits, '-', '_' and '.'")
    return paths.studies() / f"{name}.db"


def expect_same(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with a study that was made with other settings; one that is not there is none.

    Raises:
        UserError: the settings differ, or the file cannot be read.
    """
    if path(name).exists():
        with _stored(name) as stored:
            _expect_same(stored, name, settings)


@contextmanager
def open_study(
    name: str, settings: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], seed: int, *, prune: bool
) -> Iterator[Study]:
    """The study of a name, made where it does not exist; what a process that died had begun is to be tried again.

    Args:
        name: of the study and of its file.
        settings: all that the value of a trial depends on besides its parameters; JSON, flat.
        distributions: by parameter the values that it may have.
        seed: of what is tried. The same seed and the same values of earlier trials give the same next trial.
        prune: whether trials that stay behind the median of the others end early.

    Raises:
        UserError: another process is at work on it, it was made with other settings, or its file cannot be read.
    """
    import optuna

    with paths.try_lock(f"study-{name}") as free:
        if not free:
            raise UserError("another process is at work on this study", place=f"study {name}", cure="Wait for its end")
        path(name).parent.mkdir(parents=True, exist_ok=True)
        with _stored(name) as stored:
            _expect_same(stored, name, settings)
            stored.set_user_attr(_SETTINGS, versions.stored(settings))
            pruners = optuna.pruners
            median = pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, n_warmup_steps=_EPOCHS_BEFORE_PRUNING)
            stored.pruner = median if prune else pruners.NopPruner()
            study = Study(stored, distributions, seed)
            study.recover()
            yield study


@contextmanager
def _stored(name: str) -> Iterator[OptunaStudy]:
    import optuna
    from optuna.exceptions import OptunaError, StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = path(name)
    if file.exists() and not file.stat().st_size:
        # As a process leaves it that was killed while it made it; or it was emptied.
        _log.warning("%s: the file is empty; the study is begun anew", file)
    elif damage := databases.problems(file):
        reason = damage[0].removeprefix(f"{file}: ").partition(". ")[0]
        raise UserError(f"the study cannot be read ({reason})", place=str(file), cure=_ANOTHER)
    try:
        storage = optuna.storages.RDBStorage(paths.sqlite_uri(file))
        names = optuna.get_all_study_names(storage)
        if names and name not in names:
            raise UserError(f"the file is of another study, {names[0]}", place=str(file), cure=_ANOTHER)
        stored = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        # What SQLite holds to be whole may hold values that are none.
        stored.get_trials(deepcopy=False)
        _ = stored.user_attrs
    except (SQLAlchemyError, OptunaError, RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the study cannot be read ({reason})", place=str(file), cure=_ANOTHER) from error
    try:
        yield stored
    except StorageInternalError as error:
        raise UserError(f"the study cannot be written ({error})", place=str(file), cure=_ANOTHER) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _expect_same(stored: OptunaStudy, name: str, settings: Mapping[str, Any]) -> None:
    found = stored.user_attrs.get(_SETTINGS)
    if found is None and not stored.get_trials(deepcopy=False):
        return
    then = versions.flat_up_to_date(found, settings, f"study {name}") if found else {}
    differing = [key for key in sorted({*then, *settings}) if then.get(key) != settings.get(key)]
    if not differing:
        return
    # That is what anybody meets who changed nothing.
    by = ", by another version of prorec" if found and _PROGRAM in differing else ""
    differences = [f"{key} was {_shown(then.get(key))}, is {_shown(settings.get(key))}" for key in differing]
    more = f", and {len(differences) - _DIFFERENCES_SHOWN} more" if len(differences) > _DIFFERENCES_SHOWN else ""
    raise UserError(
        f"the study exists with other settings{by}: {'; '.join(differences[:_DIFFERENCES_SHOWN])}{more}",
        place=f"study {name}",
        cure=f"Begin another with --study NAME, or delete {path(name)}",
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, str) and len(value) == 64:
        return value[:8]
    return "nothing" if value is None else str(value)


class Attempt:
    """A trial at work.

    Attributes:
        number: of this try, in the study.
        place: which one it is, from 1; those that are tried again do not count twice.
        values: by parameter the value that is tried.
        seen: by epoch, from 1, what was reported.
    """

    def __init__(self, stored: OptunaStudy, trial: Trial, number: int) -> None:
        self._stored = stored
        self._trial = trial
        self.number = trial.number
        self.place = number
        self.values: dict[str, Any] = dict(trial.params)
        frozen = stored.get_trials(deepcopy=False)[trial.number]
        self.seen = dict(frozen.intermediate_values)

    def report(self, value: float, epoch: int) -> bool:
        """Tell what an epoch came to; returns whether to end here, since it stays behind the median of the others."""
        if epoch not in self.seen:
            self._trial.report(value, epoch)
            self.seen[epoch] = value
        return bool(self._trial.should_prune())

    def note(self, run_id: str, seconds: float) -> None:
        """Keep with the trial its MLflow run and the seconds that it took."""
        self._trial.set_user_attr(_RUN, run_id)
        self._trial.set_user_attr(_SECONDS, seconds)

    def complete(self, values: Mapping[int, float]) -> float:
        """End it with what every epoch came to; the best one is its value, and is returned."""
        for epoch, value in values.items():
            self.report(value, epoch)
        best = max(values.values())
        self._stored.tell(self._trial, best)
        return best

    def prune(self) -> None:
        """End it early, as `report` said."""
        import optuna

        self._stored.tell(self._trial, state=optuna.trial.TrialState.PRUNED)

    def fail(self, reason: str) -> None:
        """End it without a value; the reason in one line."""
        import optuna

        self._trial.set_user_attr(_REASON, reason)
        self._stored.tell(self._trial, state=optuna.trial.TrialState.FAIL)


class Study:
    """A study that this process is at work on; see `open_study`."""

    def __init__(self, stored: OptunaStudy, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        self._stored = stored
        self._distributions = dict(distributions)
        self._seed = seed

    def recover(self, only: Attempt | None = None) -> bool:
        """Have what was left running, or the one whose process is gone, tried again with the same values, and mark it
        as failed; in this order, so that nothing is lost and nothing is there twice wherever this is killed. Whether
        anything is tried again is returned: what had ended before its process died is not."""
        import optuna

        states = optuna.trial.TrialState
        trials = self._stored.get_trials(deepcopy=False)
        taken, added = {trial.user_attrs.get(_AGAIN) for trial in trials}, False
        for left in trials:
            if left.state is not states.RUNNING or (only is not None and left.number != only.number):
                continue
            # One that died before its last parameter was drawn, or after it had failed, is worth no other try.
            whole = left.params.keys() == self._distributions.keys() and _REASON not in left.user_attrs
            if whole and left.number not in taken:
                again = optuna.create_trial(
                    state=states.WAITING,
                    params=left.params,
                    distributions=left.distributions,
                    intermediate_values=left.intermediate_values,
                    user_attrs={_AGAIN: left.number},
                )
                self._stored.add_trial(again)
                added = True
            self._stored.tell(left.number, state=states.FAIL)
        return added

    def _counted(self) -> list[FrozenTrial]:
        """The trials that ended by themselves, in the order of their numbers."""
        return [trial for trial in self._stored.get_trials(deepcopy=False) if _ended(trial)]

    def _begun(self) -> list[FrozenTrial]:
        """The trials that ended by themselves, those at work and those that are to be tried again, in the order in
        which each was begun first."""
        import optuna

        states = optuna.trial.TrialState
        trials = {trial.number: trial for trial in self._stored.get_trials(deepcopy=False)}

        def first(number: int) -> int:
            before = trials[number].user_attrs.get(_AGAIN)
            return number if before is None else first(before)

        def is_begun(trial: FrozenTrial) -> bool:
            again = trial.state is states.WAITING and _AGAIN in trial.user_attrs
            return again or trial.state is states.RUNNING or _ended(trial)

        return sorted(filter(is_begun, trials.values()), key=lambda trial: first(trial.number))

    @property
    def ended(self) -> int:
        """How many trials ended: with a value, early, or by a failure of their own."""
        return len(self._counted())

    def next(self, first: Mapping[str, Any]) -> Attempt | None:
        """Begin a trial: one that was left, or else with new values; others may be at work.

        Args:
            first: the values of the very first trial, if the ranges hold them.

        Returns:
            The trial, or None where all values that were drawn had been tried before.
        """
        import optuna

        begun = self._begun()
        waiting = self._stored.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
        if not waiting:
            values = dict(first) if not begun and self._holds(first) else self._draw(begun)
            if values is None:
                return None
            self._stored.enqueue_trial(values)
        trial = self._stored.ask(self._distributions)
        place = [each.number for each in self._begun()].index(trial.number) + 1
        return Attempt(self._stored, trial, place)

    def _holds(self, values: Mapping[str, Any]) -> bool:
        return all(_in(each, values[name]) for name, each in self._distributions.items())

    def _draw(self, begun: list[FrozenTrial]) -> dict[str, Any] | None:
        """New values, from those of trials that ended or are at work and from the seed alone."""
        import optuna

        from prorec_core.training.runtime import derive_seed

        known = {sha256_json(trial.params) for trial in begun}
        of_use = [trial for trial in begun if trial.state is not optuna.trial.TrialState.FAIL]
        # What is at work counts as bad until it is known, so that not all look at the same place.
        liar = any(trial.state is optuna.trial.TrialState.RUNNING for trial in begun)
        for draw in range(_DRAWS):
            seed = derive_seed(self._seed, "trial", len(begun), draw)
            samplers = optuna.samplers
            by_model = draw < _DRAWS_BY_MODEL
            sampler = samplers.TPESampler(seed=seed, constant_liar=liar) if by_model else samplers.RandomSampler(seed)
            # Apart from the stored study, so that what is drawn in vain leaves no trace there.
            apart = optuna.create_study(direction="maximize", sampler=sampler)
            apart.add_trials(of_use)
            drawn = apart.ask(self._distributions).params
            values = {name: _rounded(self._distributions[name], value) for name, value in drawn.items()}
            if sha256_json(values) not in known:
                return values
        return None

    def trials(self) -> list[dict[str, Any]]:
        """The trials that ended, in order.

        `trial` (from 1), `state`, `value` (best epoch's; of a pruned one the best so far; of a failed one None),
        `epochs` (seen), `values`, `seconds`, `run_id` of MLflow and `reason` of a failure, None where it is not known.
        """
        import optuna

        return [
            {
                "trial": number,
                "state": {"COMPLETE": COMPLETE, "PRUNED": PRUNED}.get(trial.state.name, FAILED),
                "value": None
                if trial.state is optuna.trial.TrialState.FAIL
                else max(trial.intermediate_values.values(), default=None),
                "epochs": max(trial.intermediate_values, default=0),
                "values": {name: trial.params[name] for name in self._distributions if name in trial.params},
                "seconds": trial.user_attrs.get(_SECONDS),
                "run_id": trial.user_attrs.get(_RUN),
                "reason": trial.user_attrs.get(_REASON),
            }
            for number, trial in enumerate(self._begun(), start=1)
            if _ended(trial)
        ]

    def importances(self) -> dict[str, float]:
        """How much each parameter moves the value, by PED-ANOVA, all together 1; nothing where too few trials ended."""
        import optuna

        complete = [trial for trial in self._counted() if trial.state is optuna.trial.TrialState.COMPLETE]
        if len(complete) < _TRIALS_BEFORE_PRUNING or len({trial.value for trial in complete}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(self._stored)
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _ended(trial: FrozenTrial) -> bool:
    """Whether a trial ended by itself."""
    import optuna

    states = optuna.trial.TrialState
    return trial.state in {states.COMPLETE, states.PRUNED} or (
        trial.state is states.FAIL and _REASON in trial.user_attrs
    )


def best_of(trials: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of trials as `Study.trials` tells them the complete one with the highest value, the earlier of equal ones."""
    return max((each for each in trials if each["state"] == COMPLETE), key=lambda each: each["value"], default=None)


def _in(distribution: BaseDistribution, value: Any) -> bool:
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    low, high, step = (getattr(distribution, name) for name in ("low", "high", "step"))
    if not isinstance(value, int | float) or not low <= value <= high:
        return False
    return step is None or math.isclose((value - low) / step, round((value - low) / step), abs_tol=1e-8)


def _rounded(distribution: BaseDistribution, value: Any) -> Any:
    """A value as people write it, and within its bounds: what is tried is what is told."""
    from optuna.distributions import FloatDistribution

    if not isinstance(distribution, FloatDistribution):
        return value
    if distribution.step is not None:
        return round(value, 10)
    return min(max(float(f"{value:.{_DIGITS}g}"), distribution.low), distribution.high)
