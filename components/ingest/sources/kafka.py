"""Kafka topics: ``kafka://broker:9092,broker:9092/topic?start=…&end=…``.

``start`` and ``end`` are ``earliest``, ``latest``, a moment (ISO 8601, UTC unless it says otherwise; the first message
at or after it) or an offset per partition (``0:100,1:250``); ``end`` is exclusive. The range is fixed when the source
is resolved: the pinned URI names offsets, so the same range is the same version. The version is a digest of the
cluster's id, topic and offsets, and of the first message of each partition, by which a topic that was made anew is told
from the old.
"""

import hashlib
import json
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from components.errors import BadInput
from components.ingest.engine import engine, literal, write_parquet
from components.ingest.options import ReadOptions
from components.ingest.sources import SourceFile
from components.ingest.sources.kafka_client import Range, Topic

if TYPE_CHECKING:
    from confluent_kafka import Message

_OURS = ("_partition", "_offset", "_timestamp", "_key")
_LINE = 16 * 2**20
"""Bytes of a message as JSON, at most."""


@dataclass(frozen=True)
class _Asked:
    brokers: str
    topic: str
    start: str
    end: str


class KafkaSource:
    """A range of a topic, as one table: what the messages hold and their partition, offset, time and key."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Check the URI; nothing is asked of the brokers yet.

        Raises:
            BadInput: it is written wrongly.
        """
        self._uri = uri
        self._asked = _parsed(uri)
        self._text = options.value == "text"
        self._topic = Topic(self._asked.brokers, self._asked.topic)

    def files(self) -> tuple[SourceFile, ...]:
        """Fix the range and digest what identifies it."""
        with closing(self._topic.consumer()) as consumer:
            firsts = {}
            for found in self._ranges:
                first = next(self._topic.messages(consumer, found), None)
                firsts[found.partition] = _fingerprint(first) if first else ""
        said = {
            "cluster": self._topic.cluster,
            "topic": self._asked.topic,
            "ranges": [[found.partition, found.start, found.end] for found in self._ranges],
            "firsts": [firsts[found.partition] for found in self._ranges],
        }
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        offsets = ",".join(f"{found.partition}:{found.start}-{found.end}" for found in self._ranges)
        return (SourceFile(f"{self._asked.topic}.parquet", f"sha256:{digest}", 0, generation=offsets),)

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Read exactly the range, in the order of partitions and offsets, and write it as Parquet.

        Raises:
            BadInput: a message is no JSON object, or a part of the range has expired meanwhile.
        """
        lines = folder / "messages.jsonl"
        with lines.open("w", encoding="utf-8") as stream, closing(self._topic.consumer()) as consumer:
            for found in self._ranges:
                for message in self._topic.messages(consumer, found):
                    stream.write(self._line(message))
            self._topic.refuse_expired(consumer, self._ranges)
        path = folder / files[0].name
        with engine(folder) as connection:
            write_parquet(connection, self._table(lines), path)
        lines.unlink()
        return [path]

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """Messages do not change; what expired while it was read has been noticed."""
        return True

    def pinned(self) -> str:
        """The URI with offsets, so that it means the same messages later."""
        starts = ",".join(f"{found.partition}:{found.start}" for found in self._ranges)
        ends = ",".join(f"{found.partition}:{found.end}" for found in self._ranges)
        return f"kafka://{self._asked.brokers}/{quote(self._asked.topic)}?start={starts}&end={ends}"

    @cached_property
    def _ranges(self) -> tuple[Range, ...]:
        starts, ends = _position(self._asked.start, self._uri), _position(self._asked.end, self._uri)
        with closing(self._topic.consumer()) as consumer:
            ranges = self._topic.ranges(consumer, starts, ends)
        if all(found.start >= found.end for found in ranges):
            raise BadInput(
                f"{self._uri}: there are no messages between start {self._asked.start} and end {self._asked.end}; "
                "widen the range."
            )
        return ranges

    def _line(self, message: "Message") -> str:
        where = f"Topic {self._asked.topic}, partition {message.partition()}, offset {message.offset()}"
        _, milliseconds = message.timestamp()
        key = message.key()
        ours = {
            "_partition": message.partition(),
            "_offset": message.offset(),
            "_timestamp": milliseconds,
            # Marked, since DuckDB would take a key that looks like a date for one.
            "_key": None if key is None else "k" + _bytes(key).decode("utf-8", "backslashreplace"),
        }
        return json.dumps({**ours, **self._values(message, where)}, ensure_ascii=False) + "\n"

    def _values(self, message: "Message", where: str) -> dict[str, object]:
        content = message.value()
        if self._text:
            return {"value": None if content is None else "v" + _bytes(content).decode("utf-8", "backslashreplace")}
        if content is None:  # a deletion, in a topic that is compacted
            return {}
        if len(content) > _LINE // 2:
            raise BadInput(f"{where}: the message has {len(content):,} bytes; at most {_LINE // 2:,} are read.")
        try:
            value = json.loads(content, parse_constant=lambda name: None)
        except ValueError as error:
            raise BadInput(
                f"{where}: the message is not JSON ({str(error)[:80]}); read messages of other kinds with "
                'read_options {"value": "text"}.'
            ) from error
        if not isinstance(value, dict):
            raise BadInput(f'{where}: the message is not a JSON object; read it with read_options {{"value": "text"}}.')
        taken = [name for name in value if name.lower() in _OURS]
        if taken:
            raise BadInput(f"{where}: the name {taken[0]!r} is that of a column which ingest adds; rename it.")
        return value

    def _table(self, lines: Path) -> str:
        """All lines are looked at for the types, so that they hold for the whole range."""
        value = "value[2:] AS value" if self._text else f"* EXCLUDE ({', '.join(_OURS)})"
        return (
            "SELECT _partition::INTEGER AS _partition, _offset::BIGINT AS _offset, "
            "make_timestamp(_timestamp::BIGINT * 1000)::TIMESTAMPTZ AS _timestamp, (_key::VARCHAR)[2:] AS _key, "
            f"{value} FROM read_json({literal(lines)}, format = 'newline_delimited', sample_size = -1, "
            f"field_appearance_threshold = 0, map_inference_threshold = -1, maximum_object_size = {_LINE})"
        )


def _parsed(uri: str) -> _Asked:
    parts = urlsplit(uri, allow_fragments=False)
    topic = unquote(parts.path.strip("/"))
    if not parts.netloc or not topic or "/" in topic:
        raise BadInput(f"{uri}: write kafka://broker:9092/topic?start=earliest&end=latest.")
    if "@" in parts.netloc:
        raise BadInput("A kafka:// URI holds no user and no password; put them in SLUICEWAY_KAFKA as sasl.username.")
    given = dict(parse_qsl(parts.query.replace("+", "%2B")))  # the plus of a time zone
    if unknown := set(given) - {"start", "end"}:
        raise BadInput(f"{uri}: unknown parameter {sorted(unknown)[0]!r}; known are start and end.")
    return _Asked(parts.netloc, topic, given.get("start", "earliest"), given.get("end", "latest"))


def _position(text: str, uri: str) -> "str | int | dict[int, int]":
    """``earliest`` or ``latest``, milliseconds since 1970, or offsets by partition."""
    if text in ("earliest", "latest"):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    try:
        pairs = [pair.split(":") for pair in text.split(",")]
        return {int(partition): int(offset) for partition, offset in pairs}
    except ValueError as error:
        raise BadInput(
            f"{uri}: {text!r} is no position; give earliest, latest, a moment such as 2026-07-01T00:00:00Z, or offsets "
            "by partition such as 0:100,1:250."
        ) from error


def _fingerprint(message: "Message") -> str:
    content = hashlib.sha256(_bytes(message.value() or b"")).hexdigest()
    return f"{message.offset()} {message.timestamp()[1]} {content}"


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
