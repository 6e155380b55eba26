from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from prorec_core.data.in_turn import in_turn, threads


def test_results_come_in_the_order_of_the_batches() -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    assert list(in_turn(work, range(40))) == [number * number for number in range(40)]
    assert list(in_turn(work, [])) == []


def test_only_a_few_batches_are_made_ahead() -> None:
    made = []

    def batches() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    found = in_turn(lambda number: number, batches())
    for number in range(50):
        assert next(found) == number and len(made) <= number + threads() + 2


def test_the_error_of_the_first_batch_is_told_whichever_is_met_first() -> None:
    last = threading.Event()

    def work(number: int) -> None:
        if number == 1:
            last.set()
            raise ValueError("second")
        if number == 0 and threads() > 1:
            last.wait(10)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        list(in_turn(work, range(2)))


def test_an_error_of_a_batch_comes_before_that_of_a_reader_below_it() -> None:
    def batches() -> Iterator[int]:
        yield 0
        raise OSError("reader")

    def work(number: int) -> None:
        time.sleep(0.01)
        raise ValueError("batch")

    with pytest.raises(ValueError, match="batch"):
        list(in_turn(work, batches()))
    with pytest.raises(OSError, match="reader"):
        list(in_turn(lambda number: number, batches()))
