"""Write the lock of the images from what a build pushed: ``python -m images.lock build/images.json``.

The file is what ``docker buildx bake --metadata-file`` wrote; the lock (:mod:`pipelines.pinning` says what is in it) is
``images/lock.json`` unless another is named. Overlays get the same from ``manifests/components/images``, which is
written beside it, so that packages and manifests name the same bytes.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from ci.images import pushed
from components.errors import BadInput
from components.files import write_text
from components.images import REGISTRY
from pipelines.pinning import DEFAULT, Pins

COMPONENT = Path("manifests/components/images/kustomization.yaml")

_ABOUT = """\
# Written by make images-lock, with images/lock.json: the digests of our images. An empty list leaves their tags.
#
# It changes what was named before it, so it stands last among an overlay's components.
"""


def lock(metadata: Path) -> Pins:
    """The digests of a build.

    Raises:
        BadInput: it says of no image that it was pushed, or names more than one registry.
    """
    try:
        images = pushed(metadata)
    except OSError as error:
        raise BadInput(f"{metadata} cannot be read ({error.strerror}): make images-push writes it.") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"{metadata} is not what docker buildx bake --metadata-file writes: {error}.") from error
    registries = {image.name.rpartition("/")[0] for image in images}
    if len(registries) != 1:
        found = ", ".join(sorted(registries)) or "none that was pushed"
        raise BadInput(f"{metadata} must name images of one registry, but names {found}: make images-push writes it.")
    digests = {image.name.rpartition("/")[2]: image.digest for image in images}
    return Pins(registry=registries.pop(), images=dict(sorted(digests.items())))


def component(pins: Pins) -> str:
    """The kustomize component that puts a lock's images into the overlays that name it."""
    images = [
        {"name": f"{REGISTRY}/{name}", "newName": f"{pins.registry}/{name}", "digest": digest}
        for name, digest in sorted((pins.images or {}).items())
    ]
    made = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "images": images}
    return _ABOUT + yaml.safe_dump(made, sort_keys=False)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metadata", type=Path)
    parser.add_argument("--out", type=Path, default=DEFAULT)
    parser.add_argument("--component", type=Path, default=COMPONENT)
    given = parser.parse_args()
    try:
        pins = lock(given.metadata)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return 1
    write_text(given.out, json.dumps(pins.model_dump(), indent=2) + "\n")
    write_text(given.component, component(pins))
    sys.stdout.write(f"{given.out}, {given.component}: {len(pins.images or {})} images of {pins.registry}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
