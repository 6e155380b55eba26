"""Lists that other programs made, as variants. Knows names and files; knows nothing of what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prorec.flows.configuration.variants import Plan, Variant, Variants, joined
from prorec_core.data.dataset import Dataset
from prorec_core.errors import UserError
from prorec_core.evaluation.given import read_given
from prorec_core.evaluation.given_table import file_of
from prorec_core.metrics.scorers import GIVEN
from prorec_core.paths import path_of
from prorec_core.stages.inputs import held_back


def with_lists(known: Variants, given: Sequence[str]) -> tuple[Variants, list[str]]:
    """Variants, and after them those that lists of other programs are.

    Args:
        known: the variants.
        given: NAME=FILE of each.

    Returns:
        All of them, and the names of the latter.

    Raises:
        UserError: one is not written so, or its name is another's or cannot be one.
    """
    found: dict[str, Variant] = {}
    for text in given:
        name, sign, file = text.partition("=")
        if not sign or not name or not file:
            raise UserError(f"'{text}' is no NAME=FILE", place="--lists", cure="Write --lists theirs=theirs.parquet")
        if name in known.variants or name in found:
            raise UserError(f"there is a variant '{name}' already", place="--lists", cure="Give it another name")
        path = path_of(file).absolute()
        about = f"lists that another program made, {path.name}"
        found[name] = Variant(about=about, scorer=GIVEN, set={"evaluate.lists_file": str(path)})
        # As in a file of variants: it is one's own, and mistakes in it are told with the option.
        found[name].stands_in(Path("--lists"))
    return joined(known, Variants(variants=found), "--lists"), list(found)


def expect_lists(plan: Plan, dataset: Dataset) -> None:
    """Read the lists of other programs, each file once, so that what is wrong is told before anything is trained.

    Args:
        plan: what is to be compared.
        dataset: what all are measured on.

    Raises:
        UserError: says what is wrong with them.
    """
    files = {file_of(each.evaluate, seed): (each, seed) for (_, seed), each in plan.given().items()}
    for experiment, seed in files.values():
        read_given(experiment.evaluate, seed, held_back(dataset, experiment))
