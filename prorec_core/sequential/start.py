"""Where a training starts that goes on from another: weights that fit, and vectors of items matched by their ids.

Knows tables of item vectors and histories; knows nothing of files or of how a start is found. Axes: N items, M items of
the model that is gone on from, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from prorec_core.data.sequences import Sequences
from prorec_core.errors import UserError

Floats = npt.NDArray[np.float32]
Model = TypeVar("Model")
_NEIGHBOURS = 2
"""Steps apart at which items of a history still stand beside each other."""


@dataclass(frozen=True)
class Start(Generic[Model]):
    """What a training goes on from.

    Attributes:
        model: what an earlier training left.
        rows_N: where each item stands in that model's tables, int64, shape (N,); -1 for one that it lacks.
    """

    model: Model
    rows_N: npt.NDArray[np.int64]


def carried(before_MD: Floats, rows_N: npt.NDArray[np.int64], training: Sequences) -> Floats:
    """Vectors of items as they were; of new ones the mean direction of known items beside them, at the mean length.

    What users do with a new item tells more of it than its text, and is all that is asked here. One that stands beside
    no known item gets the mean of all.

    Args:
        before_MD: vectors of the earlier model's items.
        rows_N: as in `Start`.
        training: users' items that may be trained on.

    Returns:
        float32, shape (N, D).
    """
    known = rows_N >= 0
    found = np.zeros((len(rows_N), before_MD.shape[1]), np.float32)
    found[known] = before_MD[rows_N[known]]
    new = np.flatnonzero(~known)
    if not len(new) or not known.any():
        return found
    users = np.repeat(np.arange(training.n_users), np.diff(training.offsets))
    beside = sparse.csr_matrix((training.n_items,) * 2, dtype=np.float64)
    for step in range(1, _NEIGHBOURS + 1):
        own = users[step:] == users[:-step]
        pairs = training.items[:-step][own], training.items[step:][own]
        beside = beside + sparse.coo_matrix((np.ones(len(pairs[0])), pairs), beside.shape).tocsr()
    lengths = np.linalg.norm(found[known], axis=1)
    directions = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    sums = np.asarray((beside + beside.T).tocsr()[new] @ directions)
    alone = np.linalg.norm(sums, axis=1) < 1e-12
    sums[alone] = directions[known].mean(axis=0)
    scale = lengths.mean() / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    found[new] = (sums * scale).astype(np.float32)
    return found


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Have a module start with another's weights.

    Args:
        module: with weights of its own.
        tensors: the other's, by name.
        what: the section of the configuration that says its shape.

    Raises:
        UserError: they are of another shape.
    """
    own = module.state_dict()
    odd = [name for name, value in own.items() if name not in tensors or tensors[name].shape != value.shape]
    if odd:
        name = odd[0]
        there = "has none" if name not in tensors else f"has {_shape(tensors[name])}"
        raise UserError(
            f"the model to start from is of another shape: of {name} it {there}, here {_shape(own[name])} is wanted",
            place="start_from",
            cure=f"Give the section {what} the values that it was trained with, or train anew",
        )
    with torch.no_grad():
        module.load_state_dict({name: tensors[name] for name in own})


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
