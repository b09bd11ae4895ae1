"""Who is let in: what stands before KFP's API on a real installation."""

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Gate:
    """Lets everyone in, until it is told whom.

    Attributes:
        tokens: the bearer tokens that are let in, and the user each stands for.
        passwords: of the users who can log in at Dex; with any, who has no session is sent to the login.
        sessions: the sessions that are open: cookie's value to user.
        audience: the OAuth client that Google's ID tokens must be meant for, as Identity-Aware Proxy wants it.
        logins: how often somebody logged in at Dex.
        lifetime: of an ID token that Google gives out, a counter that is part of it: raising it makes old ones expire.
    """

    tokens: dict[str, str] | None = None
    passwords: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    audience: str = ""
    logins: int = 0
    lifetime: int = 0

    def open(self) -> None:
        """Let everyone in."""
        self.tokens, self.audience, self.logins = None, "", 0
        self.passwords.clear()
        self.sessions.clear()

    def user(self, authorization: str, cookies: str) -> str | None:
        """Who asks; None when they are not let in."""
        token = authorization.removeprefix("Bearer ")
        if self.audience:
            claims = _claims(token)
            return (
                str(claims["email"])
                if (claims.get("aud"), claims.get("lifetime"))
                == (
                    self.audience,
                    self.lifetime,
                )
                else None
            )
        if self.tokens is not None and token in self.tokens:
            return self.tokens[token]
        for pair in cookies.split("; "):
            name, _, value = pair.partition("=")
            if name == "oauth2_proxy_kubeflow" and value in self.sessions:
                return self.sessions[value]
        return None if self.tokens is not None or self.passwords else ""

    def refusal(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """What somebody gets who is not let in."""
        if self.passwords:
            return 302, {"Location": f"/dex/auth?rd={path}"}, b""
        if self.audience:
            headers = {"Content-Type": "text/html", "x-goog-iap-generated-response": "true"}
            return 401, headers, b"Invalid IAP credentials: JWT audience doesn't match this application"
        return 401, {"Content-Type": "text/plain"}, b"Jwt verification fails"

    def dex(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Dex's pages: the choice of a way to log in, the form, and the way back with a session."""
        path = urlsplit(target).path
        html = {"Content-Type": "text/html"}
        if path == "/dex/auth":
            return 200, html, b"<html>Log in with Email</html>"
        if path == "/dex/auth/local":
            return 302, {"Location": "/dex/auth/local/login?state=x"}, b""
        if method == "GET":
            return 200, html, b"<html><form method=post>login, password</form></html>"
        given = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if self.passwords.get(given.get("login", "")) != given.get("password"):
            return 200, html, b"<html>Invalid Email Address and password.</html>"
        value = secrets.token_hex(8)
        self.sessions[value] = given["login"]
        self.logins += 1
        return 303, {"Location": "/dex/done", "Set-Cookie": f"oauth2_proxy_kubeflow={value}; Path=/; HttpOnly"}, b""

    def google(self, body: bytes) -> bytes:
        """Google's token endpoint: an ID token for the audience that a service account's assertion names."""
        assertion = _claims(parse_qs(body.decode())["assertion"][0])
        claims = {"aud": assertion.get("target_audience"), "email": assertion["iss"], "lifetime": self.lifetime}
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({}, claims, {}))
        return json.dumps({"access_token": "access", "expires_in": 3600, "id_token": token}).encode()


def _claims(token: str) -> dict[str, Any]:
    """What a JSON web token says; whether its signature is right is not looked at."""
    try:
        _, claims, _ = token.split(".")
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    except ValueError:
        return {}
    return found
