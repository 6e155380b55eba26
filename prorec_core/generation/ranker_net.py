"""A small network that goes on from a linear ranker: what a feature is worth may bend, and depend on the others.

Its score is linear plus a multilayer perceptron of two hidden layers; it starts as the linear ranker and is trained on
the same loss, cross-entropy of the target among its candidates. Knows features, not what they are of. Axes: U users, C
candidates, F features, H hidden units, G networks: first the one of all users, then one without each fold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

HIDDEN, EPOCHS, RATE, DECAY, USERS_A_STEP = 32, 6, 3e-3, 1e-3, 256
"""Of the network and its training: chosen once, on Amazon Beauty's validation users."""
STEPS_AT_MOST = 300
"""Of very many users there are fewer epochs; Beauty's 6,900 targets take 162 steps."""
_CELLS = 1 << 23
"""Hidden units of all candidates that are computed at a time."""


@dataclass(frozen=True)
class Network:
    """The networks of all users and of each fold's others, float32.

    Attributes:
        centre_F, spread_F: by which features are standardised, the same for all.
        linear_GF: weights of the linear part.
        first_GFH, first_bias_GH, second_GHH, second_bias_GH, last_GH: of the perceptron.
    """

    centre_F: Tensor
    spread_F: Tensor
    linear_GF: Tensor
    first_GFH: Tensor
    first_bias_GH: Tensor
    second_GHH: Tensor
    second_bias_GH: Tensor
    last_GH: Tensor

    def scores(self, features_UCF: Floats, which_U: npt.NDArray[np.integer]) -> Floats:
        """Scores, shape (U, C), of each user's candidates by the network with its number."""
        found = np.zeros(features_UCF.shape[:2], np.float32)
        most = max(1, _CELLS // max(1, features_UCF.shape[1] * self.last_GH.shape[1]))
        with torch.no_grad():
            for which in np.unique(which_U):
                users = np.flatnonzero(which_U == which)
                for part in np.split(users, range(most, len(users), most)):
                    x_UCF = (torch.from_numpy(features_UCF[part]) - self.centre_F) / self.spread_F
                    found[part] = _forward(x_UCF, self._of(int(which))).numpy()
        return found

    def _of(self, which: int) -> tuple[Tensor, ...]:
        return tuple(getattr(self, name)[which] for name in _OWN)

    def scaled(self, scale_F: Doubles) -> Self:
        """The same networks for features that are so many times as large."""
        scale = torch.from_numpy(scale_F).float()
        return replace(self, centre_F=self.centre_F * scale, spread_F=self.spread_F * scale)

    @property
    def numbers(self) -> int:
        """How many it is made of, those of the folds left out."""
        return sum(each.numel() for each in self._of(0)) + self.centre_F.numel() + self.spread_F.numel()

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        return {name: getattr(self, name) for name in self.names()}

    @classmethod
    def names(cls) -> list[str]:
        """Those of its tensors."""
        return [each.name for each in fields(cls)]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """What `tensors` gave."""
        return cls(*(tensors[name] for name in cls.names()))

    def of_all(self) -> dict[str, Any]:
        """The parts of the network of all users as numbers, by their names without axes: as few digits as tell them."""
        return {
            _bare(name): _plain((each[0] if name in _OWN else each).numpy()) for name, each in self.tensors().items()
        }

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> Self:
        """The network of all users as `of_all` gave it, G = 2: it stands for what was fitted without a fold, too."""
        tensors = {name: torch.tensor(numbers[_bare(name)], dtype=torch.float32) for name in cls.names()}
        return cls(**{name: torch.stack([each, each]) if name in _OWN else each for name, each in tensors.items()})

    @classmethod
    def stacked(cls, networks: Sequence[Self]) -> Self:
        """Several that were trained on the same features, as one."""
        own = [torch.cat([getattr(each, name) for each in networks]) for name in _OWN]
        return cls(networks[0].centre_F, networks[0].spread_F, *own)


_OWN = tuple(each.name for each in fields(Network) if each.name not in ("centre_F", "spread_F"))
"""What each network has of its own, in the order in which `_forward` takes it."""


def _bare(name: str) -> str:
    return name.rpartition("_")[0]


def _plain(values: npt.NDArray[np.float32]) -> Any:
    return [_plain(row) for row in values] if values.ndim > 1 else [float(str(value)) for value in values]


@dataclass(frozen=True)
class Examples:
    """What networks are trained on: standardised features of users' candidates, and which of these was taken.

    Attributes:
        centre_F, spread_F: by which they are standardised, float64.
        x_UCF: float32.
        there_UC: where a candidate is, bool.
        targets_U: the place of each user's target among them, int64.
    """

    centre_F: Doubles
    spread_F: Doubles
    x_UCF: Tensor
    there_UC: Tensor
    targets_U: Tensor

    @classmethod
    def of(cls, features_UCF: Floats, there_UC: npt.NDArray[np.bool_], targets_U: npt.NDArray[np.int64]) -> Self:
        """Standardise features by those of the candidates that are there."""
        known = features_UCF[there_UC].astype(np.float64)
        centre_F, spread_F = known.mean(0), known.std(0)
        spread_F = np.where(spread_F > 0, spread_F, 1.0)
        x_UCF = torch.from_numpy(((features_UCF - centre_F) / spread_F).astype(np.float32))
        return cls(centre_F, spread_F, x_UCF, torch.from_numpy(there_UC), torch.from_numpy(targets_U))

    def train(self, linear_F: Doubles, users: npt.NDArray[np.int64], seed: int) -> Network:
        """One network, G = 1, that goes on from a linear ranker of the features before they were standardised.

        Args:
            linear_F: its weights.
            users: those that it is trained on, int64.
            seed: of what is drawn.
        """
        weights = _train(self, torch.from_numpy(users), linear_F * self.spread_F, seed)
        standard = torch.from_numpy(self.centre_F).float(), torch.from_numpy(self.spread_F).float()
        return Network(*standard, *(each[None] for each in weights))


def _forward(x_UCF: Tensor, weights: Sequence[Tensor]) -> Tensor:
    linear_F, first_FH, first_bias_H, second_HH, second_bias_H, last_H = weights
    hidden = F.gelu(F.gelu(x_UCF @ first_FH + first_bias_H) @ second_HH + second_bias_H)
    scores: Tensor = x_UCF @ linear_F + hidden @ last_H
    return scores


def _train(examples: Examples, users: Tensor, linear_F: Doubles, seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    width = examples.x_UCF.shape[2]

    def uniform(*shape: int) -> Tensor:
        drawn: Tensor = torch.rand(shape, generator=draw) * 2 - 1
        return drawn / math.sqrt(shape[0])

    weights = [
        torch.from_numpy(linear_F).float(),
        uniform(width, HIDDEN),
        torch.zeros(HIDDEN),
        uniform(HIDDEN, HIDDEN),
        torch.zeros(HIDDEN),
        # It starts as the linear ranker.
        torch.zeros(HIDDEN),
    ]
    for each in weights:
        each.requires_grad_()
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=DECAY)
    steps_an_epoch = -(-len(users) // USERS_A_STEP)
    epochs = min(EPOCHS, max(1, STEPS_AT_MOST // max(steps_an_epoch, 1)))
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - epoch / epochs)
        for part in users[torch.randperm(len(users), generator=draw)].split(USERS_A_STEP):
            scores_UC = _forward(examples.x_UCF[part], weights).masked_fill(~examples.there_UC[part], -torch.inf)
            F.cross_entropy(scores_UC, examples.targets_U[part]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return [each.detach() for each in weights]
