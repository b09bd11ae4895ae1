"""https:// against a real server that breaks connections, is busy, lies, redirects and changes its file."""

import base64
import contextlib
import hashlib
import http.server
import ssl
import threading
from dataclasses import dataclass, field

import pytest

from components.errors import BadInput, Unreachable
from components.ingest.options import ReadOptions
from components.ingest.resolve import resolve
from components.ingest.run import run
from components.ingest.sources import transfer
from components.ingest.sources.https import HttpsSource
from tests.keys import write_certificate

TEXT = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * 7) for i in range(200_000))


@dataclass
class Site:
    """One file, and how the server misbehaves: ``faults`` are taken one per GET."""

    url: str = ""
    content: bytes = TEXT
    etag: str = '"v1"'
    headers: dict = field(default_factory=dict)
    faults: list = field(default_factory=list)
    ranges: bool = True
    head: int = 200
    told: int | None = None
    redirect: str = ""
    asked: list = field(default_factory=list)


def handler(site):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            site.asked.append(("HEAD", dict(self.headers)))
            if site.redirect:
                return self.refuse(302, Location=site.redirect)
            if site.head != 200:
                return self.refuse(site.head)
            self.start(200, site.told if site.told is not None else len(site.content), {})

        def do_GET(self):
            site.asked.append(("GET", dict(self.headers)))
            if site.redirect:
                return self.refuse(302, Location=site.redirect)
            fault = site.faults.pop(0) if site.faults else None
            if isinstance(fault, tuple):
                return self.refuse(fault[0], **fault[1])
            start, end = self.asked_for()
            headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(site.content)}"} if self.partial else {}
            self.start(206 if self.partial else 200, site.told or end - start, headers)
            for at in range(start, end, 65536):
                if isinstance(fault, int) and at - start >= fault:
                    break
                with contextlib.suppress(OSError):
                    self.wfile.write(site.content[at : min(at + 65536, end)])
            else:
                fault = None if site.told is None else 0
            if callable(fault):
                fault()
            if fault is not None:
                self.connection.close()

        def asked_for(self):
            self.partial = site.ranges and "Range" in self.headers
            if self.headers.get("If-Range", site.etag) != site.etag:
                self.partial = False
            if not self.partial:
                return 0, len(site.content)
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            return int(first), min(int(last) + 1, len(site.content)) if last else len(site.content)

        def start(self, status, length, headers):
            self.send_response(status)
            for name, value in {"Content-Length": length, "ETag": site.etag, **site.headers, **headers}.items():
                if value:
                    self.send_header(name, str(value))
            self.end_headers()

        def refuse(self, status, **headers):
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    return Handler


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *arguments):
        pass  # clients that hang up are part of the tests


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return write_certificate(tmp_path_factory.mktemp("tls"), "site")


@pytest.fixture
def serve(certificate, monkeypatch):
    running = []

    def start(tls=True, **site):
        one = Site(**site)
        server = Server(("127.0.0.1", 0), handler(one))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(server)
        one.url = f"http{'s' * tls}://127.0.0.1:{server.server_address[1]}/data/big.csv"
        return one

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 3.0)
    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def got(uri, tmp_path):
    source = HttpsSource(uri, ReadOptions())
    files = source.files()
    (path,) = source.fetch(files, tmp_path)
    return files[0], path.read_bytes()


def refused(kind, uri, tmp_path):
    with pytest.raises(kind) as caught:
        run(uri, "", {}, tmp_path / "out" / "snapshot")
    assert not list((tmp_path / "out").glob("*")), "nothing half-written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def gets(site):
    return [headers.get("Range") for method, headers in site.asked if method == "GET"]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_becomes_a_snapshot_and_is_pinned_by_its_strong_etag(serve, tmp_path):
    site = serve()
    source = resolve(site.url, {})
    made = run(source.uri, source.version, {}, tmp_path / "s")
    assert made.rows == 200_000
    assert made.files[0].generation == '"v1"'
    site.etag = '"v2"'
    assert resolve(site.url, {}).version != source.version


def test_a_broken_connection_is_resumed_where_it_broke(serve, tmp_path):
    site = serve(faults=[500_000, 500_000])
    _, content = got(site.url, tmp_path)
    assert content == TEXT
    first, second, third = gets(site)
    assert first is None
    assert 0 < int(second[6:-1]) < int(third[6:-1])
    assert site.asked[-1][1]["If-Range"] == '"v1"'


def test_a_server_without_ranges_is_read_again_from_the_beginning(serve, tmp_path):
    site = serve(faults=[500_000], ranges=False)
    assert got(site.url, tmp_path)[1] == TEXT


def test_busy_answers_are_tried_again_and_the_wished_pause_is_kept(serve, tmp_path):
    site = serve(faults=[(429, {"Retry_After": "1"}), (503, {})])
    assert got(site.url, tmp_path)[1] == TEXT
    assert len(gets(site)) == 3


