"""What passes by itself is waited out; what does not becomes one sentence."""

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_exponential_jitter

from components.errors import BadInput, SluicewayError, Unreachable

T = TypeVar("T")

GONE = 410
_PASSING = {0, GONE, 429, 500, 502, 503, 504}  # 0: TLS broke off
_UNKNOWN_FIELD = "failed to create typed patch object"  # an apply that names one is refused with 500
_LONGEST_ANSWER = 30.0  # seconds for one answer; the API server itself ends a request after 60
_SHORTEST_ANSWER = 1.0
_growing = wait_exponential_jitter(initial=0.1, max=10, jitter=0.1)


class Again(Exception):
    """What came back settles nothing: a proxy's page, half an answer, or a write that lost a race inside the server."""


def patiently(what: str, host: str, seconds: float, call: Callable[[float], T]) -> T:
    """Call until it goes through, or until ``seconds`` are over.

    Args:
        what: what the call does, for the sentence: "get the Lease x in the namespace y".
        host: the API server's address, likewise.
        seconds: how long to wait for what passes by itself, in all, by the monotonic clock.
        call: does it; is given how many seconds it may take this time.

    Raises:
        Unreachable: the time is over, or the server does not accept our credentials.
        BadInput: the server refuses what is asked.
        ApiException: 409, which only the caller can judge.
    """
    end = time.monotonic() + seconds
    retrying = Retrying(
        retry=retry_if_exception(passes), wait=_wait, stop=stop_before_delay(seconds), sleep=time.sleep, reraise=True
    )
    try:
        return retrying(lambda: call(answer_seconds(end - time.monotonic())))
    except Exception as error:
        raise sentence(error, what, host, seconds) from error


def answer_seconds(left: float) -> float:
    """How long one answer may take when so much time is left."""
    return min(max(left, _SHORTEST_ANSWER), _LONGEST_ANSWER)


def timeouts(seconds: float) -> tuple[float, float]:
    """To connect and to answer; a pair, because the client ignores a float."""
    return min(seconds, 10.0), seconds


def passes(error: BaseException) -> bool:
    """Whether the same call may go through a little later."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    if isinstance(error, ApiException):
        return error.status in _PASSING and _UNKNOWN_FIELD not in reason(error)
    return isinstance(error, HTTPError | Again)


def asked(error: BaseException | None) -> float:
    """Seconds that the server asks us to wait (Retry-After); 0 where it does not say."""
    text = (getattr(error, "headers", None) or {}).get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0  # a date, the header's other form, is never sent by an API server


def _wait(state: RetryCallState) -> float:
    return asked(state.outcome.exception() if state.outcome else None) or _growing(state)


def sentence(error: Exception, what: str, host: str, seconds: float) -> Exception:
    """The failure to raise for an error of the client; a 409 and our own failures are given back as they are."""
    from kubernetes.client.exceptions import ApiException

    if isinstance(error, SluicewayError):
        return error
    if passes(error):
        return Unreachable(
            f"The API server at {host} could not {what} within {seconds:.0f} s ({reason(error)}): check that it is up "
            "and can be reached from here, then run again."
        )
    if not isinstance(error, ApiException) or error.status == 409:
        return error
    if error.status == 401:
        return Unreachable(
            f"The API server at {host} does not accept our credentials ({reason(error)}): log in again, or give the "
            "step a service account."
        )
    return BadInput(f"The API server at {host} refuses to {what}: {reason(error)}.")


def reason(error: BaseException) -> str:
    """The server's own reason, or what happened to the connection."""
    body = getattr(error, "body", None)
    if body:
        try:
            message = json.loads(body)["message"]
        except (ValueError, KeyError, TypeError):
            message = body.decode(errors="replace")[:300] if isinstance(body, bytes) else str(body)[:300]
        return str(message).rstrip(". \n")
    status: Any = getattr(error, "status", None)
    return f"{status} {getattr(error, 'reason', '')}".strip() if status else f"{type(error).__name__}: {error}"
