"""Kafka as a source, against the cluster that librdkafka brings for tests."""

import json
import logging
from datetime import UTC, datetime

import confluent_kafka
import duckdb
import pytest

from components.errors import BadInput, Unreachable
from components.ingest.options import ReadOptions
from components.ingest.resolve import resolve
from components.ingest.run import run
from components.ingest.sources import kafka_client, open_source
from components.ingest.sources.kafka_client import Range, Topic

MORNING = datetime(2026, 3, 1, 8, tzinfo=UTC)


class Cluster:
    def __init__(self):
        quiet = logging.getLogger("tests.kafka")
        quiet.setLevel(logging.CRITICAL)
        settings = {"bootstrap.servers": "none", "test.mock.num.brokers": 2, "linger.ms": 0}
        self.producer = confluent_kafka.Producer(settings, logger=quiet)
        brokers = self.producer.list_topics(timeout=10).brokers.values()
        self.address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def write(self, topic, *values, partition=0, key=None):
        """One message a second, from eight in the morning."""
        for second, value in enumerate(values):
            content = value if value is None or isinstance(value, bytes) else json.dumps(value)
            moment = int(MORNING.timestamp() + second) * 1000
            self.producer.produce(topic, content, key=key, partition=partition, timestamp=moment)
        assert self.producer.flush(20) == 0

    def uri(self, topic, **position):
        return f"kafka://{self.address}/{topic}?" + "&".join(f"{name}={text}" for name, text in position.items())


@pytest.fixture(scope="module")
def cluster():
    return Cluster()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(kafka_client, "ANSWER", 3.0)


def rows(folder, select="*"):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(f"SELECT {select} FROM read_parquet('{folder}/*.parquet')").fetchall()


def test_a_range_becomes_a_table_in_the_order_of_partitions_and_offsets(cluster, tmp_path):
    cluster.write("orders", {"id": 3, "note": "ü"}, {"id": 4, "tags": ["a"]}, partition=1, key="2026-01-01")
    cluster.write("orders", {"id": 1}, {"id": 2.5, "at": {"x": 1}}, None, key=b"\xff1")
    made = run(cluster.uri("orders"), "", {}, tmp_path / "s")
    assert {column.name: column.type for column in made.columns} == {
        "_partition": "INTEGER",
        "_offset": "BIGINT",
        "_timestamp": "TIMESTAMP WITH TIME ZONE",
        "_key": "VARCHAR",
        "id": "DOUBLE",
        "at": "STRUCT(x BIGINT)",
        "note": "VARCHAR",
        "tags": "VARCHAR[]",
    }
    assert rows(tmp_path / "s", "_partition, _offset, _timestamp::VARCHAR, _key, id") == [
        (0, 0, "2026-03-01 08:00:00+00", "\\xff1", 1),
        (0, 1, "2026-03-01 08:00:01+00", "\\xff1", 2.5),
        (0, 2, "2026-03-01 08:00:02+00", "\\xff1", None),
        (1, 0, "2026-03-01 08:00:00+00", "2026-01-01", 3),
        (1, 1, "2026-03-01 08:00:01+00", "2026-01-01", 4),
    ]


def test_a_pinned_range_stays_the_same_while_the_topic_grows(cluster, tmp_path):
    cluster.write("growing", {"id": 1}, {"id": 2})
    found = resolve(cluster.uri("growing"), {})
    assert found.uri.endswith("?start=0:0,1:0,2:0,3:0&end=0:2,1:0,2:0,3:0")
    cluster.write("growing", {"id": "three"})
    again = resolve(found.uri, {})
    assert (again.version, again.uri) == (found.version, found.uri)
    assert run(found.uri, found.version, {}, tmp_path / "a").rows == 2
    assert (
        run(found.uri, found.version, {}, tmp_path / "b").parts[0].md5
        == run(found.uri, found.version, {}, tmp_path / "c").parts[0].md5
    )
    assert resolve(cluster.uri("growing"), {}).version != found.version


def test_types_hold_for_the_whole_range(cluster, tmp_path):
    cluster.write("late", *({"id": number} for number in range(30_000)), {"id": 0.5})
    assert run(cluster.uri("late"), "", {}, tmp_path / "s").columns[4].type == "DOUBLE"
    assert rows(tmp_path / "s", "count(*), sum(id), max(_offset)") == [(30_001, 449_985_000.5, 30_000)]


def test_a_topic_that_was_made_anew_is_another_version(cluster):
    cluster.write("first", {"id": 1})
    cluster.write("second", {"id": 2})
    digests = []
    for name in ("first", "second"):
        source = open_source(cluster.uri("first", start="0:0", end="0:1"), ReadOptions())
        source._topic = Renamed(cluster.address, name)
        digests.append(source.files()[0].digest)
    assert digests[0] != digests[1]


class Renamed(Topic):
    """The same name for another topic: what a person sees who made it anew."""


