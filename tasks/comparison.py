"""What a comparison gathers from its variants' artifacts, and what it leaves. Knows refs, runs and files of stages."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.tracking import mlflow_runs, store
from prorec.tasks.tracking.metrics import numbers
from prorec.tasks.tracking.mlflow_runs import TrackedRun, client
from prorec.tasks.tracking.retries import retrying
from prorec_core.artifacts import MANIFEST, ArtifactRef, read_json, write_bytes, write_json, write_manifest
from prorec_core.config import Experiment
from prorec_core.stages.inputs import read_quantized

if TYPE_CHECKING:
    from prorec_core.evaluation.variants import Measured

_WITHOUT_USE = {
    "semantic": {"train_collaborative", "align"},
    "collaborative": {"align"},
    "concatenation": {"align"},
}
"""By quantized embedding the stages that a pipeline runs all the same and whose result its generator does not use."""

Refs = Mapping[str, ArtifactRef]
"""The artifacts of one variant by stage, or by "stage@side" where it is made of two pipelines."""


def gather(variant: str, seed: int, scorer: str, refs: Refs, run: Mapping[str, str | None]) -> Measured:
    """What a comparison needs to know of one variant with one seed.

    Raises:
        UserError: an artifact is gone or damaged.
    """
    from prorec_core.evaluation.measured import NEW_ITEMS, Evaluation
    from prorec_core.evaluation.variants import Measured, quantized_domination
    from prorec_core.metrics.scorers import ranked_baselines

    folders = {name: store.fetch(ref) for name, ref in refs.items()}
    evaluation = Evaluation.load(next(path for name, path in folders.items() if name.startswith("evaluate")))
    sides: dict[str, dict[str, Path]] = {}
    for name, path in folders.items():
        stage, _, side = name.partition("@")
        sides.setdefault(side, {})[stage] = path
    needless = {side: _WITHOUT_USE.get(_embedding(inputs), set()) for side, inputs in sides.items()}
    # What draws pages is no part of a method.
    used = [
        ref
        for name, ref in refs.items()
        if name.partition("@")[0] not in needless[name.partition("@")[2]] and not name.startswith("report")
    ]
    alone, domination = sides[""], {}
    not_applied = [
        f"{text} in the {side} stream" if side else text
        for side, inputs in sides.items()
        if "train_generator" in inputs
        for text in read_json(inputs["train_generator"] / "config.json")["not_applied"]
    ]
    if "align" in alone:
        domination = quantized_domination(read_json(alone["align"] / "domination.json"), _embedding(alone))
    return Measured(
        variant=variant,
        seed=seed,
        scorer=scorer,
        metrics=evaluation.metrics,
        ranks=evaluation.test_ranks,
        new_item_ranks=evaluation.new_item_ranks,
        owners=evaluation.owners("test"),
        new_item_owners=evaluation.owners(NEW_ITEMS),
        seconds={ref.run_id: _seconds(ref) for ref in used},
        parameters=sum(_parameters(inputs, with_ranker=not side) for side, inputs in sides.items())
        # A generator's ranker is part of its weights.
        + ((evaluation.metrics["ranker"] or {}).get("numbers", 0) if scorer in ranked_baselines() else 0),
        quality=read_json(alone["quantize"] / "quality.json") if "quantize" in alone else {},
        domination=domination,
        not_applied=not_applied,
        run=run,
        made_with=frozenset(_made_with(path) for name, path in folders.items() if _is_training(name)),
    )


def _is_training(name: str) -> bool:
    stage = STAGES.get(name.partition("@")[0])
    return stage is not None and stage.validates


def _embedding(inputs: Mapping[str, Path]) -> str:
    """Which embedding a pipeline's generator quantizes, as its artifact says; integrated where it has none."""
    if "train_generator" not in inputs:
        return "integrated"
    return str(read_json(inputs["train_generator"] / MANIFEST)["config"]["quantize.embedding"])


def _made_with(folder: Path) -> str:
    """Kind of device, number format, and how steps ran where it was not as they are, of a training, in words."""
    made_with = read_json(folder / MANIFEST)["made_with"]
    said = [made_with[name] for name in ("device", "number_format", "steps") if name in made_with]
    return ", ".join([*said, *([f"{made_with['workers']} workers"] if "workers" in made_with else [])])


def _seconds(ref: ArtifactRef) -> float:
    return float(retrying(client().get_run, ref.run_id).data.metrics.get("seconds", 0.0))


def _parameters(inputs: Mapping[str, Path], *, with_ranker: bool) -> int:
    """Numbers that recommending needs: the weights of the model, and the tables of items that it reads."""
    from prorec_core.data.embeddings import read_embeddings
    from prorec_core.generation.trained import NETWORK, RANKER, network_of
    from prorec_core.training.checkpoint import load_tensors

    for stage in ("train_generator", "align", "train_collaborative"):
        if stage in inputs:
            tensors = load_tensors(inputs[stage] / "model.safetensors")
            weights = sum(
                tensor.numel()
                for name, tensor in tensors.items()
                if not name.startswith(f"{RANKER}{NETWORK}") and (with_ranker or not name.startswith(RANKER))
            )
            if with_ranker and stage == "train_generator" and (network := network_of(tensors)) is not None:
                weights += network.numbers
            if stage == "train_generator":
                return weights + read_quantized(_embedding(inputs), inputs).size
            return weights + read_embeddings(inputs[stage] / "embeddings.parquet", stage).size
    return 0


def keep(
    run: TrackedRun,
    experiment: Experiment,
    found: Mapping[str, Any],
    config: Mapping[str, Any],
    upstream: Mapping[str, str],
) -> None:
    """Leave the comparison as an artifact of its run: table, report and plots; and its figures as metrics.

    To be called again as more is known; what is there is replaced.
    """
    from prorec_core.reports.comparison.page import plot_files, render, table_markdown

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_json(folder / "comparison.json", found)
        write_bytes(folder / "comparison.md", table_markdown(found).encode())
        write_bytes(folder / "report.html", render(found, experiment.name, experiment.model_dump(mode="json")).encode())
        for name, png in plot_files(found).items():
            write_bytes(folder / "plots" / name, png)
        manifest = write_manifest(folder, store.COMPARISON, config, upstream)
        run.upload(folder, last=MANIFEST)
        described = store.tags_of(run.artifact_uri, folder, manifest)
    run.metrics(_figures(found))
    run.tags(
        {
            store.STAGE_TAG: store.COMPARISON,
            **described,
            mlflow_runs.NOTE_TAG: table_markdown(found),
            mlflow_runs.REPORT_TAG: f"{run.artifact_uri}/report.html",
        }
    )


def _figures(found: Mapping[str, Any]) -> dict[str, float]:
    """Means, deviations and intervals by path: variant, split, metric."""
    figures: dict[str, float] = {}
    for variant, about in found["variants"].items():
        figures |= numbers(
            {part: about[part] for part in ("test", "validation", "against", "new_items", "cost")}, f"{variant}/"
        )
    return figures
