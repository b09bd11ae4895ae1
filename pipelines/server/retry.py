"""Every request to the KFP server: a timeout, what passes waited out, an expired login renewed, clear refusals.

kfp's client sends without timeouts and never tries again. :class:`Transport` takes the place of its lowest layer, so
whatever is called on the client comes through here.
"""

import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import tenacity
import urllib3
from kfp_server_api import ApiException, Configuration
from kfp_server_api.rest import RESTClientObject, RESTResponse
from urllib3 import exceptions

from components.errors import Refused, SluicewayError, Unanswered, Unreachable
from pipelines.server.auth import Credentials

T = TypeVar("T")

_SAFE = ("GET", "HEAD", "DELETE")  # a second DELETE finds nothing, which callers take for done
_PASSES = (500, 502, 503, 504)
_LOGIN = (301, 302, 303, 307, 401)  # proxies answer with the way to their login page
_LONGEST_WAIT = 10.0


class _Again(Exception):
    def __init__(self, error: SluicewayError, after: float = 0) -> None:
        self.error, self.after = error, after


class Transport(RESTClientObject):
    """The layer of kfp's client that sends requests, with patience.

    Reading and deleting are tried again until patience ends. What creates or changes something is tried again only
    when it cannot have been carried out (no connection, 429); else :class:`Unanswered` is raised, and who called
    looks before trying again: :func:`made_once`.
    """

    def __init__(
        self, configuration: Configuration, credentials: Credentials | None, timeout: float, patience: float
    ) -> None:
        """Send with a client's configuration."""
        configuration.retries = urllib3.Retry(0, redirect=False)
        super().__init__(configuration)
        self.credentials = credentials
        self.timeout = timeout
        self.patience = patience
        self.server = configuration.host

    def request(self, method: str, url: str, headers: Any = None, _request_timeout: Any = None, **rest: Any) -> Any:
        """Send, see the class."""
        limits = (min(self.timeout, 10.0), self.timeout) if _request_timeout is None else _request_timeout

        def send() -> RESTResponse:
            return self._send(method, url, dict(headers or {}), _request_timeout=limits, **rest)

        return patiently(send, self.patience)

    def _send(self, method: str, url: str, headers: dict[str, str], **rest: Any) -> RESTResponse:
        ours = self.credentials.headers() if self.credentials else {}
        try:
            return self._ask(method, url, headers | ours, **rest)
        except ApiException as error:
            if error.status not in _LOGIN:
                self._refuse(method, url, error)
        if self.credentials is not None:
            self.credentials.renew()
            fresh = self.credentials.headers()
            if fresh != ours:
                try:
                    return self._ask(method, url, headers | fresh, **rest)
                except ApiException as error:
                    if error.status not in _LOGIN:
                        self._refuse(method, url, error)
        advice = self.credentials.advice if self.credentials else "say who you are, such as with --token-file"
        raise Unreachable(f"The KFP server {self.server} does not know us, or the login has run out: {advice}.")

    def _ask(self, method: str, url: str, headers: dict[str, str], **rest: Any) -> RESTResponse:
        try:
            answer = super().request(method, url, headers=dict(headers), **rest)
        except exceptions.MaxRetryError as error:
            self._lost(method, error.reason or error)
        except exceptions.HTTPError as error:
            self._lost(method, error)
        if isinstance(answer, RESTResponse) and "text/html" in answer.urllib3_response.headers.get("content-type", ""):
            raise ApiException(status=401, reason="a page for people, such as a login form")
        return answer

    def _lost(self, method: str, error: Exception) -> NoReturn:
        """A request that got no answer."""
        where = f"The KFP server {self.server}"
        if isinstance(error, exceptions.SSLError):
            raise Unreachable(f"{where} shows a certificate that is not trusted: give its authority with --ca-file.")
        if isinstance(error, exceptions.ConnectTimeoutError | exceptions.ProxyError):  # never sent
            raise _Again(Unreachable(f"{where} cannot be reached: {_short(error)}.")) from error
        why = f"does not answer within {self.timeout:g} s" if _slow(error) else f"hung up: {_short(error)}"
        if method in _SAFE:
            raise _Again(Unreachable(f"{where} {why}.")) from error
        raise Unanswered(f"{where} {why}; the request may have been carried out.") from error

    def _refuse(self, method: str, url: str, error: ApiException) -> NoReturn:
        """A request that was answered with a refusal."""
        message = said(error)
        what = f"{method} {urlsplit(url).path}"
        if error.status == 429:
            raise _Again(Unreachable(f"The KFP server {self.server} is overloaded: {message}."), _after(error))
        if error.status in _PASSES:
            broken = f"The KFP server {self.server} fails at {what}: {message}"
            if method in _SAFE:
                raise _Again(Unreachable(f"{broken}."), _after(error))
            raise Unanswered(f"{broken}; the request may have been carried out.") from error
        if error.status == 0:
            raise Unreachable(f"The KFP server {self.server} cannot be spoken to: {message}.") from error
        if error.status == 403:
            raise Refused(f"The KFP server {self.server} forbids {what}: {message}.", 403) from error
        raise Refused(
            f"The KFP server {self.server} refuses {what} ({error.status}): {message}.", error.status
        ) from error


def patiently(attempt: Callable[[], T], patience: float) -> T:
    """Try until it works, it fails for good, or patience (in seconds) ends."""

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        backoff = tenacity.wait_random_exponential(multiplier=patience / 60, max=min(_LONGEST_WAIT, patience / 4))
        return max(error.after if isinstance(error, _Again) else 0, backoff(state))

    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Again),
        stop=tenacity.stop_before_delay(patience),
        wait=wait,
        reraise=True,
    )
    try:
        return again(attempt)
    except _Again as last:
        raise last.error from last.__cause__


def made_once(look: Callable[[], T | None], make: Callable[[], T], patience: float) -> T:
    """Find something, else make it; a lost answer makes no second one.

    Args:
        look: find what ``make`` would make; None when it is not there.
        make: make it. When the answer is lost, ``look`` says whether it was made before it is tried again.
        patience: seconds until it is given up.

    Raises:
        Unreachable: no clear answer until patience ended.
        Refused: the server refuses it for good.
    """

    def attempt() -> T:
        found = look()
        if found is not None:
            return found
        try:
            return make()
        except Unanswered as error:
            raise _Again(error) from error
        except Refused as error:
            if error.status == 409:  # somebody else was faster, or an earlier attempt was late
                raise _Again(error) from error
            raise

    return patiently(attempt, patience)


def said(error: ApiException) -> str:
    """What the server says in its refusal, in one line.

    gRPC's gateway wraps what is meant for the user in ``details``; the upload has a form of its own.
    """
    text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        body = json.loads(text)
    except ValueError:
        return _short(text) or str(error.reason)
    if not isinstance(body, dict):
        return _short(text)
    details = [one.get("message", "") for one in body.get("details") or [] if isinstance(one, dict)]
    return _short(next(filter(None, [*details, body.get("error_message"), body.get("message")]), str(error.reason)))


def _after(error: ApiException) -> float:
    """Seconds that ``Retry-After`` asks for; a date is taken for none."""
    value = (error.headers or {}).get("retry-after", "")
    return float(value) if value.isdigit() else 0.0


def _slow(error: Exception) -> bool:
    return isinstance(error, exceptions.TimeoutError)


def _short(error: object) -> str:
    first, *_ = str(error).strip().splitlines() or [""]
    return first[:300].rstrip(".")
