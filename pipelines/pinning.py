"""The lock of the images: which digest stands for each of our images in a compiled package, and in which registry.

``images/lock.json`` is written when images have been pushed, and looks like this::

    {"registry": "ghcr.io/sluiceway", "images": {"python-data": "sha256:…", "python-control": "sha256:…"}}

A fork without digests as yet can say its registry alone.
"""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.errors import BadInput
from components.images import REGISTRY, VERSION

DEFAULT = Path("images/lock.json")

_PLACE = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*(?::\d+)?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_OURS = re.compile(rf"{re.escape(REGISTRY)}/(python-[a-z-]+):{re.escape(VERSION)}\b")


class Pins(BaseModel):
    """What takes the place of our images' names and tags.

    Attributes:
        registry: where they are.
        images: digest by name; None leaves the tags.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    registry: str = REGISTRY
    images: dict[str, Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]] | None = None

    def applied(self, package: str) -> str:
        """A package's text with the images that this says.

        Raises:
            BadInput: it names an image that has no digest here.
        """
        return _OURS.sub(lambda found: self._reference(found[1]), package)

    def _reference(self, name: str) -> str:
        if self.images is None:
            return f"{self.registry}/{name}:{VERSION}"
        if name not in self.images:
            raise BadInput(
                f"The image lock has no digest of {name}, which the pipeline runs in: build and push it and write the "
                "lock anew (make images-push images-lock)."
            )
        return f"{self.registry}/{name}@{self.images[name]}"

    def at(self, registry: str) -> Self:
        """The same images in another registry; a mirror keeps their digests.

        Raises:
            BadInput: it is not the address of one.
        """
        place = registry.rstrip("/")
        if not _PLACE.fullmatch(place):
            raise BadInput(f"{registry!r} is no registry: give host and path without a scheme, as in ghcr.io/acme.")
        return self.model_copy(update={"registry": place})


def pins(lock: Path | None = None, registry: str = "") -> Pins:
    """What a package's images are pinned to.

    Args:
        lock: the lock; None takes ``images/lock.json`` where there is one, and else leaves the tags.
        registry: takes the place of the lock's, for a fork or a mirror.

    Raises:
        BadInput: the lock cannot be read or is none, or the registry is not an address.
    """
    found = Pins()
    if lock is not None or DEFAULT.exists():
        found = _read(lock or DEFAULT)
    return found.at(registry or found.registry)


def _read(path: Path) -> Pins:
    try:
        return Pins.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"Cannot read the image lock {path}: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        hint = (
            "a digest is sha256: and 64 hexadecimal digits"
            if first["type"] == "string_pattern_mismatch"
            else first["msg"]
        )
        raise BadInput(
            f"The image lock {path} is wrong at {where}: {hint}; write it anew (make images-lock)."
        ) from error
