"""What follows from the figures of two workers for more of them."""

from __future__ import annotations

import pytest

from benchmarks.workers import efficiency, reach


def test_one_worker_waits_for_nobody() -> None:
    assert efficiency(0.1, 1e9, 1, 1e6) == 1


def test_a_worker_works_half_of_its_time_where_both_take_as_long() -> None:
    # Four workers: a quarter of 0.4 s each, and 1.5 times 100 MB at 1.5 GB/s.
    assert efficiency(0.4, 100e6, 4, 1.5e9) == pytest.approx(0.5)
    assert reach(0.4, 100e6, 1.5e9) == 4


def test_faster_networks_and_fewer_bytes_reach_further() -> None:
    assert reach(0.4, 10e6, 1.25e9) < reach(0.4, 10e6, 12.5e9)
    assert reach(0.4, 10e6, 1.25e9) < reach(0.4, 1e6, 1.25e9)