def test_messages_as_text(cluster, tmp_path):
    cluster.write("text", b"2026-01-01", b"not json \xff")
    run(cluster.uri("text"), "", {"value": "text"}, tmp_path / "s")
    assert rows(tmp_path / "s", "value") == [("2026-01-01",), ("not json \\xff",)]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"not json", "Topic bad-0, partition 0, offset 1: the message is not JSON"),
        (b"\xff\xfe", "offset 1: the message is not JSON"),
        (b"[1]", "offset 1: the message is not a JSON object"),
        (b'{"_offset": 1}', "the name '_offset' is that of a column"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(cluster, tmp_path, request, value, sentence):
    topic = f"bad-{request.node.callspec.indices['value']}"
    cluster.write(topic, {"id": 1}, value)
    with pytest.raises(BadInput, match=sentence):
        run(cluster.uri(topic), "", {}, tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_what_has_expired_is_said(cluster, tmp_path):
    cluster.write("old", {"id": 1}, {"id": 2})
    pinned = resolve(cluster.uri("old", start="0:0", end="0:2"), {})
    files = pinned.opened.files()
    for _ in range(8):  # the cluster keeps 5 MB of a partition
        cluster.write("old", {"id": "x" * 900_000})
    expired = r"Topic old, partition 0: messages from offset 0 on have expired"
    with pytest.raises(BadInput, match=expired + r" \(the oldest that is kept is \d+\)"):
        resolve(pinned.uri, {})
    with pytest.raises(BadInput, match=expired):  # between listing and reading
        pinned.opened.fetch(files, tmp_path)
    assert resolve(cluster.uri("old"), {}).uri.startswith(f"kafka://{cluster.address}/old?start=0:")


@pytest.mark.parametrize(
    ("position", "error", "sentence"),
    [
        ({"start": "latest"}, BadInput, "there are no messages between start latest and end latest"),
        ({"end": "0:9"}, BadInput, "offsets up to 1 have been written"),
        ({"start": "7:0"}, BadInput, "has no partition 7; it has 4"),
        ({"start": "0:0", "end": "1:1"}, BadInput, "name different partitions"),
        ({"start": "yesterday"}, BadInput, "'yesterday' is no position"),
        ({"offset": "1"}, BadInput, "unknown parameter 'offset'"),
    ],
)
def test_a_wrong_range_is_one_sentence(cluster, request, position, error, sentence):
    topic = f"wrong-{request.node.callspec.indices['position']}"
    cluster.write(topic, {"id": 1})
    with pytest.raises(error, match=sentence):
        resolve(cluster.uri(topic, **position), {})


def test_what_cannot_be_reached_is_said_soon(cluster, monkeypatch):
    with pytest.raises(BadInput, match="There is no topic absent"):
        resolve(cluster.uri("absent"), {})
    cluster.write("orders", {"id": 1})
    monkeypatch.setattr(kafka_client, "ANSWER", 0.5)
    with pytest.raises(Unreachable, match=r"Kafka at 127.0.0.1:9 cannot be read .*Connection refused"):
        resolve("kafka://127.0.0.1:9/orders", {})
    monkeypatch.setenv("SLUICEWAY_KAFKA", '{"socket.keepalive.enable": true, "socket.timeout.ms": 9000}')
    monkeypatch.setattr(kafka_client, "ANSWER", 5.0)
    resolve(cluster.uri("orders"), {})
    monkeypatch.setenv("SLUICEWAY_KAFKA", '{"no.such.property": "x"}')
    with pytest.raises(BadInput, match=r'No such configuration property: "no.such.property"'):
        resolve(cluster.uri("orders"), {})
    with pytest.raises(BadInput, match="SLUICEWAY_KAFKA"):
        resolve("kafka://user:secret@broker:9092/orders", {})


class Timed(confluent_kafka.Consumer):
    """Looks times up in the messages themselves, which the brokers for tests cannot."""

    def offsets_for_times(self, asked, timeout):
        found = []
        for one in asked:
            wanted = Range(one.partition, *self.get_watermark_offsets(one, timeout=timeout))
            messages = Topic("", one.topic).messages(self, wanted)
            later = (message.offset() for message in messages if message.timestamp()[1] >= one.offset)
            found.append(confluent_kafka.TopicPartition(one.topic, one.partition, next(later, -1)))
        return found


def test_a_range_of_time_is_one_of_offsets(cluster, monkeypatch):
    monkeypatch.setattr(confluent_kafka, "Consumer", Timed)
    cluster.write("timed", *({"id": second} for second in range(60)))
    cluster.write("timed", *({"id": second} for second in range(5)), partition=1)
    found = resolve(cluster.uri("timed", start="2026-03-01T09:00:10+01:00", end="2026-03-01T08:00:20Z"), {})
    assert found.uri.endswith("?start=0:10,1:5,2:0,3:0&end=0:20,1:5,2:0,3:0")


class Scripted:
    """A partition whose log has what the brokers for tests never write: holes, marks and open transactions."""

    def __init__(self, *events):
        self.events = list(events)

    def assign(self, partitions):
        pass

    def poll(self, timeout):
        return self.events.pop(0) if self.events else None


class Event:
    def __init__(self, offset, code=None):
        self._offset, self._error = offset, None if code is None else confluent_kafka.KafkaError(code)

    def offset(self):
        return self._offset

    def error(self):
        return self._error


END = confluent_kafka.KafkaError._PARTITION_EOF


@pytest.mark.parametrize(
    ("events", "offsets"),
    [
        ([Event(3), Event(7), Event(12)], [3, 7]),  # compacted: the next message is beyond the range
        ([Event(3), Event(8), Event(10, END)], [3, 8]),  # a transaction's mark ends the log
        ([Event(14)], []),  # nothing of the range is left
    ],
)
def test_offsets_without_a_message_do_not_keep_it_waiting(events, offsets):
    found = Topic("brokers", "orders").messages(Scripted(*events), Range(0, 0, 10))
    assert [message.offset() for message in found] == offsets


def test_a_range_that_does_not_end_is_given_up(monkeypatch):
    topic = Topic("brokers", "orders")
    with pytest.raises(Unreachable, match="from offset 5 on cannot be read yet, since a transaction is still open"):
        list(topic.messages(Scripted(Event(3), Event(5, END)), Range(0, 0, 10)))
    monkeypatch.setattr(kafka_client, "STALL", 0.0)
    with pytest.raises(Unreachable, match="nothing came for"):
        list(topic.messages(Scripted(Event(3)), Range(0, 0, 10)))
