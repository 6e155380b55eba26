"""Damage to every kind of file that is kept: it is named, answered in one line, or made good; never used in silence.

Knows which files there are, and who uses each: `verify` for what is stored, the pipeline for cached references, a
training for its checkpoints, a batch for its chunks, a tuning for its study. The stages' work itself is not damaged.

    python -m tests.campaigns.corruption --seconds 3600 --seed 0

makes a store of two tiny experiments, damages one file after the other until the time is up (a flipped bit, cut short,
emptied, deleted, the content of another file of its kind) and prints its figures as JSON. `--small` does without the
experiments, in seconds. Exit status 1 if anything was used in silence or ended in a traceback.

SQLite keeps no checksums: a bit that flips inside of a value that MLflow, Prefect or Optuna keep is another value. Such
flips are counted apart, as `values`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

DAMAGES = ("flip", "truncate", "empty", "delete", "swap")
NAMED, REFUSED, MADE_ANEW, HARMLESS, VALUE = "named", "one line", "made anew and said", "harmless", "values"
OUTCOMES = (NAMED, REFUSED, MADE_ANEW, HARMLESS, VALUE)
SILENT, TRACEBACK = "used in silence", "traceback"
DATABASES = {"mlflow.db", "prefect.db", "study"}
_EPOCHS = 4


@dataclass(frozen=True)
class Outcome:
    """What came of one damage, and the words that were said."""

    what: str
    said: str = ""


Use = Callable[[Path], Outcome]
"""Uses what a damaged file is part of, and says what came of it."""


@dataclass(frozen=True)
class Kind:
    """Files of one kind: which there are, and how they are used."""

    files: Sequence[Path]
    use: Use


@dataclass
class Figures:
    """What came of a campaign."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, kind: str, damage: str, file: Path, outcome: Outcome) -> None:
        self.counts.setdefault(kind, Counter())[outcome.what] += 1
        bad = outcome.what in {SILENT, TRACEBACK} or (
            outcome.what == VALUE and (damage != "flip" or kind not in DATABASES)
        )
        if bad:
            self.failures.append(f"{kind}: {damage} of {file.name}: {outcome.what} {outcome.said}".strip())

    def table(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "damaged": sum(sum(each.values()) for each in self.counts.values()),
            "kinds": {kind: {"damaged": sum(found.values()), **found} for kind, found in sorted(self.counts.items())},
            "failures": self.failures,
        }


def damaged(file: Path, damage: str, draw: random.Random, others: Sequence[Path]) -> bool:
    """Damage a file; says whether its content is another one now."""
    content = file.read_bytes()
    file.unlink()
    if damage == "flip" and content:
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
    elif damage == "truncate" and content:
        file.write_bytes(content[: draw.randrange(len(content))])
    elif damage == "swap":
        other = [each.read_bytes() for each in others if each != file]
        file.write_bytes(draw.choice([each for each in other if each != content] or [b"of another"]))
    elif damage != "delete":
        file.write_bytes(b"")
    return damage == "delete" or file.read_bytes() != content


