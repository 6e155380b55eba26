"""Several hosts on one machine: network namespaces with an address each on a bridge, and Ray's processes in them.

Knows `ip`, `/proc` and Ray's own commands; knows nothing of what is computed. A head, which has no cores to give, and
two workers with one core each. Needs Linux, root and `ip`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

HOSTS = ("head", "first", "second")
_BRIDGE, _NETWORK, _PORT = "prorec0", "10.231.7", 6379
_STORE = 80 * 2**20
_SECONDS_TO_START = 300.0
_SECONDS_TO_STOP = 60.0


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _space(host: str) -> str:
    return f"prorec-{host}"


def _address(host: str) -> str:
    return f"{_NETWORK}.{HOSTS.index(host) + 1}"


def cluster_address() -> str:
    """Where the head is found, HOST:PORT."""
    return f"{_address('head')}:{_PORT}"


def within(host: str, *words: str) -> list[str]:
    """A command line that runs on a host; what is started with it is the command itself."""
    return ["ip", "netns", "exec", _space(host), *words]


@contextmanager
def network() -> Iterator[None]:
    """A bridge with a namespace for each host; all of it is gone at the end, whatever was there of an earlier try."""
    _remove()
    try:
        _run("ip", "link", "add", _BRIDGE, "type", "bridge")
        _run("ip", "link", "set", _BRIDGE, "up")
        for number, host in enumerate(HOSTS):
            outer, inner = f"prorec{number}a", f"prorec{number}b"
            _run("ip", "netns", "add", _space(host))
            _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
            _run("ip", "link", "set", inner, "netns", _space(host))
            _run("ip", "link", "set", outer, "master", _BRIDGE, "up")
            _run(*within(host, "ip", "addr", "add", f"{_address(host)}/24", "dev", inner))
            _run(*within(host, "ip", "link", "set", inner, "up"))
            _run(*within(host, "ip", "link", "set", "lo", "up"))
        yield
    finally:
        _remove()


def _remove() -> None:
    for host in HOSTS:
        switch_off(host)
        subprocess.run(["ip", "netns", "del", _space(host)], check=False, capture_output=True)
        # The kernel takes the ends of a deleted namespace away later, at its leisure.
        subprocess.run(["ip", "link", "del", f"prorec{HOSTS.index(host)}a"], check=False, capture_output=True)
    subprocess.run(["ip", "link", "del", _BRIDGE], check=False, capture_output=True)


def cut(host: str) -> None:
    """Have nothing reach a host any more, and nobody be told."""
    _run("ip", "link", "set", f"prorec{HOSTS.index(host)}a", "down")


def mend(host: str) -> None:
    """Have a host be reached again."""
    _run("ip", "link", "set", f"prorec{HOSTS.index(host)}a", "up")


def processes(host: str) -> dict[int, str]:
    """What runs there: by process id the first word of its command line, which is how Ray names its own."""
    found = subprocess.run(["ip", "netns", "pids", _space(host)], check=False, capture_output=True, text=True)
    names = {}
    for pid in map(int, found.stdout.split()):
        with suppress(OSError):
            names[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().strip()
    return names


def kill(host: str, name: str) -> list[int]:
    """SIGKILL for those of a host whose name holds this; returns which they were."""
    found = [pid for pid, each in processes(host).items() if name in each]
    for pid in found:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return found


def switch_off(host: str) -> None:
    """End what still runs there, as a machine does that is switched off; it is told."""
    for pid, name in processes(host).items():
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            print(f"{host} is switched off, and with it {name}", file=sys.stderr, flush=True)


class RayHosts:
    """Ray's processes on each host, in the foreground of one of ours each, so that they go when it does; a context.

    Args:
        environment: of all of them.
        folder: for Ray's own files; their output goes beside it.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment, self._folder = environment, folder
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> RayHosts:
        try:
            for host in HOSTS:
                # One after the other: on one machine they name their sockets in the same folder.
                self.start(host)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def start(self, host: str) -> None:
        """Start a host's, and wait until it has joined the others; what is left of earlier ones is ended first."""
        if host in self._started:
            switch_off(host)
            self._started.pop(host).wait()
        words = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats"]
        words += [f"--object-store-memory={_STORE}", f"--node-ip-address={_address(host)}"]
        if host == "head":
            words += ["--head", f"--port={_PORT}", "--num-cpus=0", "--include-dashboard=false"]
            words += [f"--temp-dir={self._folder}"]
        else:
            words += [f"--address={cluster_address()}", "--num-cpus=1"]
        with (self._folder.parent / f"{host}.log").open("a") as log:
            started = subprocess.Popen(within(host, *words), env=self._environment, stdout=log, stderr=log)
        self._started[host] = started
        if host == "head":
            self._wait(f"import socket; socket.create_connection(('{_address('head')}', {_PORT}), 2)")
        else:
            self._wait(
                f"import ray; ray.init('{cluster_address()}', configure_logging=False, log_to_driver=False); "
                f"alive = {{node['NodeManagerAddress'] for node in ray.nodes() if node['Alive']}}; "
                f"assert '{_address(host)}' in alive, alive"
            )

    def _wait(self, until: str) -> None:
        end = time.monotonic() + _SECONDS_TO_START
        words = within("head", sys.executable, "-c", until)
        while (
            done := subprocess.run(words, env=self._environment, check=False, capture_output=True, text=True)
        ).returncode:
            if time.monotonic() > end:
                raise SystemExit(f"the cluster does not start: {done.stderr.strip().splitlines()[-1:]}")
            time.sleep(0.5)

    def _stop(self) -> None:
        for process in reversed(self._started.values()):
            process.terminate()
        end = time.monotonic() + _SECONDS_TO_STOP
        for process in self._started.values():
            try:
                process.wait(max(1.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._started.clear()


def left(mark: str) -> list[str]:
    """Processes with this in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes().split(b"\0") and place.name != str(os.getpid()):
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:100])
        except OSError:
            continue
    return found


def shared_memory() -> set[str]:
    """Object stores in /dev/shm."""
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith("plasma")}
