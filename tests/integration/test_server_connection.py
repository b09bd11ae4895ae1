"""Connections to a KFP server: who is let in, what is waited out, and what is said of the rest."""

import json

import pytest
from typer.testing import CliRunner

from components.errors import BadInput, Refused, Unanswered, Unreachable
from pipelines.cli import app
from pipelines.server.connection import connect
from pipelines.server.options import read_options
from pipelines.server.retry import made_once
from tests.kfp_api.server import KfpApi

pytest_plugins = ["tests.kfp_api.fixtures"]


@pytest.fixture
def options(kfp_options):
    """Options with some of them changed."""
    return lambda **about: kfp_options.model_copy(update=about)


@pytest.fixture
def written(tmp_path):
    """A file with this text."""

    def write(text, name="secret"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


# What is waited out, and what is not


def test_reading_is_repeated_until_it_works(kfp, kfp_api):
    for how, about in (("answer", {"code": 503}), ("drop", {}), ("lose", {}), ("hang", {"seconds": 0.5})):
        kfp_api.faults.add(how, method="GET", path="/pipelines$", **about)
    assert kfp.client.list_pipelines().pipelines is None
    assert kfp_api.count("GET", "/pipelines") == 5


def test_retry_after_is_kept(kfp, kfp_api, monkeypatch):
    slept = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    kfp_api.faults.add("answer", code=429, retry_after=2, method="GET", path="/pipelines$")
    kfp.client.list_pipelines()
    assert slept == [2]
    kfp_api.faults.add("answer", code=429, retry_after=60, method="GET", path="/pipelines$")
    with pytest.raises(Unreachable, match="is overloaded"):  # longer than patience
        kfp.client.list_pipelines()


def test_patience_ends_with_what_the_server_says(kfp_api, options):
    with connect(options(patience_seconds=0.1)) as kfp:
        kfp_api.faults.add("answer", code=503, message="no healthy upstream", path="/pipelines$", times=1000)
        with pytest.raises(Unreachable, match=r"fails at GET /apis/v2beta1/pipelines: no healthy upstream\.$"):
            kfp.client.list_pipelines()
        assert kfp_api.count("GET", "/pipelines") > 1


def test_a_server_that_says_nothing_is_given_up(kfp_api, options):
    with connect(options(timeout_seconds=0.1, patience_seconds=0.05)) as kfp:
        kfp_api.faults.add("hang", path="/pipelines$", seconds=0.5, times=9)
        with pytest.raises(Unreachable, match=r"does not answer within 0\.1 s"):
            kfp.client.list_pipelines()


def test_what_creates_something_is_not_repeated_blindly(kfp, kfp_api, unique):
    kfp_api.faults.add("lose", method="POST", path="/pipelines$")
    with pytest.raises(Unanswered, match="may have been carried out"):
        kfp.client.pipelines.pipeline_service_create_pipeline({"display_name": unique})
    assert kfp_api.count("POST", "/pipelines") == 1
    assert len(kfp_api.store.pipelines) == 1


def test_made_once_takes_what_an_attempt_left_behind(kfp):
    made = []

    def make():
        made.append("it")
        raise Unanswered("lost")

    assert made_once(lambda: made[0] if made else None, make, patience=1) == "it"
    assert len(made) == 1


def test_a_server_that_is_not_there_is_named(options, kfp_api):
    with (
        pytest.raises(Unreachable, match=r"KFP server http://127\.0\.0\.1:1 cannot be reached"),
        connect(options(host="http://127.0.0.1:1", patience_seconds=0.1)),
    ):
        pass


def test_a_refusal_says_what_the_server_said_to_the_user(kfp):
    with pytest.raises(Refused, match=r"refuses GET /apis/v2beta1/runs/none \(404\): Run none not found\.") as error:
        kfp.client.get_run("none")
    assert error.value.status == 404


# Which server it is


def test_the_version_is_read_from_the_api_and_from_the_ui(options, kfp_api):
    for kfp_api.through_ui in (False, True):
        with connect(options()) as kfp:
            assert (kfp.server.version, kfp.server.multi_user) == ("2.17.0", False)


@pytest.mark.parametrize(
    ("version", "told"), [("2.5.0", 0), ("2.17.3", 0), ("2.18.0", 1), ("3.0.0", 1), ("unknown", 0)]
)
def test_a_newer_server_is_told_of(options, kfp_api, version, told):
    kfp_api.store.version = version if version != "unknown" else "2.17.0"
    if version == "unknown":
        kfp_api.health = lambda: {"tag_name": "unknown"}
    said = []
    try:
        with connect(options(), said.append):
            pass
    finally:
        kfp_api.__dict__.pop("health", None)
    assert len(said) == told
    assert all("newer than 2.17" in one for one in said)


def test_an_older_server_is_refused(options, kfp_api):
    kfp_api.store.version = "2.4.1"
    with pytest.raises(BadInput, match=r"version 2\.4\.1, and Sluiceway needs 2\.5 or newer"), connect(options()):
        pass


def test_what_is_no_kfp_server_is_refused(options, kfp_api):
    with (
        pytest.raises(BadInput, match=r"is no KFP server: .*check --host"),
        connect(options(host=f"{kfp_api.url}/elsewhere")),
    ):
        pass


def test_a_multi_user_server_wants_a_namespace(options, kfp_api, monkeypatch, tmp_path):
    import kfp.client

    monkeypatch.setattr(kfp.client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "none.json"))
    kfp_api.store.multi_user = True
    with pytest.raises(BadInput, match="--namespace or SLUICEWAY_KFP_NAMESPACE"), connect(options()):
        pass
    with connect(options(namespace="team-a")) as found:
        assert found.namespace == "team-a"


