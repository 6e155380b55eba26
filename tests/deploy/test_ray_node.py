"""Containers of a Ray cluster as processes: without a token none starts, and what runs in one ends together.

Two stand-ins for the programs show how they end; where Ray is installed, the commands of docker-compose.yml are those
of a real cluster.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "deploy" / "ray_node.py"
TOKEN = "0123456789abcdef" * 4


def variables_of(token: str) -> dict[str, str]:
    """Of Ray's processes."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def start(folder: Path, *words: str, token: str = TOKEN) -> subprocess.Popen[str]:
    """A node whose programs are looked for in a folder first."""
    path = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, **variables_of(token), "PATH": path}
    return subprocess.Popen(
        [sys.executable, str(NODE), *words], env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def stand_in(folder: Path, name: str, body: str) -> None:
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {folder}/started\n{body}\n')
    program.chmod(0o755)


def wait_for(true: Any, seconds: float = 20, node: subprocess.Popen[str] | None = None) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert node is None or node.poll() is None, node.communicate()[1]
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize("token", ["", "short"])
def test_without_a_token_nothing_starts(tmp_path: Path, token: str) -> None:
    stand_in(tmp_path, "ray", "exit 0")
    node = start(tmp_path, "head", "--", "--port=1", token=token)
    _, said = node.communicate(timeout=20)
    assert node.returncode == 2 and said.startswith("RAY_TOKEN: ") and said.count("\n") == 1
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("ending", ["ray", "beside"])
def test_when_one_ends_the_other_does_and_the_container_starts_anew(tmp_path: Path, ending: str) -> None:
    both_are_there = f"while [ $(wc -l < {tmp_path}/started) -lt 2 ]; do sleep 0.05; done"
    for name in ("ray", "beside"):
        stand_in(tmp_path, name, both_are_there if name == ending else "exec sleep 300")
    node = start(tmp_path, "head", "--", "--port=1", "--", "beside", "it")
    assert node.wait(20) == 1
    started = (tmp_path / "started").read_text()
    assert f"{tmp_path}/ray start --block --disable-usage-stats --head --port=1" in started
    with pytest.raises(ProcessLookupError):
        os.killpg(node.pid, 0)


def test_a_program_that_is_not_there_leaves_nothing_running(tmp_path: Path) -> None:
    stand_in(tmp_path, "ray", "exec sleep 300")
    node = start(tmp_path, "head", "--", "--port=1", "--", "no-such-program")
    assert node.wait(20) == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(node.pid, 0)


def test_told_to_end_it_ends_all_and_well(tmp_path: Path) -> None:
    stand_in(tmp_path, "ray", "exec sleep 300")
    node = start(tmp_path, "worker", "--", "--address=somewhere:1")
    wait_for((tmp_path / "started").exists)
    assert "--head" not in (tmp_path / "started").read_text()
    node.send_signal(signal.SIGTERM)
    assert node.wait(20) == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(node.pid, 0)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install 'prorec[ray]')")
def test_head_and_worker_of_the_compose_file_are_a_cluster_that_asks_for_the_token(files: Any, tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = {"6379": str(one.getsockname()[1]), "8265": str(two.getsockname()[1])}

    def here(words: list[str]) -> list[str]:
        for inside, outside in ports.items():
            words = [word.replace(inside, outside) for word in words]
        own = [f"--temp-dir={folder}"] if "head" in words else []
        words = [word.replace("ray-head", "127.0.0.1").replace("0.0.0.0", "127.0.0.1") for word in words[2:]]
        place = words.index("--") + 1
        return [*words[:place], "--node-ip-address=127.0.0.1", *own, *words[place:]]

    head_words = files.services["ray-head"]["command"]
    # Prefect's worker is another test's.
    head_words = head_words[: len(head_words) - head_words[::-1].index("--") - 1]
    folder = tempfile.mkdtemp(prefix="ray-")  # short: the names of sockets in it may have 107 characters
    nodes = [start(tmp_path, *here(head_words))]
    address = f"127.0.0.1:{ports['6379']}"

    def asked(*words: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **variables_of(token)}
        command = [str(Path(sys.executable).parent / "ray"), *words]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)

    def members() -> int:
        return asked("status", f"--address={address}").stdout.count(" node_")

    try:
        wait_for(lambda: asked("health-check", f"--address={address}").returncode == 0, 180, nodes[0])
        # Its own node comes later. Whoever joins till then fails, and as a container is started anew.
        wait_for(lambda: members() == 1, 180, nodes[0])
        nodes.append(start(tmp_path, *here(files.services["ray-worker"]["command"])))
        wait_for(lambda: members() == 2, 180, nodes[1])
        assert asked("status", f"--address={address}", token="f" * 64).returncode != 0
        nodes[0].send_signal(signal.SIGTERM)
        assert nodes[0].wait(120) == 0
        # Of a head that is gone its workers know within a minute, and start anew.
        assert nodes[1].wait(240) == 1
    finally:
        for node in nodes:
            node.terminate()
            node.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
