"""Predicts on a device with what `sluiceway export` wrote. Needs numpy and onnxruntime, and nothing of Sluiceway."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


class EdgeModel:
    """A model in the folder of an export."""

    def __init__(self, folder: Path) -> None:
        """Check the model's digest, and load it."""
        self.about = json.loads((folder / "edge.json").read_text(encoding="utf-8"))
        model = (folder / self.about["file"]).read_bytes()
        if hashlib.sha256(model).hexdigest() != self.about["files"][self.about["file"]]["sha256"]:
            raise ValueError(f"{folder} is not what was exported")
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def predict(self, rows: list[dict]) -> np.ndarray:
        """Probabilities (rows, classes) or values (rows, 1); a row has every column, None where it is not known."""
        feed = {}
        for column in self.about["inputs"]:
            values = [row[column["name"]] for row in rows]
            if column["dtype"] == "string":
                array = np.array([str(value or "").strip() and str(value) for value in values], dtype=object)
            elif column["takes"] == "timestamp":
                array = (np.array(values, "datetime64[us]") - np.datetime64(0, "us")) / np.timedelta64(1, "s")
            else:
                array = np.array([np.nan if value is None else value for value in values])
            feed[column["name"]] = array.astype(object if array.dtype == object else column["dtype"]).reshape(-1, 1)
        return self.session.run([self.about["output"]], feed)[0]


if __name__ == "__main__":
    print(json.dumps(EdgeModel(Path(sys.argv[1])).predict(json.load(sys.stdin)).tolist()))
