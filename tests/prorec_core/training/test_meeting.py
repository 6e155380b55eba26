"""How workers come to talk to each other: nothing listens where it need not, and one that does not come is told."""

from __future__ import annotations

import socket

import pytest
import torch.distributed as dist

from prorec_core.training import meeting
from prorec_core.training.meeting import meet
from prorec_core.training.workers import WorkerLostError, Workers


def _nobody(_: object) -> tuple[str, int]:
    raise AssertionError("nobody is to be told anything")


def test_a_single_worker_makes_what_one_process_makes() -> None:
    with meet(0, 1, "127.0.0.1", _nobody, device="cpu", seconds=1) as found:
        assert type(found) is Workers and found.device == "cpu" and found.first
        assert not dist.is_initialized()


def test_one_that_does_not_come_is_told_and_nothing_but_the_address_is_open() -> None:
    def told(own: tuple[str, int] | None) -> tuple[str, int]:
        assert own is not None and own[0] == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", own[1]), 2).close()
        socket.create_connection(own, 2).close()
        return own

    with (
        pytest.raises(WorkerLostError, match="does not come"),
        meet(0, 2, "127.0.0.1", told, device="cpu", seconds=1),
    ):
        raise AssertionError("it begins alone")


def test_whoever_comes_to_a_closed_door_says_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with (
            pytest.raises(WorkerLostError),
            meet(1, 2, "127.0.0.1", lambda _: ("127.0.0.1", port), device="cpu", seconds=1),
        ):
            raise AssertionError("it begins alone")


def test_an_interface_is_found_by_its_address() -> None:
    assert meeting._interface("127.0.0.1") in {name for _, name in socket.if_nameindex()}
    assert meeting._interface("203.0.113.1") is None
