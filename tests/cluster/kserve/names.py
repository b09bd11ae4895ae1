"""The cluster's DNS: its names lead to the gateway, for everything in this process that connects by name."""

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VARIABLE = "SIMULATED_CLUSTER_DNS"
_ENDS = (".example.com", ".svc.cluster.local", ".svc")
_NUMBER = itertools.count()


def new_address() -> str:
    """A loopback address of its own, so that every pod has the usual port, as on a cluster."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 8 & 63)}.{pid & 255}.{1 + next(_NUMBER) % 250}"


def bindable(address: str, port: int) -> bool:
    """Whether a port can be listened on here."""
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


@contextmanager
def resolved(address: str, port: int) -> Iterator[None]:
    """Have the cluster's names lead to one address while the block runs, port 80 to the port that is served.

    Libraries that look up a name and then connect to port 80 of what they found need that port to be served.
    """
    real = socket.getaddrinfo

    def lookup(host: Any, service: Any, *rest: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if isinstance(name, str) and name.rstrip(".").endswith(_ENDS):
            return real(address, port if service in (80, "80", "http") else service, *rest, **more)
        return real(host, service, *rest, **more)

    before = os.environ.get(VARIABLE)
    socket.getaddrinfo = lookup
    os.environ[VARIABLE] = f"{address}:{port}"
    try:
        yield
    finally:
        socket.getaddrinfo = real
        os.environ.pop(VARIABLE) if before is None else os.environ.__setitem__(VARIABLE, before)


def install() -> None:
    """In a child process: resolve as the parent does, until the end."""
    address, _, port = os.environ[VARIABLE].rpartition(":")
    resolved(address, int(port)).__enter__()
