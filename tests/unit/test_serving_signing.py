"""Signatures: who made a bundle, and whether it is still what they made."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from typer.testing import CliRunner

from components.errors import BadBundle, BadInput
from pipelines.cli import app
from serving.bundle import load, verify
from serving.signing import SIGNING_KEY, VERIFY_KEY, check, sign, sign_if_asked
from tests.keys import write_pair
from tests.serving_bundle import rows, write_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A signed bundle and the keys of two people."""
    home = tmp_path_factory.mktemp("signing")
    write_bundle(home / "bundle", runtime="native")
    (home / "bundle" / "exports").mkdir()
    write_pair(home, "ours")
    write_pair(home, "theirs")
    sign(home / "bundle", home / "ours.pem")
    return home


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made / "bundle", tmp_path / "copied elsewhere")


@pytest.fixture
def checked(made, monkeypatch):
    monkeypatch.setenv(VERIFY_KEY, str(made / "ours.pub"))


def test_a_signed_bundle_loads_wherever_it_was_copied_to(bundle, checked):
    assert len(load(bundle).predict(rows(3))) == 3


def test_the_signature_is_no_file_of_the_manifest_and_is_left_alone_where_no_key_is_named(bundle, monkeypatch):
    monkeypatch.delenv(VERIFY_KEY, raising=False)
    (bundle / "bundle.sig").write_text("nonsense")
    assert "bundle.sig" not in verify(bundle).files


def test_an_unsigned_bundle_is_refused(bundle, checked):
    (bundle / "bundle.sig").unlink()
    with pytest.raises(BadBundle, match=r"is not signed: it has no bundle\.sig"):
        load(bundle)


def test_the_signature_of_another_key_is_refused(made, bundle, checked):
    sign(bundle, made / "theirs.pem")
    with pytest.raises(BadBundle, match=r"signature of .* does not hold for the key .*ours\.pub"):
        load(bundle)


def rewrite_manifest(bundle, name):
    """What a forger does: alter a file and write its new digest into the manifest."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    data = (bundle / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def test_a_file_altered_together_with_its_digest_is_refused(bundle, checked, monkeypatch):
    (bundle / "MLmodel").write_text("flavors: {other: {}}\n")
    rewrite_manifest(bundle, "MLmodel")
    with pytest.raises(BadBundle, match=r"altered files: MLmodel, bundle\.json\.$"):
        load(bundle)
    monkeypatch.delenv(VERIFY_KEY)
    verify(bundle)  # the digests alone do not notice


@pytest.mark.parametrize("name", ["extra.txt", ".gitignore", ".git/hooks/x"])
def test_a_file_added_together_with_its_digest_is_refused(bundle, checked, name):
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("x")
    rewrite_manifest(bundle, name)
    with pytest.raises(BadBundle, match=rf"extra files: {re.escape(name)}; altered files: bundle\.json\.$"):
        load(bundle)


def test_signing_again_after_a_change_makes_it_good(made, bundle, checked):
    (bundle / "MLmodel").write_text("flavors: {other: {}}\n")
    rewrite_manifest(bundle, "MLmodel")
    sign(bundle, made / "ours.pem")
    load(bundle)


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"verificationMaterial": {"publicKey": {}}}'])
def test_a_damaged_signature_is_refused_in_one_sentence(bundle, checked, text):
    (bundle / "bundle.sig").write_text(text)
    with pytest.raises(BadBundle, match="does not hold for"):
        load(bundle)


def test_a_forged_payload_under_a_true_signature_is_refused(made, bundle, checked):
    signature = json.loads((bundle / "bundle.sig").read_text())
    signature["dsseEnvelope"]["payload"] = "e30="
    (bundle / "bundle.sig").write_text(json.dumps(signature))
    with pytest.raises(BadBundle, match="was not made by the key"):
        load(bundle)


def test_keys_that_cannot_be_used_are_named(made, bundle, tmp_path, monkeypatch):
    private, public = write_pair(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    with pytest.raises(BadInput, match=r"rsa\.pem is of another kind"):
        sign(bundle, private)
    with pytest.raises(BadInput, match=r"rsa\.pub is of another kind"):
        check(bundle, public)
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(BadInput, match=r"text\.pem cannot be used"):
        sign(bundle, tmp_path / "text.pem")
    with pytest.raises(BadInput, match=r"private key .*ours\.pub cannot be used"):
        sign(bundle, made / "ours.pub")
    monkeypatch.setenv(VERIFY_KEY, "/no/such.pub")
    with pytest.raises(BadInput, match=r"names the key /no/such\.pub, but there is no such file"):
        verify(bundle)


def test_a_bundle_is_signed_on_writing_only_where_a_key_is_named(made, bundle, monkeypatch):
    (bundle / "bundle.sig").unlink()
    monkeypatch.delenv(SIGNING_KEY, raising=False)
    assert not sign_if_asked(bundle)
    monkeypatch.setenv(SIGNING_KEY, str(made / "ours.pem"))
    assert sign_if_asked(bundle)
    check(bundle, made / "ours.pub")


def test_a_server_without_the_variable_never_imports_the_signing_library():
    code = "import sys, serving.bundle; print('model_signing' in sys.modules or 'cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_the_command_signs_and_verifies(made, bundle, monkeypatch):
    monkeypatch.delenv(VERIFY_KEY, raising=False)
    (bundle / "bundle.sig").unlink()
    run = CliRunner().invoke
    refused = run(app, ["verify", str(bundle), "--key", str(made / "ours.pub")])
    assert refused.exit_code == 1
    assert run(app, ["sign", str(bundle), "--key", str(made / "ours.pem")]).exit_code == 0
    done = run(app, ["verify", str(bundle), "--key", str(made / "ours.pub")])
    assert (done.exit_code, "signed by" in done.output) == (0, True)
    assert run(app, ["verify", str(bundle), "--key", str(made / "theirs.pub")]).exit_code == 1
    assert "not checked" in run(app, ["verify", str(bundle)]).output
    assert run(app, ["sign", str(bundle)]).exit_code == 1
