"""What every test process needs."""

import contextlib

# PyPI's PyTorch brings Triton, which crashes when it is loaded after TensorFlow. No program of ours loads both.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401