class LogLines(logging.Handler):
    """The warnings of this project, as a user sees them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def warnings_and_notices() -> Iterator[list[str]]:
    """What is told to the user meanwhile: warnings in the log, and notices."""
    from prorec.tasks.execution.events import Event, Notice, listening

    log = LogLines()

    def handle(event: Event) -> None:
        if isinstance(event, Notice):
            log.lines.append(event.text)

    loggers = [logging.getLogger(name) for name in ("prorec", "prorec_core")]
    for each in loggers:
        each.addHandler(log)
    try:
        with listening(handle):
            yield log.lines
    finally:
        for each in loggers:
            each.removeHandler(log)


def refusals_caught(use: Use) -> Use:
    """That use, where an error that the user is told in one line is an outcome, and any other a traceback."""

    def wrapped(file: Path) -> Outcome:
        from prorec.tasks.local.machine_errors import explained
        from prorec.tasks.tracking.retries import TrackingAwayError

        try:
            return use(file)
        except Exception as error:
            found = explained(error)
            if found is not None and not isinstance(error, TrackingAwayError):
                return Outcome(REFUSED, str(found))
            return Outcome(TRACEBACK, "".join(traceback.format_exception(error)[-2:]).strip())

    return wrapped


def verified(file: Path) -> Outcome:
    """What `verify` says of a stored file."""
    from prorec.tasks.tracking import store

    _, problems = store.verify_all()
    # MLflow keeps what belongs to a run, or to a model, in `ID/artifacts`.
    owner = file.parts[-1 - file.parts[::-1].index("artifacts") - 1]
    named = [each for each in problems if str(file) in each or owner in each]
    return Outcome(NAMED, named[0]) if named else Outcome(SILENT, "; ".join(problems))


def stored_kinds(folder: Path) -> dict[str, Kind]:
    """The files in the store: of artifacts by stage, manifests, models and what lies beside runs."""
    from prorec_core.artifacts import MANIFEST

    found: dict[str, list[Path]] = {}
    for path in sorted((folder / "store").rglob("*")):
        if not path.is_file():
            continue
        if "models" in path.parts:
            kind = "files of models"
        elif path.parent.name != "artifact" and "artifact" not in path.parts:
            kind = path.name
        elif path.name == MANIFEST:
            kind = "manifests"
        else:
            manifest = json.loads((Path(*path.parts[: path.parts.index("artifact") + 1]) / MANIFEST).read_bytes())
            kind = f"files of {manifest['stage']}"
        found.setdefault(kind, []).append(path)
    return {kind: Kind(files, refusals_caught(verified)) for kind, files in found.items()}


def rows(file: Path) -> list[str]:
    """All that a database holds, as SQL."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return list(database.iterdump())


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Some variables for a while."""
    with mock.patch.dict(os.environ, values):
        yield


def mlflow_kind(folder: Path, scratch: Path) -> Kind:
    """MLflow's database, used by `verify` and by whoever reads the runs and the models."""
    from prorec.tasks.local import paths
    from prorec.tasks.tracking import mlflow_runs, store

    def read() -> Any:
        mlflow_runs._client.cache_clear()
        problems = store.verify_all()[1]
        runs = {
            run.info.run_id: (run.info.status, run.data.tags, run.data.params, run.data.metrics)
            for run in mlflow_runs.search("")
        }
        models = [
            (
                each.name,
                [(v.version, v.tags) for v in mlflow_runs.client().search_model_versions(f"name='{each.name}'")],
            )
            for each in mlflow_runs.client().search_registered_models()
        ]
        return problems, runs, models

    whole = scratch / "whole" / "mlflow.db"
    whole.parent.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as source, closing(sqlite3.connect(whole)) as target:
        source.backup(target)
    number = iter(range(10**9))

    def look(file: Path) -> tuple[Any, list[str]]:
        """What is read of a copy of it, and what is told meanwhile; MLflow keeps connections to a file open."""
        own = scratch / f"mlflow-{next(number)}"
        own.mkdir()
        if file.exists():
            shutil.copyfile(file, own / "mlflow.db")
        (own / "store").symlink_to(folder / "store")
        # MLflow writes the store that it was last told of into the environment.
        values = {"PROREC_ARTIFACTS": str(own), "MLFLOW_TRACKING_URI": paths.sqlite_uri(own / "mlflow.db")}
        try:
            with environment(**values), warnings_and_notices() as lines:
                return read(), lines
        finally:
            mlflow_runs._client.cache_clear()
            shutil.rmtree(own)

    def use(file: Path) -> Outcome:
        (problems, *found), lines = look(file)
        if problems:
            return Outcome(NAMED, problems[0])
        if found == expected:
            return Outcome(HARMLESS)
        return Outcome(MADE_ANEW, lines[0]) if lines else Outcome(VALUE, "what MLflow holds is another")

    (nothing, *expected), _ = look(whole)
    assert nothing == []
    other = scratch / "other" / "mlflow.db"
    other.parent.mkdir()
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE runs (run_uuid TEXT)")
        database.commit()
    return Kind([whole, other], refusals_caught(use))


