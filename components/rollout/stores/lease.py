"""The right to act on one service of a cluster: a Lease that its owner renews, or loses."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from os import environ

from components.cluster.api import CONFIG_MAP, LEASE, Cluster, Conflict, Plain
from components.errors import BadInput, Busy, Lost, Unreachable

_HANDED_OVER = "sluiceway/handed-over"
_LABELS = {"app.kubernetes.io/managed-by": "sluiceway"}
_POLLS = 10  # looks at somebody else's lease while it could run out


def now() -> float:
    """Seconds that no clock setting changes, and that go on while the machine sleeps where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True)
class Claim:
    """A wish to own a service.

    Attributes:
        cluster: where the service is.
        name: of the Lease.
        service: what it is about, for sentences.
        rollout: the rollout that wants it.
        seconds: how long the right lasts without being renewed.
    """

    cluster: Cluster
    name: str
    service: str
    rollout: str
    seconds: int

    @contextmanager
    def held(self, wait_seconds: float, say: Callable[[str], None]) -> Iterator["Held"]:
        """Have the right while the block runs.

        Raises:
            Busy: another owner has it.
        """
        held = Held(self, self._taken(wait_seconds, say))
        held.start()
        try:
            yield held
        finally:
            held.stop()

    def _taken(self, wait_seconds: float, say: Callable[[str], None]) -> Plain:
        """The Lease, once it is ours.

        Whether its owner is alive is told by whether it is renewed while we look, never by the time that stands in it:
        the clocks of two machines differ. So nobody is called busy, or dead, before that is seen.
        """
        start, seen, since, told = now(), "", now(), False
        while True:
            lease = self.cluster.get(LEASE, self.name)
            mark = "" if lease is None else str(lease["spec"].get("renewTime")) + _holder(lease)
            alive = bool(seen) and mark != seen
            if mark != seen:
                seen, since = mark, now()
            if lease is None or self._free(lease, now() - since):
                taken = self._take(lease)
                if taken is not None:
                    return taken
                continue
            must_be_seen = 0.0 if alive or _handed(lease) else float(_duration(lease) + 1)
            if now() - start >= max(wait_seconds, must_be_seen):
                raise Busy(self._busy(lease))
            if not told:
                say(f"waiting: {self._busy(lease)}")
                told = True
            time.sleep(min(_duration(lease), self.seconds) / _POLLS)

    def _free(self, lease: Plain, unchanged: float) -> bool:
        """Whether the Lease may be taken."""
        if not _holder(lease) or unchanged > _duration(lease):
            return True
        handed = _handed(lease)
        if not handed:
            return False
        return _holder(lease).startswith(f"{self.rollout}/") or server_time(self.cluster) > handed + _duration(lease)

    def _take(self, lease: Plain | None) -> Plain | None:
        """Write ourselves into the Lease; None when somebody was faster."""
        me = f"{self.rollout}/{environ.get('KFP_POD_NAME') or environ.get('HOSTNAME', 'here')}-{uuid.uuid4().hex[:8]}"
        spec = {"holderIdentity": me, "leaseDurationSeconds": self.seconds, "acquireTime": wall(), "renewTime": wall()}
        head = {"apiVersion": LEASE.api_version, "kind": LEASE.kind}
        try:
            if lease is None:
                metadata: Plain = {"name": self.name, "labels": _LABELS}
                return self.cluster.create(head | {"metadata": metadata, "spec": spec | {"leaseTransitions": 0}})
            transitions = lease["spec"].get("leaseTransitions", 0) + 1
            return self.cluster.replace(_unmarked(lease) | {"spec": spec | {"leaseTransitions": transitions}})
        except Conflict:
            return None

    def _busy(self, lease: Plain) -> str:
        owner = _holder(lease).partition("/")[0]
        if _handed(lease):
            return (
                f"Rollout {owner} of service {self.service} is between two of its steps: wait until it has ended, or "
                f"abort it with 'sluiceway rollout abort {self.service}', then run again."
            )
        return (
            f"Rollout {owner} is at work on service {self.service}: wait until it has ended, or abort it with "
            f"'sluiceway rollout abort {self.service}', then run again."
        )


