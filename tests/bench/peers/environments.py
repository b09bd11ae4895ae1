"""An environment of its own for every peer, made when it is first asked for and kept in ``.bench/``."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(__file__).resolve().parents[3] / ".bench"


def python(name: str) -> Path:
    """The interpreter of the environment that ``NAME.txt`` pins."""
    wanted = hashlib.sha256((HERE / f"{name}.txt").read_bytes()).hexdigest()
    folder = CACHE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    stamp, found = folder / "stamp", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return found
    print(f"Making the environment of {name} in {folder} (once)…", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    install = [found, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]
    subprocess.run([*install, HERE / f"{name}.txt"], check=True)
    stamp.write_text(wanted)
    return found
