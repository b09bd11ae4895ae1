"""What goes wrong between a client and the server, on purpose."""

import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.cluster.errors import status

How = Literal["answer", "drop", "lose", "after", "slow", "cut", "hang", "gone", "mute"]


@dataclass
class Fault:
    """One thing that goes wrong, with requests that fit.

    Attributes:
        how: "answer" answers with a status; "drop" closes the connection before anything is done; "lose" carries the
            request out and closes the connection instead of answering; "after" carries it out and answers with a
            status all the same, "slow" carries it out and answers after ``seconds`` (both the KFP server only); "cut"
            sends half of the answer; "hang" says nothing for ``seconds``, then closes; "gone" sends a watch the event
            that its version is too old; "mute" says nothing more after a watch's first event, for ``seconds``.
        method: of the request: GET, POST, PUT, PATCH, DELETE, or WATCH; a watch is no GET here. Empty fits every one.
        path: a regular expression that is searched in the request's path.
        times: how often it happens; the requests after that go through.
        skip: how many fitting requests go through first.
        code: of the status.
        retry_after: seconds, as a header of the status; 0 sends none.
        message: of the status.
        seconds: of hanging.
        happened: how often it has happened.
    """

    how: How
    method: str = ""
    path: str = ""
    times: int = 1
    skip: int = 0
    code: int = 500
    retry_after: int = 0
    message: str = "injected"
    seconds: float = 60.0
    happened: int = field(default=0, init=False)

    def body(self) -> bytes:
        """The status."""
        return json.dumps(status(self.code, self.message)).encode()


class Faults:
    """The faults that are waiting for their requests."""

    def __init__(self) -> None:
        """Begin without any."""
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, how: How, **about: Any) -> Fault:
        """Have something go wrong; see :class:`Fault` for what can be said about it."""
        fault = Fault(how, **about)
        with self._lock:
            self._waiting.append(fault)
        return fault

    def clear(self) -> None:
        """Have nothing go wrong from now on."""
        with self._lock:
            self._waiting.clear()

    def next(self, method: str, path: str) -> Fault | None:
        """The fault that a request meets; None when it goes through."""
        with self._lock:
            for fault in self._waiting:
                if fault.method not in ("", method) or not re.search(fault.path, path):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.happened < fault.times:
                    fault.happened += 1
                    return fault
        return None
