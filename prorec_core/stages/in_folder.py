"""The stages of an experiment in this process, each leaving its artifact in one folder.

Knows the bodies of the stages and how far they are; knows nothing of caches, tracking or servers, nor of what is done
with what they leave.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prorec_core import fitting, versions
from prorec_core.artifacts import MANIFEST, Manifest, read_json, sha256_json, verify, write_json, write_manifest
from prorec_core.config import Experiment
from prorec_core.config_data import kept_in
from prorec_core.data.stage import source_digest
from prorec_core.errors import UserError, did_you_mean
from prorec_core.evaluation.remarks import remarks_on_data
from prorec_core.generation import ranker_file
from prorec_core.generation.trained import TrainedGenerator
from prorec_core.progress import Progress, duration, silent
from prorec_core.quantization import code_files
from prorec_core.sections import without_run_only
from prorec_core.stages.ahead import expect_given, expect_possible
from prorec_core.stages.align import align
from prorec_core.stages.embed_text import described_by, embed_text
from prorec_core.stages.evaluate import evaluate
from prorec_core.stages.preprocess import preprocess
from prorec_core.stages.quantize import quantize
from prorec_core.stages.train_collaborative import train_collaborative
from prorec_core.stages.train_generator import remarks as remarks_on_generator
from prorec_core.stages.train_generator import train_generator
from prorec_core.stages.work import StageWork
from prorec_core.training.trouble import told_of_device
from prorec_core.visible import visible

BODIES: Mapping[str, Callable[[StageWork], object]] = {
    "preprocess": preprocess,
    "embed_text": embed_text,
    "train_collaborative": train_collaborative,
    "align": align,
    "quantize": quantize,
    "train_generator": train_generator,
    "evaluate": evaluate,
}
"""The stages in the order in which they run."""
_SNAPSHOTS = "snapshots"
_RECORD = "experiment.json"
_SOURCE, _GIVEN = "source", "given"
"""Beside the experiment: the digests of its data, and of files that it names."""
_TABLE, _RANKER, _NOWHERE = "quantize.table", "generator.ranker_file", "nowhere"
_TEXT = "text"
_AT_WORK = ".at-work"
_PAUSE = 10.0
"""Seconds between two lines on the progress of a stage."""

_drawing = threading.RLock()
"""Held while a stage draws from generators that all threads share; who is told of a stage may train within it."""

Tell = Callable[[str, Progress], None]
"""Is told which stage is how far."""


class StagesInFolder:
    """An experiment's stages, each in a folder of its name with a manifest.

    Args:
        folder: holds them; need not be there yet.
        experiment: what is trained.
        tell: called with the name of a stage and its `Progress` after each epoch or step.
        quiet: print neither progress nor remarks.
    """

    def __init__(self, folder: Path, experiment: Experiment, tell: Tell | None = None, *, quiet: bool = False) -> None:
        self.folder = folder
        data = kept_in(experiment.data, folder / _SNAPSHOTS)
        self.experiment = experiment.model_copy(update={"data": data})
        self._tell = tell
        self._quiet = quiet
        self._told: set[str] = set()
        self._digests: dict[str, str] = {}

    def run(self, until: str) -> None:
        """Run the stages that are not there yet, up to one.

        Raises:
            UserError: there is no such stage, workers are asked for, the folder holds another experiment, the data
                have changed since, or another process trains in the folder; the file of a ranker holds none; or a
                mistake that a stage finds.
        """
        if until not in BODIES:
            raise UserError(f"unknown stage '{until}'", place="until", cure=did_you_mean(until, BODIES))
        if self.experiment.start_from is not None:
            raise UserError(
                "a training in a folder begins anew", place="start_from", cure="Leave it out, or use `prorec run`"
            )
        if self.experiment.compute.engine != "local":
            raise UserError(
                "a training in a folder is one process's",
                place="compute.engine",
                cure="Leave it out, or use `prorec run`",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            self._claim()
            names = list(BODIES)
            for name in names[: names.index(until) + 1]:
                if not self.is_done(name):
                    self._make(name)
                if name == "preprocess":
                    self._fit()
                    self._look_ahead()
                if not self._quiet and name not in self._told:
                    for text in self._remarks_on(name):
                        _say(text)
                    self._told.add(name)

    def is_done(self, name: str) -> bool:
        """Whether a stage's files are there and whole, and were made from what the stages before it left."""
        if name not in self._digests and (self.folder / name / MANIFEST).is_file() and not verify(self.folder / name):
            manifest = Manifest.model_validate_json((self.folder / name / MANIFEST).read_bytes())
            earlier = list(BODIES)[: list(BODIES).index(name)]
            if all(self.is_done(each) for each in earlier) and manifest.upstream == self._upstream(name):
                self._digests[name] = manifest.digest
        return name in self._digests

    def of(self, name: str) -> Path:
        """The folder of a stage.

        Raises:
            UserError: it has not run, or its files are not whole.
        """
        if not self.is_done(name):
            raise UserError(f"the stage '{name}' has not run", place=str(self.folder), cure=f"Train until='{name}'")
        return self.folder / name

    def work_of(self, name: str) -> StageWork:
        """What a stage that is done was given, with the folder that it filled.

        Raises:
            UserError: as `of`.
        """
        return StageWork(self.experiment, {}, self.inputs, self.of(name), self.folder / _AT_WORK, silent)

    @property
    def inputs(self) -> dict[str, Path]:
        """The folders of the stages that are done, by name."""
        return {name: self.folder / name for name in BODIES if self.is_done(name)}

    @property
    def remarks(self) -> list[str]:
        """What one should know of the data and of what was trained, a sentence each."""
        return [text for name in self.inputs for text in self._remarks_on(name)]

    def _remarks_on(self, name: str) -> list[str]:
        if name == "preprocess":
            profile = read_json(self.folder / name / "profile.json")
            return remarks_on_data(profile, mask_history=self.experiment.evaluate.mask_history)
        if name == "train_generator":
            return list(remarks_on_generator(TrainedGenerator.load(self.folder / name)))
        return []

    def _upstream(self, name: str) -> dict[str, str]:
        """The digests of the stages before one."""
        names = list(BODIES)
        return {each: self._digests[each] for each in names[: names.index(name)]}

    def _claim(self) -> None:
        """Say whose the folder is, or see that it is this experiment's."""
        record, source = self.folder / _RECORD, self._source()
        if not record.is_file():
            self._expect_room()
            expect_given(self.experiment)
            beside = {_SOURCE: source, _GIVEN: self._given()}
            write_json(record, versions.stored({**self.experiment.model_dump(mode="json"), **beside}))
            return
        cure = "Train in a folder of its own"
        then = read_experiment(self.folder)
        # What is left open was found here before, by whatever rule there was then.
        self.experiment = fitting.as_in(self.experiment, then)
        if others := _differing(without_run_only(then), without_run_only(self.experiment)):
            told = f"this folder holds another experiment: {', '.join(others)}"
            raise UserError(told, place=str(self.folder), cure=cure)
        if source is not None and read_json(record).get(_SOURCE) != source:
            raise UserError("the data have changed since", place=str(self.folder), cure=cure)
        kept, given = read_json(record).get(_GIVEN, {}), self._given()
        if kept.get(_TEXT, given[_TEXT]) != given[_TEXT] and not self.is_done("embed_text"):
            # Nobody has read it yet; perhaps it was not there.
            kept = {**kept, _TEXT: given[_TEXT]}
            write_json(record, {**read_json(record), _GIVEN: kept})
        for name, digest in given.items():
            # A folder of before, which says nothing of a table or of texts, had this one: its name is the experiment's.
            then_digest = kept.get(name, digest if name in (_TABLE, _TEXT) else "")
            # What is there already needs a file no more; where it is gone, the stage that reads it says so.
            if digest != then_digest and not (digest == _NOWHERE and then_digest):
                what = "what text reads, its encoder or vectors," if name == _TEXT else f"the file of {name}"
                raise UserError(f"{what} has changed since", place=str(self.folder), cure=cure)

    def _source(self) -> str | None:
        """The digest of the data as they come; None where they are gone, and not needed any more.

        Raises:
            UserError: they are not there.
        """
        try:
            return source_digest(self.experiment.data)
        except UserError:
            if not (self.folder / _RECORD).is_file() or not self.is_done("preprocess"):
                raise
            return None

    def _expect_room(self) -> None:
        """See that nobody else's things stand where stages will.

        Raises:
            UserError: they do.
        """
        for name in (*BODIES, _AT_WORK):
            place = self.folder / name
            empty = not place.exists() or (place.is_dir() and not any(place.iterdir()))
            if not empty and not (place / MANIFEST).is_file():
                problem = f"the folder holds something that is none of ours under the name '{name}'"
                raise UserError(problem, place=str(self.folder), cure="Train in a folder of its own")

    def _given(self) -> dict[str, str]:
        """The digests of the files that the experiment may name beside its data, by field; "" where it names none."""
        return {
            _TEXT: described_by(self.experiment.text, self.experiment.data),
            _TABLE: _digest(lambda: code_files.digest(self.experiment.quantize)),
            _RANKER: _digest(lambda: ranker_file.digest(self.experiment.generator)),
        }

    def _look_ahead(self) -> None:
        """Tell what would end a stage that is not there yet."""
        if not self.is_done("quantize"):
            expect_possible(self.experiment, self.folder / "preprocess")
        elif not self.is_done("train_generator"):
            expect_given(self.experiment)

    def _fit(self) -> None:
        """Find the numbers that are left to the data, and keep them with the folder for what goes on there later."""
        if not fitting.open_fields(self.experiment):
            return
        size = fitting.Size.of(read_json(self.folder / "preprocess" / "profile.json"))
        before, self.experiment = self.experiment, fitting.fitted(self.experiment, size)
        record = self.folder / _RECORD
        then = read_json(record)
        beside = {name: then[name] for name in (_SOURCE, _GIVEN) if name in then}
        values = {**self.experiment.model_dump(mode="json"), **beside}
        write_json(record, versions.stored(values))
        if not self._quiet:
            _say(f"settings {fitting.told(before, self.experiment, size)}")

    def _make(self, name: str) -> None:
        """Have a stage leave its artifact: in a folder aside first, so that it is there whole or not at all."""
        upstream, values = self._upstream(name), without_run_only(self.experiment)
        if name == "preprocess":
            # It is of the data alone, whose other numbers follow from it.
            values = {"data": values["data"]}
        aside = self.folder / _AT_WORK / name
        checkpoints = self.folder / _AT_WORK / f"{name}-{sha256_json(upstream)[:16]}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        lines = None if self._quiet else _Lines(name)

        def report(progress: Progress) -> None:
            if self._tell is not None:
                self._tell(name, progress)
            if lines is not None:
                lines(progress)

        begun = time.monotonic()
        inputs = {each: self.folder / each for each in upstream}
        work = StageWork(self.experiment, values, inputs, aside, checkpoints, report)
        with told_of_device(name), _generators():
            BODIES[name](work)
        manifest = write_manifest(aside, name, values, upstream, work.made_with)
        # What stands there is not whole, or it would have been taken.
        shutil.rmtree(self.folder / name, ignore_errors=True)
        aside.replace(self.folder / name)
        shutil.rmtree(checkpoints, ignore_errors=True)
        with suppress(OSError):
            # Something may be there still of another stage that was stopped.
            aside.parent.rmdir()
        self._digests[name] = manifest.digest
        if not self._quiet:
            _say(f"{name}: {duration(time.monotonic() - begun)}")