def test_with_no_host_kfps_own_variable_counts(kfp_api, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kfp_api.url)
    with connect(read_options()) as kfp:
        assert kfp.link("runs", "details", "x") == f"{kfp_api.url}/#/runs/details/x"


def test_with_no_server_at_all_it_is_said_how_to_name_one(kfp_api, monkeypatch, capsys):
    def none(**_):
        raise OSError

    monkeypatch.setattr("kubernetes.config.load_kube_config", none)
    with pytest.raises(BadInput, match="No KFP server is named: give --host"), connect(read_options()):
        pass
    assert capsys.readouterr().out == ""  # where --json writes


# Who asks


def test_a_token_that_is_refused_is_read_again_and_its_file_is_named(options, kfp_api, written):
    token = written("old")
    kfp_api.gate.tokens = {"old": "anna"}
    with connect(options(token_file=token)) as kfp:
        kfp_api.gate.tokens = {"new": "anna"}
        with pytest.raises(Unreachable, match=f"login has run out: renew the token in {token}") as error:
            kfp.client.list_pipelines()
        assert "old" not in str(error.value)
        token.write_text("new\n")
        kfp.client.list_pipelines()


def test_a_token_that_is_renewed_while_a_request_is_on_its_way_passes(options, kfp_api, written):
    token = written("old")
    kfp_api.gate.tokens = {"old": "anna"}
    with connect(options(token_file=token)) as kfp:
        kfp_api.before = lambda *_: token.write_text("new")
        kfp_api.gate.tokens = {"new": "anna"}
        kfp.client.list_pipelines()
    assert kfp_api.count("GET", "/pipelines") == 2


def test_without_a_login_it_is_said_how(options, kfp_api):
    kfp_api.gate.tokens = {"t": "anna"}
    with pytest.raises(Unreachable, match=r"does not know us.*--token-file"), connect(options()):
        pass


def test_a_pod_takes_the_token_that_kubernetes_gave_it_for_kfp(options, kfp_api, written, monkeypatch):
    kfp_api.gate.tokens = {"projected": "system:serviceaccount:team-a:default"}
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(written("projected")))
    with connect(options()) as kfp:
        kfp.client.list_pipelines()


def test_a_session_is_opened_at_dex_and_again_when_it_has_run_out(options, kfp_api, written):
    kfp_api.gate.passwords["anna@example.com"] = "secret word"
    kfp_api.store.multi_user = True
    kfp_api.store.rights = {"anna@example.com": {"team-a"}}
    about = options(username="anna@example.com", password_file=written("secret word\n"), namespace="team-a")
    with connect(about) as kfp:
        kfp.client.list_pipelines(namespace="team-a")
        assert kfp_api.gate.logins == 1
        kfp_api.gate.sessions.clear()
        kfp.client.create_experiment("x", namespace="team-a")
    assert kfp_api.gate.logins == 2
    with (
        pytest.raises(Unreachable, match=r"Dex refuses the name or password of anna@example\.com"),
        connect(about.model_copy(update={"password_file": written("wrong")})),
    ):
        pass


