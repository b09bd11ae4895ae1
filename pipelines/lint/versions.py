"""What a version number promises."""

import re

from components.errors import BadInput

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-+.a-z].*)?")


def parts(version: str) -> tuple[int, int, int]:
    """Major, minor, patch.

    Raises:
        BadInput: it is no version number.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise BadInput(
            f"{version or 'Nothing'!r} is no version such as 0.1.0: set version under [project] in pyproject.toml, "
            "which interfaces are compared by."
        )
    return int(match[1]), int(match[2]), int(match[3] or 0)


def allows_breaking(before: str, now: str) -> bool:
    """Whether a version says that it breaks what an earlier one promised."""
    old, new = parts(before), parts(now)
    return new[:2] > old[:2] if old[0] == 0 else new[0] > old[0]


def next_breaking(before: str) -> str:
    """The least version that does."""
    major, minor, _ = parts(before)
    return f"0.{minor + 1}.0" if major == 0 else f"{major + 1}.0.0"
