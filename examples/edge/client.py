"""Predicts on a device with what `sluiceway export` wrote. Needs numpy and onnxruntime, and nothing of Sluiceway."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def predict(folder: Path, rows: list[dict]) -> np.ndarray:
    """Probabilities (rows, classes) or values (rows, 1); a row has every column, None where it is not known."""
    about = json.loads((folder / "edge.json").read_text(encoding="utf-8"))
    model = (folder / about["file"]).read_bytes()
    if hashlib.sha256(model).hexdigest() != about["files"][about["file"]]["sha256"]:
        raise ValueError(f"{folder} is not what was exported")
    feed = {}
    for column in about["inputs"]:
        values = [row[column["name"]] for row in rows]
        if column["dtype"] == "string":
            values = [str(value or "").strip() and str(value) for value in values]
        elif column["takes"] == "timestamp":
            values = (np.array(values, "datetime64[us]") - np.datetime64(0, "us")) / np.timedelta64(1, "s")
        dtype = object if column["dtype"] == "string" else column["dtype"]
        feed[column["name"]] = np.array(values, dtype=dtype).reshape(-1, 1)
    return onnxruntime.InferenceSession(model).run([about["output"]], feed)[0]


if __name__ == "__main__":
    print(json.dumps(predict(Path(sys.argv[1]), json.load(sys.stdin)).tolist()))
