"""Tells people of each decision through a Slack-compatible webhook; a rollout never waits for it, nor fails by it."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

from pydantic import SecretStr

from components.rollout.ledger import Event, Ledger
from components.rollout.message import TOLD, message

if TYPE_CHECKING:
    import httpx

_TRIES = 3
_WAITING = 100  # messages; a rollout decides a few dozen times
_LONGEST_PAUSE = 30.0  # seconds that a Retry-After is followed


@dataclass(frozen=True)
class Told:
    """How many messages arrived.

    Attributes:
        sent: taken by the webhook.
        failed: given up after every try.
        dropped: never tried: too many were waiting, or the time at the end was over.
        trouble: why the last one failed; empty when none did.
    """

    sent: int = 0
    failed: int = 0
    dropped: int = 0
    trouble: str = ""


class Notifier:
    """Posts decisions from a thread of its own, in order; use it as a context manager.

    The webhook's URL is a secret: it is in no message of this class and is masked in httpx's log.
    """

    def __init__(
        self,
        url: SecretStr | str,
        say: Callable[[str], None] = lambda _text: None,
        *,
        link: str = "",
        timeout_seconds: float = 5.0,
        pause_seconds: float = 1.0,
        flush_seconds: float = 10.0,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: the incoming webhook; empty tells nobody.
            say: told, once, that messages do not arrive; from another thread.
            link: the run's page, put under each message; empty for none.
            timeout_seconds: for one try.
            pause_seconds: before the second try; doubled before the third. A Retry-After goes before both.
            flush_seconds: how long leaving the block may wait for messages that are still under way.
        """
        self._url = url.get_secret_value() if isinstance(url, SecretStr) else url
        self._say, self._link = say, link
        self._timeout, self._pause, self._flush = timeout_seconds, pause_seconds, flush_seconds
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING)
        self._over = threading.Event()
        self._sent = self._failed = self._dropped = 0
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)

    def __enter__(self) -> Self:
        if self._url and not self._thread.is_alive():
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def tell(self, ledger: Ledger, event: Event) -> None:
        """Have an event posted, if it is one of those that people are told of. Returns at once and never raises.

        Args:
            ledger: the rollout that it belongs to; read now, not later.
            event: what has happened.
        """
        if not self._url or event.what not in TOLD:
            return
        body = message(ledger, event, self._link)
        while True:
            try:
                self._waiting.put_nowait(body)
                return
            except queue.Full:  # the newest matters most
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()
                    self._dropped += 1

    def close(self) -> Told:
        """Wait a while for what is under way, then give up the rest; can be called again."""
        if self._thread.is_alive():
            deadline = time.monotonic() + self._flush
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=self._flush)
            self._thread.join(max(0.0, deadline - time.monotonic()))
            self._over.set()
        return self.told()

    def told(self) -> Told:
        """How many messages arrived so far; those still waiting once the notifier is closed count as dropped."""
        waiting = sum(item is not None for item in list(self._waiting.queue)) if self._over.is_set() else 0
        return Told(self._sent, self._failed, self._dropped + waiting, self._trouble)

    def note(self, ledger: Ledger) -> None:
        """Close, and leave the count in the timeline; a rollout that told nobody leaves none."""
        if self._url:
            ledger.note("notified", ledger.weight, **asdict(self.close()))

    def _work(self) -> None:
        import httpx

        masked = _Masked(self._url)
        logging.getLogger("httpx").addFilter(masked)
        try:
            with httpx.Client(timeout=self._timeout, follow_redirects=False) as client:
                while not self._over.is_set() and (body := self._waiting.get()) is not None:
                    trouble = self._deliver(client, body)
                    self._sent += not trouble
                    self._failed += bool(trouble)
                    if trouble and not self._trouble:
                        self._say(f"A notification did not reach the webhook ({trouble}); the rollout goes on.")
                    self._trouble = trouble or self._trouble
        finally:
            logging.getLogger("httpx").removeFilter(masked)

    def _deliver(self, client: "httpx.Client", body: dict[str, Any]) -> str:
        """Post one message; gives why it could not be, empty when it arrived."""
        import httpx

        trouble = ""
        for attempt in range(_TRIES):
            try:
                answer = client.post(self._url, json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:  # their texts may quote the URL
                trouble, pause = type(error).__name__, self._pause * 2**attempt
                if not isinstance(error, httpx.ConnectError):  # the others may have arrived, or never will
                    return trouble
            else:
                if answer.is_success:
                    return ""
                trouble, pause = f"HTTP {answer.status_code}", _asked_pause(answer) or self._pause * 2**attempt
                if answer.status_code != 429 and answer.status_code < 500:
                    return trouble
            if attempt < _TRIES - 1 and self._over.wait(pause):
                break
        return trouble


def run_link(ui: str, run_id: str) -> str:
    """The page of a run in the KFP UI; empty where its address is not known."""
    return f"{ui.rstrip('/')}/#/runs/details/{run_id}" if ui and run_id else ""


def _asked_pause(answer: "httpx.Response") -> float:
    """The seconds that a Retry-After asks for, as a number or a date; 0 when there is none."""
    asked = answer.headers.get("Retry-After", "")
    try:
        seconds = float(asked) if asked.strip().isdigit() else parsedate_to_datetime(asked).timestamp() - time.time()
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_PAUSE)


class _Masked(logging.Filter):
    """Takes the webhook's URL out of what httpx logs of each request."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if self._url in text:
            record.msg, record.args = text.replace(self._url, "(webhook)"), ()
        return True
