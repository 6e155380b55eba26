"""Items that come to a trained model, and items that go, without any training.

Knows bundles, semantic vectors and how new items are placed; knows nothing of registries. What a model says of the
items that it had stays as it was: their embeddings and codes, the means of the nodes, counts and texts of the ranker.
So where the new ones are left out, every list is what it was. Axes: M new items, S text dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from safetensors.numpy import load
from torch import Tensor

from prorec_core import versions
from prorec_core.alignment.adapter import AdaLNAdapter
from prorec_core.alignment.new_items import by_similar_text
from prorec_core.alignment.placing import place as place_by_text
from prorec_core.alignment.trained import NewEmbeddings
from prorec_core.artifacts import read_json
from prorec_core.config import AlignConfig
from prorec_core.data.columns import shown
from prorec_core.data.embeddings import FloatArray
from prorec_core.errors import UserError
from prorec_core.generation.bundle import Bundle, Placing
from prorec_core.generation.relations import Relations
from prorec_core.generation.trained import RANKER, TEACHER, TrainedGenerator
from prorec_core.quantization.quantized import CodeTable, Quantized
from prorec_core.quantization.stage import with_new
from prorec_core.training.checkpoint import load_tensors

_SHOWN = 3


def add_items(
    bundle: Bundle,
    placing: Placing,
    items: pl.DataFrame,
    vectors_MS: FloatArray,
    bonus: float = 0.0,
    attributes: pl.DataFrame | None = None,
) -> Bundle:
    """The model with new items after the others.

    They are placed as new items of an experiment are (`data.new_items`): the adapter places their texts, items of
    similar text lend the rest, the fitted quantizer gives them codes that nobody has, and the ranker counts for them
    what it counted for the items of nearest text.

    Args:
        bundle: the model.
        placing: how its own items came to their codes.
        items: item_id, title and text of the new items, strings; none of them is in the model.
        vectors_MS: their semantic vectors E_S.
        bonus: added to the score of each of them, in nats.
        attributes: columns of theirs that the model keeps for rules; null where there are none.

    Raises:
        UserError: no free tuple of codes is left.
    """
    known = bundle.catalogue.n_trained
    new = _aligned(bundle, placing, vectors_MS)
    embeddings = _quantized(bundle, placing, vectors_MS, new)
    table = _coded(bundle, placing, embeddings, items["item_id"].to_list())
    columns = {"train_count": pl.lit(0, pl.Int64), "text": pl.col("text"), "title": pl.col("title")}
    first = bundle.items.height
    rows = items.select(
        pl.int_range(first, first + items.height, dtype=pl.Int32).alias(name)
        if name == "item"
        else columns.get(name, pl.col("item_id")).alias(name)
        for name in bundle.items.columns
    )
    return replace(
        bundle,
        trained=_taught(bundle.trained, new, vectors_MS, known),
        items=pl.concat([bundle.items, rows.cast(bundle.items.schema)]),
        codes=CodeTable(np.concatenate([bundle.codes.codes, table.codes]), [*bundle.codes.item_ids, *table.item_ids]),
        embeddings=np.concatenate([bundle.embeddings, embeddings]),
        catalogue=bundle.catalogue.with_more(items.height, bonus),
        attributes=_kept(bundle.attributes, attributes, items.height),
    )


def bring_back(bundle: Bundle, item_ids: list[str], attributes: pl.DataFrame | None = None) -> Bundle:
    """The model with items that were withdrawn from it, as they were, but for their columns for rules.

    Args:
        bundle: the model.
        item_ids: withdrawn items of it.
        attributes: as of `add_items`; columns that are not there stay as they were.

    Raises:
        UserError: one is not there.
    """
    rows = rows_of(bundle, item_ids)
    back, before = bundle.withdrawn(rows, False), bundle.attributes
    if before is None or attributes is None:
        return back
    new = [name for name in attributes.columns if name in before.columns]
    both = _joined(before, before[rows].with_columns(attributes.select(new)))
    places = np.arange(before.height)
    places[rows] = before.height + np.arange(len(rows))
    return replace(back, attributes=both[places])


def withdraw_items(bundle: Bundle, item_ids: list[str], place: str = "--ids") -> Bundle:
    """The model without some of its items: they are recommended to nobody, and passed over in histories.

    Args:
        bundle: the model.
        item_ids: of its items.
        place: what named them, for the error.

    Raises:
        UserError: one is not there, or was withdrawn already; nothing would be left.
    """
    rows = rows_of(bundle, item_ids, place)
    if gone := [item for item, row in zip(item_ids, rows, strict=True) if bundle.catalogue.withdrawn[row]]:
        raise UserError(f"{named(gone)} withdrawn already", place=place, cure="Leave out what is")
    left = bundle.withdrawn(rows, True)
    if left.catalogue.withdrawn.all():
        raise UserError("no item would be left to recommend", place=place, cure="Keep some")
    return left


def rows_of(bundle: Bundle, item_ids: list[str], place: str = "--ids") -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Places of items in the tables.

    Raises:
        UserError: one is not there.
    """
    place_of = {item: row for row, item in enumerate(bundle.codes.item_ids)}
    if lacking := [item for item in item_ids if item not in place_of]:
        raise UserError(f"{named(lacking)} not in the model", place=place, cure="Leave out what is not there")
    return np.array([place_of[item] for item in item_ids], np.int64)


