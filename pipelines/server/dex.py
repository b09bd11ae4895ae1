"""Logging in at Dex, in front of a multi-user Kubeflow, as a browser does.

Kubeflow has no API for it: the proxy (oauth2-proxy, or AuthService before Kubeflow 1.9) sends a browser to Dex's form
and, after it, back with a session cookie.
"""

from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from components.errors import Unreachable
from pipelines.server.options import Options

if TYPE_CHECKING:
    import httpx


def log_in(options: Options, password: str) -> str:
    """Open a session; its cookies as a header's value.

    Raises:
        Unreachable: nobody asks for a login there, or name or password are refused.
    """
    import ssl

    import httpx

    trust = ssl.create_default_context(cafile=str(options.ca_file)) if options.ca_file else True
    try:
        with httpx.Client(follow_redirects=True, timeout=options.timeout_seconds, verify=trust) as browser:
            form = _form(browser, options.host)
            answer = browser.post(form, data={"login": options.username, "password": password})
            if not answer.history:
                raise Unreachable(f"Dex refuses the name or password of {options.username} at {_site(form)}.")
            if answer.url.path.endswith("/approval"):
                browser.post(answer.url, data={"approval": "approve"})
            host = urlsplit(options.host).hostname or ""
            cookies = [
                one for one in browser.cookies.jar if host.endswith(one.domain.removesuffix(".local").lstrip("."))
            ]
    except httpx.HTTPError as error:
        raise Unreachable(f"Cannot log in at Dex through {options.host}: {error}.") from error
    if not cookies:
        raise Unreachable(f"{options.host} gave no session cookie after the login of {options.username}.")
    return "; ".join(f"{one.name}={one.value}" for one in cookies)


def _form(browser: "httpx.Client", host: str) -> str:
    """Where the form of name and password is sent to."""
    page = browser.get(host)
    if page.status_code in (401, 403):  # oauth2-proxy shows a page of its own before Dex's
        page = browser.get(urljoin(host, "/oauth2/start"), params={"rd": urlsplit(host).path or "/"})
    if not page.history:
        raise Unreachable(f"{host} asks for no login at Dex (status {page.status_code}): leave out --username.")
    if page.url.path.endswith("/auth"):  # several ways to log in; ours are passwords that Dex itself knows
        page = browser.get(page.url.copy_with(path=f"{page.url.path}/local"))
    return str(page.url)


def _site(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
