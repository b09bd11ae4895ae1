"""How a web server is asked for a file: redirects, tokens, what its headers say, and what may pass."""

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.ingest.sources import transfer
from components.settings import settings

if TYPE_CHECKING:
    import httpx


class Refusal(Exception):
    """A server's answer that is no success."""

    def __init__(self, answer: "httpx.Response") -> None:
        """Keep the status, and the seconds that the server asks to wait."""
        super().__init__(f"{answer.status_code} {answer.reason_phrase}".strip())
        self.status = answer.status_code
        self.wait = _seconds(answer.headers.get("retry-after", ""))


@dataclass(frozen=True)
class Told:
    """What an answer says about the file.

    Attributes:
        length: of the whole file; -1 when not said.
        start: where in the file the answer starts.
        etag: only a strong one, which stands for exactly these bytes.
        sha256: of the whole file, in hexadecimal; empty when not said.
    """

    length: int
    start: int
    etag: str
    sha256: str

    @classmethod
    def by(cls, answer: "httpx.Response") -> "Told":
        """Read an answer's headers."""
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", ""))
        whole = answer.status_code != 206
        if whole:
            length, start = answer.headers.get("content-length", ""), 0
        else:
            length, start = (part[2], int(part[1])) if part else ("", -1)
        etag = answer.headers.get("etag", "")
        # Content-Digest is of what is sent, the others are of the file.
        names = ("repr-digest", "digest", *(("content-digest",) if whole else ()))
        said = ",".join(answer.headers.get(name, "") for name in names)
        digest = re.search(r"sha-256=:?([A-Za-z0-9+/]{43}=)", said, re.IGNORECASE)
        return cls(
            length=int(length) if length.isdecimal() else -1,
            start=start,
            etag=etag if etag.startswith('"') else "",
            sha256=transfer.hexadecimal(digest[1]) if digest else "",
        )


def client(url: str) -> "httpx.Client":
    """A client for one file; proxies and certificate authorities (``SSL_CERT_FILE``) are the environment's."""
    import httpx

    def safe(request: httpx.Request) -> None:
        if request.url.scheme != "https" and url.lower().startswith("https://"):
            raise BadInput(
                f"{httpx.URL(url).copy_with(query=None)} redirects to {request.url.scheme}://{request.url.host}, where "
                "it can be altered on the way; give the https:// address of the file itself."
            )

    # The bytes as they are stored can be checked and resumed. httpx drops the token where another host is led to.
    headers = {"Accept-Encoding": "identity"}
    token = settings().https_token.get_secret_value()
    if token and url.lower().startswith("https://"):
        headers["Authorization"] = f"Bearer {token}"
    return httpx.Client(
        headers=headers,
        timeout=httpx.Timeout(30, connect=10),
        follow_redirects=True,
        max_redirects=10,
        event_hooks={"request": [safe]},
    )


@contextmanager
def answered(http: "httpx.Client", method: str, url: str, **headers: str) -> Iterator["httpx.Response"]:
    """A successful answer whose body is still to be read.

    Raises:
        Refusal: any other answer.
    """
    with http.stream(method, url, headers={name.replace("_", "-"): value for name, value in headers.items()}) as answer:
        if not answer.is_success:
            raise Refusal(answer)
        yield answer


def transient(error: BaseException) -> bool:
    """Whether a failure may pass."""
    import httpx

    if isinstance(error, Refusal):
        return error.status in transfer.TRANSIENT
    passing = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    return passing and not untrusted(error)


def untrusted(error: BaseException | None) -> bool:
    """Whether a server's certificate was not accepted."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def asked(error: BaseException) -> float:
    """Seconds that a server asked to wait before the next request."""
    return error.wait if isinstance(error, Refusal) else 0.0


def _seconds(retry_after: str) -> float:
    """``Retry-After`` holds seconds or a date."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0