def _differing(then: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> list[str]:
    """Where two experiments differ, a phrase each."""
    found: list[str] = []
    for name in dict.fromkeys([*then, *now]):
        before, after = then.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _differing(before, after, f"{above}{name}.")
        elif before != after:
            found.append(f"{above}{name} is {before!r} there and not {after!r}")
    return found


@contextmanager
def _generators() -> Iterator[None]:
    """Torch's random generators are this thread's alone, as a stage seeds them, and are put back; with gradients."""
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with _drawing, torch.random.fork_rng(list(devices)), torch.inference_mode(False), torch.enable_grad():
        yield


def _digest(of: Callable[[], str]) -> str:
    try:
        return of()
    except UserError:
        return _NOWHERE


def read_experiment(folder: Path) -> Experiment:
    """Whose stages a folder holds.

    Raises:
        UserError: nobody's, or a newer version of this software wrote it.
    """
    record = folder / _RECORD
    if not record.is_file():
        raise UserError("there is no experiment in this folder", place=str(folder), cure="Name a folder of `train`")
    values = versions.read(record)
    for name in (_SOURCE, _GIVEN):
        values.pop(name, None)
    return versions.whole(Experiment, values, str(record))


class _Lines:
    """Prints how far a stage is, now and then."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= _PAUSE and progress.step < progress.total:
            self._last = now
            _say(f"{self._name}: {progress.unit} {progress.step:,} of {progress.total:,}")


def _say(text: str) -> None:
    """Print a line; what data hold in it is shown as it is."""
    print(visible(text), flush=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others from training in a folder; the system lets go of it when the process ends.

    Raises:
        UserError: another process trains there.
    """
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another process trains in this folder", place=str(folder), cure="Wait for it, or name another folder"
            ) from None
        yield
    finally:
        os.close(lock)
