"""Codes that stay while embeddings move."""

from __future__ import annotations

import numpy as np
import pytest

from prorec_core.config import QuantizeConfig
from prorec_core.errors import UserError
from prorec_core.quantization.quantized import Quantized
from prorec_core.quantization.stage import kept, quantize

IDS = [f"id-{item:02d}" for item in range(60)]
EMBEDDINGS = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)


def config(collisions: str = "suffix", **changes: object) -> QuantizeConfig:
    return QuantizeConfig.model_validate({"levels": 2, "codes": 8, "collisions": collisions, **changes})


@pytest.fixture(params=["suffix", "reassign"])
def before(request: pytest.FixtureRequest) -> Quantized:
    return quantize(config(request.param), EMBEDDINGS, IDS, 0)


def test_known_items_keep_their_codes_and_the_drift_is_told(before: Quantized) -> None:
    handling = before.quality["collisions"]["handling"]
    same = kept(before, config(handling), EMBEDDINGS, IDS)
    np.testing.assert_array_equal(same.table.codes, before.table.codes)
    drift = same.quality["kept"]
    assert drift["known"] == 60 and drift["new"] == 0
    assert drift["moved_share"] == pytest.approx(drift["moved_share_then"])
    assert drift["relative_error"] == pytest.approx(drift["relative_error_then"], rel=1e-6)

    order = [5, 3, 40]
    noise = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)
    moved = np.concatenate([EMBEDDINGS[order] + noise[:3], noise[3:]])
    found = kept(before, config(handling), moved, [*(IDS[item] for item in order), "a", "b", "c"])
    np.testing.assert_array_equal(found.table.codes[:3], before.table.codes[order])
    taken = {tuple(row) for row in before.table.codes.tolist()}
    assert not taken & {tuple(row) for row in found.table.codes[3:].tolist()}, (
        "what an item that left had stays its own"
    )
    assert found.quality["kept"]["new"] == 3 and found.quality["kept"]["relative_error"] > drift["relative_error"]
    assert found.quality["items"] == 6
    again = kept(found, config(handling), moved, found.table.item_ids)
    np.testing.assert_array_equal(again.table.codes, found.table.codes)


def test_where_there_is_no_room_beside_what_is_gone_its_codes_are_free() -> None:
    few = QuantizeConfig(levels=2, codes=4, collisions="reassign")
    before = quantize(few, EMBEDDINGS[:15], IDS[:15], 0)
    found = kept(before, few, EMBEDDINGS[8:17], IDS[8:17])
    np.testing.assert_array_equal(found.table.codes[:7], before.table.codes[8:])
    assert len(np.unique(found.table.codes, axis=0)) == 9


def test_what_cannot_be_kept_is_one_line(before: Quantized) -> None:
    handling = before.quality["collisions"]["handling"]
    for change in ({"codes": 16}, {"levels": 3}, {"method": "balanced_kmeans"}):
        with pytest.raises(UserError, match=r"start_from: quantize\..*continuing\.codes=anew"):
            kept(before, config(handling, **change), EMBEDDINGS, IDS)
    with pytest.raises(UserError, match=r"embeddings of 3 dimensions .*continuing\.codes=anew"):
        kept(before, config(handling), EMBEDDINGS[:, :3], IDS)
    with pytest.raises(UserError, match="no item was there before"):
        kept(before, config(handling), EMBEDDINGS[:2], ["x", "y"])
