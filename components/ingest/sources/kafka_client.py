"""A topic as librdkafka's consumer sees it: offsets, and the messages of a range, without ever waiting for ever."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import BadInput, SluicewayError, Unreachable
from components.settings import settings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message

ANSWER = 15.0
"""Seconds for brokers to answer a question."""

STALL = 60.0
"""Seconds without a message, in a range that has not ended."""

Position = str | int | dict[int, int]


@dataclass(frozen=True)
class Range:
    """Offsets of a partition; ``end`` is exclusive."""

    partition: int
    start: int
    end: int


class Topic:
    """A topic on a cluster."""

    def __init__(self, brokers: str, name: str) -> None:
        """Remember where it is."""
        self._brokers = brokers
        self._name = name
        self._last = ""
        self.cluster = ""

    def consumer(self) -> "Consumer":
        """A consumer that belongs to no group, commits nothing and stays within some megabytes of memory.

        Raises:
            BadInput: SLUICEWAY_KAFKA is wrong.
        """
        from confluent_kafka import Consumer, KafkaException

        try:
            given = json.loads(settings().kafka.get_secret_value() or "{}")
            properties = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
        except (ValueError, AttributeError) as error:
            raise BadInput("SLUICEWAY_KAFKA is no JSON object of librdkafka's properties; mend the secret.") from error
        ours: dict[str, Any] = {
            "bootstrap.servers": self._brokers,
            "group.id": properties.get("group.id", "sluiceway"),
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "isolation.level": "read_committed",
            "queued.max.messages.kbytes": 16_384,
            "fetch.wait.max.ms": 100,  # a question about one partition must not wait long for one about another
            "error_cb": self._noted,
        }
        quiet = logging.getLogger("sluiceway.kafka")
        quiet.setLevel(logging.CRITICAL)  # what it says comes as an error, too
        try:
            return Consumer({**properties, **ours}, logger=quiet)
        except (KafkaException, ValueError) as error:
            said = error.args[0].str() if hasattr(error.args[0], "str") else error
            raise BadInput(f"SLUICEWAY_KAFKA is refused by the Kafka client ({said}); mend the secret.") from error

    def ranges(self, consumer: "Consumer", start: Position, end: Position) -> tuple[Range, ...]:
        """Offsets of each partition; see :mod:`components.ingest.sources.kafka`.

        Raises:
            BadInput: there is no such topic or partition, or offsets have expired or are not written yet.
            Unreachable: the brokers do not answer.
        """
        partitions = self._partitions(consumer)
        named = [set(position) for position in (start, end) if isinstance(position, dict)]
        if len(named) == 2 and named[0] != named[1]:
            raise BadInput(f"Topic {self._name}: start and end name different partitions; name the same ones.")
        chosen = sorted(named[0]) if named else partitions
        if absent := set(chosen) - set(partitions):
            raise BadInput(
                f"Topic {self._name} has no partition {min(absent)}; it has {len(partitions)}, numbered from 0."
            )
        bounds = {partition: self._bounds(consumer, partition) for partition in chosen}
        starts = self._offsets(consumer, start, bounds)
        ends = self._offsets(consumer, end, bounds)
        for partition, (_, high) in bounds.items():
            if starts[partition] > high or ends[partition] > high:
                raise BadInput(
                    f"Topic {self._name}, partition {partition}: offsets up to {high:,} have been written, and the "
                    f"range is {starts[partition]:,} to {ends[partition]:,}; choose an earlier one, or latest."
                )
        found = tuple(Range(partition, starts[partition], ends[partition]) for partition in chosen)
        self._refuse(found, bounds)
        return found

    def refuse_expired(self, consumer: "Consumer", ranges: Sequence[Range]) -> None:
        """Make sure that nothing of the ranges has been deleted.

        Raises:
            BadInput: something has.
        """
        self._refuse(ranges, {found.partition: self._bounds(consumer, found.partition) for found in ranges})

    def messages(self, consumer: "Consumer", wanted: Range) -> Iterator["Message"]:
        """The messages of a range, in order. Offsets without one (compacted, or a transaction's marks) are passed over.

        Raises:
            BadInput: the start has expired.
            Unreachable: nothing comes, or a transaction is open within the range.
        """
        from confluent_kafka import KafkaError, KafkaException, TopicPartition

        if wanted.start >= wanted.end:
            return
        try:
            consumer.assign([TopicPartition(self._name, wanted.partition, wanted.start)])
            heard = time.monotonic()
            while True:
                message = consumer.poll(1.0)
                if message is None:
                    if time.monotonic() - heard > STALL:
                        raise Unreachable(
                            f"Topic {self._name}, partition {wanted.partition}: nothing came for {STALL:.0f} s"
                            f"{self._because()}; try again later."
                        )
                    continue
                heard = time.monotonic()
                error = message.error()
                offset = message.offset() or 0
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    self._refuse_short(wanted, offset)
                    return
                if error is not None:
                    raise self._explained(error, wanted)
                if offset < wanted.end:
                    yield message
                if offset >= wanted.end - 1:
                    return
        except KafkaException as error:
            raise self._explained(error.args[0], wanted) from error

    def _refuse_short(self, wanted: Range, reached: int) -> None:
        if reached < wanted.end:
            raise Unreachable(
                f"Topic {self._name}, partition {wanted.partition}: messages from offset {reached:,} on cannot be read "
                "yet, since a transaction is still open there; try again later, or choose an earlier end."
            )

    def _partitions(self, consumer: "Consumer") -> list[int]:
        from confluent_kafka import KafkaError, KafkaException

        try:
            told = consumer.list_topics(self._name, timeout=ANSWER)
        except KafkaException as error:
            consumer.poll(0)  # so that the client says why
            raise self._explained(error.args[0]) from error
        self.cluster = told.cluster_id or ""
        topic = told.topics[self._name]
        if topic.error is not None and topic.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise BadInput(f"There is no topic {self._name} at {self._brokers}; check its name and the cluster.")
        if topic.error is not None:
            raise self._explained(topic.error)
        return sorted(topic.partitions)

    def _bounds(self, consumer: "Consumer", partition: int) -> tuple[int, int]:
        """The oldest offset that is kept and the next one to be written."""
        from confluent_kafka import KafkaException, TopicPartition

        try:
            found = consumer.get_watermark_offsets(TopicPartition(self._name, partition), timeout=ANSWER)
        except KafkaException as error:
            raise self._explained(error.args[0]) from error
        if found is None:
            raise Unreachable(f"{self._brokers} does not say which offsets topic {self._name} has; try again later.")
        return found

    def _offsets(self, consumer: "Consumer", position: Position, bounds: dict[int, tuple[int, int]]) -> dict[int, int]:
        from confluent_kafka import KafkaException, TopicPartition

        if isinstance(position, dict):
            return position
        if isinstance(position, str):
            return {partition: bound[position == "latest"] for partition, bound in bounds.items()}
        try:
            asked = [TopicPartition(self._name, partition, position) for partition in bounds]
            found = consumer.offsets_for_times(asked, timeout=ANSWER)
        except KafkaException as error:
            raise self._explained(error.args[0]) from error
        offsets = {}
        for one in found:
            if one.error is not None:
                raise self._explained(one.error)
            offsets[one.partition] = one.offset if one.offset >= 0 else bounds[one.partition][1]
        return offsets

    def _refuse(self, ranges: Sequence[Range], bounds: dict[int, tuple[int, int]]) -> None:
        for found in ranges:
            low = bounds[found.partition][0]
            if found.start < min(low, found.end):
                raise BadInput(self._expired(found, f" (the oldest that is kept is {low:,})"))

    def _expired(self, found: Range, more: str = "") -> str:
        return (
            f"Topic {self._name}, partition {found.partition}: messages from offset {found.start:,} on have expired"
            f"{more}; choose a later start, or keep messages for longer."
        )

    def _explained(self, error: "KafkaError", wanted: Range | None = None) -> SluicewayError:
        from confluent_kafka import KafkaError

        code = error.code()
        if wanted and code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            return BadInput(self._expired(wanted))
        if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            return Unreachable(
                f"Topic {self._name} may not be read by this user ({error.str()}); let it read the topic."
            )
        return Unreachable(f"Kafka at {self._brokers} cannot be read ({error.str()}{self._because()}); is it up?")

    def _noted(self, error: "KafkaError") -> None:
        from confluent_kafka import KafkaError

        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last = error.str()

    def _because(self) -> str:
        return f"; the client says: {self._last}" if self._last else ""
