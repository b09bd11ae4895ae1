"""Scan, list and sign the images that a build has pushed, by digest: the same in every CI system.

``python -m ci.images scan|sbom|sign|subjects METADATA`` reads what ``docker buildx bake --metadata-file`` wrote. A tool
that is not on the PATH runs from its own image, at the version below.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SBOMS = Path("build/sbom")
_IMAGES = {
    "cosign": "ghcr.io/sigstore/cosign/cosign:v3.1.2",
    "grype": "ghcr.io/anchore/grype:v0.116.0",
    "syft": "ghcr.io/anchore/syft:v1.51.0",
}
_PASSED_ON = (
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "AWS_REGION",
    "COSIGN_KEY",
    "COSIGN_PASSWORD",
    "SIGSTORE_ID_TOKEN",
    "VAULT_ADDR",
    "VAULT_TOKEN",
)
"""What keyless signing, and keys in a vault, read; handed on by name, so that no value is on a command line."""


@dataclass(frozen=True)
class Image:
    """A pushed image."""

    name: str
    digest: str

    @property
    def reference(self) -> str:
        """What no tag can move."""
        return f"{self.name}@{self.digest}"

    @property
    def sbom(self) -> Path:
        """Where its list of packages goes."""
        return SBOMS / f"{self.name.rsplit('/', 1)[-1]}.spdx.json"


def pushed(metadata: Path) -> list[Image]:
    """The images of a build, each once."""
    told = json.loads(metadata.read_text("utf-8"))
    found = set()
    for target in told.values():
        if isinstance(target, dict) and "containerimage.digest" in target:
            for name in target["image.name"].split(","):
                found.add((_untagged(name.strip()), target["containerimage.digest"]))
    return [Image(*one) for one in sorted(found)]


def _untagged(name: str) -> str:
    """A registry may have a port: only a colon behind the last slash starts a tag."""
    folder, slash, last = name.removeprefix("docker.io/").rpartition("/")
    return f"{folder}{slash}{last.split(':')[0]}"


def scan(image: Image) -> None:
    """Fail on a vulnerability, high or worse, that has a fix."""
    _run("grype", f"registry:{image.reference}", "--only-fixed", "--fail-on=high")


def sbom(image: Image) -> None:
    """Write the list of its packages (SPDX)."""
    image.sbom.parent.mkdir(parents=True, exist_ok=True)
    _run("syft", "scan", f"registry:{image.reference}", f"--output=spdx-json={image.sbom}")


def sign(image: Image) -> None:
    """Sign it and its list of packages: with COSIGN_KEY, or without a key as the CI job that we are."""
    key = ["--key=env://COSIGN_KEY"] if _is_pem() else [f"--key={os.environ['COSIGN_KEY']}"] if _has_key() else []
    _run("cosign", "sign", "--yes", "--recursive", *key, image.reference)
    _run("cosign", "attest", "--yes", "--type=spdxjson", f"--predicate={image.sbom}", *key, image.reference)


def _has_key() -> bool:
    return bool(os.environ.get("COSIGN_KEY"))


def _is_pem() -> bool:
    """Whether the key itself is given, and not the address of one in a key service."""
    return os.environ.get("COSIGN_KEY", "").lstrip().startswith("-----BEGIN")


def _run(tool: str, *arguments: str) -> None:
    if shutil.which(tool):
        command = [tool, *arguments]
    else:
        here = os.getcwd()
        config = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
        names = [f"--env={name}" for name in _PASSED_ON if name in os.environ]
        mounts = [f"--volume={here}:{here}", f"--workdir={here}", f"--volume={config}:/config:ro"]
        user = f"--user={os.getuid()}:{os.getgid()}"
        command = ["docker", "run", "--rm", user, *names, *mounts]
        command += ["--env=DOCKER_CONFIG=/config", "--env=HOME=/tmp", _IMAGES[tool], *arguments]
    sys.stderr.write(f"{tool} {' '.join(arguments)}\n")
    subprocess.run(command, check=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scan", "sbom", "sign", "subjects"])
    parser.add_argument("metadata", type=Path)
    given = parser.parse_args()
    images = pushed(given.metadata)
    if not images:
        sys.stderr.write(f"{given.metadata} names no pushed image: was it written by `docker buildx bake --push`?\n")
        return 1
    if given.what == "subjects":
        sys.stdout.write(json.dumps([{"name": one.name, "digest": one.digest} for one in images]) + "\n")
        return 0
    act = {"scan": scan, "sbom": sbom, "sign": sign}[given.what]
    failed = 0
    for image in images:
        try:
            act(image)
        except subprocess.CalledProcessError as error:
            failed += 1
            sys.stderr.write(f"{given.what} of {image.reference} ended with {error.returncode}.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
