"""The HTTP sink: CloudEvents as KServe's logger sends them, one POST for a request and one for its reply.

The events are those of ``pkg/logger`` of KServe 0.20, with one attribute more, ``revision``. Binary content mode: the
body is the event's data as it went over the wire, the attributes are headers.
"""

import datetime
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import orjson
import urllib3

from serving.payloads.exchange import Exchange
from serving.payloads.redaction import Redaction, Unreadable
from serving.payloads.settings import Settings
from serving.payloads.waiting import Waiting

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"

THREADS = 4
"""Connections to the sink; each has one event on its way. KServe's logger has five."""
TRIES = 4
_BACKOFF_SECONDS = 0.1  # then twice that, and so on, up to 0.9 s in all
_PASSING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Event:
    """A CloudEvent in binary content mode."""

    headers: dict[str, str]
    body: bytes


class Events:
    """Makes the events of exchanges."""

    def __init__(self, settings: Settings) -> None:
        """Keep the attributes that all events share."""
        self._settings = settings

    def of(self, exchange: Exchange, redaction: Redaction | None) -> list[Event]:
        """The events of an exchange; as in KServe, there is one for the reply only where it was a success.

        Args:
            exchange: what went over the wire.
            redaction: takes values out of the request; None where none are to be.

        Raises:
            Unreadable: the request's body cannot be redacted, and so cannot be sent.
        """
        events = []
        mode = self._settings.mode
        if mode != "response":
            body, head = exchange.request, exchange.request_header_length
            if redaction is not None:
                body, head = redaction.request(exchange)
            events.append(self._event(REQUEST, exchange, exchange.at, exchange.request_type, head, body))
        if mode != "request" and exchange.status == 200:
            at = exchange.at + exchange.seconds
            events.append(
                self._event(RESPONSE, exchange, at, exchange.reply_type, exchange.reply_header_length, exchange.reply)
            )
        return events

    def _event(
        self, kind: str, exchange: Exchange, at: float, content_type: str, head: int | None, body: bytes
    ) -> Event:
        settings = self._settings
        # KServe copies headers of the request into this attribute when told to. Binary tensors cannot be read without
        # this one, so it is always there.
        metadata = {} if head is None else {"Inference-Header-Content-Length": [str(head)]}
        headers = {
            "Ce-Specversion": "1.0",
            "Ce-Id": exchange.id,
            "Ce-Type": kind,
            "Ce-Source": settings.source,
            "Ce-Time": timestamp(at),
            "Ce-Recordedtime": timestamp(time.time()),
            "Ce-Inferenceservicename": settings.inference_service or exchange.model,
            "Ce-Namespace": settings.namespace,
            "Ce-Component": settings.component,
            "Ce-Endpoint": settings.endpoint,
            "Ce-Metadata": orjson.dumps(metadata).decode(),
            "Ce-Revision": exchange.revision,
        }
        if content_type:
            headers["Content-Type"] = content_type
        return Event({name: _header(value) for name, value in headers.items()}, body)


def timestamp(at: float) -> str:
    """RFC 3339 in UTC, without the zeros at the end of the fraction, as Go writes it."""
    text = datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") + "Z"


def _header(value: str) -> str:
    return "".join(character for character in value if character.isprintable() and ord(character) < 256)


class HttpSink:
    """Sends the events of exchanges, several at a time."""

    def __init__(
        self,
        settings: Settings,
        redaction: Callable[[Exchange], Redaction | None],
        count: Callable[[str, int], None],
        warn: Callable[[str], None],
    ) -> None:
        """Begin to send.

        Args:
            settings: where to, and how.
            redaction: of the model that an exchange is with; raises Unreadable where that is unknown.
            count: told what became of exchanges.
            warn: told why the sink takes no events.
        """
        address = urllib3.util.parse_url(settings.url)
        self._target = address.request_uri
        self._own = urllib3.make_headers(basic_auth=unquote(address.auth)) if address.auth else {}
        self._pool = urllib3.connection_from_url(
            settings.url, maxsize=THREADS, timeout=urllib3.Timeout(settings.timeout)
        )
        self._events = Events(settings)
        self._redaction = redaction
        self._count = count
        self._warn = warn
        self._waiting = Waiting(settings.queue_bytes)
        self._leave = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def offer(self, exchange: Exchange) -> None:
        """Send the events of an exchange later, or count that they cannot be kept."""
        if not self._waiting.put(exchange):
            self._count("queue", 1)

    def close(self, deadline: float) -> None:
        """Send what waits; what is not sent at the deadline is left."""
        self._waiting.close()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._leave.set()

    def _run(self) -> None:
        while not self._leave.is_set() and not self._waiting.ended:
            exchange = self._waiting.get(60.0)
            if exchange is None:
                continue
            try:
                events = self._events.of(exchange, self._redaction(exchange))
            except Unreadable:
                self._count("unreadable", 1)
                continue
            self._count("written" if all(self._sent(event) for event in events) else "failed", 1)

    def _sent(self, event: Event) -> bool:
        why = ""
        for attempt in range(TRIES):
            if attempt and self._leave.wait(_BACKOFF_SECONDS * 2**attempt / 2):
                break
            try:
                reply = self._pool.urlopen(
                    "POST", self._target, event.body, {**event.headers, **self._own}, retries=False, redirect=False
                )
            except (urllib3.exceptions.HTTPError, OSError) as error:
                why = str(error)
                continue
            if 200 <= reply.status < 300:
                return True
            why = f"it answered {reply.status}"
            if reply.status not in _PASSING:
                break
        self._warn(f"The HTTP sink of payloads takes no events: {why}.")
        return False
