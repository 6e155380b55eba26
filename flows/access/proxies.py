"""Proxies of the environment: none between this machine and itself, and none that no client here understands.

Knows the variables that clients read (`HTTP_PROXY`, `NO_PROXY` and their like); knows no server. What is set here
holds in this process and in all that it starts.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import MutableMapping
from importlib.util import find_spec

from prorec.flows.terminal import streams

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EXCEPTIONS = ("no_proxy", "NO_PROXY")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def stay_direct(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have nothing that is meant for this machine go through a proxy; what the user set otherwise stays.

    A proxy that the HTTP clients cannot use would end each of them, also where it is not needed: it is taken out, and
    that is said.
    """
    named = [name for proxy in _PROXIES for name in (proxy, proxy.lower()) if environment.get(name)]
    if not named:
        return
    for name in named:
        if problem := _problem(environment[name]):
            del environment[name]
            said = f"prorec: {name}: {problem}; nothing goes through it. Set it to http://HOST:PORT."
            streams.print_error(said)
    environment.update(exceptions(environment))


def exceptions(environment: MutableMapping[str, str]) -> dict[str, str]:
    """`NO_PROXY` in both spellings, with this machine's own names beside what is there."""
    found = {}
    for name, other in (EXCEPTIONS, EXCEPTIONS[::-1]):
        # Where one spelling alone is set, setting the other must not hide it.
        value = environment.get(name) or environment.get(other) or ""
        if value.strip() == "*":
            found[name] = "*"
            continue
        entries = [each for entry in value.split(",") if (each := _readable(entry.strip()))]
        found[name] = ",".join([*entries, *(each for each in LOOPBACK if each not in entries)])
    return found


def _problem(proxy: str) -> str:
    """What is wrong with the address of a proxy, told without what may be a password in it."""
    import httpx

    try:
        scheme = httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}").url.scheme
    except (ValueError, httpx.InvalidURL):
        scheme = proxy.partition("://")[0] if "://" in proxy else ""
        known = scheme in {"http", "https", "socks5", "socks5h"}
        return f"a proxy of the kind '{scheme}' cannot be used" if scheme and not known else "this is no address"
    if scheme.startswith("socks") and find_spec("socksio") is None:
        return f"a proxy of the kind '{scheme}' cannot be used without the package socksio"
    return ""


def _readable(entry: str) -> str:
    """An exception as every client can read it; nothing where httpx cannot, which then refuses all work."""
    import httpx

    entry = re.sub(r"^\[(.*)\]$", r"\1", entry)
    try:
        is_version_6 = bool(ipaddress.IPv6Address(entry.partition("/")[0]))
    except ValueError:
        is_version_6 = False
    try:
        httpx.URL(f"all://[{entry}]" if is_version_6 else entry if "://" in entry else f"all://*{entry}")
    except httpx.InvalidURL:
        return ""
    return entry
