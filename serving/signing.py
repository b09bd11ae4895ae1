"""Signs a bundle, and checks who signed one, in the OpenSSF Model Signing format.

``bundle.sig`` lies in the bundle and covers every other file, ``bundle.json`` included. The digests in ``bundle.json``
say that the files belong together; the signature says who put them there. Signing and checking read no network: they
need an elliptic-curve key pair as PEM files, for instance from a mounted Secret:

    openssl ecparam -name prime256v1 -genkey -noout -out signing.pem
    openssl ec -in signing.pem -pubout -out verify.pem

``SLUICEWAY_SIGNING_KEY`` names the private key where bundles are made, ``SLUICEWAY_VERIFY_KEY`` the public key where
they are loaded: there, :func:`serving.bundle.verify` refuses a bundle without a signature of that key. The keyless
form of sigstore, for CI with an identity of its own, is :func:`sign_keyless` and :func:`check_keyless`; it reaches
sigstore's servers and is not covered by tests.
"""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.errors import BadBundle, BadInput
from components.files import write_text
from serving.schema import FILE, SIGNATURE_FILE

SIGNING_KEY = "SLUICEWAY_SIGNING_KEY"
VERIFY_KEY = "SLUICEWAY_VERIFY_KEY"


def named_by(variable: str) -> Path | None:
    """The key file that an environment variable names; None where it is not set.

    Raises:
        BadInput: there is no such file.
    """
    value = os.environ.get(variable, "")
    if not value:
        return None
    if not Path(value).is_file():
        raise BadInput(f"{variable} names the key {value}, but there is no such file: mount the Secret that holds it.")
    return Path(value)


def sign_if_asked(bundle: Path) -> bool:
    """Sign with the key that ``SLUICEWAY_SIGNING_KEY`` names; False where it names none.

    Raises:
        BadInput: the key cannot be used.
    """
    key = named_by(SIGNING_KEY)
    if key is not None:
        sign(bundle, key)
    return key is not None


def check_if_asked(bundle: Path) -> None:
    """Check with the key that ``SLUICEWAY_VERIFY_KEY`` names; where it names none, nothing is checked or imported.

    Raises:
        BadInput: the key cannot be used.
        BadBundle: the bundle has no signature of that key over just these files.
    """
    key = named_by(VERIFY_KEY)
    if key is not None:
        check(bundle, key)


def sign(bundle: Path, private_key: Path) -> Path:
    """Sign every file of a bundle; a signature that was there is replaced.

    Args:
        bundle: holds ``bundle.json``.
        private_key: PEM file of a P-256, P-384 or P-521 key without password.

    Returns:
        The signature's file.

    Raises:
        BadInput: the key cannot be used, or the folder is not a bundle.
    """
    _load_key(private_key, private=True)
    return _sign(bundle, lambda config: config.use_elliptic_key_signer(private_key=private_key))


def check(bundle: Path, public_key: Path) -> None:
    """Refuse a bundle that the holder of a key has not signed as it is.

    Args:
        bundle: holds ``bundle.sig``.
        public_key: PEM file of the public key.

    Raises:
        BadInput: the key cannot be used.
        BadBundle: there is no signature, it is of another key, or a file was altered, added or removed since.
    """
    _load_key(public_key, private=False)
    _check(bundle, lambda config: config.use_elliptic_key_verifier(public_key=public_key), f"the key {public_key}")


def sign_keyless(bundle: Path, identity_token: str) -> Path:
    """Sign with the identity of a CI job, through sigstore's public servers.

    Args:
        bundle: holds ``bundle.json``.
        identity_token: OpenID Connect token with the audience ``sigstore``.
    """
    return _sign(bundle, lambda config: config.use_sigstore_signer(identity_token=identity_token))


def check_keyless(bundle: Path, identity: str, issuer: str) -> None:
    """Refuse a bundle that an identity, such as a workflow's address, has not signed as it is.

    Raises:
        BadBundle: as :func:`check`.
    """
    _check(bundle, lambda config: config.use_sigstore_verifier(identity=identity, oidc_issuer=issuer), identity)


def _sign(bundle: Path, signer: Callable[[Any], Any]) -> Path:
    if not (bundle / FILE).is_file():
        raise BadInput(f"{bundle} is not a model bundle: it has no file {FILE}, so there is nothing to sign.")
    from model_signing import signing

    with tempfile.TemporaryDirectory() as scratch:  # outside the bundle: what lies inside is signed
        made = Path(scratch) / SIGNATURE_FILE
        signer(signing.Config().set_hashing_config(_hashing())).sign(bundle, made)
        write_text(bundle / SIGNATURE_FILE, made.read_text(encoding="utf-8"))
    return bundle / SIGNATURE_FILE


def _check(bundle: Path, verifier: Callable[[Any], Any], who: str) -> None:
    path = bundle / SIGNATURE_FILE
    if not path.is_file() or path.is_symlink():
        raise BadBundle(
            f"The bundle {bundle} is not signed: it has no {SIGNATURE_FILE}. Sign it with `sluiceway sign`, or serve "
            f"one that is signed by {who}."
        )
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    try:
        verifier(verifying.Config().set_hashing_config(_hashing())).verify(bundle, path)
    except InvalidSignature as error:
        raise BadBundle(f"The signature of {bundle} was not made by {who}, or was altered: do not use it.") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:  # what its parsers let through
        raise BadBundle(f"The signature of {bundle} does not hold for {who}: {_reason(error)}.") from error


def _hashing() -> Any:
    """Every file but the signature; those that Git uses too."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)


def _load_key(path: Path, *, private: bool) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    kind = "private" if private else "public"
    wanted = f"a PEM file with the {kind} key of a P-256, P-384 or P-521 pair" + (", without password" * private)
    try:
        data = path.read_bytes()
        key = load_pem_private_key(data, None) if private else load_pem_public_key(data)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(f"The {kind} key {path} cannot be used ({_reason(error)}): give {wanted}.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) or key.curve.key_size < 256:
        raise BadInput(f"The {kind} key {path} is of another kind: give {wanted}.")


def _reason(error: Exception) -> str:
    """What an error says; of files that differ their names without their digests."""
    text = " ".join(str(error).split())
    differ = re.findall(r"((?:Extra|Missing) files)[^:]*: ([^'\"]+)", text)
    if altered := re.findall(r"Hash mismatch for \\*'(.+?)\\*':", text):
        differ.append(("Altered files", ", ".join(altered)))
    if differ:
        return "; ".join(f"{what.lower()}: {names}" for what, names in differ)
    return text.rstrip(". ")[:300] or type(error).__name__
