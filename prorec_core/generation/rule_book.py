"""What rules leave of one catalogue, worked out once each and kept as long as there is room.

Knows a catalogue's ids, trie and attributes; knows nothing of users or of search. Axes: N items.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prorec_core.data.conditions import Attributes, Mask
from prorec_core.errors import UserError
from prorec_core.generation.allowed import AllowedItems
from prorec_core.generation.rules import ItemList, Rule
from prorec_core.generation.trie import CodeTrie

_TOLD = 20
"""Unknown items that are told by name."""
_ROOM = 1 << 27
"""Bytes that what is kept may take, 128 MiB; what was worked out last stays, however large it is."""
_EXAMPLES = 3
_ID = 64
"""About the bytes of an id that is kept, and of its place in a list."""


@dataclass(frozen=True)
class Left:
    """What a rule leaves of a catalogue.

    Attributes:
        allowed: as search asks for it.
        unknown: how many of the ids that it names itself the catalogue lacks.
        unknown_items: the first of them.
    """

    allowed: AllowedItems
    unknown: int
    unknown_items: Sequence[str]

    @property
    def unknown_told(self) -> str:
        """What is to be told of them, in words."""
        named = ", ".join(self.unknown_items[:_EXAMPLES]) + " …" * (self.unknown > _EXAMPLES)
        return f"{self.unknown:,} items that the rule names are unknown to the model ({named})"


class RuleBook:
    """What rules leave of one catalogue, worked out once each. May be asked by several threads."""

    def __init__(
        self, trie: CodeTrie, index: Mapping[str, int], attributes: Attributes, withdrawn_N: Mask | None = None
    ) -> None:
        self._trie, self._index, self._attributes = trie, index, attributes
        self._there_N = np.ones(trie.n_items, bool) if withdrawn_N is None else ~withdrawn_N
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._room = _ROOM
        self._lock = threading.Lock()

    def __deepcopy__(self, _: object) -> RuleBook:
        """One that begins anew over the same: nothing writes to what it is made of, and a lock cannot be copied."""
        return RuleBook(self._trie, self._index, self._attributes, ~self._there_N)

    def left(self, rule: Rule) -> Left:
        """What a rule leaves.

        Raises:
            UserError: a condition cannot be asked of this catalogue, or no item is left.
        """
        found: Left = self._once(f"rule {rule.key}", lambda: self._left(rule))
        return found

    def listed(self, named: ItemList) -> tuple[Mask, Sequence[str]]:
        """Which items a list names, and which of its ids the catalogue lacks, in their order."""
        found: tuple[Mask, Sequence[str]] = self._once(f"list {named.digest}", lambda: self._of_ids(named.items))
        return found

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key], self._sizes[key] = made, _size(made)
            while len(self._kept) > 1 and sum(self._sizes.values()) > self._room:
                del self._sizes[self._kept.popitem(last=False)[0]]
        return made

    def _left(self, rule: Rule) -> Left:
        mask, unknown = self._there_N.copy(), []
        for choice, place in ((rule.only, "only"), (rule.exclude, "exclude")):
            if choice is None:
                continue
            parts = []
            if choice.items is not None:
                named, lacking = self._of_ids(choice.items)
                parts.append(named)
                unknown += lacking
            if choice.list is not None:
                parts.append(self.listed(rule.lists[choice.list])[0])
            if choice.where is not None:
                parts.append(self._attributes.meet(choice.where, f"{place}.where"))
            for part in parts:
                mask &= part if choice is rule.only else ~part
        if not mask.any():
            raise UserError(
                "no item of the catalogue is left",
                place="only" if rule.only is not None else "exclude",
                cure="Allow some that the model knows",
            )
        unknown = list(dict.fromkeys(unknown))
        return Left(AllowedItems.of(self._trie, torch.from_numpy(mask)), len(unknown), unknown[:_TOLD])

    def _of_ids(self, ids: Sequence[str]) -> tuple[Mask, list[str]]:
        mask, lacking = np.zeros(self._trie.n_items, bool), []
        known = []
        for item_id in ids:
            place = self._index.get(item_id)
            if place is None:
                lacking.append(item_id)
            else:
                known.append(place)
        mask[known] = True
        return mask, lacking


def _size(made: Left | tuple[Mask, Sequence[str]]) -> int:
    """About how many bytes are held by what was worked out."""
    if isinstance(made, Left):
        return made.allowed.mask_N.nbytes + made.allowed.before_N1.nbytes + _ID * len(made.unknown_items)
    return made[0].nbytes + _ID * len(made[1])
