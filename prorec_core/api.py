"""PRORec in a notebook or a script: read data, train, and open what was trained.

Knows experiments and folders; knows nothing of caches, tracking or servers. The same experiment leaves the same files
as `prorec run`, which runs the same bodies.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import ValidationError

from prorec_core.config import Experiment
from prorec_core.data.dataset import Dataset
from prorec_core.data.stage import preprocess
from prorec_core.errors import UserError
from prorec_core.run import Run, folder_of
from prorec_core.stages.in_folder import StagesInFolder, Tell, read_experiment


def load_data(experiment: Experiment) -> Dataset:
    """Read the data of an experiment as training would, filtered and in order of time, and keep nothing.

    Args:
        experiment: its section `data` says where the data are; `Experiment()` is the built-in shop.

    Raises:
        UserError: files, columns or values that cannot be used, or nothing left after filtering.
    """
    return preprocess(_checked(experiment).data)


def train(
    experiment: Experiment,
    folder: str | Path | None = None,
    *,
    until: str = "train_generator",
    tell: Tell | None = None,
    quiet: bool = False,
) -> Run:
    """Run the stages of an experiment in this process, one after the other.

    In a folder that holds finished stages of the same experiment these are taken as they are, and a training that was
    stopped goes on from its last epoch. Nothing tells here that code or libraries have changed since: the cache of
    `prorec run` does. Of several threads that train in one process, each waits for the other's stage: a stage draws
    from torch's generators, which are the caller's again when it is done.

    Args:
        experiment: what is trained.
        folder: where each stage leaves its files, in a folder of its name; by default one that is removed with the
            `Run`.
        until: the last stage: preprocess, embed_text, train_collaborative, align, quantize, train_generator, evaluate.
        tell: called with the name of a stage and its `Progress` after each epoch or step.
        quiet: print neither progress nor remarks.

    Raises:
        UserError: a mistake in the experiment or its data; a folder that holds another experiment or other things
            under the name of a stage, or data that have changed since; another process that trains in the folder.
    """
    experiment = _checked(experiment)
    if folder is not None:
        run = Run(StagesInFolder(folder_of(folder), experiment, tell, quiet=quiet))
    else:
        scratch = tempfile.TemporaryDirectory(prefix="prorec-")
        run = Run(StagesInFolder(Path(scratch.name), experiment, tell, quiet=quiet), scratch)
    run.train(until)
    return run


def open_run(folder: str | Path, device: str | None = None) -> Run:
    """What `train` left in a folder.

    Args:
        folder: where it is.
        device: where to compute from now on: auto, cpu, cuda, cuda:N or mps; by default as it was trained.

    Raises:
        UserError: there is no experiment, a newer version of this software wrote it, or the device is none.
    """
    place = folder_of(folder)
    found = read_experiment(place)
    if device is not None:
        found = _checked(found.model_copy(update={"device": device}))
    return Run(StagesInFolder(place, found))


def _checked(given: Experiment) -> Experiment:
    """The experiment, looked at once more: a copy of one may have been given what it cannot have.

    Raises:
        UserError: it has, or is none.
    """
    if not isinstance(given, Experiment):
        raise UserError(f"this is no Experiment but of type {type(given).__name__}", cure="Give Experiment(…)")
    # What it was given that no experiment has stands beside its fields.
    values = {**vars(given), **given.model_dump(warnings=False)}
    try:
        found = Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(first["msg"], place=".".join(map(str, first["loc"])), cure="Correct it") from None
    return given if found == given else found
