"""A registered version as a folder that needs no store: its files, and a card that says what it is and how good.

Knows the bundle of a model, evaluations and the form of cards that the Hugging Face hub shows. Knows nothing of how
models are trained or served.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec.tasks.registry import models, recommenders
from prorec.tasks.registry.models import Version
from prorec.tasks.tracking import store
from prorec_core.artifacts import expect_empty, new_folder, read_json
from prorec_core.errors import UserError
from prorec_core.generation.catalogue import Catalogue
from prorec_core.metrics import scorers
from prorec_core.metrics.table import columns, figure, label
from prorec_core.visible import in_markdown

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
_OF_NORMAL = 1.96
"""Standard errors on each side that hold 95%."""


def export(uri: str, folder: Path) -> list[Path]:
    """Write a version's files and its card into a folder that is not there yet, or is empty: all of it or nothing.

    What is written is what `prorec_core.Recommender.load` reads, and a card.

    Returns:
        The files.

    Raises:
        UserError: there is no such version, its files are damaged, or the folder holds something.
    """
    from prorec_core.serving import BUNDLE

    expect_empty(folder)
    version = models.named(uri)
    registered = recommenders.find(version.uri)
    bundle = store.fetch_model(registered.location, registered.manifest_sha256) / "artifacts" / BUNDLE
    with new_folder(folder) as beside:
        shutil.copytree(bundle, beside)
        (beside / CARD).write_text(card(version, beside), encoding="utf-8")
    return sorted(folder.iterdir())


def push(folder: Path, repository: str, *, public: bool) -> str:
    """Upload an exported folder to the Hugging Face hub, into a repository that is made where it is not there.

    The token is the hub's own affair: `HF_TOKEN`, or what `hf auth login` stored.

    Args:
        folder: what `export` wrote.
        repository: OWNER/NAME.
        public: whether a repository that is made is for everybody's eyes.

    Returns:
        The address of the commit.

    Raises:
        UserError: there is no token, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if not get_token():
        raise UserError(
            "there is no token of the Hugging Face hub", place="--push", cure="Set HF_TOKEN, or run `hf auth login`"
        )
    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        done = api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Model by PRORec")
    except HFValidationError as error:
        raise UserError(f"'{repository}' names no repository", place="--push", cure="Give OWNER/NAME") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the hub took nothing: {first}", place=f"--push {repository}", cure=f"The export is whole in {folder}"
        ) from error
    return str(done.commit_url)


def card(version: Version, bundle: Path) -> str:
    """The model card in Markdown, with the hub's own fields before it.

    Args:
        version: the registered version.
        bundle: its files.
    """
    from huggingface_hub import ModelCardData

    evaluation = version.artifact("evaluate")
    metrics = _metrics(version)
    facts = ModelCardData(
        library_name="prorec",
        tags=["recommender-system", "generative-recommendation", "sequential-recommendation"],
        model_name=version.name,
        eval_results=list(_results(version, metrics)) or None,
    )
    return "\n".join(
        [
            "---",
            facts.to_yaml().strip(),
            "---",
            "",
            f"# {version.name}, version {version.number}",
            "",
            "A generative recommender: each item is a tuple of codes that fuses what its text says with how people use "
            "it, and the model writes the codes of the item that comes next.",
            "",
            *_data(bundle),
            "",
            *_quality(metrics, measured=evaluation is not None),
            *_measured_of(version),
            "",
            *_use(bundle),
            "",
            *_limits(metrics),
            "",
        ]
    )


def _metrics(version: Version) -> Mapping[str, Any]:
    """What its evaluation measured; nothing where it is gone or the version was never evaluated."""
    evaluation = version.artifact("evaluate")
    if evaluation is None or store.check(evaluation):
        return {}
    found: dict[str, Any] = read_json(store.fetch(evaluation) / "metrics.json")
    return found


