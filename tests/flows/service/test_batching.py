from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from prorec.flows.service.batching import Batcher, Found, Loaded, Question, QueueFullError, StoppedError, answer

from .conftest import ITEMS, FakeRecommender, version_of


def question(*histories: list[str], k: int = 3, keep_seen: bool | None = False) -> Question:
    return Question(histories or ([],), k, keep_seen)


def test_requests_are_answered_together_and_each_as_if_alone() -> None:
    model = FakeRecommender(beams=5)
    loaded = Loaded(version_of(1), model)
    asked = [
        question([ITEMS[0]], ["nobody"], k=2),
        question([ITEMS[1]], k=5),
        question([ITEMS[0]], k=4, keep_seen=True),
        question([ITEMS[0]], k=8),
        question([ITEMS[2]], k=7),
        question([ITEMS[3]], k=8),
        question([ITEMS[4]], k=5, keep_seen=None),
    ]
    together = answer(loaded, asked)
    # One search for all that need no more than the usual beams, one more for each other width, one for those unmasked;
    # who says nothing is asked with who says what is usual.
    assert [(len(histories), k, masked) for histories, k, masked in model.asked] == [
        (4, 5, True),
        (1, 4, False),
        (2, 8, True),
        (1, 7, True),
    ]
    assert together == [answer(loaded, [each])[0] for each in asked]
    assert [len(best) for found in together for best in found.lists] == [2, 2, 5, 4, 8, 7, 8, 5]
    assert together[0].unknown == [[], ["nobody"]]


@pytest.mark.parametrize(("beams", "dense"), [(9, 5), (5, 9)])
def test_who_has_the_models_look_further_does_so_alone(beams: int, dense: int) -> None:
    """Whether by beams or by the dense score: what a short list is made from does not depend on who else asks."""
    model = FakeRecommender(beams=beams, dense=dense)
    answer(Loaded(version_of(1), model), [question([ITEMS[0]], k=k) for k in (2, 7, 5)])
    assert [(len(histories), k) for histories, k, _ in model.asked] == [(2, 5), (1, 7)]


class Slow:
    """Answers when it is let, and keeps what it was asked together."""

    def __init__(self) -> None:
        self.batches: list[list[Question]] = []
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def __call__(self, questions: Sequence[Question]) -> list[Found]:
        self.batches.append(list(questions))
        self.begun.release()
        assert self.go.wait(30)
        if any(each.k == 13 for each in questions):
            raise RuntimeError("unlucky")
        return [Found(version_of(each.k), [], []) for each in questions]


def version_in(future: Future[Found]) -> str:
    return future.result(30).version.version


def test_what_waits_is_taken_at_once_up_to_the_limit() -> None:
    slow, seen = Slow(), []
    batcher = Batcher(slow, most_waiting=10, most_at_once=4, observe=lambda histories, _: seen.append(histories))
    batcher.start()
    first = batcher.submit(question(k=1))
    assert slow.begun.acquire(timeout=30)
    sizes = (2, 2, 3, 1)
    others = [batcher.submit(question(*[[]] * size, k=2 + number)) for number, size in enumerate(sizes)]
    assert batcher.waiting == 8
    slow.go.set()
    assert [version_in(each) for each in (first, *others)] == ["1", "2", "3", "4", "5"]
    batcher.stop()
    assert [[each.k for each in batch] for batch in slow.batches] == [[1], [2, 3], [4, 5]]
    assert seen == [1, 4, 4] and batcher.waiting == 0


def test_a_full_queue_refuses_but_an_empty_one_takes_any_request() -> None:
    slow = Slow()
    batcher = Batcher(slow, most_waiting=2, most_at_once=2)
    batcher.start()
    first = batcher.submit(question(k=1))
    assert slow.begun.acquire(timeout=30)
    large = batcher.submit(question(*[[]] * 5, k=2))
    with pytest.raises(QueueFullError):
        batcher.submit(question(k=3))
    slow.go.set()
    assert [version_in(first), version_in(large)] == ["1", "2"]
    assert version_in(batcher.submit(question(k=4))) == "4"
    batcher.stop()


def test_a_failure_is_told_to_its_batch_alone() -> None:
    slow = Slow()
    slow.go.set()
    batcher = Batcher(slow, most_waiting=10, most_at_once=10)
    batcher.start()
    with pytest.raises(RuntimeError, match="unlucky"):
        batcher.submit(question(k=13)).result(30)
    assert version_in(batcher.submit(question(k=1))) == "1"
    batcher.stop()


def test_what_nobody_waits_for_is_left_out() -> None:
    slow = Slow()
    batcher = Batcher(slow, most_waiting=10, most_at_once=1)
    batcher.start()
    first = batcher.submit(question(k=1))
    assert slow.begun.acquire(timeout=30)
    gone, last = batcher.submit(question(k=2)), batcher.submit(question(k=3))
    assert gone.cancel()
    slow.go.set()
    assert [version_in(first), version_in(last)] == ["1", "3"]
    batcher.stop()
    assert [each.k for batch in slow.batches for each in batch] == [1, 3]


def test_stopping_answers_what_waits_and_takes_no_more() -> None:
    slow = Slow()
    batcher = Batcher(slow, most_waiting=10, most_at_once=1)
    batcher.start()
    waiting = [batcher.submit(question(k=number)) for number in (1, 2, 3)]
    assert slow.begun.acquire(timeout=30)
    stopping = threading.Thread(target=batcher.stop)
    stopping.start()
    while True:
        try:
            waiting.append(batcher.submit(question(k=4)))
        except QueueFullError:
            continue
        except StoppedError:
            break
    slow.go.set()
    stopping.join(30)
    assert not stopping.is_alive()
    assert [version_in(each) for each in waiting[:3]] == ["1", "2", "3"] and all(each.done() for each in waiting)
