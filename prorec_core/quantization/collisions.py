"""Every item its own tuple of codes. Knows codes and distances; knows nothing of quantizers, items or files.

Axes: N items, D dimensions, L code levels, K codes a level, l levels of a prefix of the codes, M moved items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from prorec_core.errors import UserError
from prorec_core.quantization.quantizer import Codes, Floats, squared_distances

Indices = npt.NDArray[np.int64]
Costs = npt.NDArray[np.float64]
Decode = Callable[[Codes], Floats]
"""From codes, or the first levels of them, uint16 (N, l), to the embeddings they stand for, float32 (N, D)."""

_LAST_SUFFIX = 65_535
_DECODED_AT_ONCE = 16_384
_ONE_BY_ONE = 16_384
"""Items whose costs are computed one by one."""
_COSTS_AT_ONCE = 1 << 25
"""Of items and codes, 256 MiB; those of the items of one family stay together."""
_LARGEST_FAMILY = 1024
"""Items that may share their codes and be told apart by a suffix, where a level has no more codes than that."""


def collision_groups(codes_NL: Codes) -> Indices:
    """A number for each item that it shares with the items of equal codes and no others, shape (N,).

    Groups are numbered from 0 in the lexicographic order of their codes.
    """
    group = np.zeros(len(codes_NL), np.int64)
    for codes in codes_NL.T.astype(np.int64):
        # Rows are sorted as numbers, level by level: as a whole they would be compared byte by byte.
        group = np.unique(group << 16 | codes, return_inverse=True)[1].reshape(-1)
    return group


def largest_family(n_items: int, n_codes: int, levels: int) -> int:
    """How many items may share their tuple of codes before a suffix tells them apart.

    As many as a level has codes, and at least 1,024; more only where the items would not have room otherwise. Search
    over a trie pays for the largest family.
    """
    tuples: int = n_codes**levels
    return max(n_codes, _LARGEST_FAMILY, -(-n_items // tuples))


def add_suffix(codes_NL: Codes) -> Codes:
    """Add a level that numbers the items of equal codes 0, 1, 2 … in the order of their indices.

    Returns:
        uint16, shape (N, L + 1); the added level is all 0 when no two items share their codes.

    Raises:
        UserError: more than 65,535 items share their codes.
    """
    group = collision_groups(codes_NL)
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    suffix = np.empty(len(group), np.int64)
    suffix[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered)
    _expect_few(suffix)
    return np.concatenate([codes_NL, suffix[:, None].astype(np.uint16)], axis=1)


def _expect_few(suffix: Indices) -> None:
    if len(suffix) and suffix.max() >= _LAST_SUFFIX:
        raise UserError(
            f"{suffix.max() + 1} items share all their codes, more than a suffix can number",
            cure="Raise quantize.levels or quantize.codes, or see why so many embeddings are alike",
        )


def reassign(codes_NL: Codes, embeddings_ND: Floats, n_codes: int, decode: Decode, family: int = 1) -> Codes:
    """Move as few items as needed to the nearest free codes until no more than `family` share their tuple.

    From the first level to the last: where more items have a prefix than there is room below it, the surplus
    that loses least goes to the siblings with room, and is encoded anew from there on. At the last level, where each
    tuple holds one item, the moves are a linear assignment: the fewest changes, and among these the least
    total squared distance between the embeddings and what their codes stand for.

    Args:
        codes_NL: uint16; may have any collisions.
        embeddings_ND: float32.
        n_codes: K; also codes that no item had may be given.
        decode: of the quantizer that gave the codes.
        family: items that may share a tuple.

    Returns:
        uint16, shape (N, L), no row more than `family` times; unchanged where that was so.

    Raises:
        UserError: there are more items than room.
    """
    n_items, levels = codes_NL.shape
    check_room(-(-n_items // family), n_codes, levels)
    codes = codes_NL.copy()
    for level in range(levels):
        capacity = family * n_codes ** (levels - 1 - level)
        crowded = _crowded(codes[:, : level + 1], capacity)
        if not len(crowded):
            continue
        settled = codes[crowded, level].astype(np.int64)
        above = collision_groups(codes[:, :level])
        place = _assign if capacity == 1 else _spill
        families = zip(_members(above[crowded]), _members(above, of=above[crowded]), strict=True)
        for together in _batches(families, n_codes):
            batch = np.sort(np.concatenate([rows for rows, _ in together]))
            costs = _next_code_costs(codes[crowded[batch], :level], embeddings_ND[crowded[batch]], n_codes, decode)
            for rows, siblings in together:
                size = np.bincount(codes[siblings, level], minlength=n_codes)
                settled[rows] = place(settled[rows], costs[np.searchsorted(batch, rows)], size, capacity)
        moved = crowded[settled != codes[crowded, level]]
        codes[crowded, level] = settled.astype(np.uint16)
        at_once = max(1, _COSTS_AT_ONCE // n_codes)
        for deeper in range(level + 1, levels):
            for part in (moved[start : start + at_once] for start in range(0, len(moved), at_once)):
                again = _next_code_costs(codes[part, :deeper], embeddings_ND[part], n_codes, decode)
                codes[part, deeper] = again.argmin(axis=1).astype(np.uint16)
    return codes


def _batches(families: Iterator[tuple[Indices, Indices]], n_codes: int) -> Iterator[list[tuple[Indices, Indices]]]:
    """Families, their crowded items first, of as many items together as there may be costs of at once."""
    batch: list[tuple[Indices, Indices]] = []
    size = 0
    for rows, siblings in families:
        if batch and (size + len(rows)) * n_codes > _COSTS_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append((rows, siblings))
        size += len(rows)
    yield batch


def suffix_beside(codes_NL: Codes, table: Codes) -> Codes:
    """Codes of new items with a suffix each that no item of a table has; the table stays as it is.

    Args:
        codes_NL: of the new items, without the suffix; uint16.
        table: of the known items, with their suffixes; uint16, shape (known items, L + 1). Where items have gone since
            these were given, some suffixes are free.

    Returns:
        uint16, shape (N, L + 1): of items of equal codes each has the lowest suffix that is free.

    Raises:
        UserError: more than 65,535 items share their codes.
    """
    group = collision_groups(np.concatenate([table[:, :-1], codes_NL]))
    theirs, own = group[: len(table)], group[len(table) :]
    order = np.argsort(theirs, kind="stable")
    groups, place_of = np.unique(own, return_inverse=True)
    starts, ends = (np.searchsorted(theirs[order], groups, side) for side in ("left", "right"))
    members = np.split(np.argsort(place_of, kind="stable"), np.cumsum(np.bincount(place_of))[:-1]) if len(own) else []
    suffix = np.zeros(len(own), np.int64)
    for start, end, rows in zip(starts, ends, members, strict=True):
        taken = table[order[start:end], -1]
        suffix[rows] = np.setdiff1d(np.arange(len(taken) + len(rows)), taken)[: len(rows)]
    _expect_few(suffix)
    return np.concatenate([codes_NL, suffix[:, None].astype(np.uint16)], axis=1)


def free_beside(
    codes_NL: Codes, embeddings_ND: Floats, table: Codes, n_codes: int, decode: Decode, family: int = 1
) -> Codes:
    """Codes of new items that, with those of a table, no more than `family` items share; the table stays as it is.

    One after the other, an item whose tuple is taken by so many gets the nearest one with room: the nearest code of the
    last level that has some, or where none has, the next nearest of the level before, and so on.

    Args:
        codes_NL: of the new items as found; uint16.
        embeddings_ND: of the new items, float32.
        table: of the known items, uint16, shape (known items, L).
        n_codes: K; also codes that no item had may be given.
        decode: of the quantizer that gave the codes.
        family: items that may share a tuple.

    Returns:
        uint16, shape (N, L); as found where there is room.

    Raises:
        UserError: there are more items than room.
    """
    n_items, levels = len(table) + len(codes_NL), codes_NL.shape[1]
    check_room(-(-n_items // family), n_codes, levels)
    if not len(_crowded(np.concatenate([table, codes_NL]), family)):
        return codes_NL
    size = Counter(map(tuple, table.tolist()))
    found = codes_NL.copy()

    def nearest_free(prefix: tuple[int, ...], embedding_1D: Floats) -> tuple[int, ...] | None:
        costs = _next_code_costs(np.array([prefix], np.uint16).reshape(1, -1), embedding_1D, n_codes, decode)
        for code in np.argsort(costs[0], kind="stable").tolist():
            longer = (*prefix, code)
            if len(longer) == levels:
                if size[longer] < family:
                    return longer
            elif place := nearest_free(longer, embedding_1D):
                return place
        return None

    for row, codes in enumerate(map(tuple, codes_NL.tolist())):
        own = codes if size[codes] < family else nearest_free((), embeddings_ND[row : row + 1])
        assert own is not None
        size[own] += 1
        found[row] = own
    return found


def check_room(n_items: int, n_codes: int, levels: int) -> None:
    """Refuse fewer tuples of codes than items.

    Raises:
        UserError: says how many there are of either.
    """
    if n_items > n_codes**levels:
        raise UserError(
            f"{n_items} items cannot each have their own of {n_codes}^{levels} tuples of codes",
            place="quantize",
            cure="Raise quantize.levels or quantize.codes, or set quantize.collisions=suffix",
        )


def _members(group_N: Indices, of: Indices | None = None) -> list[Indices]:
    """The members of each group (of those named in `of`), groups and members ascending."""
    names = np.unique(group_N if of is None else of)
    order = np.argsort(group_N, kind="stable")
    first, last = (np.searchsorted(group_N[order], names, side) for side in ("left", "right"))
    return [order[start:end] for start, end in zip(first, last, strict=True)]


def _crowded(prefix_Nl: Codes, capacity: int) -> Indices:
    """The items whose prefix more items have than `capacity`, ascending."""
    group = collision_groups(prefix_Nl)
    return np.flatnonzero(np.bincount(group)[group] > capacity)


def _next_code_costs(prefix_Ml: Codes, embeddings_MD: Floats, n_codes: int, decode: Decode) -> Costs:
    """Squared distance between each embedding and what its prefix with each next code stands for, (M, K)."""
    costs = np.empty((len(prefix_Ml), n_codes))
    if len(prefix_Ml) > _ONE_BY_ONE:
        # Once for all items of equal prefixes; below, item by item, as rounding would settle ties otherwise.
        for rows in _members(collision_groups(prefix_Ml)):
            costs[rows] = squared_distances(embeddings_MD[rows], decode(_continued(prefix_Ml[rows[:1]], n_codes)))
        return costs
    step = max(1, _DECODED_AT_ONCE // n_codes)
    for start in range(0, len(prefix_Ml), step):
        part = slice(start, min(start + step, len(prefix_Ml)))
        meant = decode(_continued(prefix_Ml[part], n_codes)).reshape(part.stop - start, n_codes, -1)
        costs[part] = np.square(meant.astype(np.float64) - embeddings_MD[part, None]).sum(axis=2)
    return costs


def _continued(prefix_Ml: Codes, n_codes: int) -> Codes:
    """Each prefix with each next code, shape (M * K, l + 1)."""
    longer = np.empty((len(prefix_Ml) * n_codes, prefix_Ml.shape[1] + 1), np.uint16)
    longer[:, :-1] = np.repeat(prefix_Ml, n_codes, axis=0)
    longer[:, -1] = np.tile(np.arange(n_codes, dtype=np.uint16), len(prefix_Ml))
    return longer


def _assign(own_M: Indices, costs_MK: Costs, size_K: Indices, capacity: int) -> Indices:
    """Each item of shared codes one code of its own, at the last level."""
    rows = np.arange(len(own_M))
    open_codes = np.flatnonzero(size_K != capacity)
    # A move costs more than all distances together, so that the fewest items move.
    penalty = 1 + costs_MK.max(axis=1).sum()
    costs = costs_MK + penalty
    costs[rows, own_M] -= penalty
    taken, chosen = linear_sum_assignment(costs[:, open_codes])
    found = own_M.copy()
    found[taken] = open_codes[chosen]
    return found


def _spill(own_M: Indices, costs_MK: Costs, size_K: Indices, capacity: int) -> Indices:
    """Move the surplus of overfull codes to siblings with room, the cheapest move first; changes the costs."""
    found, size = own_M.copy(), size_K.copy()
    extra = costs_MK
    extra -= costs_MK[np.arange(len(own_M)), own_M][:, None]
    extra[:, size >= capacity] = np.inf
    target = extra.argmin(axis=1)
    moves = list(zip(extra.min(axis=1).tolist(), range(len(own_M)), strict=True))
    heapify(moves)
    surplus = int(np.maximum(size - capacity, 0).sum())
    while surplus:
        _, item = heappop(moves)
        left, joined = found[item], target[item]
        if size[left] <= capacity:
            continue
        if size[joined] == capacity:
            # Its code has filled up since: the next best costs no less, so the order stays.
            row = np.where(size < capacity, extra[item], np.inf)
            target[item] = row.argmin()
            heappush(moves, (float(row[target[item]]), item))
            continue
        found[item] = joined
        size[left] -= 1
        size[joined] += 1
        surplus -= 1
    return found
