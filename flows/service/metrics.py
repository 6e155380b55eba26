"""What Prometheus is told of the service. Knows names of metrics; knows nothing of how things are measured."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from prorec.tasks.registry.recommenders import RegisteredVersion

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)
_HISTORIES = (1, 2, 4, 8, 16, 32, 64)


disable_created_metrics()  # type: ignore[no-untyped-call]  # a line more a counter, of use to nobody


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "prorec_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "prorec_request_seconds",
            "Seconds from a request's arrival to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_histories = Histogram(
            "prorec_batch_histories", "Histories answered together.", buckets=_HISTORIES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "prorec_batch_seconds", "Seconds of inference a batch.", buckets=_SECONDS, registry=self.registry
        )
        self.waiting = Gauge("prorec_queue_histories", "Histories that wait for inference.", registry=self.registry)
        self.refused = Counter(
            "prorec_refused", "Requests refused with status 503.", ["reason"], registry=self.registry
        )
        self.fallbacks = Counter(
            "prorec_fallbacks", "Histories without a known item, answered with popular items.", registry=self.registry
        )
        self.short_lists = Counter(
            "prorec_short_lists",
            "Histories that hold all but fewer than k items of what may be recommended.",
            registry=self.registry,
        )
        self.unknown_items = Counter("prorec_unknown_items", "Unknown items in histories.", registry=self.registry)
        self.model = Gauge(
            "prorec_model_info", "1 for the version in use.", ["name", "version", "model_id"], registry=self.registry
        )
        self.reloads = Counter("prorec_model_loads", "Versions loaded.", ["outcome"], registry=self.registry)
        self.polls = Counter(
            "prorec_registry_polls", "Looks at which version the address names.", ["outcome"], registry=self.registry
        )
        for outcome in ("done", "failed"):
            self.reloads.labels(outcome)
            self.polls.labels(outcome)
        for reason in ("queue_full", "no_model", "stopping"):
            self.refused.labels(reason)

    def follow_queue(self, waiting: Callable[[], int]) -> None:
        """Have the length of the queue looked up when metrics are asked for."""
        self.waiting.set_function(waiting)

    def observe_batch(self, histories: int, seconds: float) -> None:
        """One batch was answered."""
        self.batch_histories.observe(histories)
        self.batch_seconds.observe(seconds)

    def model_in_use(self, version: RegisteredVersion) -> None:
        """Another version answers from now on."""
        self.model.clear()
        self.model.labels(version.name, version.version, version.model_id).set(1)
