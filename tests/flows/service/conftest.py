"""A recommender whose answers are known, and a service around it without a server or a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from prorec.flows.service import schemas
from prorec.flows.service.app import create_app
from prorec.flows.service.batching import Batcher, Found, Question, answer
from prorec.flows.service.metrics import Metrics
from prorec.flows.service.models import ModelKeeper
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec_core.data.conditions import Attributes
from prorec_core.errors import UserError
from prorec_core.generation.allowed import Rules
from prorec_core.generation.recommender import Recommendation
from prorec_core.generation.rule_book import RuleBook
from prorec_core.generation.trie import CodeTrie

TOKEN = "a-token-of-these-tests-alone"
GIVEN = {"Authorization": f"Bearer {TOKEN}"}
ITEMS = [f"item-{number:02d}" for number in range(20)]


def version_of(number: int) -> RegisteredVersion:
    return RegisteredVersion(
        name="prorec-shop", version=str(number), model_id=f"m-{number}", location="", manifest_sha256=str(number)
    )


class FakeRecommender:
    """Recommends the items in the order of their names; keeps what it was asked, and answers when it is let."""

    def __init__(self, beams: int = 5, dense: int = 5) -> None:
        self.beams, self.dense = beams, dense
        self.item_ids = ITEMS
        self.asked: list[tuple[list[list[str]], int, bool]] = []
        self.go = threading.Event()
        self.go.set()
        self.busy = threading.Event()
        self.error: Exception | None = None
        trie = CodeTrie.from_codes(np.arange(20, dtype=np.uint16)[:, None])
        prices = pl.Series("price", range(20), dtype=pl.Int64), pl.Series("name", ["x"] * 20)
        self.rules = RuleBook(trie, {item: place for place, item in enumerate(ITEMS)}, Attributes(prices, 20))

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        mask_history: bool | None = None,
        rules: Rules | None = None,
    ) -> list[list[Recommendation]]:
        self.asked.append(([list(history) for history in histories], k, mask_history))
        self.busy.set()
        assert self.go.wait(30)
        if self.error:
            raise self.error
        found = []
        for history, rule in zip(histories, rules or [None] * len(histories), strict=True):
            left = [item for place, item in enumerate(ITEMS) if rule is None or rule.mask_N[place]]
            left = [item for item in left if not (self.masks(mask_history) and item in history)]
            found.append([Recommendation(item, item.title(), -float(rank)) for rank, item in enumerate(left)][:k])
        return found

    def looks_at(self, k: int) -> tuple[int, int]:
        return max(self.beams, k), max(self.dense, k)

    def masks(self, mask_history: bool | None) -> bool:
        return mask_history is not False

    def unknown(self, history: Sequence[str]) -> list[str]:
        return [item for item in dict.fromkeys(history) if item not in ITEMS]


class Registry:
    """What stands for the tracking store: which version the address names, and what each version loads."""

    def __init__(self) -> None:
        self.named: RegisteredVersion | Exception = version_of(1)
        self.versions: dict[str, FakeRecommender | Exception] = {"1": FakeRecommender()}
        self.loads: list[str] = []
        self.now = 0.0

    def find(self, _: str) -> RegisteredVersion:
        if isinstance(self.named, Exception):
            raise self.named
        return self.named

    def load(self, version: RegisteredVersion) -> FakeRecommender:
        self.loads.append(version.version)
        found = self.versions[version.version]
        if isinstance(found, Exception):
            raise found
        return found


class Service:
    """A service in this process, with all its parts in reach."""

    def __init__(
        self,
        registry: Registry,
        most_waiting: int = 100,
        homes: Sequence[str] = ("testserver",),
        hosts: Sequence[str] = (),
    ) -> None:
        self.registry = registry
        self.metrics = Metrics()
        self.keeper = ModelKeeper(
            "models:/prorec-shop@champion", self.metrics, registry.find, registry.load, lambda: registry.now
        )

        def answer_all(questions: Sequence[Question]) -> list[Found | UserError]:
            assert self.keeper.current is not None
            return answer(self.keeper.current, questions)

        self.batcher = Batcher(answer_all, most_waiting, schemas.MOST_HISTORIES, self.metrics.observe_batch)
        self.app = create_app(self.keeper, self.batcher, self.metrics, token=TOKEN, homes=homes, hosts=hosts)
        # A failure is an answer here, as it is for a client elsewhere.
        self.client = TestClient(self.app, raise_server_exceptions=False)

    @property
    def recommender(self) -> FakeRecommender:
        found = self.registry.versions["1"]
        assert isinstance(found, FakeRecommender)
        return found

    def metric(self, name: str, /, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def make_service(artifacts_folder: Path) -> Iterator[Callable[..., Service]]:
    """Make services that run; `loaded=False` leaves one without a model."""
    running: list[Service] = []

    def make(
        *,
        loaded: bool = True,
        most_waiting: int = 100,
        homes: Sequence[str] = ("testserver",),
        hosts: Sequence[str] = (),
    ) -> Service:
        service = Service(Registry(), most_waiting, homes, hosts)
        if loaded:
            service.keeper.use(version_of(1))
            service.recommender.asked.clear()
            service.recommender.busy.clear()
        service.client.__enter__()
        running.append(service)
        return service

    yield make
    for service in running:
        for version in service.registry.versions.values():
            if isinstance(version, FakeRecommender):
                version.go.set()
        service.client.__exit__(None, None, None)


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()