def prefect_kind(folder: Path, scratch: Path) -> Kind:
    """Prefect's database, looked at as its server does when it starts, and by `verify`."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

    from prorec.tasks.local import databases, paths

    whole = scratch / "prefect" / "prefect.db"
    whole.parent.mkdir(parents=True)
    with (
        closing(sqlite3.connect(folder / "prefect" / "prefect.db")) as source,
        closing(sqlite3.connect(whole)) as target,
    ):
        source.backup(target)
    expected = rows(whole)

    def use(file: Path) -> Outcome:
        problems = databases.problems(file)
        with (
            warnings_and_notices() as lines,
            temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: paths.sqlite_uri(file, "aiosqlite")}),
        ):
            databases.prepare_prefect()
        if problems:
            return Outcome(NAMED, problems[0])
        found = rows(file)
        if found == expected:
            return Outcome(HARMLESS)
        # Its history is all that it holds: what is cached and where lies elsewhere.
        return Outcome(MADE_ANEW, " ".join(lines)) if len(found) < len(expected) / 2 else Outcome(VALUE)

    other = scratch / "prefect" / "other.db"
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE flow_run (id TEXT)")
        database.commit()
    return Kind([whole, other], refusals_caught(use))


class Kept:
    """What a folder of files holds now, to be put back after each use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contents = {path: path.read_bytes() for path in sorted(folder.iterdir())}
        self.files = list(self._contents)

    def restore(self) -> None:
        for path in self._folder.iterdir():
            path.unlink()
        for path, content in self._contents.items():
            path.write_bytes(content)


def judged(same: bool, otherwise: str, lines: list[str]) -> Outcome:
    """What came of a use whose result must be the same: harmless, or made anew where something was said."""
    if not same:
        return Outcome(SILENT, otherwise)
    return Outcome(MADE_ANEW, lines[0]) if lines else Outcome(HARMLESS)


def checkpoint_kind(scratch: Path) -> Kind:
    """Checkpoints of a training that was cut short; it has to end as if nothing had been."""
    import torch

    from prorec_core.config import Training
    from prorec_core.progress import Progress
    from prorec_core.training.loop import TARGET, train
    from prorec_core.training.runtime import Runtime

    config = Training(epochs=_EPOCHS, learning_rate=0.05, warmup_steps=3, precision="float32")
    folder = scratch / "checkpoints"

    class CutError(Exception):
        pass

    def batches(seed: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(8, 4, generator=generator) for _ in range(3)]

    def fit(place: Path | None, cut: bool) -> Any:
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1))

        def error(batch: torch.Tensor) -> torch.Tensor:
            return (net(batch)[:, 0] - batch.sum(1)).square().mean()

        def report(progress: Progress) -> None:
            if cut and progress.step == _EPOCHS - 1:
                raise CutError

        records = train(
            net,
            lambda batch: {"loss": error(batch)},
            batches,
            lambda: {TARGET: round(-float(error(batches(99)[0])), 6)},
            config,
            7,
            Runtime(torch.device("cpu"), report, place),
        )
        return records, {name: tensor.tolist() for name, tensor in net.state_dict().items()}

    expected = fit(None, cut=False)
    with contextlib.suppress(CutError):
        fit(folder, cut=True)
    kept = Kept(folder)

    def use(file: Path) -> Outcome:
        # The newest alone would do for a training that goes on; the one before has to be asked for.
        newest = kept.files[-1]
        if file != newest:
            newest.unlink(missing_ok=True)
        with warnings_and_notices() as lines:
            found = fit(folder, cut=False)
        kept.restore()
        # A file that is gone is one that never was.
        return judged(found == expected, "the training ended otherwise", lines)

    return Kind(kept.files, refusals_caught(use))


def chunk_kind(scratch: Path) -> Kind:
    """Chunks of a batch of recommendations that was cut short."""
    import numpy as np
    import polars as pl

    from prorec_core.data.histories import FileHistories
    from prorec_core.data.sequences import Sequences
    from prorec_core.generation.batch import BatchSettings, recommend_all
    from prorec_core.generation.recommender import Recommender
    from prorec_core.progress import Progress

    items = [f"i{item}" for item in range(6)]
    place = scratch / "recommendations"
    place.mkdir()

    class Circle(Recommender):
        def __init__(self) -> None:
            nothing: Any = None
            super().__init__(nothing, pl.DataFrame({"item_id": items, "title": items, "train_count": 1}), nothing, 1)

        def _ranked(self, histories: Sequences, k: int, *_: object) -> tuple[Any, Any]:
            starts = histories.items[histories.offsets[1:] - 1] + 1
            ranked = (starts[:, None] + np.arange(k)) % len(items)
            return ranked, np.tile(-np.arange(k, dtype=np.float32), (len(starts), 1))

    pl.DataFrame(
        {"user_id": [f"u{user}" for user in range(10)], "history": [items[: 1 + user % 6] for user in range(10)]}
    ).write_parquet(place / "histories.parquet")
    settings = BatchSettings(k=3, mask_history=True, chunk=4, model="models:/m/1", model_digest="d")

    def recommend(output: Path, stop_at: int = 0) -> str:
        def report(progress: Progress) -> None:
            if progress.step == stop_at:
                raise InterruptedError

        return recommend_all(Circle(), FileHistories(place / "histories.parquet"), settings, output, report).sha256

    expected = recommend(place / "whole.parquet")
    output = place / "out.parquet"
    with contextlib.suppress(Exception):
        recommend(output, stop_at=8)
    parts = place / ".out.parquet.parts"
    kept = Kept(parts)

    def use(file: Path) -> Outcome:
        with warnings_and_notices() as lines:
            found = recommend(output)
        output.unlink()
        parts.mkdir()
        kept.restore()
        return judged(found == expected, "other rows", lines)

    return Kind(kept.files, refusals_caught(use))


