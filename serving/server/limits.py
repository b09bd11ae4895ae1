"""How much one request, one client and one process may ask of the server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is refused beyond.

    Attributes:
        body_bytes: longest body of a request; more is answered with 413.
        header_bytes: longest head of a request, its line included; more is answered with 431.
        rows: most rows of one request.
        columns: most tensors of one V2 request.
        text_chars: longest text in a row.
        depth: deepest nesting of JSON.
        seconds: how long a request may take to arrive (then 408), and a prediction to wait for the model (then 503).
        idle_seconds: how long a connection may stay open without a request. Longer than the idle time of the proxies
            in front (Google's load balancer keeps connections for 600 s), so that none sends into a closing one.
        waiting: most requests that wait for the model in one process; more are answered with 503 and ``Retry-After``.
        waiting_seconds: the same once the model would take so long for the rows that wait.
        explain_seconds: longest that one explanation takes.
        explain_waiting: most explanations that wait in one process for the one that runs; more are answered with 503.
        connections: most open connections of one process; more are answered with 503 and closed.
    """

    body_bytes: int = 16 * 1024 * 1024
    header_bytes: int = 32 * 1024
    rows: int = 10_000
    columns: int = 10_000
    text_chars: int = 65_536
    depth: int = 32
    seconds: float = 30.0
    idle_seconds: float = 620.0
    waiting: int = 2_048
    waiting_seconds: float = 1.0
    explain_seconds: float = 5.0
    explain_waiting: int = 8
    connections: int = 8_192
