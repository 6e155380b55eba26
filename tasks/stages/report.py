"""Stage `report`: the page of an evaluation, its plots and its table. Ranks nobody: it draws what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prorec.tasks.execution.stage import Stage, Work
from prorec.tasks.stages.evaluate import evaluate
from prorec_core.stages.inputs import read_dataset, read_sources

if TYPE_CHECKING:
    from pathlib import Path

    from prorec_core.config import Experiment

_EXPERIMENT = (
    *("name", "seed", "train_on_validation"),
    *("data", "text", "collaborative", "align", "quantize", "generator", "evaluate"),
)
_TRAININGS = ("train_collaborative", "align", "train_generator")


def draw(work: Work) -> None:
    """Draw the report of the one evaluation among what is read, with whatever else is there beside it."""
    from prorec_core.artifacts import write_bytes
    from prorec_core.evaluation.measured import Evaluation
    from prorec_core.generation.ranker_file import RANKER_FILE
    from prorec_core.quantization.quantized import CodeTable
    from prorec_core.reports.background import Background
    from prorec_core.reports.evaluation import plot_files, render
    from prorec_core.reports.tables import ranker_file, result_markdown

    experiment, inputs = work.experiment, work.inputs
    evaluated = next(name for name in inputs if name.startswith(evaluate.name))
    whole = evaluated == evaluate.name
    background = Background(
        config=experiment.evaluate,
        dataset=read_dataset(work),
        seed=experiment.seed,
        name=experiment.name if whole else evaluated.removeprefix(f"{evaluate.name}_"),
        training={name: _json(inputs[name] / "training.json")["epochs"] for name in _TRAININGS if name in inputs},
        quality=_json(inputs["quantize"] / "quality.json") if "quantize" in inputs else {},
        codes=CodeTable.load(inputs["quantize"] / "codes.parquet").codes if "quantize" in inputs else None,
        domination=_json(inputs["align"] / "domination.json") if "align" in inputs else {},
        sources=read_sources(inputs["embed_text"]) if "embed_text" in inputs else (),
        experiment=dict(work.config) if whole else {},
    )
    evaluation = Evaluation.load(inputs[evaluated], lists=True)
    write_bytes(work.folder / "report.html", render(background, evaluation).encode())
    write_bytes(work.folder / "result.md", result_markdown(evaluation.metrics).encode())
    if whole and (file := ranker_file(evaluation.metrics, experiment.name)):
        write_bytes(work.folder / file, (inputs["train_generator"] / RANKER_FILE).read_bytes())
    for name, png in plot_files(background, evaluation).items():
        write_bytes(work.folder / "plots" / name, png)


def _json(path: Path) -> Any:
    from prorec_core.artifacts import read_json

    return read_json(path)


def _if_it_goes_on(experiment: Experiment) -> tuple[str, ...]:
    """What somebody who reads of a training has to know where it goes on from another."""
    return ("start_from", "continuing") if experiment.start_from else ()


def report_of(evaluation: Stage) -> Stage:
    """The stage that draws what an evaluation measured."""
    return Stage(
        name=evaluation.name.replace(evaluate.name, "report"),
        reads=(*(name for name in evaluation.reads if "@" not in name), evaluation.name),
        body=draw,
        module=__name__,
        config=_EXPERIMENT,
        besides=_if_it_goes_on,
        libraries=("matplotlib", "jinja2", "numpy", "torch", "scipy", "polars"),
    )


report = report_of(evaluate)
