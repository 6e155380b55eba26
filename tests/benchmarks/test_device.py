"""Every piece of what is measured on a device runs on a CPU, at sizes that say nothing of cost, within a budget."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import benchmarks
from benchmarks.budget import Point, does_not_fit
from benchmarks.card import Card, Figure, Session, known_peak, operations_of
from benchmarks.card_data import PeerSizes
from benchmarks.card_growth import Sizes
from benchmarks.device import GROUPS, main, measure, told
from benchmarks.shop import Size
from prorec_core.config import Experiment

TINY = Sizes(Size(300, 80, 6), 60, 20, 16, 1, 64, 60, 10, 10, 64)
BRIEF = {"epochs": 1, "tokens_per_batch": 128}
SMALL = {"dim": 16, "layers": 1, **BRIEF}


def _session(folder: Path, seconds: float, peak: float | None = None) -> Session:
    return Session(Card(torch.device("cpu"), peak), time.monotonic() + seconds, folder, lambda _: None)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    sections = {
        "data": {"demo": {"users": 60, "items": 40}},
        "collaborative": SMALL,
        "align": BRIEF,
        "quantize": {"codes": 4},
        "generator": SMALL,
        "evaluate": {"bootstrap_samples": 100},
    }
    return Experiment.model_validate({**sections, "device": "cpu"})


def test_all_is_measured_and_told(experiment: Experiment, tmp_path: Path) -> None:
    session = _session(tmp_path, 1000, peak=1.0)
    found = measure(session, experiment, None, TINY, ["eager"], GROUPS, PeerSizes((4,), 1, 2))
    assert [figure for figure in found if figure.value is None or figure.why_not] == []
    titles = " ".join(figure.title for figure in found)
    for words in ("all stages", "train_generator, an epoch", "align, an epoch", "search, 50 beams", "T5, search"):
        assert words in titles
    for words in ("against T5's", "utilisation", "a large shop: quantize", "leaving out what users have"):
        assert words in titles
    assert "extrapolated from 2 users" in {figure.note for figure in found}
    assert all(told(figure) != "–" for figure in found)


def test_what_does_not_fit_is_not_begun(experiment: Experiment, tmp_path: Path) -> None:
    found = measure(_session(tmp_path, 5), experiment, None, TINY, ["eager"], GROUPS, PeerSizes((4,), 1, 2))
    assert {figure.why_not[:24] for figure in found} == {"would not fit the budget"}
    assert does_not_fit([Point(1, 10)], 1, 5) and list(tmp_path.iterdir()) == []


def test_a_device_that_is_lost_ends_it_and_one_that_is_full_does_not(tmp_path: Path) -> None:
    session = _session(tmp_path, 100)

    def full() -> list[Figure]:
        torch.empty(2**50)
        return []

    def lost() -> list[Figure]:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    assert not session.run("large", 1, full)
    assert session.run("small", 1, lambda: [Figure("small", 1.0)])
    assert not session.run("gone", 1, lost) and not session.run("after", 1, lambda: [Figure("after", 1.0)])
    assert ["memory is full" in f.why_not or "lost" in f.why_not or "failed" in f.why_not for f in session.figures] == [
        True,
        False,
        True,
        True,
    ]
    with pytest.raises(KeyError):
        _session(tmp_path, 100).run("wrong", 1, lambda: [{}["a"]])


def test_operations_of_a_product_are_counted_and_held_against_the_peak() -> None:
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    operations = operations_of(lambda: (a @ b).sum().backward())
    assert operations == 3 * 2 * 3 * 5 * 7
    assert Card(torch.device("cpu"), 2.0).utilisation(1e12, 1.0) == 50
    assert Card(torch.device("cpu")).utilisation(1e12, 1.0) is None


def test_cards_are_known_by_name() -> None:
    names = {"NVIDIA H200": 989.0, "NVIDIA H100 80GB HBM3": 989.0, "NVIDIA H100 PCIe": 756.0, "NVIDIA L40S": 362.0}
    assert {name: known_peak(name) for name in names} == names
    assert known_peak("another") is None


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--device", "cpu", "--data", str(tmp_path / "no")]) == 2
    assert main(["--device", "cuda:7", "--data", str(tmp_path)]) == 2
    assert main(["--device", "cpu", "--data", str(tmp_path), "--modes", "fast"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "not found" in lines[0] and "not available" in lines[1] and "'fast'" in lines[2]


def test_a_bare_machine_has_what_it_takes() -> None:
    """Neither Prefect nor MLflow, nor what needs them."""
    folder = Path(benchmarks.__file__).parent
    for name in ("device", "card", "card_data", "card_growth", "experiments", "peer_t5", "shop", "catalogue", "budget"):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert "from prorec." not in text and "import prefect" not in text and "import mlflow" not in text, name