def study_kind(scratch: Path) -> Kind:
    """The database of a tuning."""
    from optuna.distributions import FloatDistribution

    from prorec.tasks.local import databases
    from prorec.tasks.tuning.study import open_study

    ranges = {"rate": FloatDistribution(0.0, 1.0)}
    number = iter(range(10**9))

    def trials(name: str, wanted: int) -> list[Any]:
        with open_study(name, {"align.epochs": 3}, ranges, 7, prune=False) as study:
            while study.ended < wanted:
                attempt = study.next({"rate": 0.5})
                assert attempt is not None
                attempt.complete({1: 1 - abs(attempt.values["rate"] - 0.2)})
            return [(each["values"], each["state"], each["value"]) for each in study.trials()]

    base = scratch / "study"
    with environment(PROREC_ARTIFACTS=str(base)):
        expected = trials("s", 6)
        trials("other", 2)
    files = [base / "studies" / "s.db", base / "studies" / "other.db"]

    def use(file: Path) -> Outcome:
        own = scratch / f"study-{next(number)}"
        (own / "studies").mkdir(parents=True)
        if file.exists():
            shutil.copyfile(file, own / "studies" / "s.db")
        try:
            problems = databases.problems(own / "studies" / "s.db")
            if problems:
                return Outcome(NAMED, problems[0])
            with environment(PROREC_ARTIFACTS=str(own)):
                found = trials("s", 6)
            if found == expected:
                return Outcome(HARMLESS if file.exists() else MADE_ANEW)
            return Outcome(VALUE)
        finally:
            shutil.rmtree(own)

    return Kind(files, refusals_caught(use))


def download_kind(folder: Path, scratch: Path) -> Kind:
    """Local copies of artifacts of a store elsewhere: here the store of this machine, taken for one."""
    from prorec.tasks.local import paths
    from prorec.tasks.tracking import mlflow_runs, store
    from prorec_core.artifacts import MANIFEST, sha256_file, verify

    refs = [store._ref_of(run) for run in mlflow_runs.search("") if store.is_stored(run)][:4]

    def download(uri: str, place: Path) -> None:
        source = Path(uri.removeprefix("file://"))
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place)

    elsewhere = mock.patch.multiple(store, _download=download)
    nowhere = mock.patch.object(paths, "local_path", lambda _: None)
    uri = paths.tracking_uri()
    values = {paths.ARTIFACTS_VARIABLE: str(scratch / "elsewhere"), "MLFLOW_TRACKING_URI": uri}
    with environment(**values), elsewhere, nowhere:
        folders = {store.fetch(ref): ref for ref in refs}
    files = sorted(path for place in folders for path in place.rglob("*") if path.is_file())
    hashes = {path: sha256_file(path) for path in files}

    def use(file: Path) -> Outcome:
        place = next(each for each in folders if each in file.parents)
        with environment(**values), elsewhere, nowhere, warnings_and_notices() as lines:
            found = store.fetch(folders[place])
        if found != place or verify(found) or sha256_file(file) != hashes[file]:
            return Outcome(SILENT)
        if not lines and file.name == MANIFEST:
            # It may be another artifact's of the same files: it is fetched, and nothing is said.
            return Outcome(HARMLESS)
        return Outcome(MADE_ANEW, lines[0]) if lines else Outcome(SILENT, "nothing was said")

    return Kind(files, refusals_caught(use))


def reference_kind(folder: Path, run: Callable[[int], Sequence[str]]) -> Kind:
    """Cached references, used by a run of the whole pipeline in which all is cached."""
    kept = Kept(folder / "prefect" / "references")
    expected = run(0)

    def use(file: Path) -> Outcome:
        with warnings_and_notices() as lines:
            found = run(0)
        kept.restore()
        # What is lost, or no reference at all, is looked up by its key.
        return judged(found == expected, "other digests", lines)

    return Kind(kept.files, refusals_caught(use))


