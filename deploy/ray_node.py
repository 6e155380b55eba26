"""A container of a Ray cluster: `python ray_node.py head|worker -- WORDS FOR ray start [-- PROGRAM …]`.

Ray's processes and the program beside them live and die together: when either ends, or on SIGTERM, all do, so that who
watches the container starts it anew. Without a token nothing starts, for whoever reaches a cluster runs programs on it.
"""

import os
import signal
import subprocess
import sys
import time

SECONDS_TO_END = 20


def main() -> int:
    """Run until something ends; status 0 only where it was told to end."""
    kind, *words = sys.argv[1:]
    if len(os.environ.get("RAY_AUTH_TOKEN", "")) < 32:
        print("RAY_TOKEN: not set, or shorter than 32 signs. Put `openssl rand -hex 32` into .env.", file=sys.stderr)
        return 2
    parts = _parts(words)
    commands = [
        ["ray", "start", "--block", "--disable-usage-stats", *(["--head"] if kind == "head" else []), *parts[0]]
    ]
    commands += parts[1:]
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: told.append(got))
    running: list[subprocess.Popen[bytes]] = []
    try:
        # One by one: where a later one is not there, the earlier ones end too.
        for command in commands:
            running.append(subprocess.Popen(command))
        while not told and all(each.poll() is None for each in running):
            time.sleep(0.2)
    finally:
        # The program first: it may have work in the cluster that it wants to leave in order.
        for each in reversed(running):
            _end(each)
    return 0 if told else 1


def _parts(words: list[str]) -> list[list[str]]:
    """The words between the signs `--`, of which the first begins the list."""
    parts: list[list[str]] = []
    for word in words:
        if word == "--":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
