"""Who is let in, and TLS: tokens and certificates from files, read again when the files change."""

import hashlib
import hmac
import logging
import os
import re
import ssl
from pathlib import Path

from components.errors import BadInput

log = logging.getLogger("sluiceway.serving")

_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_BEARER = b"bearer "


class Tokens:
    """The tokens that let a client in, from a file with one in a line.

    A line holds a token, or ``sha256:`` and the hexadecimal SHA-256 digest of one, so that the file need not hold the
    secret itself. Empty lines and those that begin with ``#`` do not count.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            BadInput: it cannot be read, or holds no token.
        """
        self._path = path
        self._seen = _stamp(path)
        try:
            self._digests = _digests(path)
        except (OSError, ValueError) as error:
            raise BadInput(f"The file of tokens cannot be read: {error}") from error
        if not self._digests:
            raise BadInput(f"The file {path} holds no token: nobody could use the server.")

    def allows(self, authorization: bytes | None) -> bool:
        """Whether the value of an ``Authorization`` header carries one of the tokens.

        Digests are compared, each in constant time and always all of them: how long it takes tells nothing.
        """
        if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
            return False
        given = hashlib.sha256(authorization[len(_BEARER) :].strip()).digest()
        found = False
        for digest in self._digests:
            found |= hmac.compare_digest(given, digest)
        return found

    def read_again(self) -> None:
        """Take the file's tokens if it has changed; those that were known stay where it cannot be read."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        try:
            digests = _digests(self._path)
        except (OSError, ValueError) as error:
            log.error("The file of tokens cannot be read again, the tokens stay as they were: %s", error)
            return
        self._seen = stamp
        self._digests = digests
        log.info("The file of tokens was read again: %d tokens", len(digests))


def _digests(path: Path) -> list[bytes]:
    digests = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        token = line.strip()
        if not token or token.startswith(b"#"):
            continue
        if token.startswith(b"sha256:"):
            match = _DIGEST.fullmatch(token.decode("latin-1"))
            if match is None:
                raise ValueError(f"{path}, line {number}: after sha256: come 64 hexadecimal digits.")
            digests.append(bytes.fromhex(match[1]))
        else:
            digests.append(hashlib.sha256(token).digest())
    return digests


class Certificate:
    """The server's certificate and key, for TLS 1.2 and later."""

    def __init__(self, certificate: Path, key: Path | None) -> None:
        """Read both.

        Args:
            certificate: PEM file of the certificate and its chain.
            key: PEM file of the private key; None where the first file holds it, too.

        Raises:
            BadInput: they cannot be read, or do not belong together.
        """
        self._certificate = certificate
        self._key = key
        self._seen = self._stamps()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        try:
            self._load(self.context)
        except OSError as error:  # ssl's errors are OSErrors
            raise BadInput(f"The TLS certificate {certificate} and its key cannot be used: {error}") from error

    def is_current(self) -> bool:
        """Whether the certificate in use is that of the files."""
        return self._stamps() == self._seen

    def read_again(self) -> None:
        """Use the files' certificate for new connections if it has changed, and is whole."""
        if self.is_current():
            return
        stamps = self._stamps()
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # of a pair that does not match half would be taken
            self._load(self.context)
        except OSError as error:
            log.error("The TLS certificate cannot be read again, the one before stays: %s", error)
            return
        self._seen = stamps
        log.info("The TLS certificate was read again")

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._certificate, self._key, password="")  # an encrypted key fails instead of asking

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in (self._certificate, self._key) if path is not None]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from the next; a Secret's mount replaces the file behind a link."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
