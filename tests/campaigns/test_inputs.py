from __future__ import annotations

from tests.campaigns.inputs import campaign


def test_a_few_seconds_of_spoilt_inputs() -> None:
    figures = campaign(5.0, seed=7)
    assert figures.bad == []
    assert figures.inputs > 20 and figures.read and figures.refused
