"""`make image-envs`: install what each image holds as its Dockerfile does, where there is no Docker, and use it.

The builder stages' own COPY, ENV and RUN instructions are carried out in a clean folder, with the image's paths mapped
into it. What comes out is imported, and a bundle is served with it where it is the server's.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from images.dockerfile import DOCKERFILE, Stage, read

ROOT = Path(__file__).parents[1]
_BUILDER, _STAGES = "builder", ("libraries", "code")


@dataclass(frozen=True)
class Built:
    """An image's environment in a folder."""

    group: str
    folder: Path
    seconds: float

    @property
    def python(self) -> Path:
        """Its Python, which finds our code too."""
        return self.folder / "opt/sluiceway/bin/python"

    @property
    def megabytes(self) -> float:
        """What it adds to the base image."""
        return sum(_size(self.folder / part) for part in ("opt/sluiceway", "opt/code")) / 1e6


def build(group: str, folder: Path) -> Built:
    """Carry out the Dockerfile's install steps for a group of libraries.

    Raises:
        subprocess.CalledProcessError: one of them failed; it said why.
    """
    began = time.monotonic()
    _, stages = read(DOCKERFILE.read_text("utf-8"))
    subprocess.run([sys.executable, "-m", "venv", folder / "builder"], check=True)
    path = f"{folder / 'builder/bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "GROUP": group, "TORCH_INDEX": "", "SOURCE_DATE_EPOCH": "1700000000"}
    for name in (_BUILDER, *_STAGES):
        env = _carried_out(stages[name], folder, env)
    return Built(group, folder, time.monotonic() - began)


def _carried_out(stage: Stage, folder: Path, env: dict[str, str]) -> dict[str, str]:
    """Run a stage; returns the environment variables that it leaves to the stages on it."""
    source = folder / "src"
    source.mkdir(exist_ok=True)
    for instruction in stage.instructions:
        if instruction.name == "ENV":
            env = env | dict(pair.split("=", 1) for pair in instruction.text.split())
        elif instruction.name == "COPY":
            *copied, target = instruction.text.split()
            for one in copied:
                _copy(ROOT / one, source / target / (Path(one).name if target.endswith("/") else ""))
        elif instruction.name == "RUN":
            command = " ".join(word for word in instruction.text.split(" ") if not word.startswith("--mount="))
            command = command.replace("/opt/", f"{folder}/opt/")
            subprocess.run(["sh", "-ec", command], check=True, cwd=source, env=env)
    return env


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def _size(path: Path) -> int:
    return sum(one.lstat().st_size for one in path.rglob("*") if not one.is_dir() or one.is_symlink())


def main() -> int:
    """The command."""
    groups = [name.removeprefix("python-") for name in _names()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="by default all without CUDA")
    parser.add_argument("--keep", type=Path, help="folder to leave the environments in")
    given = parser.parse_args()
    for group in given.groups or [name for name in groups if not name.endswith("-cuda")]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (given.keep or Path(temporary)) / group
            folder.mkdir(parents=True)
            try:
                built = build(group, folder.resolve())
                said = _used(built)
            except subprocess.CalledProcessError as error:
                sys.stderr.write(f"python-{group}: {error}\n")
                return 1
            sys.stdout.write(f"python-{group}: {built.megabytes:.0f} MB in {built.seconds:.0f} s; {said}\n")
            sys.stdout.flush()
    return 0


def _names() -> list[str]:
    """The images, as components/images.py names them."""
    from components import images

    return list(json.loads(images.chosen_by_runs())) + [images.name_of(one) for one in (images.DATA, images.CONTROL)]


def _used(built: Built) -> str:
    """Import in the environment what the tests import in one of links, and serve where it is the server's."""
    command = [sys.executable, "-m", "tests.image_use", built.group, str(built.python)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
