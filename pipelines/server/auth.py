"""Who asks: the headers that a KFP server, or the proxy in front of it, lets in."""

from pathlib import Path
from typing import Protocol

from components.errors import BadInput, Unreachable
from pipelines.server.options import Options

_IN_CLUSTER = "KF_PIPELINES_SA_TOKEN_PATH"


class Credentials(Protocol):
    """Headers that identify us, made anew when they are refused."""

    advice: str

    def headers(self) -> dict[str, str]:
        """What each request carries."""

    def renew(self) -> None:
        """Forget what is kept, since it was refused."""


class TokenFile:
    """A bearer token in a file that somebody renews: a projected service account token, or CI's."""

    def __init__(self, path: Path) -> None:
        """Take the token from this file."""
        self.path = path
        self.advice = f"renew the token in {path}"

    def headers(self) -> dict[str, str]:
        """The token as the file holds it now."""
        return {"authorization": f"Bearer {_text(self.path)}"}

    def renew(self) -> None:
        """The file is read for each request anyway."""


class CookieFile:
    """A session cookie in a file."""

    def __init__(self, path: Path) -> None:
        """Take the cookie from this file."""
        self.path = path
        self.advice = f"log in with a browser and put its session cookie, name=value, into {path}"

    def headers(self) -> dict[str, str]:
        """The cookie as the file holds it now."""
        return {"Cookie": _text(self.path)}

    def renew(self) -> None:
        """The file is read for each request anyway."""


class DexLogin:
    """A session that is opened with name and password at Dex, as a browser does, and again when it has run out."""

    def __init__(self, options: Options) -> None:
        """Log in with these options once a session is needed."""
        self.options = options
        self.advice = f"check the password of {options.username} (SLUICEWAY_KFP_PASSWORD or --password-file)"
        self._cookie = ""

    def headers(self) -> dict[str, str]:
        """The session's cookie."""
        if not self._cookie:
            from pipelines.server.dex import log_in

            password = _text(self.options.password_file) if self.options.password_file else ""
            self._cookie = log_in(self.options, password or self.options.password.get_secret_value())
        return {"Cookie": self._cookie}

    def renew(self) -> None:
        """Log in again next time."""
        self._cookie = ""


class IapToken:
    """A Google ID token for Identity-Aware Proxy, by kfp's own way: a saved login, else the service account."""

    def __init__(self, client_id: str) -> None:
        """Ask for tokens meant for this OAuth client."""
        self.client_id = client_id
        self.advice = "check that the Google account may pass Identity-Aware Proxy, and the client id"
        self._token = ""

    def headers(self) -> dict[str, str]:
        """The token, asked for once."""
        if not self._token:
            self._token = self._fetch()
        return {"authorization": f"Bearer {self._token}"}

    def renew(self) -> None:
        """Ask for another next time: they live an hour."""
        self._token = ""

    def _fetch(self) -> str:
        import google.auth.exceptions
        from kfp.client import auth

        why = "the default credentials are a person's, not a service account's"
        try:
            token, _ = auth.get_auth_token(self.client_id, None, None)
        except (google.auth.exceptions.GoogleAuthError, OSError, ValueError) as error:
            token, why = None, str(error).splitlines()[0]
        if not token:
            raise Unreachable(
                f"No Google ID token for Identity-Aware Proxy client {self.client_id}: {why}; "
                "name a service account's key with GOOGLE_APPLICATION_CREDENTIALS."
            )
        return str(token)


def credentials(options: Options) -> Credentials | None:
    """What the options say; in a pod, its own token for KFP where there is one; None leaves it to kfp.

    Raises:
        BadInput: two ways at once, or a name without a password.
    """
    import os

    from kfp import client

    given = [name for name in ("token_file", "cookie_file", "username", "iap_client_id") if getattr(options, name)]
    if len(given) > 1:
        flags = " and ".join("--" + name.replace("_", "-") for name in given)
        raise BadInput(f"Two ways to identify at the KFP server, {flags}: give one (flags and SLUICEWAY_KFP_…).")
    if options.token_file:
        return TokenFile(options.token_file)
    if options.cookie_file:
        return CookieFile(options.cookie_file)
    if options.iap_client_id:
        return IapToken(options.iap_client_id)
    if options.username:
        if not options.password_file and not options.password.get_secret_value():
            raise BadInput(
                f"No password for {options.username}: set SLUICEWAY_KFP_PASSWORD, or name a file with --password-file."
            )
        return DexLogin(options)
    own = Path(os.environ.get(_IN_CLUSTER) or client.KF_PIPELINES_SA_TOKEN_PATH)
    return TokenFile(own) if own.is_file() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Unreachable(f"Cannot read {path}, which identifies us at the KFP server: {error.strerror}.") from error
