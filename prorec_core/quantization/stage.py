"""Stage `quantize`: from item embeddings to the code table. Knows the choices; knows nothing of their insides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from prorec_core.config import QuantizeConfig
from prorec_core.errors import UserError, did_you_mean
from prorec_core.progress import Report, silent
from prorec_core.quantization.blocks import pieces
from prorec_core.quantization.collisions import add_suffix, free_beside, largest_family, reassign, suffix_beside
from prorec_core.quantization.given_codes import METHOD, GivenCodes
from prorec_core.quantization.quality import collision_quality, level_quality
from prorec_core.quantization.quantized import CENTROIDS, QUANTIZER, CodeTable, Quantized
from prorec_core.quantization.quantizer import (
    Codes,
    Floats,
    Quantizer,
    check_embeddings,
    level_centroids,
    relative_error,
)
from prorec_core.registry import CODE_FILES, QUANTIZERS


def quantize(
    config: QuantizeConfig,
    embeddings: npt.NDArray[np.float32],
    item_ids: list[str],
    seed: int,
    report: Report = silent,
) -> Quantized:
    """Give every item its own tuple of codes.

    Args:
        config: the method, its size, and how collisions are handled.
        embeddings: float32, shape (items, D), in the order of the item indices.
        item_ids: the items' own ids, in the same order.
        seed: with equal input and seed the files are equal to the byte on the same machine.
        report: told after each level (or epoch).

    Raises:
        UserError: embeddings that are missing or not finite, or collisions that cannot be resolved.
        ValueError: a method gave no codes as a method must.
    """
    embeddings_ND = check_embeddings(embeddings)
    if len(item_ids) != len(embeddings_ND):
        raise UserError(
            f"{len(embeddings_ND)} embeddings and {len(item_ids)} items",
            place="quantize",
            cure="Take both from the same run",
        )
    quantizer: Quantizer
    if config.table is not None:
        found = CODE_FILES.load(METHOD)(config, item_ids)
        quantizer = GivenCodes.meant_by(found, embeddings_ND, config.codes)
    else:
        kind: type[Quantizer] = QUANTIZERS.load(config.method)
        quantizer, found = kind.fit(embeddings_ND, config, seed, report)
        _expect_codes(found, len(embeddings_ND), config)
    # Tuples of one's own that are told apart already need no level for that.
    apart = config.table is not None and collision_quality(found)["items"] == 0
    suffix = config.collisions == "suffix" and not apart
    family = largest_family(len(found), config.codes, config.levels) if suffix else 1
    level_codes = reassign(found, embeddings_ND, config.codes, quantizer.decode, family)
    final = add_suffix(level_codes) if suffix else level_codes
    quality = _quality(config, quantizer, embeddings_ND, found, level_codes, final)
    codebooks = {
        f"{CENTROIDS}{level}": centroids
        for level, centroids in enumerate(level_centroids(embeddings_ND, level_codes, config.codes))
    }
    codebooks |= {f"{QUANTIZER}{name}": value for name, value in quantizer.state().items()}
    return Quantized(CodeTable(final, list(item_ids)), codebooks, quality)


def fitted_quantizer(quantized: Quantized) -> Quantizer:
    """The quantizer that gave the codes, for instance to encode new items.

    Raises:
        UserError: this version of the program has no such quantizer.
    """
    method = quantized.quality["method"]
    if method not in {METHOD, *QUANTIZERS}:
        cure = did_you_mean(method, QUANTIZERS)
        raise UserError(f"unknown quantizer '{method}'", place="quality.json", cure=cure)
    arrays = quantized.codebooks.items()
    state = {name.removeprefix(QUANTIZER): value for name, value in arrays if name.startswith(QUANTIZER)}
    kind: type[Quantizer] = GivenCodes if method == METHOD else QUANTIZERS.load(method)
    return kind.from_state(state)


def with_new(
    quantized: Quantized, config: QuantizeConfig, embeddings: npt.NDArray[np.float32], item_ids: list[str]
) -> Quantized:
    """The same, with codes for items that were not there in `quantize`; nothing of the others changes.

    The fitted quantizer encodes them as it stands. Where a tuple is taken, the suffix goes on as far as a family may
    grow (`largest_family`). What has no room then, or without a suffix no tuple of its own, gets the nearest that has.

    Args:
        quantized: what `quantize` gave.
        config: that of `quantize`.
        embeddings: of the new items, in the space that was quantized, float32, shape (new items, D).
        item_ids: the new items' own ids, in the same order.

    Raises:
        UserError: embeddings that are missing or not finite, or no free tuple is left.
    """
    embeddings_ND, quantizer = check_embeddings(embeddings), fitted_quantizer(quantized)
    found = quantizer.encode(embeddings_ND)
    table = quantized.table.codes
    suffix = table.shape[1] > config.levels
    known = table[:, :-1] if suffix else table
    family = largest_family(len(table) + len(found), config.codes, config.levels) if suffix else 1
    codes = free_beside(found, embeddings_ND, known, config.codes, quantizer.decode, family)
    if suffix:
        codes = suffix_beside(codes, table)
    return replace(quantized, new_items=CodeTable(codes, list(item_ids)))


def kept(
    before: Quantized, config: QuantizeConfig, embeddings: npt.NDArray[np.float32], item_ids: list[str]
) -> Quantized:
    """Codes of known items as they were, and codes by the same quantizer for items that it had not.

    Embeddings have moved since; how far, `quality["kept"]` says: `known` and `new` items, `relative_error` of the known
    ones' codes, and `moved_share`, the share of them whose nearest codes are others by now. The same of the time when
    the codes were given is in `relative_error_then` and `moved_share_then`.

    Args:
        before: what gave the codes; its table may hold items that are not there any more.
        config: as it was then.
        embeddings: of all items as they are now, float32, shape (items, D).
        item_ids: the items' own ids, in the same order.

    Raises:
        UserError: the configuration is another one, embeddings are missing or not finite, or no free tuple is left.
    """
    embeddings_ND, quantizer = check_embeddings(embeddings), fitted_quantizer(before)
    _expect_like(before, config, embeddings_ND.shape[1])
    row_of = {item: row for row, item in enumerate(before.table.item_ids)}
    rows = np.array([row_of.get(item, -1) for item in item_ids], np.int64)
    known, new = rows >= 0, np.flatnonzero(rows < 0)
    if not known.any():
        raise UserError("no item was there before", place="start_from", cure="Name a model of the same shop")
    codes = np.zeros((len(item_ids), before.table.depth), np.uint16)
    codes[known] = before.table.codes[rows[known]]
    if len(new):
        table = before.table
        # What is gone keeps its codes, as long as there are enough.
        if table.depth == config.levels and len(table.codes) + len(new) > config.codes**config.levels:
            table = CodeTable(codes[known], [item_ids[row] for row in np.flatnonzero(known)])
        added = with_new(
            replace(before, table=table), config, embeddings_ND[new], [item_ids[row] for row in new]
        ).new_items
        assert added is not None
        codes[new] = added.codes
    level_codes, found = codes[:, : config.levels], quantizer.encode(embeddings_ND)
    quality = _quality(config, quantizer, embeddings_ND, found, level_codes, codes)
    own = embeddings_ND[known]
    quality["kept"] = {
        "known": int(known.sum()),
        "new": len(new),
        "relative_error": relative_error(own, quantizer.decode(level_codes[known])),
        "relative_error_then": before.quality["relative_error"],
        "moved_share": float((found[known] != level_codes[known]).any(axis=1).mean()),
        "moved_share_then": before.quality["collisions"]["moved"] / before.quality["items"],
    }
    centroids = level_centroids(embeddings_ND, level_codes, config.codes)
    state = {name: value for name, value in before.codebooks.items() if name.startswith(QUANTIZER)}
    books = {f"{CENTROIDS}{level}": each for level, each in enumerate(centroids)}
    return Quantized(CodeTable(codes, list(item_ids)), books | state, quality)


def _method(config: QuantizeConfig) -> str:
    """How items get their codes: by a quantizer, or from a table that is given."""
    return config.method if config.table is None else METHOD


def _expect_like(before: Quantized, config: QuantizeConfig, width: int) -> None:
    centroids = before.level_centroids
    then = {
        "method": before.quality["method"],
        "collisions": before.quality["collisions"]["handling"],
        "levels": len(centroids),
        "codes": len(centroids[0]),
    }
    now = {name: getattr(config, name) for name in then} | {"method": _method(config)}
    for name, value in then.items():
        if value != now[name]:
            named = "quantize.table to the table" if value == METHOD else f"quantize.{name}={value}"
            raise UserError(
                f"quantize.{name} is {now[name]}, and the codes to keep were given with {value}",
                place="start_from",
                cure=f"Set {named}, or continuing.codes=anew",
            )
    if centroids[0].shape[1] != width:
        raise UserError(
            f"embeddings of {width} dimensions have no codes of a quantizer of {centroids[0].shape[1]}",
            place="start_from",
            cure="Set continuing.codes=anew",
        )


def _quality(
    config: QuantizeConfig,
    quantizer: Quantizer,
    embeddings_ND: Floats,
    found_NL: Codes,
    level_codes_NL: Codes,
    final: Codes,
) -> dict[str, Any]:
    """See `Quantized.quality`: codes as found, after handling without the suffix, and as in the table."""
    levels = []
    for level, codes in enumerate(final.T):
        is_suffix = level == config.levels
        figures = level_quality(codes, int(codes.max()) + 1 if is_suffix else config.codes)
        if not is_suffix:
            decoded = np.empty_like(embeddings_ND)
            for piece in pieces(len(decoded)):
                decoded[piece] = quantizer.decode(level_codes_NL[piece, : level + 1])
            figures["relative_error"] = relative_error(embeddings_ND, decoded)
        levels.append({"level": level, "suffix": is_suffix, **figures})
    return {
        "method": _method(config),
        "items": len(final),
        "levels": levels,
        "relative_error": levels[config.levels - 1]["relative_error"],
        "collisions": {
            "handling": config.collisions,
            "before": collision_quality(found_NL),
            "after": collision_quality(final),
            "moved": int((found_NL != level_codes_NL).any(axis=1).sum()),
        },
    }


def _expect_codes(found: Codes, items: int, config: QuantizeConfig) -> None:
    """See that a method, one's own perhaps, gave whole numbers from 0 to K - 1, a row an item and a column a level."""
    wanted = (items, config.levels)
    if found.shape != wanted or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"{config.method} gave codes of shape {found.shape}, {found.dtype}; wanted are integers of {wanted}"
        )
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < config.codes:
        raise ValueError(
            f"{config.method} gave codes from {found.min()} to {found.max()}; wanted are those to {config.codes - 1}"
        )
