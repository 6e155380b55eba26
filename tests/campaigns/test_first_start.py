from __future__ import annotations

from pathlib import Path

from tests.campaigns.first_start import campaign


def test_a_store_that_is_killed_while_it_is_first_opened_goes_on(tmp_path: Path) -> None:
    tally = campaign(1.0, 3, tmp_path, ["first look"])["first look"]
    assert tally.failures == [] and sum(tally.kills.values()) >= 1 and tally.went_on >= 1
