"""Pin the newest build of the Python that the images stand on: ``python -m images.bases`` (`make image-bases`)."""

import re
import subprocess
import sys
from pathlib import Path

from components.files import write_text

DOCKERFILE = Path(__file__).with_name("Dockerfile")
BASE = re.compile(r"^ARG PYTHON=(?P<name>\S+:\S+)@(?P<digest>sha256:[0-9a-f]{64})$", re.MULTILINE)


def pinned(dockerfile: str, digest: str) -> str:
    """The Dockerfile with another build of its base.

    Raises:
        ValueError: that is no digest, or the Dockerfile pins no base.
    """
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"{digest!r} is no digest")
    written, count = BASE.subn(rf"ARG PYTHON=\g<name>@{digest}", dockerfile)
    if count != 1:
        raise ValueError(f"the Dockerfile pins {count} bases, not one")
    return written


def main() -> int:
    """Ask the registry for the digest of the tag's index of platforms, and write it."""
    text = DOCKERFILE.read_text("utf-8")
    found = BASE.search(text)
    if found is None:
        sys.stderr.write(f"{DOCKERFILE} has no line ARG PYTHON=NAME:TAG@sha256:…\n")
        return 1
    asked = ["docker", "buildx", "imagetools", "inspect", found["name"], "--format", "{{.Manifest.Digest}}"]
    try:
        digest = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        sys.stderr.write(f"The registry could not be asked for {found['name']}: {said}\n")
        return 1
    write_text(DOCKERFILE, pinned(text, digest))
    sys.stdout.write(f"{found['name']}@{digest}{' (as before)' if digest == found['digest'] else ''}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
