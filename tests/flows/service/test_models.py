"""Following an address: whatever its next version is, the one in use goes on until the next is warm."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from prorec.tasks.registry import recommenders
from prorec.tasks.tracking.retries import TrackingAwayError
from prorec_core.errors import UserError

from .conftest import ITEMS, FakeRecommender, Service, version_of
from .test_app import ask


def in_use(service: Service) -> str:
    return str(ask(service, ITEMS[:1])["model"]["version"])


def test_the_next_version_is_warm_before_it_answers(service: Service) -> None:
    following = FakeRecommender()
    following.go.clear()
    service.registry.versions["2"], service.registry.named = following, version_of(2)
    looking = threading.Thread(target=service.keeper.look)
    looking.start()
    assert following.busy.wait(30)
    assert in_use(service) == "1"
    following.go.set()
    looking.join(30)
    assert in_use(service) == "2"
    assert len(following.asked) > 1
    assert service.metric("prorec_model_info", name="prorec-shop", version="2", model_id="m-2") == 1
    assert 'version="1"' not in service.client.get("/metrics").text
    service.keeper.look()
    assert service.registry.loads == ["1", "2"]


def test_a_version_that_cannot_be_loaded_is_told_and_not_tried_at_every_look(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    registry = service.registry
    registry.named, registry.versions["2"] = version_of(2), UserError("a file is missing", place="codes.parquet")
    tries = []
    for _ in range(40):
        service.keeper.look()
        tries.append(len(registry.loads) - 1)
        registry.now += 5.0
    # After 60 s, and then after 120 s more.
    assert [tries.index(count) for count in (1, 2, 3)] == [0, 12, 36] and tries[-1] == 3
    assert in_use(service) == "1"
    problem = "models:/prorec-shop/2 cannot be loaded: codes.parquet: a file is missing."
    ready = service.client.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"model": {"name": "prorec-shop", "version": "1"}, "problem": problem}
    assert [record.getMessage() for record in caplog.records].count(problem) == 1
    assert service.metric("prorec_model_loads_total", outcome="failed") == 3

    registry.named, registry.versions["3"] = version_of(3), FakeRecommender()
    service.keeper.look()
    assert in_use(service) == "3" and service.client.get("/ready").json()["problem"] is None


def test_going_back_to_the_version_in_use_forgets_the_failure(service: Service) -> None:
    service.registry.named, service.registry.versions["2"] = version_of(2), RuntimeError("torn")
    service.keeper.look()
    assert service.keeper.problem
    service.registry.named = version_of(1)
    service.keeper.look()
    assert service.keeper.problem is None
    service.registry.named = version_of(2)
    service.keeper.look()
    assert service.registry.loads == ["1", "2", "2"]


def test_a_model_that_fails_when_warmed_up_is_not_used(service: Service) -> None:
    broken = FakeRecommender()
    broken.error = RuntimeError("no such operator")
    service.registry.named, service.registry.versions["2"] = version_of(2), broken
    service.keeper.look()
    assert in_use(service) == "1" and "no such operator" in str(service.keeper.problem)


@pytest.mark.parametrize("error", [TrackingAwayError("away"), UserError("there is no model"), OSError("disk")])
def test_a_store_that_is_away_disturbs_nothing(
    service: Service, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    service.registry.named = error
    for _ in range(3):
        service.keeper.look()
        assert in_use(service) == "1"
    assert len([record for record in caplog.records if "cannot be followed" in record.getMessage()]) == 1
    assert service.metric("prorec_registry_polls_total", outcome="failed") == 3
    service.registry.named = version_of(1)
    service.keeper.look()
    assert service.keeper.problem is None


def test_the_first_version_is_loaded_beside_the_server(make_service: Callable[..., Service]) -> None:
    service = make_service(loaded=False)
    service.recommender.go.clear()
    outcome: list[BaseException | None] = []
    done = threading.Event()

    def ready(error: BaseException | None) -> None:
        outcome.append(error)
        done.set()

    service.keeper.start(version_of(1), 0, ready)
    assert service.recommender.busy.wait(30)
    assert service.client.get("/ready").status_code == 503
    service.recommender.go.set()
    assert done.wait(30) and outcome == [None]
    assert service.client.get("/ready").status_code == 200
    service.keeper.stop()


def test_a_first_version_that_cannot_be_loaded_is_handed_on(make_service: Callable[..., Service]) -> None:
    service = make_service(loaded=False)
    service.registry.versions["1"] = UserError("a file is missing")
    outcome: list[BaseException | None] = []
    service.keeper.start(version_of(1), 0.01, outcome.append)
    service.keeper.stop()
    assert [str(error) for error in outcome] == ["a file is missing."] and service.keeper.current is None


def test_what_was_served_is_remembered(service: Service) -> None:
    uri = service.keeper.uri
    assert recommenders.recall(uri) == version_of(1)
    assert recommenders.recall("models:/prorec-other@champion") is None
    note = recommenders._note(uri)
    note.write_text("{")
    assert recommenders.recall(uri) is None