def test_a_longer_pause_than_the_patience_ends_the_step(serve, tmp_path):
    site = serve(faults=[(503, {"Retry_After": "3600"})])
    assert "asked to wait 3600 s" in refused(Unreachable, site.url, tmp_path)


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [(401, Unreachable, "SLUICEWAY_HTTPS_TOKEN"), (403, Unreachable, "refuses access"), (404, BadInput, "not exist")],
)
def test_a_refusal_is_final(serve, tmp_path, status, kind, says):
    site = serve(faults=[(status, {})], head=405)
    assert says in refused(kind, site.url, tmp_path)
    assert len(gets(site)) == 1


def test_a_file_replaced_during_the_read_fails_the_step(serve, tmp_path):
    site = serve(faults=[500_000])

    def replace(etag):
        site.content, site.etag = TEXT.replace(b"7", b"8"), etag

    source = HttpsSource(site.url, ReadOptions())
    files = source.files()
    replace('"v2"')
    with pytest.raises(BadInput, match="changed while it was read"):
        source.fetch(files, tmp_path)


def test_a_file_replaced_between_two_halves_is_not_glued_together(serve, tmp_path):
    site = serve()

    def replace():
        site.content, site.etag = TEXT.replace(b"7", b"8"), '"v2"'

    class Half(int):
        def __call__(self):
            replace()

    site.faults = [Half(500_000)]
    assert "changed while it was read" in refused(BadInput, site.url, tmp_path)


def test_a_file_without_etag_or_checksum_is_known_by_its_content(serve, tmp_path):
    site = serve(etag="")
    source = resolve(site.url, {})
    assert source.uri == f"{site.url}#sha256={sha256(TEXT)}"
    site.content = TEXT.replace(b"7", b"8")
    with pytest.raises(BadInput, match="pinned sha256"):
        run(source.uri, source.version, {}, tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_weak_etag_pins_nothing(serve, tmp_path):
    assert got(serve(etag='W/"v1"').url, tmp_path)[0].digest == f"sha256:{sha256(TEXT)}"


@pytest.mark.parametrize("header", ["Repr-Digest: sha-256=:{}:", "Digest: SHA-256={}", "Content-Digest: sha-256=:{}:"])
def test_the_servers_checksum_is_the_version_and_is_checked(serve, tmp_path, header):
    name, _, value = header.partition(": ")
    site = serve(headers={name: value.format(base64.b64encode(hashlib.sha256(TEXT).digest()).decode())})
    file, content = got(site.url, tmp_path)
    assert (file.digest, content) == (f"sha256:{sha256(TEXT)}", TEXT)
    site.content = TEXT.replace(b"7", b"8")
    assert "changed while it was read" in refused(BadInput, site.url, tmp_path)


def test_a_pinned_file_must_have_the_checksum(serve, tmp_path):
    site = serve()
    assert got(f"{site.url}#sha256={sha256(TEXT)}", tmp_path)[1] == TEXT
    assert "pinned sha256" in refused(BadInput, f"{site.url}#sha256={'0' * 64}", tmp_path)


def test_a_length_that_is_a_lie_fails_the_step(serve, tmp_path):
    site = serve(told=len(TEXT) + 1000)
    assert "changed while it was read" in refused(BadInput, site.url, tmp_path)


def test_a_server_that_never_gets_to_the_end_fails_the_step(serve, tmp_path):
    site = serve(faults=[500_000] * 50, ranges=False)
    assert "breaks off after" in refused(BadInput, site.url, tmp_path)


def test_the_token_goes_to_its_own_host_only(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HTTPS_TOKEN", "secret")
    other = serve()
    site = serve(redirect=other.url)
    assert got(site.url, tmp_path)[1] == TEXT
    assert {headers.get("Authorization") for _, headers in site.asked} == {"Bearer secret"}
    assert {headers.get("Authorization") for _, headers in other.asked} == {None}


def test_a_redirect_to_plain_http_is_not_followed(serve, tmp_path):
    other = serve(tls=False)
    site = serve(redirect=other.url)
    assert "redirects to http://" in refused(BadInput, site.url, tmp_path)
    assert not other.asked


def test_a_certificate_that_is_not_trusted_is_not_tried_again(serve, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 60.0)
    assert "SSL_CERT_FILE" in refused(Unreachable, serve().url, tmp_path)


def test_plain_http_is_read_from_this_machine(serve, tmp_path):
    assert got(serve(tls=False).url, tmp_path)[1] == TEXT


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://example.org/a.csv", "can be altered on the way"),
        ("https://me:pass@example.org/a.csv", "must hold no password"),
        ("https:///a.csv", "names no host"),
        ("https://example.org/a.csv#sha256=12", "64 hexadecimal digits"),
    ],
)
def test_addresses_that_are_unsafe_or_wrong_are_refused(tmp_path, uri, says):
    message = refused(BadInput, uri, tmp_path)
    assert says in message
    assert "pass@" not in message


def test_the_name_comes_from_where_it_says_what_the_file_is(serve, tmp_path):
    site = serve(headers={"Content-Disposition": 'attachment; filename="../out.csv"', "Content-Encoding": "gzip"})
    site.url = site.url.replace("data/big.csv", "export?format=csv&signature=1")
    assert got(site.url, tmp_path)[0].name == "out.csv.gz"
