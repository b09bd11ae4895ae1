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

UNUSED = {
    # KServe asks for what generates its gRPC code, and for images in requests; the server has neither.
    "serving": ("grpc_tools", "grpcio_tools-*", "PIL", "pillow-*", "pillow.libs", "setuptools", "setuptools-*"),
}
"""Libraries that an image's own libraries ask for and do not import."""


def slim(group: str, packages: Path) -> int:
    """Remove what matches; the number of bytes that were freed."""
    freed = 0
    for pattern in (*EVERYWHERE, *UNUSED.get(group, ())):
        for path in packages.glob(pattern):
            freed += _size(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
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
