"""The model server; see :mod:`serving.server.__main__`."""

PORT_TAKEN = 98
"""Exit code when the port is in use: the one failure that another try with another port mends."""