def _results(version: Version, metrics: Mapping[str, Any]) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    # Figures of another version are told in words alone.
    if not metrics or models.EVALUATION_OF_TAG in version.tags:
        return
    test = metrics["test"][models.served_scorer(metrics)]
    name = version.tags.get(models.EXPERIMENT_TAG, version.name)
    for metric in columns("headline"):
        yield EvalResult(
            task_type="other",
            task_name="next-item recommendation",
            dataset_type=name,
            dataset_name=name,
            dataset_split="test",
            metric_type=metric,
            metric_name=label(metric),
            metric_value=round(test[metric], 6),
        )


def _data(bundle: Path) -> Iterator[str]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    items = pq.read_table(bundle / "items.parquet")
    withdrawn = int(Catalogue.load(bundle, items.num_rows).withdrawn.sum())
    codes, kept = pq.read_metadata(bundle / "codes.parquet").num_rows, (bundle / "attributes.parquet").is_file()
    yield "## Data"
    yield ""
    yield (
        f"{items.num_rows:,} items with {codes:,} code tuples, {pc.sum(items['train_count']).as_py():,} interactions "
        "to learn from. `items.parquet` holds ids, titles and whole texts of the items and how often each was taken, "
        "`texts.parquet` vectors of the texts: publish them only if you may."
        + (" `attributes.parquet` holds ids and the columns kept for rules." if kept else "")
        + (f" {withdrawn:,} of the items are withdrawn: never recommended, but named there." if withdrawn else "")
    )


def _quality(metrics: Mapping[str, Any], *, measured: bool) -> Iterator[str]:
    yield "## Quality"
    yield ""
    if not metrics:
        yield "Its evaluation is no longer at hand." if measured else "It was not evaluated."
        return
    protocol = metrics["protocol"]
    recommends = models.served_scorer(metrics)
    yield (
        f"Test ({protocol['split']}), {protocol['test_users']:,} users, the {protocol['catalogue']} catalogue of "
        f"{protocol['items']:,} items, seed {protocol['seed']}; it recommends by `{recommends}`. In brackets 95% "
        "intervals over users."
    )
    if protocol.get("trained_on_validation"):
        yield ""
        yield "Trained on the validation items too: these figures are not comparable with others'."
    shown = columns("headline")
    yield ""
    yield f"| scorer | {' | '.join(map(label, shown))} |"
    yield f"| --- |{' ---: |' * len(shown)}"
    for name, values in metrics["test"].items():
        cells = " | ".join(_with_interval(metric, values) for metric in shown)
        yield f"| {in_markdown(scorers.label(name))} | {cells} |"


def _measured_of(version: Version) -> Iterator[str]:
    if of := version.tags.get(models.EVALUATION_OF_TAG):
        yield ""
        yield f"Items were added or withdrawn since without training: the figures are those of {of}."


def _with_interval(metric: str, values: Mapping[str, float]) -> str:
    value, error = values[metric], values.get(f"{metric}_standard_error")
    if error is None:
        return figure(metric, value)
    low, high = value - _OF_NORMAL * error, value + _OF_NORMAL * error
    return f"{figure(metric, value)} ({figure(metric, low)} to {figure(metric, high)})"


def _use(bundle: Path) -> Iterator[str]:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pq.read_table(bundle / "items.parquet", columns=["item_id"])["item_id"]
    first = ids.filter(pa.array(~Catalogue.load(bundle, len(ids)).withdrawn)).slice(0, 2).to_pylist()
    yield "## Use"
    yield ""
    yield "```python"
    yield "from prorec_core import Recommender"
    yield ""
    yield 'recommender = Recommender.load(".")  # this folder'
    yield f"for item in recommender.recommend([{json.dumps(first)}], k=10)[0]:"
    yield "    print(item.item_id, item.title, item.score)"
    yield "```"


def _limits(metrics: Mapping[str, Any]) -> Iterator[str]:
    from prorec_core.reports.tables import leak_line, unseen_line

    yield "## Limits"
    yield ""
    yield "- It knows the items in `items.parquet` and no others."
    yield "- It reads what somebody did in order; it knows neither prices nor stock nor who somebody is."
    yield "- What many people bought it recommends more often than what few did."
    if metrics:
        told = (leak_line(metrics["protocol"]), unseen_line(metrics["protocol"]))
        yield from (f"- {text}." for text in told if text)