def test_dex_is_not_asked_where_nobody_wants_a_login(options, written):
    with (
        pytest.raises(Unreachable, match="asks for no login at Dex"),
        connect(options(username="anna", password_file=written("x"))),
    ):
        pass


def test_a_session_cookie_is_taken_from_a_file(options, kfp_api, written):
    kfp_api.gate.passwords["anna"] = "x"
    kfp_api.gate.sessions["abc"] = "anna"
    cookie = written("oauth2_proxy_kubeflow=abc")
    with connect(options(cookie_file=cookie)) as kfp:
        kfp.client.list_pipelines()
        kfp_api.gate.sessions.clear()
        with pytest.raises(Unreachable, match=f"log in with a browser .* into {cookie}"):
            kfp.client.list_pipelines()


def test_identity_aware_proxy_gets_a_service_accounts_id_token_and_another_when_it_has_expired(
    options, kfp_api, written, monkeypatch
):
    from kfp.client import auth

    google = f"{kfp_api.url}/google/token"
    monkeypatch.setattr(auth, "OAUTH_TOKEN_URI", google)
    monkeypatch.setattr(auth, "LOCAL_KFP_CREDENTIAL", "/none")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(written(_service_account(google), "key.json")))
    kfp_api.gate.audience = "client.apps.googleusercontent.com"
    with connect(options(iap_client_id=kfp_api.gate.audience)) as kfp:
        kfp.client.list_pipelines()
        kfp_api.gate.lifetime += 1
        kfp.client.list_pipelines()
        assert kfp_api.count("GET", "/pipelines") == 3
        kfp_api.gate.audience = "another"
        with pytest.raises(Unreachable, match="may pass Identity-Aware Proxy"):
            kfp.client.list_pipelines()


def test_without_google_credentials_identity_aware_proxy_is_explained(options, monkeypatch):
    from kfp.client import auth

    monkeypatch.setattr(auth, "LOCAL_KFP_CREDENTIAL", "/none")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/none/key.json")
    with pytest.raises(Unreachable, match="GOOGLE_APPLICATION_CREDENTIALS"), connect(options(iap_client_id="x")):
        pass


def test_two_ways_to_identify_are_one_too_many(options, written):
    with (
        pytest.raises(BadInput, match="--token-file and --cookie-file"),
        connect(options(token_file=written("x"), cookie_file=written("y", "other"))),
    ):
        pass


def test_a_server_with_a_certificate_of_its_own_needs_its_authority(options, tmp_path):
    tls, authority = _certificate(tmp_path)
    with KfpApi(tls) as api:
        with (
            pytest.raises(Unreachable, match="not trusted: give its authority with --ca-file"),
            connect(options(host=api.url)),
        ):
            pass
        with connect(options(host=api.url, ca_file=authority)) as kfp:
            kfp.client.list_pipelines()


# The command line


def test_no_secret_is_given_on_the_command_line():
    shown = CliRunner().invoke(app, ["upload", "--help"], env={"COLUMNS": "200"}).output
    assert "--password-file" in shown
    for flag in ("--password ", "--token ", "--cookie "):
        assert flag not in shown


def test_a_file_that_is_not_there_and_a_value_that_cannot_be_are_named(monkeypatch):
    done = CliRunner().invoke(app, ["upload", "--host", "http://x", "--token-file", "/none/token"])
    assert (done.exit_code, "no file /none/token, which --token-file names" in done.stderr) == (1, True)
    monkeypatch.setenv("SLUICEWAY_KFP_TIMEOUT_SECONDS", "soon")
    done = CliRunner().invoke(app, ["upload", "--host", "http://x"])
    assert (done.exit_code, "SLUICEWAY_KFP_TIMEOUT_SECONDS (or its flag) is 'soon'" in done.stderr) == (1, True)


def _service_account(token_uri: str) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    about = {"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": pem}
    return json.dumps(
        about | {"client_email": "ci@p.iam.gserviceaccount.com", "client_id": "1", "token_uri": token_uri}
    )


def _certificate(folder):
    """A server's certificate that nobody knows; it is its own authority."""
    import datetime
    import ipaddress
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kfp")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    authority = folder / "authority.pem"
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = folder / "key.pem"
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, secret)
    return context, authority