class Held:
    """The right, renewed in the background until it is given back, handed over or lost."""

    def __init__(self, claim: Claim, lease: Plain) -> None:
        """Begin with the Lease as it was taken just now."""
        self.identity = _holder(lease)
        self._claim = claim
        self._lease = lease
        # What is asked in the background must fail early enough to be asked again.
        self._cluster = claim.cluster.inside(claim.cluster.namespace)
        self._cluster.patience_seconds = claim.seconds / 3
        self._until = now() + claim.seconds
        self._handed_seconds = 0
        self._why_lost = ""
        self._trouble = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="lease", daemon=True)

    def start(self) -> None:
        """Renew from now on."""
        self._thread.start()

    def check(self) -> None:
        """Return while the right is held.

        Raises:
            Lost: it has passed to somebody else, or could not be renewed in time.
        """
        if not self._why_lost and now() >= self._until:
            because = f" ({self._trouble})" if self._trouble else ""
            self._why_lost = f"it could not be renewed for {self._claim.seconds} s{because}"
        if self._why_lost:
            raise Lost(
                f"This run no longer owns the rollout of service {self._claim.service}: {self._why_lost}; what it has "
                "done so far is recorded, and the next run goes on from there."
            )

    def hand_over(self, seconds: float) -> None:
        """On leaving, keep the right for this rollout's next step, for so long at most."""
        self._handed_seconds = max(1, round(seconds))

    def stop(self) -> None:
        """Give the right back, or hand it over."""
        self._stop.set()
        self._thread.join()
        if self._why_lost or now() >= self._until:
            return
        try:
            self._cluster.replace(self._last_word())
        except (Conflict, Unreachable, BadInput):
            return  # it runs out by itself

    def _last_word(self) -> Plain:
        lease = _unmarked(self._lease)
        if not self._handed_seconds:
            return lease | {"spec": {key: value for key, value in lease["spec"].items() if key != "holderIdentity"}}
        lease["metadata"]["annotations"][_HANDED_OVER] = str(server_time(self._cluster))
        return lease | {"spec": lease["spec"] | {"leaseDurationSeconds": self._handed_seconds, "renewTime": wall()}}

    def _renew_until_stopped(self) -> None:
        pause = self._claim.seconds / 3
        while not self._stop.wait(pause):
            pause = self._claim.seconds / 3 if self._renew() else self._claim.seconds / 30
            if self._why_lost or now() >= self._until:
                return

    def _renew(self) -> bool:
        """Renew once; whether that worked."""
        began = now()
        lease = self._lease | {"spec": self._lease["spec"] | {"renewTime": wall()}}
        try:
            self._lease = self._cluster.replace(lease)
        except Conflict:
            return self._look_again()
        except (Unreachable, BadInput) as error:
            self._trouble = str(error)
            return False
        self._until = began + self._claim.seconds
        return True

    def _look_again(self) -> bool:
        """Somebody has written the Lease: taken it, or only put a label on it."""
        try:
            lease = self._cluster.get(LEASE, self._claim.name)
        except (Unreachable, BadInput) as error:
            self._trouble = str(error)
            return False
        if lease is None:
            self._why_lost = "its Lease was deleted"
        elif _holder(lease) != self.identity:
            self._why_lost = f"rollout {_holder(lease).partition('/')[0] or 'of nobody'} has taken it over"
        else:
            self._lease = lease
        return False


def owner_of(lease: Plain | None) -> str:
    """Who a Lease says is at work, as a person would name them; empty when nobody is."""
    if lease is None or not _holder(lease):
        return ""
    rollout, _, pod = _holder(lease).partition("/")
    return f"rollout {rollout}, between two of its steps" if _handed(lease) else f"rollout {rollout} in {pod}"


def server_time(cluster: Cluster) -> float:
    """The API server's clock, from an object that it only pretends to make; seconds since the epoch.

    A right that was handed over has no owner who renews it. How long it has lasted is told by this one clock alone.
    """
    pretended = {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {"name": f"sluiceway-clock-{uuid.uuid4().hex[:12]}"},
    }
    stamped = cluster.apply(pretended, dry_run=True)["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(stamped.replace("Z", "+00:00")).timestamp()


def wall() -> str:
    """The time as a Lease has it, for people to read."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _holder(lease: Plain) -> str:
    return str(lease["spec"].get("holderIdentity") or "")


def _duration(lease: Plain) -> int:
    return int(lease["spec"].get("leaseDurationSeconds") or 1)


def _handed(lease: Plain) -> float:
    """When the right was handed over, by the API server's clock; 0 when it was not."""
    return float((lease["metadata"].get("annotations") or {}).get(_HANDED_OVER, 0))


def _unmarked(lease: Plain) -> Plain:
    """A copy that is not handed over, with annotations that can be written to."""
    notes = {key: value for key, value in (lease["metadata"].get("annotations") or {}).items() if key != _HANDED_OVER}
    return lease | {"metadata": lease["metadata"] | {"annotations": notes}}
