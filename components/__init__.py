"""The steps of the pipelines, and what they share."""

import os

# From 1.29 on, onnxruntime's wheels for Linux report the sessions that are made (names and hashes of models) to their
# maker and keep a database for it below HOME, unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
