"""A ranker in a file, as one model has it, for another that trains on the users whom it would be fitted on.

Knows that file; knows nothing of what a ranker is fitted on. Axes: F features, H hidden units, G networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, ValidationError

from prorec_core.artifacts import write_bytes
from prorec_core.config import GeneratorConfig
from prorec_core.errors import UserError
from prorec_core.generation.ranker_net import Network
from prorec_core.generation.relations import named_features
from prorec_core.sections import Section

_CURE = "Take the file from its report again"

_Numbers = list[Annotated[float, Field(ge=-1e6, le=1e6)]]


class _Network(Section):
    """The network of all users, each part by the name that `Network` has for it, without its axes."""

    centre: _Numbers
    spread: list[Annotated[float, Field(ge=1e-9, le=1e6)]]
    linear: _Numbers
    first: list[_Numbers]
    first_bias: _Numbers
    second: list[_Numbers]
    second_bias: _Numbers
    last: _Numbers


class _File(Section):
    """What the file holds: features by name, a weight each, and the network that goes on from these."""

    features: list[str]
    weights: _Numbers
    network: _Network | None = None


@dataclass(frozen=True)
class GivenRanker:
    """A ranker that was fitted elsewhere.

    Attributes:
        weights: one a feature, in the order of `named_features`.
        network: that of all users, G = 2, in the place of a fold's too; None where the weights rank.
    """

    weights: Sequence[float]
    network: Network | None = None


def save_ranker(path: Path, ranker: Mapping[str, Any], network: Network | None) -> None:
    """Write a ranker.

    Args:
        path: the file.
        ranker: its `features` and `weights`.
        network: the one that goes on from them, with that of all users first.
    """
    found: dict[str, Any] = {"features": list(ranker["features"]), "weights": list(ranker["weights"]), "network": None}
    if network is not None:
        found["network"] = {
            _bare(name): _plain((tensor[0] if _of_each(name) else tensor).numpy())
            for name, tensor in network.tensors().items()
        }
    write_bytes(path, (json.dumps(found, sort_keys=True) + "\n").encode())


def given_ranker(config: GeneratorConfig) -> GivenRanker | None:
    """The ranker that a configuration gives, in a file or by its weights; None where it gives none.

    Raises:
        UserError: there is no such file, or it holds no ranker of these features.
    """
    if config.ranker_file is None:
        return None if config.ranker_weights is None else GivenRanker(config.ranker_weights)
    place = f"generator.ranker_file={config.ranker_file}"
    try:
        found = _File.model_validate_json(_content(config.ranker_file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"this is no ranker ({where}: {first['msg']})" if where else f"this is no ranker ({first['msg']})"
        raise UserError(problem, place=place, cure=_CURE) from error
    known = [list(named_features(own=own)) for own in (False, True)]
    if found.features not in known:
        raise UserError(
            f"it ranks by {', '.join(found.features) or 'nothing'}, and this version by {', '.join(known[0])}, and by "
            f"{', '.join(known[1][len(known[0]) :])} besides where a history may be recommended again",
            place=place,
            cure="Fit one with this version: train without train_on_validation, and take the file of that report",
        )
    if len(found.weights) != len(found.features):
        raise UserError(f"{len(found.features)} features have {len(found.weights)} weights", place=place, cure=_CURE)
    return GivenRanker(found.weights, None if found.network is None else _network(found, place))


def digest(config: GeneratorConfig) -> str:
    """Hex sha256 of the file that a configuration gives; "" where it gives none.

    Raises:
        UserError: there is no such file.
    """
    return "" if config.ranker_file is None else hashlib.sha256(_content(config.ranker_file)).hexdigest()


def _content(given: str) -> bytes:
    try:
        return Path(given).expanduser().read_bytes()
    except (OSError, RuntimeError) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({problem})",
            place=f"generator.ranker_file={given}",
            cure="Name the ranker.json that lies beside the report of the run that fitted it",
        ) from error


def _network(found: _File, place: str) -> Network:
    values = found.network
    assert values is not None
    n_features, n_hidden = len(found.features), len(values.last)
    shapes = {
        "centre": (n_features,),
        "spread": (n_features,),
        "linear": (n_features,),
        "first": (n_features, n_hidden),
        "first_bias": (n_hidden,),
        "second": (n_hidden, n_hidden),
        "second_bias": (n_hidden,),
        "last": (n_hidden,),
    }
    tensors = {}
    for name in Network.names():
        rows, shape = getattr(values, _bare(name)), shapes[_bare(name)]
        widths = {len(row) for row in rows} if len(shape) == 2 else set(shape[1:])
        if len(rows) != shape[0] or widths != set(shape[1:]):
            raise UserError(
                f"this is no ranker (network.{_bare(name)} has not the shape {' × '.join(map(str, shape))})",
                place=place,
                cure=_CURE,
            )
        tensor = torch.tensor(rows, dtype=torch.float32)
        tensors[name] = torch.stack([tensor, tensor]) if _of_each(name) else tensor
    return Network.from_tensors(tensors)


def _bare(name: str) -> str:
    return name.rpartition("_")[0]


def _of_each(name: str) -> bool:
    """Whether each network has such numbers of its own."""
    return name.rpartition("_")[2].startswith("G")


def _plain(values: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    """The same numbers as lists of as few digits as tell them from any other of float32."""
    return [_plain(row) for row in values] if values.ndim > 1 else [float(str(value)) for value in values]
