"""Sockets that servers listen on."""

import contextlib
import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
_RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET: keep 0 bytes of every packet


def listen(host: str, port: int, count: int = 1) -> tuple[socket.socket, ...]:
    """Sockets bound to one address, not listening yet; the kernel spreads connections over several.

    They belong to the parent of the workers that listen, so that what waits in one is not lost with its worker.

    Args:
        host: address.
        port: 0 takes a free one.
        count: how many sockets.

    Raises:
        OSError: the address cannot be used.
    """
    first = _bound(host, port)
    if count == 1:
        return (first,)
    first.close()  # it told whether another server is there, which sockets that share an address would not
    found: list[socket.socket] = []
    for _ in range(count):
        found.append(_bound(host, port_of(found[0]) if found else port, is_shared=True))
    return tuple(found)


def reserve(host: str, port: int) -> socket.socket:
    """A bound socket that never listens: it keeps a port for servers that make their own sockets and share it.

    Raises:
        OSError: the address cannot be used.
    """
    _bound(host, port).close()  # tells whether another server is there
    return _bound(host, port, is_shared=True)


def _bound(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Without this a reply in two writes waits 40 ms for a delayed acknowledgement; the event loop sets it by itself
    # only on sockets that it made.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def port_of(listener: socket.socket) -> int:
    """The port that a socket is bound to."""
    port: int = listener.getsockname()[1]
    return port


def refuse_more(listener: socket.socket) -> None:
    """Have the kernel drop new connections, so that none is accepted by it and then lost as the socket is closed.

    A socket filter (see ``socket(7)``) that keeps nothing of a packet. Linux only; elsewhere nothing happens.
    """
    code = ctypes.create_string_buffer(_RETURN_NOTHING)
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))
