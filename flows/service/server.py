"""The process that serves: its socket, signals, threads and logs. Knows uvicorn; knows nothing of routes."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import logging
import os
import re
import resource
import signal
import socket
from collections.abc import Sequence

import torch
import uvicorn

from prorec.flows.access import guard, secret
from prorec.flows.service import schemas
from prorec.flows.service.app import create_app
from prorec.flows.service.batching import Batcher, Found, Question, Recommends, answer
from prorec.flows.service.connections import PatientProtocol
from prorec.flows.service.metrics import Metrics
from prorec.flows.service.models import ModelKeeper
from prorec.tasks.local import paths
from prorec.tasks.registry import recommenders
from prorec.tasks.registry.lists import ListStore
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec.tasks.tracking.retries import TrackingAwayError
from prorec_core.errors import UserError
from prorec_core.generation.rules import Choice, Rule

_SECONDS_TO_STOP = 30
_SECONDS_IDLE = 75
"""How long an idle connection stays open: longer than clients and proxies keep theirs, so that none is reused as it
is being closed."""
TOKEN = "PROREC_SERVE_TOKEN"
_SHORTEST = 16
_TOKEN = re.compile(rf"[!-~]{{{_SHORTEST},}}")
_WITHOUT = "on this machine only what changes something or tells what persons did has to give it"
_log = logging.getLogger(__name__)


def serve(
    uri: str, host: str, port: int, *, poll: float, threads: int, most_waiting: int, names: Sequence[str] = ()
) -> None:
    """Serve a registered model until SIGTERM or SIGINT; what was asked by then is answered.

    Args:
        uri: the model, as `recommenders.find` reads it.
        host: address to listen at.
        port: 0 takes a free one.
        poll: seconds between looks at which version the address names.
        threads: of inference; 0 leaves one core to the rest.
        most_waiting: histories that may wait.
        names: by which it may be called, as `prorec.flows.access.guard` reads them; by default its own where it
            listens on this machine alone, and any where it is open to the network.

    Raises:
        UserError: there is no such model, its files are damaged, the port is taken, or no token can be had where one
            is needed.
        TrackingAwayError: the tracking store does not answer, and nothing was served from here before.
    """
    _set_up_logs()
    with _listen(host, port) as listener:
        first = _first_version(uri)
        torch.set_num_threads(threads or max(1, _cores() - 1))
        metrics, lists = Metrics(), ListStore()
        keeper = ModelKeeper(uri, metrics, prepare=lambda model: _work_out(lists, model))

        def answer_all(questions: Sequence[Question]) -> list[Found | UserError]:
            assert keeper.current is not None
            return answer(keeper.current, questions)

        batcher = Batcher(answer_all, most_waiting, schemas.MOST_HISTORIES, metrics.observe_batch)
        token, homes = _token(listener)
        hosts = [*_own_names(listener), *names]
        app = create_app(keeper, batcher, metrics, lists, token=token, homes=homes, hosts=hosts)
        _open_as_many_as_may_be()
        settings = uvicorn.Config(
            app,
            http=PatientProtocol,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_keep_alive=_SECONDS_IDLE,
            timeout_graceful_shutdown=_SECONDS_TO_STOP,
        )
        server = uvicorn.Server(settings)
        failure: list[BaseException] = []

        def ready(error: BaseException | None) -> None:
            if error is None:
                # What the libraries made when imported stays; looking through it again would stop all for 0.2 s.
                gc.collect()
                gc.freeze()
                _log.info("serving %s at http://%s:%d", first.uri, *listener.getsockname()[:2])
            else:
                failure.append(error)
                server.should_exit = True

        def end(*_: object) -> None:
            server.should_exit = True

        # For what comes before uvicorn listens to signals; and it sends itself the one that ended it once more.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        keeper.start(first, poll, ready)
        try:
            server.run(sockets=[listener])
        finally:
            keeper.stop()
        if failure:
            raise failure[0]
        _log.info("stopped")


def _set_up_logs() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Ours tell what matters of theirs.
    for name, level in (("uvicorn", logging.WARNING), ("urllib3", logging.ERROR)):
        logging.getLogger(name).setLevel(level)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise UserError(
            f"cannot listen there ({error.strerror or error})",
            place=f"{host}:{port}",
            cure="Choose another with --host and --port (0: any free port)",
        ) from error
    # Connections inherit it. Without, an answer's second packet waits 40 ms for the client to acknowledge the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _open_as_many_as_may_be() -> None:
    """Let this process hold as many connections as the system allows it; the usual limit is a thousand."""
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _own_names(listener: socket.socket) -> list[str]:
    """How what listens on this machine alone is rightly called; nothing where it is open to the network."""
    address, port = listener.getsockname()[:2]
    return guard.loopback(port, address) if ipaddress.ip_address(address).is_loopback else []


def _token(listener: socket.socket) -> tuple[str | None, list[str]]:
    """The service's token, and by which names of the machine it may be read without one (see `Door`).

    That of `PROREC_SERVE_TOKEN` is asked for everywhere. Otherwise it is in a file that its owner alone can read.
    """
    if token := os.environ.get(TOKEN, "").strip():
        if not _TOKEN.fullmatch(token):
            raise UserError("this is no token", place=TOKEN, cure=f"Give {_SHORTEST} signs of ASCII or more, no blanks")
        return token, []
    homes = _own_names(listener)
    folder = paths.artifacts() / "served"
    try:
        with paths.lock("serve-token"):
            kept = secret.file(folder).is_file()
            if secret.ensure(folder) and kept:
                _log.warning(
                    "The token in %s was not its owner's alone to read: there is a new one", secret.file(folder)
                )
        token = secret.read(folder)
    except OSError as error:
        if not homes:
            raise UserError(
                f"no token can be kept ({error.strerror or error})", place=str(folder), cure=f"Set {TOKEN}"
            ) from error
        _log.warning(
            "No token can be kept in %s (%s): nothing can be changed, nor example users shown, unless %s is set",
            folder,
            error,
            TOKEN,
        )
        return None, homes
    _log.info("the token is in %s; %s", secret.file(folder), _WITHOUT if homes else "every request has to give it")
    return token, homes


def _work_out(lists: ListStore, model: Recommends) -> None:
    """Have what named lists leave of a model worked out before anybody asks."""
    for kept in lists.all():
        with contextlib.suppress(UserError):
            name = kept.content.name
            if rule := Rule.of(Choice(list=name), None, lists.content):
                model.rules.left(rule)


def _first_version(uri: str) -> RegisteredVersion:
    # A server that hangs is found away in seconds, not minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        return recommenders.find(uri)
    except TrackingAwayError as error:
        last = recommenders.recall(uri)
        if last is None:
            raise
        _log.warning("%s Starting with %s, which was served here last.", error, last.uri)
        return last


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