def named(item_ids: list[str]) -> str:
    """Some items in words, with the verb that follows."""
    some = ", ".join(map(shown, item_ids[:_SHOWN]))
    more = f" and {len(item_ids) - _SHOWN:,} more" if len(item_ids) > _SHOWN else ""
    return f"the item {some} is" if len(item_ids) == 1 else f"the items {some}{more} are"


def _kept(before: pl.DataFrame | None, new: pl.DataFrame | None, count: int) -> pl.DataFrame | None:
    """The columns kept for rules with those of new items, null where these have none."""
    if before is None:
        return None
    nothing = pl.DataFrame({name: [None] * count for name in before.columns})
    given = nothing
    if new is not None and new.width:
        given = nothing.with_columns(new.select([name for name in new.columns if name in before.columns]))
    return _joined(before, given.select(before.columns))


def _joined(before: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Columns of more items below those of others. A column of whole numbers stays one as long as all are whole: large
    ones are told apart in no other."""
    columns = [_alike(*each) for each in zip(new.get_columns(), before.get_columns(), strict=True)]
    return pl.concat([before, pl.DataFrame(columns)], how="vertical_relaxed")


def _alike(column: pl.Series, before: pl.Series) -> pl.Series:
    """A column of the type of another, if that has all its values; else as it is."""
    if column.dtype == before.dtype:
        return column
    cast = column.cast(before.dtype, strict=False)
    return cast if cast.null_count() == column.null_count() and (cast == column).all() else column


def _aligned(bundle: Bundle, placing: Placing, vectors_MS: FloatArray) -> NewEmbeddings | None:
    """Where Stage I puts new items; None where codes are not of what it left."""
    if placing.quantize.embedding != "integrated":
        return None
    tensors, place_of = load_tensors(bundle.folder / "adapter.safetensors"), bundle.folder / "align.json"
    config = versions.whole(AlignConfig, versions.read(place_of).get("align"), str(place_of))
    weight = tensors["linear.weight"]
    adapter = AdaLNAdapter(weight.shape[1], weight.shape[0] // 3)
    adapter.load_state_dict(dict(tensors))
    return place_by_text(adapter, config, bundle.embeddings[: bundle.catalogue.n_trained], placing.texts, vectors_MS)


def _quantized(bundle: Bundle, placing: Placing, vectors_MS: FloatArray, new: NewEmbeddings | None) -> FloatArray:
    """The embedding of new items that their codes are made of, float32, shape (M, E)."""
    if new is not None:
        return new.integrated
    kind, known = placing.quantize.embedding, bundle.embeddings[: bundle.catalogue.n_trained]
    width = 0 if kind == "collaborative" else vectors_MS.shape[1]
    parts = [vectors_MS] if width else []
    if kind != "semantic":
        parts.append(by_similar_text(np.ascontiguousarray(known[:, width:]), placing.texts, vectors_MS))
    return np.hstack(parts)


def _coded(bundle: Bundle, placing: Placing, embeddings: FloatArray, item_ids: list[str]) -> CodeTable:
    codebooks = load((bundle.folder / "codebooks.safetensors").read_bytes())
    fitted = Quantized(bundle.codes, codebooks, read_json(bundle.folder / "quality.json"))
    found = with_new(fitted, placing.quantize, embeddings, item_ids).new_items
    assert found is not None
    return found


def _taught(
    trained: TrainedGenerator, new: NewEmbeddings | None, vectors_MS: FloatArray, known: int
) -> TrainedGenerator:
    """The generator with its teachers' embeddings of the new items, and with what its ranker takes them for."""
    tensors: dict[str, Tensor] = dict(trained.tensors)
    for name in ("semantic", "collaborative"):
        if new is not None and (table := tensors.get(f"{TEACHER}{name}")) is not None:
            tensors[f"{TEACHER}{name}"] = torch.cat([table, torch.from_numpy(getattr(new, name))])
    tensors |= _related(tensors, vectors_MS, known)
    return replace(trained, tensors=tensors)


def _related(tensors: Mapping[str, Tensor], vectors_MS: FloatArray, known: int) -> dict[str, Tensor]:
    own = {name.removeprefix(RANKER): tensor for name, tensor in tensors.items() if name.startswith(RANKER)}
    if not own:
        return {}
    grown = Relations.from_tensors(own).with_more(vectors_MS, known)
    return {f"{RANKER}{name}": tensor for name, tensor in grown.tensors().items()}
