"""An environment with some of the installed libraries only: links to them, made in a second, without pip."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def group(name: str) -> list[Requirement]:
    """What a dependency group of pyproject.toml asks for, those that it includes too."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]

    def flat(entries: list[str | dict[str, str]]) -> Iterator[Requirement]:
        for entry in entries:
            if isinstance(entry, str):
                yield Requirement(entry)
            else:
                yield from flat(groups[entry["include-group"]])

    return list(flat(groups[name]))


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """Names of the installed distributions that these need, by their own metadata."""
    done: set[tuple[str, str]] = set()
    left = [(requirement.name, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while left:
        name, extra = left.pop()
        if (normal(name), extra) in done:
            continue
        done.add((normal(name), extra))
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                left += [(needed.name, one) for one in ("", *needed.extras)]
    return {name for name, _ in done}


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make(folder: Path, distributions: set[str]) -> Path:
    """Make an environment of these, and of our own code; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    owned = _owned()
    for path, owners in owned.items():
        if (
            owners <= distributions
            and (parent := os.path.dirname(path)) not in ("",)
            and owned[parent] <= distributions
        ):
            continue  # its folder is linked
        if owners & distributions and (owners <= distributions or not os.path.isdir(_HERE / path)):
            (packages / path).parent.mkdir(parents=True, exist_ok=True)
            (packages / path).symlink_to(_HERE / path)
    (packages / "ours.pth").write_text(f"{ROOT}\n", "utf-8")
    return folder / "bin" / "python"


_HERE = Path(sysconfig.get_path("purelib"))


@cache
def _owned() -> dict[str, set[str]]:
    """The distributions that have something in each file or folder of site-packages."""
    owned: dict[str, set[str]] = defaultdict(set)
    for distribution in importlib.metadata.distributions(path=[str(_HERE)]):
        name = normal(distribution.metadata["Name"])
        for line in (distribution.read_text("RECORD") or "").splitlines():
            path = line.rsplit(",", 2)[0].strip('"')
            if path.startswith(("..", "/")) or "__pycache__" in path:
                continue
            while path:
                if name in owned[path]:
                    break
                owned[path].add(name)
                path = os.path.dirname(path)
    return dict(owned)
