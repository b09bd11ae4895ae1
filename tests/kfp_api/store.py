"""What the fake KFP API server holds, and what its parts share."""

import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.kfp_api.refusals import FORBIDDEN, INVALID, NOT_FOUND, UNAUTHENTICATED, Refusal

Plain = dict[str, Any]


@dataclass
class Store:
    """Objects by id, as the API shows them.

    Attributes:
        version: which KFP this is; before 2.10 there are no tags and no name beside the display name, and an upload
            of a name that is taken is answered with 500.
        multi_user: whether profiles are kept apart.
        rights: on a multi-user server, the namespaces that a user may use.
        user: who asks, as the gateway in front says; set for each request.
        clock: the server's time; an hour ago at first, so that what is made has been there for long.
        tick: seconds that the clock moves with each object that is made, so that the order of creation is seen at
            the API's resolution of a second; 0 makes everything in the same second.
        logs: what the pods of runs have said, by run and pod.
        artifacts: what runs have written, by run, pod and name.
    """

    version: str = "2.17.0"
    multi_user: bool = False
    rights: dict[str, set[str]] = field(default_factory=dict)
    tick: float = 1.0
    pipelines: dict[str, Plain] = field(default_factory=dict)
    versions: dict[str, Plain] = field(default_factory=dict)
    experiments: dict[str, Plain] = field(default_factory=dict)
    runs: dict[str, Plain] = field(default_factory=dict)
    recurring: dict[str, Plain] = field(default_factory=dict)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    artifacts: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    local: threading.local = field(default_factory=threading.local)
    clock: float = field(default_factory=lambda: _long_ago())

    @property
    def old(self) -> bool:
        """Before names and tags."""
        return self.version[:1].isdigit() and tuple(int(part) for part in self.version.split(".")[:2]) < (2, 10)

    def now(self) -> str:
        """The time, which is a moment later each time."""
        self.clock += self.tick
        return datetime.fromtimestamp(int(self.clock), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def new_id(self) -> str:
        """An id that nobody has."""
        return str(uuid.uuid4())

    def get(self, kind: dict[str, Plain], what: str, key: str) -> Plain:
        """An object that is there and may be seen."""
        if key not in kind:
            raise Refusal(NOT_FOUND, f"{what} {key} not found")
        self.allow(kind[key].get("namespace", ""))
        return kind[key]

    def allow(self, namespace: str) -> None:
        """Refuse who may not use a namespace."""
        if not self.multi_user or not namespace:
            return
        user = getattr(self.local, "user", "")
        if not user:
            raise Refusal(
                UNAUTHENTICATED, "Failed to check authorization. User identity is empty in the request header"
            )
        if namespace not in self.rights.get(user, set()):
            raise Refusal(FORBIDDEN, f"User '{user}' is not authorized with reason: (request: namespace {namespace})")

    def namespace(self, given: str) -> str:
        """The namespace that counts: none on a single-user server."""
        return given if self.multi_user else ""

    def need_namespace(self, given: str, what: str) -> str:
        """A namespace, which a multi-user server wants for this."""
        if self.multi_user and not given:
            raise Refusal(INVALID, f"{what} cannot have an empty namespace in multi-user mode")
        namespace = self.namespace(given)
        self.allow(namespace)
        return namespace

    def clear(self) -> None:
        """Hold nothing."""
        with self.lock:
            for kind in (self.pipelines, self.versions, self.experiments, self.runs, self.recurring):
                kind.clear()
            self.logs.clear()
            self.artifacts.clear()
            self.rights.clear()
            self.version, self.multi_user, self.tick = "2.17.0", False, 1.0
            self.clock = _long_ago()


def _long_ago() -> float:
    return time.time() - 3600
