"""Several hosts on one machine: recommendations by workers in network namespaces, and with the link to one of them cut.

Knows `ip`, Ray's own commands and `prorec recommend-all`. Each host is a network namespace with an address of its own
on a bridge: a head, which has no cores to give, and two workers with one core each. Needs Linux, root and `ip`.

    python -m benchmarks.hosts --model models:/prorec-demo@champion --chunk 100

The same file is made three times: by one process with one thread, by the two workers, and by the two workers of whom
one is cut off in the middle. Ends with status 1 unless all three are equal to the byte and nothing is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

HOSTS = ("head", "first", "second")
_BRIDGE, _NETWORK, _PORT = "prorec0", "10.231.7", 6379
_STORE = 80 * 2**20
_SECONDS_TO_START = 180.0


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _space(host: str) -> str:
    return f"prorec-{host}"


def _address(host: str) -> str:
    return f"{_NETWORK}.{HOSTS.index(host) + 1}"


def _within(host: str, *words: str) -> list[str]:
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
            _run(*_within(host, "ip", "addr", "add", f"{_address(host)}/24", "dev", inner))
            _run(*_within(host, "ip", "link", "set", inner, "up"))
            _run(*_within(host, "ip", "link", "set", "lo", "up"))
        yield
    finally:
        _remove()


def _remove() -> None:
    for host in HOSTS:
        _switch_off(host)
        subprocess.run(["ip", "netns", "del", _space(host)], check=False, capture_output=True)
        # The kernel takes the ends of a deleted namespace away later, at its leisure.
        subprocess.run(["ip", "link", "del", f"prorec{HOSTS.index(host)}a"], check=False, capture_output=True)
    subprocess.run(["ip", "link", "del", _BRIDGE], check=False, capture_output=True)


def cut(host: str) -> None:
    """Have nothing reach a host any more, and nobody be told."""
    _run("ip", "link", "set", f"prorec{HOSTS.index(host)}a", "down")


@contextmanager
def cluster(environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Ray's processes on each host, in the foreground of one of ours each, so that they go when it does."""
    ray = str(Path(sys.executable).parent / "ray")
    common = ["--block", "--disable-usage-stats", f"--object-store-memory={_STORE}"]
    with ExitStack() as stack:
        for host in HOSTS:
            words = [ray, "start", *common, f"--node-ip-address={_address(host)}"]
            if host == "head":
                words += ["--head", f"--port={_PORT}", "--num-cpus=0", "--include-dashboard=false"]
                words += [f"--temp-dir={folder}"]
            else:
                words += [f"--address={_address('head')}:{_PORT}", "--num-cpus=1"]
            log = stack.enter_context((folder.parent / f"{host}.log").open("w"))
            started = subprocess.Popen(_within(host, *words), env=environment, stdout=log, stderr=log)
            stack.callback(_stop, started)
            if host == "head":
                _wait_for_head(environment)
            else:
                # One after the other: on one machine they name their sockets in the same folder.
                _wait_for_cores(environment, HOSTS.index(host))
        yield


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _switch_off(host: str) -> None:
    """End what still runs there, as a machine does that is switched off; it is told."""
    found = subprocess.run(["ip", "netns", "pids", _space(host)], check=False, capture_output=True, text=True)
    for pid in map(int, found.stdout.split()):
        with suppress(OSError):
            name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().strip()
            os.kill(pid, signal.SIGKILL)
            print(f"{host} is switched off, and with it {name}", file=sys.stderr, flush=True)


def _wait_for_head(environment: Mapping[str, str]) -> None:
    reach = f"import socket; socket.create_connection(('{_address('head')}', {_PORT}), 2)"
    _wait(_within("head", sys.executable, "-c", reach), environment)


def _wait_for_cores(environment: Mapping[str, str], count: int) -> None:
    ask = (
        f"import ray; ray.init('{_address('head')}:{_PORT}', configure_logging=False, log_to_driver=False); "
        f"assert ray.cluster_resources().get('CPU', 0) >= {count}"
    )
    _wait(_within("head", sys.executable, "-c", ask), environment)


def _wait(words: list[str], environment: Mapping[str, str]) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while (done := subprocess.run(words, env=environment, check=False, capture_output=True, text=True)).returncode:
        if time.monotonic() > end:
            raise SystemExit(f"the cluster does not start: {done.stderr.strip().splitlines()[-1:]}")
        time.sleep(0.5)


def recommend(
    words: list[str], environment: Mapping[str, str], output: Path, *, on_cluster: bool, lose: str = "", after: int = 0
) -> dict[str, object]:
    """Write the file; returns its hash, the seconds, and what was said of lost workers.

    Args:
        words: options of the command.
        environment: of the command.
        output: the file.
        on_cluster: workers make it.
        lose: the host to cut off.
        after: when so many chunks are there, so that it has some in hand.
    """
    command = [sys.executable, "-m", "prorec", "recommend-all", *words, "--output", str(output)]
    if on_cluster:
        command += ["--set", "compute.engine=ray", "--set", f"compute.address={_address('head')}:{_PORT}"]
        command = _within("head", *command)
    begun = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    if lose:
        parts = output.parent / f".{output.name}.parts"
        threading.Thread(target=_cut_once, args=(lose, parts, after, process), daemon=True).start()
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        print(lines[-1], file=sys.stderr, flush=True)
    if process.wait():
        raise SystemExit("\n".join(lines[-20:]))
    return {
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
        "seconds": round(time.monotonic() - begun, 1),
        "told": [line for line in lines if "worker" in line],
    }


def _cut_once(host: str, parts: Path, after: int, process: subprocess.Popen[str]) -> None:
    while len(list(parts.glob("*.parquet"))) < after:
        if process.poll() is not None:
            return
        time.sleep(0.1)
    cut(host)
    print(f"{host} is cut off after {after} chunks", file=sys.stderr, flush=True)


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


def main() -> None:
    """Run it, and print what was seen as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models:/prorec-demo@champion")
    parser.add_argument("--chunk", default="100")
    parser.add_argument("--users", default="all")
    parser.add_argument("--explain", action="store_true", help="have each chunk take longer")
    parser.add_argument("--after", type=int, default=10, help="chunks that are there when the link is cut")
    given = parser.parse_args()
    # Whoever ends this wants the network to be gone, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    words = ["--model", given.model, "--chunk", given.chunk, "--users", given.users, *["--explain"] * given.explain]
    mark = f"PROREC_HOSTS={secrets.token_hex(8)}"
    name, _, value = mark.partition("=")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **token, name: value}
    seen: dict[str, object] = {}
    shared = {path.name for path in Path("/dev/shm").iterdir()}
    # Short: the names of the sockets in it may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="prorec-hosts-", dir="/tmp") as scratch:
        folder = Path(scratch)
        alone = {**environment, "OMP_NUM_THREADS": "1"}
        seen["one process"] = recommend(words, alone, folder / "one.parquet", on_cluster=False)
        for case, lose in (("two workers", ""), ("two workers, one cut off", "second")):
            with network(), cluster(environment, folder / "ray"):
                output = folder / f"{len(seen)}.parquet"
                seen[case] = recommend(words, environment, output, on_cluster=True, lose=lose, after=given.after)
    seen["processes left"] = left(mark)
    seen["shared memory left"] = sorted(
        {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith("plasma")} - shared
    )
    print(json.dumps(seen, indent=2))
    hashes = {case["sha256"] for case in seen.values() if isinstance(case, dict)}
    if len(hashes) > 1 or seen["processes left"] or seen["shared memory left"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
