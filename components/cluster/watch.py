"""Following one object: list, then watch from there; on after a dropped connection, anew when that is forgotten."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from components.cluster.discovery import checked, plain
from components.cluster.retry import GONE, Again, asked, passes, patiently, sentence, timeouts

if TYPE_CHECKING:
    from kubernetes.dynamic import DynamicClient
    from urllib3 import BaseHTTPResponse

Plain = dict[str, Any]
T = TypeVar("T")

_STRETCH = 30  # seconds of one watch: how long a connection that died silently can go unnoticed
_SLACK = 5.0  # seconds by which the server's end of a stretch may be late
_LONGEST_PAUSE = 10.0


@dataclass(frozen=True)
class Follower:
    """Follows one object.

    Attributes:
        client: of the cluster.
        host: the API server's address, for the sentence of a failure.
        path: where the kind's objects are served.
        kind: apiVersion and kind, which a list of a built-in kind leaves out of its items.
        name: of the object.
        what: what is done, for the sentence of a failure.
        patience_seconds: how long the API server may be away.
    """

    client: "DynamicClient"
    host: str
    path: str
    kind: dict[str, str]
    name: str
    what: str
    patience_seconds: float

    def wait(self, done: Callable[[Plain | None], T | None], seconds: float) -> T | None:
        """Give the object to ``done`` until that gives something; see :meth:`components.cluster.api.Cluster.wait`."""
        for state in self._states(time.monotonic() + seconds):
            if (result := done(state)) is not None:
                return result
        return None

    def _states(self, end: float) -> Iterator[Plain | None]:
        """The object as it is and after each change; None when it is not there."""
        seen = "nothing yet"
        while True:
            found, version = patiently(self.what, self.host, self.patience_seconds, self._list)
            if _version(found) != seen:  # the list after a 410 may bring nothing new
                seen = _version(found)
                yield found
            for state in self._changes(version, end):
                seen = _version(state)
                yield state
            if time.monotonic() >= end:
                return

    def _list(self, seconds: float) -> tuple[Plain | None, str]:
        answer = checked(
            self.client.request(
                "get", self.path, field_selector=self._one(), serializer=plain, _request_timeout=timeouts(seconds)
            )
        )
        found = [item | self.kind for item in answer["items"]]
        return (found[0] if found else None), answer["metadata"]["resourceVersion"]

    def _changes(self, version: str, end: float) -> Iterator[Plain | None]:
        """What happens to the object from a resourceVersion on, until the time is over or the server has forgotten it.

        Raises:
            Unreachable: the server was away for longer than our patience.
            BadInput: it refuses the watch.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        in_touch, failures = time.monotonic(), 0
        while (left := end - time.monotonic()) > 0:
            began, trouble = time.monotonic(), None
            try:
                answer = self._open(version, left)
                in_touch = time.monotonic()
                for what, state in _events(answer, end):
                    in_touch, failures, version = time.monotonic(), 0, _version(state)
                    if what != "BOOKMARK":
                        yield None if what == "DELETED" else state
            except (ApiException, HTTPError, Again) as error:
                if getattr(error, "status", None) == GONE:
                    return
                if not passes(error) or time.monotonic() - in_touch > self.patience_seconds:
                    raise sentence(error, self.what, self.host, self.patience_seconds) from error
                trouble = error
            failures = failures + 1 if time.monotonic() - began < 1 else 0
            if failures:  # a server that cuts every watch at once is not hammered
                wanted = asked(trouble) or min(0.05 * 2**failures, _LONGEST_PAUSE)
                time.sleep(max(0.0, min(wanted, end - time.monotonic())))

    def _open(self, version: str, left: float) -> "BaseHTTPResponse":
        seconds = min(left, _STRETCH)
        query = [("allowWatchBookmarks", "true"), ("watch", "true"), ("timeoutSeconds", str(max(1, round(seconds))))]
        answer: BaseHTTPResponse = self.client.request(
            "get",
            self.path,
            field_selector=self._one(),
            resource_version=version,
            query_params=query,
            serialize=False,
            _request_timeout=timeouts(min(left, seconds + _SLACK)),
        )
        return answer

    def _one(self) -> str:
        return f"metadata.name={self.name}"


def _version(state: Plain | None) -> str:
    return str(state["metadata"]["resourceVersion"]) if state else ""


def _events(answer: "BaseHTTPResponse", end: float) -> Iterator[tuple[str, Plain]]:
    """The events of one watch, each a line of JSON.

    Raises:
        ApiException: the server sent an error as an event.
        Again: a line is no event.
    """
    from kubernetes.client.exceptions import ApiException

    for line in _lines(answer, end):
        try:
            event = json.loads(line)
            what, state = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise Again(f"no event: {line[:100]!r}") from error
        if what == "ERROR":
            raise ApiException(status=state.get("code", 500), reason=state.get("message", ""))
        yield what, state


def _lines(answer: "BaseHTTPResponse", end: float) -> Iterator[bytes]:
    """The lines of an answer until it ends or the time is over, even when the server then says nothing."""
    unfinished = b""
    try:
        parts = answer.stream(amt=None, decode_content=False)
        while (left := end - time.monotonic()) > 0:
            sock = getattr(answer.connection, "sock", None)
            if sock is not None and left < sock.gettimeout():
                sock.settimeout(left)
            part = next(parts, None)
            if part is None:
                return
            *whole, unfinished = (unfinished + part).split(b"\n")
            yield from filter(None, whole)
    finally:
        answer.close()