def small_store(folder: Path) -> None:
    """Two artifacts and what lies beside a run, without a pipeline."""
    from prorec.tasks.tracking import mlflow_runs, store
    from prorec.tasks.tracking.mlflow_runs import TrackedRun
    from prorec_core.artifacts import MANIFEST, write_manifest

    for number in range(2):
        work = folder / f"work-{number}"
        (work / "below").mkdir(parents=True)
        (work / "a.txt").write_text(f"a{number}" * 50)
        (work / "below" / "b.txt").write_text(f"b{number}" * 50)
        manifest = write_manifest(work, "preprocess", {"seed": number}, {})
        run = TrackedRun.start(
            mlflow_runs.experiment_id("small"), "preprocess", tags={mlflow_runs.EXPERIMENT_TAG: "small"}
        )
        run.text(mlflow_runs.EXPERIMENT_FILE, json.dumps({"seed": number}))
        run.text(mlflow_runs.SUMMARY_FILE, json.dumps({"stages": number}))
        run.upload(work, last=MANIFEST)
        run.tags(
            {
                store.STAGE_TAG: "preprocess",
                **store.tags_of(run.artifact_uri, work, manifest),
            }
        )
        run.finish()
        shutil.rmtree(work)


@contextlib.contextmanager
def pipeline(folder: Path) -> Iterator[Callable[[int], Sequence[str]]]:
    """Runs a tiny experiment with a seed in this folder, and returns its digests."""
    from tests.campaigns.kills import EXPERIMENT

    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    from prorec.flows.local.embedded import start_prefect

    start_prefect()()
    from prorec.flows.full import prorec
    from prorec_core.config import Experiment

    def run(seed: int) -> Sequence[str]:
        summary = prorec(experiment=Experiment.model_validate({**EXPERIMENT, "seed": seed}))
        return [stage["digest"] for stage in summary["stages"]]

    for seed in (0, 1):
        run(seed)
    yield run


def kinds(folder: Path, scratch: Path, run: Callable[[int], Sequence[str]] | None) -> Mapping[str, Kind]:
    """All kinds of files; without a pipeline those that need none."""
    found = {
        **stored_kinds(folder),
        "mlflow.db": mlflow_kind(folder, scratch),
        "checkpoints": checkpoint_kind(scratch),
        "chunks of a batch": chunk_kind(scratch),
        "study": study_kind(scratch),
        "downloads": download_kind(folder, scratch),
    }
    if run is not None:
        found |= {"cached references": reference_kind(folder, run), "prefect.db": prefect_kind(folder, scratch)}
    return found


def campaign(
    every: Mapping[str, Kind], seed: int, go_on: Callable[[int], bool], damages: Sequence[str] = DAMAGES
) -> Figures:
    """Damage one file of each kind after the other, each in every way, for as many turns as are wanted."""
    draw, figures, turn = random.Random(seed), Figures(), 0
    while go_on(turn):
        damage = damages[turn % len(damages)]
        for name, kind in every.items():
            # A database's other file is there to be swapped with.
            file = kind.files[0] if name in DATABASES else draw.choice(kind.files)
            content = file.read_bytes()
            if damaged(file, damage, draw, kind.files):
                figures.add(name, damage, file, kind.use(file))
            file.unlink(missing_ok=True)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        turn += 1
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Damage files for as long as is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.corruption", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="a store of two small artifacts, made without a pipeline")
    parser.add_argument("--only", help="a kind of file")
    parser.add_argument("--damage", choices=DAMAGES, help="this kind of damage alone")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="prorec-corruption-") as place, contextlib.ExitStack() as stack:
        folder, scratch = Path(place) / "artifacts", Path(place) / "scratch"
        folder.mkdir()
        scratch.mkdir()
        os.environ["PROREC_ARTIFACTS"] = str(folder)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        run = None
        if given.small:
            small_store(folder)
        else:
            run = stack.enter_context(pipeline(folder))
        every = {name: kind for name, kind in kinds(folder, scratch, run).items() if given.only in {None, name}}
        damages = [given.damage] if given.damage else DAMAGES
        until = time.monotonic() + given.seconds
        figures = campaign(every, given.seed, lambda _: time.monotonic() < until, damages)
        print(json.dumps(figures.table(), indent=1))
    sys.exit(bool(figures.failures))


if __name__ == "__main__":
    main()
