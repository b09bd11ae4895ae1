"""The record of a rollout on a cluster: a ConfigMap written by compare-and-swap, owned by way of a Lease."""

import base64
import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from components.cluster.api import CONFIG_MAP, LEASE, Cluster, Conflict, Plain
from components.errors import BadInput, Lost
from components.rollout.ledger import Ledger
from components.rollout.store import Command
from components.rollout.stores.lease import Claim, Held, owner_of

_OWNER = "sluiceway/owner"
_PLAIN, _PACKED = "ledger.json", "ledger.json.gz"
_PACK_ABOVE = 200_000  # bytes of JSON that are still kept as they are, for people to read
_MOST = 900_000  # bytes in the ConfigMap; the API server refuses more than 1 MiB
_LEASE_SECONDS = 60  # an API server that restarts is away for less
_TRIES = 3


class KubernetesStore:
    """The record of one service's newest rollout, in the service's namespace.

    The ConfigMap and the Lease are called ``sluiceway-rollout-SERVICE``. Commands lie in a ConfigMap of their own, so
    that a person who sends one never gets in the owner's way.
    """

    def __init__(self, cluster: Cluster, service: str, lease_seconds: int = _LEASE_SECONDS) -> None:
        """Name the service; nothing is read yet.

        Args:
            cluster: the service's namespace.
            service: its name.
            lease_seconds: how long the right to act outlives its owner.
        """
        self._cluster = cluster
        self._service = service
        self._name = f"sluiceway-rollout-{service}"
        self._commands = f"{self._name}-command"
        self._lease_seconds = lease_seconds
        self._held: Held | None = None
        self._seen: Plain | None = None  # the ConfigMap as it was read or written last

    @contextmanager
    def owned(
        self, rollout: str, wait_seconds: float = 0.0, say: Callable[[str], None] = lambda _text: None
    ) -> Iterator[Held]:
        """Own the service while the block runs; a right that was handed over to the same rollout is taken up.

        Raises:
            Busy: another rollout owns it; names it.
        """
        claim = Claim(self._cluster, self._name, self._service, rollout, self._lease_seconds)
        with claim.held(wait_seconds, say) as held:
            self._held = held
            try:
                self._sign(held.identity)
                yield held
            finally:
                self._held = None

    def owner(self) -> str:
        """Who is at work on the service now; empty when nobody is. One that has died counts until it is replaced."""
        return owner_of(self._cluster.get(LEASE, self._name))

    def load(self) -> Ledger:
        """Read the record, or begin an empty one.

        Raises:
            BadInput: it cannot be read.
        """
        self._seen = self._cluster.get(CONFIG_MAP, self._name)
        if self._seen is None:
            return Ledger(service=self._service)
        try:
            return Ledger.model_validate_json(_unpacked(self._seen))
        except (ValueError, KeyError, OSError, EOFError) as error:  # the last three: what is packed is damaged
            raise BadInput(
                f"The record of service {self._service}'s rollout, ConfigMap {self._name} in the namespace "
                f"{self._cluster.namespace}, cannot be read ({str(error).splitlines()[0]}): it was written by another "
                "release or by hand; delete it to begin anew."
            ) from error

    def save(self, ledger: Ledger) -> None:
        """Write the record whole, by compare-and-swap against what :meth:`load` or the last :meth:`save` saw.

        Raises:
            Lost: somebody else has written meanwhile, or the right to act is lost.
        """
        ledger.saved = time.time()
        content = _packed(ledger)
        for _ in range(_TRIES):
            if self._held is not None:
                self._held.check()
            try:
                self._write(content)
                return
            except Conflict:
                if not self._only_touched():
                    break
        raise Lost(
            f"The record of service {self._service}'s rollout was written by somebody else meanwhile: this run has "
            "stopped without changing anything more; see 'sluiceway rollout status'."
        )

    def send(self, command: Command) -> None:
        """Leave a command for the owner; a later one takes its place."""
        self._cluster.apply(
            self._manifest(self._commands, {"data": {"command": command.model_dump_json()}}), force=True
        )

    def command(self) -> Command | None:
        """The newest command; None when there is none."""
        found = self._cluster.get(CONFIG_MAP, self._commands)
        return None if found is None else Command.model_validate_json(found["data"]["command"])

    def clear(self) -> None:
        """Take commands away."""
        self._cluster.delete(CONFIG_MAP, self._commands)

    def _write(self, content: Plain) -> None:
        manifest = self._manifest(self._name, content)
        if self._held is not None:
            manifest["metadata"]["annotations"] = {_OWNER: self._held.identity}
        if self._seen is None:
            self._seen = self._cluster.create(manifest)
            return
        metadata = self._seen["metadata"]
        manifest["metadata"] = metadata | {
            "labels": (metadata.get("labels") or {}) | manifest["metadata"]["labels"],
            "annotations": (metadata.get("annotations") or {}) | manifest["metadata"].get("annotations", {}),
        }
        self._seen = self._cluster.replace(manifest)

    def _sign(self, identity: str) -> None:
        """Put our name on the record, so that a write of the owner before us, under way at this moment, fails."""
        for _ in range(_TRIES):
            found = self._cluster.get(CONFIG_MAP, self._name)
            if found is None:
                return
            notes = (found["metadata"].get("annotations") or {}) | {_OWNER: identity}
            try:
                self._seen = self._cluster.replace(found | {"metadata": found["metadata"] | {"annotations": notes}})
                return
            except Conflict:
                continue
        raise Lost(f"The record of service {self._service}'s rollout is being written by others: run again.")

    def _only_touched(self) -> bool:
        """Whether the record's content and owner are as we left them: somebody has only put a label on it."""
        found = self._cluster.get(CONFIG_MAP, self._name)
        if found is None or self._seen is None or _state(found) != _state(self._seen):
            return False
        self._seen = found
        return True

    def _manifest(self, name: str, content: Plain) -> dict[str, Any]:
        labels = {"app.kubernetes.io/managed-by": "sluiceway", "sluiceway/service": self._service}
        head = {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.kind}
        return head | {"metadata": {"name": name, "labels": labels}} | content


def _state(record: Plain) -> tuple[Any, ...]:
    owner = (record["metadata"].get("annotations") or {}).get(_OWNER)
    return record.get("data"), record.get("binaryData"), owner


def _packed(ledger: Ledger) -> Plain:
    """The record as a ConfigMap's content; without its oldest samples where it would be too big.

    Raises:
        BadInput: it is too big even so.
    """
    events = list(ledger.events)
    while True:
        text = ledger.model_copy(update={"events": events}).model_dump_json()
        if len(text.encode()) <= _PACK_ABOVE:
            return {"data": {_PLAIN: text}}
        packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
        if len(packed) <= _MOST:
            return {"binaryData": {_PACKED: packed}}
        samples = [number for number, event in enumerate(events) if event.what == "sample"]
        if not samples:
            raise BadInput(
                f"The record of service {ledger.service}'s rollout is {len(packed):,} bytes packed, more than a "
                "ConfigMap holds, and has no samples left to drop: its releases' documents are too big."
            )
        oldest = set(samples[: max(1, len(samples) // 4)])
        events = [event for number, event in enumerate(events) if number not in oldest]


def _unpacked(record: Plain) -> str:
    if _PACKED in (record.get("binaryData") or {}):
        return gzip.decompress(base64.b64decode(record["binaryData"][_PACKED])).decode()
    return str(record["data"][_PLAIN])
