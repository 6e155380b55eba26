"""A ranker that one model has and another is given: its weights, or a file with the network that goes on from them too.

Knows that file, its features by name and its numbers; knows neither what a ranker is fitted on nor how one ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from prorec_core.artifacts import write_bytes
from prorec_core.config import GeneratorConfig
from prorec_core.errors import UserError
from prorec_core.generation.features import EARLIER, FEATURES, OWN, named_features
from prorec_core.paths import path_of
from prorec_core.sections import Section

RANKER_FILE = "ranker.json"
"""Its name in what `train_generator` leaves; beside a report the name of the experiment stands before it."""
_CURE = "Copy the file once more from beside the report of the run that fitted it"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# What a training may come to, and float32 can hold.
_Numbers = Annotated[list[Annotated[float, Field(ge=-1e30, le=1e30)]], Field(min_length=1)]


class GivenNetwork(Section):
    """The network of all users: each part by the name that `Network` has for it, without its axes."""

    centre: _Numbers
    spread: list[Annotated[float, Field(gt=0, le=1e30)]]
    linear: _Numbers
    first: list[_Numbers]
    first_bias: _Numbers
    second: list[_Numbers]
    second_bias: _Numbers
    last: _Numbers


class GivenRanker(Section):
    """A ranker that was fitted elsewhere: features by name, a weight each, and the network that goes on from these."""

    features: list[str]
    weights: _Numbers
    network: GivenNetwork | None = None


def save_ranker(path: Path, ranker: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Write a ranker.

    Args:
        path: the file.
        ranker: its `features` and `weights`.
        network: the parts of the network of all users, by the names of `GivenNetwork`.
    """
    # Not held against anything here: no training is to end with what it has found.
    found = {"features": list(ranker["features"]), "weights": list(ranker["weights"]), "network": network}
    write_bytes(path, (json.dumps(found, sort_keys=True) + "\n").encode())


def given_ranker(config: GeneratorConfig, *, own: bool) -> GivenRanker | None:
    """The ranker that a configuration gives, in a file or by its weights; None where it gives none.

    Args:
        config: of the generator.
        own: whether a history may be recommended again, so that a ranker looks at it.

    Raises:
        UserError: there is no such file, or what is given is no ranker of these features.
    """
    if config.ranker_weights is not None:
        names = _of_weights(len(config.ranker_weights), own=own)
        return GivenRanker(features=list(names), weights=config.ranker_weights)
    if config.ranker_file is None or not config.ranker:
        return None
    place = f"generator.ranker_file={config.ranker_file}"
    try:
        found = GivenRanker.model_validate_json(_content(config.ranker_file).removeprefix(_BYTE_ORDER_MARK))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"this is no ranker ({where}: {first['msg']})" if where else f"this is no ranker ({first['msg']})"
        raise UserError(problem, place=place, cure=_CURE) from error
    wanted = named_features(own=own)
    # An earlier version's ranker looks at less.
    if tuple(found.features) not in (wanted, named_features(own=own, later=False)):
        why = (
            f" with evaluate.mask_history={'false' if own else 'true'}"
            if set(found.features) <= {*FEATURES, *OWN}
            else ""
        )
        raise UserError(
            f"it ranks by {', '.join(found.features) or 'nothing'}, and this experiment{why} by {', '.join(wanted)}",
            place=place,
            cure="Take the file of a run that differs from this one in train_on_validation alone",
        )
    if len(found.weights) != len(found.features):
        raise UserError(
            f"this is no ranker ({len(found.features)} features have {len(found.weights)} weights)",
            place=place,
            cure=_CURE,
        )
    if found.network is not None:
        _check_shapes(found.network, len(found.features), place)
    return found


def _of_weights(count: int, *, own: bool) -> tuple[str, ...]:
    """The features of so many weights that are given without names: a ranker of today, or of an earlier version."""
    choices = [named_features(own=own), named_features(own=own, later=False), EARLIER]
    found = next((names for names in choices if len(names) == count), None)
    if found is None:
        raise UserError(
            f"there are {count} weights, and this experiment ranks by {', '.join(choices[0])}",
            place="generator.ranker_weights",
            cure="Give one weight a feature, in this order, as the report of the run has them that fitted them",
        )
    return found


def digest(config: GeneratorConfig) -> str:
    """Hex sha256 of the file that a configuration gives; "" where it gives none.

    Raises:
        UserError: there is no such file.
    """
    return "" if config.ranker_file is None else hashlib.sha256(_content(config.ranker_file)).hexdigest()


def _content(given: str) -> bytes:
    try:
        return path_of(given).read_bytes()
    except OSError as error:
        problem = error.strerror or error
        raise UserError(
            "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({problem})",
            place=f"generator.ranker_file={given}",
            cure="Name the file that a run left whose ranker has a network; a relative path begins in the folder of "
            "the command",
        ) from error


def _check_shapes(network: GivenNetwork, n_features: int, place: str) -> None:
    n_hidden = len(network.last)
    shapes = {
        "centre": (n_features,),
        "spread": (n_features,),
        "linear": (n_features,),
        "first": (n_features, n_hidden),
        "first_bias": (n_hidden,),
        "second": (n_hidden, n_hidden),
        "second_bias": (n_hidden,),
    }
    for name, shape in shapes.items():
        rows = getattr(network, name)
        if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows if len(shape) > 1):
            raise UserError(
                f"this is no ranker (network.{name} has not the shape {' × '.join(map(str, shape))})",
                place=place,
                cure=_CURE,
            )
