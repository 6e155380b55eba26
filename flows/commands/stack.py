"""The commands of the local stack: `up`, `status`, `down`, `logs`. Knows what is typed and what is shown."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from prorec.flows.access import proxies, secret
from prorec.flows.stack import state
from prorec.flows.terminal.screen import console, say
from prorec.tasks.local import paths
from prorec_core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from prorec.flows.stack.state import StackState

COMMANDS = ("up", "status", "down", "logs")
_PREFECT_PORT, _MLFLOW_PORT, _RAY_PORT, _RAY_PAGES_PORT = 4200, 5000, 6379, 8265
_SECONDS_TO_STOP = 90.0
_LINES = 20

Port = Annotated[int | None, typer.Option(min=1, max=65535, show_default="the usual one if it is free, or any")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""

    @app.command()
    def up(
        prefect_port: Port = None,
        mlflow_port: Port = None,
        detach: Annotated[bool, typer.Option("--detach", help="Come back once it is ready; it goes on.")] = False,
        new_password: Annotated[
            bool, typer.Option("--new-password", help="Have the servers ask for another password than before.")
        ] = False,
        ray: Annotated[
            bool, typer.Option("--ray", help="Start a Ray cluster of this machine, too: compute.address=auto finds it.")
        ] = False,
    ) -> None:
        """Start Prefect, MLflow and a worker on this machine, and register the deployments."""
        if ray:
            from prorec.tasks.execution.cluster import expect_installed

            expect_installed("--ray")
        _stop_unsecured()
        if detach:
            _start_detached(prefect_port, mlflow_port, new_password=new_password, ray=ray)
        else:
            _supervise(prefect_port, mlflow_port, new_password=new_password, ray=ray)

    app.command()(status)
    app.command()(down)
    app.command()(logs)


def _stop_unsecured() -> None:
    """Stop a stack of an earlier version, whose servers do what anybody on the machine tells them."""
    found = state.running()
    if found is not None and not found.secured:
        print("The stack that is up asks nobody for a password. Stopping it; another takes its place …", flush=True)
        _stop(found)


def _supervise(prefect_port: int | None, mlflow_port: int | None, *, new_password: bool, ray: bool) -> None:
    from prorec.flows.stack import children, supervisor
    from prorec.flows.stack.servers import programs, tidying
    from prorec.tasks.local import processes

    with supervisor.alone() as first:
        if not first:
            raise _already(state.read())
        supervisor.log_to(supervisor.log_file("stack"))
        if ended := supervisor.clear_left_over(state.read()):
            say(f"A stack that was killed had left {', '.join(ended)} running; ended.")
        ports = (
            children.free_port(prefect_port, _PREFECT_PORT, "--prefect-port"),
            children.free_port(mlflow_port, _MLFLOW_PORT, "--mlflow-port"),
        )
        if ports[0] == ports[1]:
            raise UserError(f"both servers have port {ports[0]}", place="--mlflow-port", cure="Choose another")
        prefect, mlflow = (f"http://{children.HOST}:{port}" for port in ports)
        secret.ensure(state.folder(), new=new_password)
        stack = state.StackState(uuid4().hex, processes.identity(), prefect, mlflow, secured=True)
        if ray:
            secret.ensure(state.folder(), secret.RAY, new=new_password)
            stack.ray = f"{children.HOST}:{children.free_port(None, _RAY_PORT, '--ray')}"
            stack.ray_pages = f"http://{children.HOST}:{children.free_port(None, _RAY_PAGES_PORT, '--ray')}"
        stack.write()
        begun = time.monotonic()

        def ready() -> None:
            say(f"Ready after {time.monotonic() - begun:.0f} s.\n{_addresses(stack)}", lines=True)
            say("Ctrl-C stops it.")

        say(_starting(ray=ray))
        supervisor.Supervisor(stack, programs(stack), [tidying(stack)], ready).run()


def _starting(*, ray: bool) -> str:
    return f"Starting Prefect, MLflow{', Ray' if ray else ''} and a worker …"


def _start_detached(prefect_port: int | None, mlflow_port: int | None, *, new_password: bool, ray: bool) -> None:
    from prorec.flows.stack import children

    if found := state.running():
        raise _already(found)
    ports = {"--prefect-port": prefect_port, "--mlflow-port": mlflow_port}
    words = [word for name, port in ports.items() if port is not None for word in (name, str(port))]
    words += [*(["--new-password"] if new_password else []), *(["--ray"] if ray else [])]
    log = state.folder() / "detached.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "prorec", "up", *words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            # What goes on for months holds no folder of its user's.
            cwd=paths.project_root(),
            env={**os.environ, paths.ARTIFACTS_VARIABLE: str(paths.artifacts())},
            start_new_session=True,
        )
    say(_starting(ray=ray))
    begun = time.monotonic()
    try:
        while process.poll() is None:
            stack = state.read()
            if stack is not None and stack.ready and stack.supervisor["pid"] == str(process.pid):
                say(f"Ready after {time.monotonic() - begun:.0f} s.\n{_addresses(stack)}", lines=True)
                return
            time.sleep(0.1)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    say(children.last_line(log) or f"prorec: the stack did not start, see {log}", error=True)
    raise typer.Exit(process.returncode if process.returncode > 0 else 1)


def _already(found: StackState | None) -> UserError:
    where = f": Prefect {found.prefect}, MLflow {found.mlflow}" if found else ""
    starting = "" if found and found.ready else " (still starting)"
    return UserError(f"a stack is running already{starting}{where}", cure="`prorec down` stops it")


def _addresses(stack: StackState) -> str:
    lines = [f"Prefect    {stack.prefect}", f"MLflow     {stack.mlflow}"]
    shown = "`prorec status --password` shows it" if stack.secured else "none! `prorec up` starts a stack that has one"
    if stack.ray:
        lines.append(f"Ray        {stack.ray}, pages {stack.ray_pages}")
        lines.append(f"Ray token  in {_near(secret.file(state.folder(), secret.RAY))}; its pages ask for it")
    lines.append(f"password   {shown}")
    lines.append(f"logs       {_near(state.folder())}")
    registered, skipped = _deployments()
    if registered:
        lines.append(f"runs       {', '.join(registered)}")
    lines += [f"not there  {name}: {why}" for name, why in skipped.items()]
    lines += [
        f"ignored    {name} is set to {os.environ[name]}: commands use that and not the stack"
        for name, value in (
            ("PREFECT_API_URL", f"{stack.prefect}/api"),
            ("MLFLOW_TRACKING_URI", stack.mlflow),
            ("RAY_ADDRESS", stack.ray),
        )
        if value and os.environ.get(name, value) != value
    ]
    return "\n".join(lines)


def _deployments() -> tuple[list[str], dict[str, str]]:
    from prorec.flows.stack.deployments import result_file
    from prorec_core.artifacts import read_json

    try:
        found = read_json(result_file())
    except (OSError, ValueError):
        return [], {}
    return list(found["registered"]), dict(found["skipped"])


def status(
    env: Annotated[
        bool, typer.Option("--env", help="Print what has other programs use the stack, for `eval`: the password too.")
    ] = False,
    password: Annotated[bool, typer.Option("--password", help="Print what the pages ask for.")] = False,
) -> None:
    """Say what runs, where it answers, and how often it was started again; exit status 1 unless all is well."""
    from rich.table import Table

    from prorec.flows.stack.servers import RAY_HEALTH, answers_at

    stack = state.running()
    if stack is None:
        left = state.read()
        killed = left is not None and left.here()
        # A shell runs what --env prints.
        say("A stack was killed; `prorec down` ends what it left." if killed else "No stack is running.", error=env)
        raise typer.Exit(1)
    if env:
        # Those programs may have a proxy in their environment that they would ask for 127.0.0.1.
        direct = {name: os.environ[name] for name in proxies.EXCEPTIONS if name in os.environ}
        for name, value in {**stack.variables(), **direct}.items():
            # For a shell to read, which wants it to the letter.
            print(f"export {name}={shlex.quote(value)}")
        return
    if password:
        _show_password(stack)
        return
    well = stack.ready
    addresses = {
        "prefect": f"{stack.prefect}/api/health",
        "mlflow": f"{stack.mlflow}/health",
        "ray": f"{stack.ray_pages}{RAY_HEALTH}",
    }
    table = Table("", "status", "pid", "restarts")
    for name, child in stack.children.items():
        said = child.status
        if said == "running" and (not child.alive() or (name in addresses and not answers_at(addresses[name]))):
            said = "does not answer" if child.alive() else "died; being started again"
        well = well and said in {"running", "done"}
        table.add_row(name, said, str(child.pid or ""), str(child.restarts))
    console().print(table)
    say(_addresses(stack), lines=True)
    if not well:
        raise typer.Exit(1)


def _show_password(stack: StackState) -> None:
    if not stack.secured:
        raise UserError("the stack that is up asks for none", cure="`prorec up` puts one that does in its place")
    found = secret.read(state.folder())
    print(f"MLflow asks for     user {secret.USER}, password {found}")
    print(f"Prefect asks for    {secret.USER}:{found}")


def down() -> None:
    """Stop the stack, or what a killed one left."""
    from prorec.flows.stack import supervisor

    stack = state.read()
    if stack is not None and stack.running():
        _stop(stack)
        say("Stopped.")
    with supervisor.alone() as first:
        if not first:
            raise UserError("a stack is only just starting or stopping", cure="Try again in a moment")
        if ended := supervisor.clear_left_over(state.read()):
            say(f"A stack that was killed had left {', '.join(ended)} running; ended.")
        elif stack is None:
            say("No stack is running.")


def _stop(stack: StackState) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(stack.supervisor["pid"]), signal.SIGTERM)
    _wait(lambda: not stack.running(), _SECONDS_TO_STOP)
    if stack.running():
        raise UserError(f"the stack did not stop in {_SECONDS_TO_STOP:.0f} seconds", cure=f"See {state.folder()}")


def logs(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of its processes; all without.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines of the past.")] = _LINES,
) -> None:
    """Show the logs of the stack."""
    known = sorted(path.stem for path in state.folder().glob("*.log") if not path.name.endswith(".old.log"))
    if not known:
        raise UserError("there are no logs yet", place=str(state.folder()), cure="`prorec up` starts the stack")
    if name is not None and name not in known:
        raise UserError(f"there is no log of '{name}'", cure=did_you_mean(name, known))
    files = [state.folder() / f"{each}.log" for each in ([name] if name else known)]
    offsets = {file: file.stat().st_size for file in files}
    for file in files:
        past = file.read_text(encoding="utf-8", errors="replace").splitlines()
        _show(file, past[-lines:] if lines else [], named=name is None)
    with contextlib.suppress(KeyboardInterrupt):
        while follow:
            time.sleep(0.3)
            for file in files:
                offsets[file] = _show_new(file, offsets[file], named=name is None)


def _show_new(file: Path, offset: int, *, named: bool) -> int:
    """Show the whole lines after `offset`; returns where the next begins."""
    if file.stat().st_size < offset:
        offset = 0
    with file.open("rb") as stream:
        stream.seek(offset)
        whole = stream.read().rpartition(b"\n")[0]
    if not whole:
        return offset
    _show(file, whole.decode(errors="replace").splitlines(), named=named)
    return offset + len(whole) + 1


def _show(file: Path, lines: Sequence[str], *, named: bool) -> None:
    for line in lines:
        say(f"{file.stem:<9} {line}" if named else line)


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
