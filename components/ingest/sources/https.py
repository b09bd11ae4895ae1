"""One file behind ``https://``: checked against a checksum, resumed where a connection broke.

The content is known by the first of: ``#sha256=…`` at the URI's end, the server's ``Repr-Digest`` or ``Digest``, a
strong ETag with the length, the SHA-256 of a first reading. Plain ``http://`` is read from this machine, and elsewhere
only with ``#sha256=…``: otherwise anybody on the way could write the training data.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from components.errors import BadInput, Unreachable
from components.files import is_full
from components.ingest.options import ReadOptions, suffix_format
from components.ingest.sources import SourceFile, transfer
from components.ingest.sources.http_client import Refusal, Told, answered, asked, client, transient, untrusted

if TYPE_CHECKING:
    import httpx

_T = TypeVar("_T")
_NO_HEAD = {403, 405, 501}
"""Answers to HEAD of servers that know only GET, and of URLs that are signed for GET only."""


@dataclass(frozen=True)
class _Seen:
    """A file as it was when looked at; ``length`` is -1 and the texts are empty where the server does not say."""

    name: str
    length: int
    etag: str
    sha256: str


class HttpsSource:
    """An ``https://`` URI."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Take the URI apart; nothing is asked yet.

        Raises:
            BadInput: it holds a password, pins wrongly or could be altered on the way.
        """
        self._uri = uri
        self._url, _, fragment = uri.partition("#")
        parts = urlsplit(self._url)
        self._shown = parts._replace(query="", netloc=parts.netloc.rpartition("@")[2]).geturl()  # signatures are secret
        if not parts.hostname:
            raise BadInput(f"{self._shown}: the URI names no host; write https://host/path/file.csv.")
        if parts.username or parts.password:
            raise BadInput(
                f"{self._shown}: a URI is stored and shown, so it must hold no password; put a token in "
                "SLUICEWAY_HTTPS_TOKEN."
            )
        self._pin = _pin(fragment, self._shown)
        if parts.scheme.lower() == "http" and not self._pin and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise BadInput(
                f"{self._shown}: what comes over http:// can be altered on the way; use https://, or pin the content "
                "with #sha256=…"
            )
        self._seen = _Seen("", -1, "", "")

    def files(self) -> tuple[SourceFile, ...]:
        """Ask for checksum, ETag and length; only where the server has none of them is the file read."""
        with self._reachable():
            seen = self._patiently(self._look)
            if self._pin:
                seen = replace(seen, sha256=self._pin)
            if not seen.sha256 and not (seen.etag and seen.length >= 0):
                seen = self._patiently(lambda: self._read_through(seen))
        self._seen = seen
        if seen.sha256:
            digest = f"sha256:{seen.sha256}"
        else:  # ETags say something of one URL only
            digest = f"etag:{hashlib.sha256(self._url.encode()).hexdigest()}:{seen.etag}:{seen.length}"
        return (SourceFile(seen.name, digest, max(seen.length, 0), generation=seen.etag),)

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Download the file and check its content."""
        paths = transfer.targets(folder, files)
        for path in paths:
            with self._reachable():
                self._download(path)
            if self._seen.sha256 and transfer.checksum(path, "sha256") != self._seen.sha256:
                if self._pin:
                    raise BadInput(f"{self._shown} does not have the pinned sha256 {self._pin}: it changed since.")
                raise self._changed()
        return paths

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """What was read is a checked copy."""
        return True

    def pinned(self) -> str:
        """With the SHA-256, where it is known."""
        return f"{self._url}#sha256={self._seen.sha256}" if self._seen.sha256 else self._uri

    def _look(self) -> _Seen:
        with client(self._url) as http:
            try:
                with answered(http, "HEAD", self._url) as answer:
                    return self._described(answer)
            except Refusal as refusal:
                if refusal.status not in _NO_HEAD:
                    raise
            with answered(http, "GET", self._url, Range="bytes=0-0") as answer:
                return self._described(answer)

    def _described(self, answer: "httpx.Response") -> _Seen:
        told = Told.by(answer)
        disposition = Message()
        disposition["content-disposition"] = answer.headers.get("content-disposition", "")
        given, last = (PurePosixPath(unquote(urlsplit(url).path)).name for url in (self._url, str(answer.url)))
        names = (given, PurePosixPath(disposition.get_filename() or "").name, last)
        name = next((name for name in names if suffix_format(name)), given or "download")
        name = transfer.shown(name, answer.headers.get("content-encoding"))
        return _Seen(name, told.length, told.etag, told.sha256)

    def _read_through(self, seen: _Seen) -> _Seen:
        digest, length = hashlib.sha256(), 0
        with client(self._url) as http, answered(http, "GET", self._url) as answer:
            for block in answer.iter_raw():
                digest.update(block)
                length += len(block)
        return replace(seen, length=length, sha256=digest.hexdigest())

    def _download(self, path: Path) -> None:
        import httpx

        with client(self._url) as http, path.open("wb") as stream:
            try:
                while not self._patiently(functools.partial(self._piece, http, stream, stream.tell())):
                    pass
            except httpx.RemoteProtocolError as error:
                if stream.tell() == 0:
                    raise
                known = f" of {self._seen.length:,}" if self._seen.length >= 0 else ""
                raise BadInput(
                    f"{self._shown} breaks off after {stream.tell():,}{known} bytes each time; mend the file's server."
                ) from error

    def _piece(self, http: "httpx.Client", stream: BinaryIO, best: int) -> bool:
        """Read on from where the stream is; False when it broke off beyond ``best``, so that it can go on at once."""
        import httpx

        at = stream.tell()
        headers = {"Range": f"bytes={at}-"} if at else {}
        if at and self._seen.etag:
            headers["If-Range"] = self._seen.etag
        with answered(http, "GET", self._url, **headers) as answer:
            told = Told.by(answer)
            other_length = -1 not in (told.length, self._seen.length) and told.length != self._seen.length
            other_etag = "" not in (told.etag, self._seen.etag) and told.etag != self._seen.etag
            if other_length or other_etag or told.start not in (0, at):
                raise self._changed()
            stream.seek(told.start)  # the beginning, where a server cannot go on in the middle
            stream.truncate()
            try:
                for block in answer.iter_raw():  # of no size: gathering would lose what came before a break
                    stream.write(block)
            except httpx.TransportError as error:
                if stream.tell() > best and transient(error):
                    return False
                raise
        if self._seen.length not in (-1, stream.tell()):
            raise self._changed()
        return True

    def _patiently(self, action: Callable[[], _T]) -> _T:
        import tenacity

        result: _T = tenacity.Retrying(**transfer.patience(transient, asked))(action)
        return result

    def _changed(self) -> BadInput:
        return BadInput(f"{self._shown} changed while it was read; run the step again when nothing writes to it.")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Turn the library's errors into sentences."""
        import httpx

        try:
            yield
        except Refusal as refusal:
            raise self._refused(refusal) from refusal
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise BadInput(f"{self._shown} leads nowhere ({transfer.short(error)}); check the address.") from error
        except httpx.TransportError as error:
            if untrusted(error):
                raise Unreachable(
                    f"{self._shown}: its server's certificate is not trusted ({transfer.short(error)}); name your "
                    "certificate authority's file in SSL_CERT_FILE."
                ) from error
            raise self._down(transfer.short(error)) from error
        except OSError as error:
            if is_full(error):
                raise
            raise self._down(transfer.short(error)) from error

    def _refused(self, refusal: Refusal) -> Exception:
        if refusal.status in (404, 410):
            return BadInput(f"{self._shown} does not exist ({refusal}); check the address.")
        if refusal.status in (412, 416):
            return self._changed()
        if refusal.status in (401, 403, 407):
            return Unreachable(
                f"{self._shown} refuses access ({refusal}); put a token that may read it in SLUICEWAY_HTTPS_TOKEN."
            )
        if transient(refusal):
            later = f"{refusal}, asked to wait {refusal.wait:.0f} s" if refusal.wait else str(refusal)
            return self._down(later)
        return Unreachable(f"{self._shown} refuses the request ({refusal}); check the address.")

    def _down(self, why: str) -> Unreachable:
        return Unreachable(f"{self._shown} could not be read for {transfer.RETRY_SECONDS:.0f} s ({why}); try later.")


def _pin(fragment: str, shown: str) -> str:
    """The SHA-256 of ``sha256=…``, as pip writes it."""
    if not fragment:
        return ""
    pin = re.fullmatch("sha256=([0-9a-fA-F]{64})", fragment)
    if pin is None:
        raise BadInput(f"{shown}: what follows # must be sha256= and 64 hexadecimal digits.")
    return pin[1].lower()
