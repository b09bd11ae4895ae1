"""Take out of an image's environment what no step can use: ``python images/slim.py GROUP ENVIRONMENT CODE``.

Wheels carry their tests, headers and sources; some carry a library twice. README.md beside this file says how much that
is. `make image-envs` imports and serves with what is left.
"""

import shutil
import sys
from pathlib import Path

EVERYWHERE = (
    "*/tests",
    "ibis/backends/*/tests",
    "numpy/*/tests",
    "scipy/*/tests",
    "sklearn/*/tests",
    "*/include",
    "numpy/_core/include",
    "numpy/_core/lib",
    "pyarrow/includes",
    "pyarrow/src",
    "pyarrow/*.pyx",
    "pyarrow/*.pxi",
    # Parts of Arrow that are imported by name alone, and never by us.
    "pyarrow/libarrow_flight.so*",
    "pyarrow/_flight.*.so",
    # The Python module holds all of it again; this is for programs in C.
    "onnxruntime/capi/libonnxruntime.so*",
)
"""Below site-packages."""

API = ("evidently/tests",)
"""What is called like tests and is none."""

UNUSED = {
    # Evidently asks for them: for its user interface, made-up data, notebooks, and statistics that our reports lack.
    "data": (
        *("faker", "faker-*", "jupyterlab_plotly", "uvloop", "uvloop-*", "watchfiles", "watchfiles-*", "websockets"),
        *("websockets-*", "formulaic", "formulaic-*", "interface_meta", "interface_meta-*", "patsy", "patsy-*"),
        *("statsmodels", "statsmodels-*"),
    ),
}
"""Libraries that an image's own libraries ask for and do not import."""

KEPT = {
    # The server reads one module of it from its file, and finds that by the package's place.
    "kserve": ("__init__.py", "protocol/grpc/grpc_predict_v2_pb2.py"),
}
"""Libraries of which only this is used, wherever they are."""


def slim(group: str, packages: Path) -> int:
    """Remove what matches; the number of bytes that were freed."""
    freed = 0
    for pattern in (*EVERYWHERE, *UNUSED.get(group, ())):
        for path in packages.glob(pattern):
            if path.relative_to(packages).as_posix() in API:
                continue
            freed += _size(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, kept in KEPT.items():
        for path in [path for path in (packages / name).rglob("*") if not path.is_dir()]:
            if path.relative_to(packages / name).as_posix() not in kept:
                freed += _size(path)
                path.unlink()
    return freed


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(_size(inner) for inner in path.iterdir() if not inner.is_symlink())
    return path.stat().st_size


if __name__ == "__main__":
    (_packages,) = Path(sys.argv[2]).glob("lib/python3*/site-packages")
    _freed = slim(sys.argv[1], _packages)
    (_packages / "sluiceway-code.pth").write_text(f"{sys.argv[3]}\n", "utf-8")  # where our own code lies
    sys.stdout.write(f"{_freed / 1e6:.0f} MB less\n")
