"""KServe's own Python server with a predictor as its guide writes one: what ours is compared with.

Run as ``python -m tests.kserve_server BUNDLE PORT``.
"""

import sys
from pathlib import Path
from uuid import uuid4

import pandas as pd

BUNDLE, PORT = sys.argv[1:]
sys.argv = ["kserve", f"--http_port={PORT}", "--enable_grpc=false"]  # kserve parses it as it is imported

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402

from serving.bundle import load  # noqa: E402


class Predictor(Model):
    def load(self):
        self.bundle = load(Path(BUNDLE))
        self.ready = True
        return self.ready

    def get_input_types(self):
        kinds = {"number": "FP64", "boolean": "BOOL", "string": "BYTES"}
        return [{"name": c.name, "datatype": kinds[c.type], "shape": [-1]} for c in self.bundle.schema.inputs]

    def get_output_types(self):
        return [{"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}]

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, InferRequest):
            table = pd.DataFrame({tensor.name: tensor.as_numpy().reshape(-1) for tensor in payload.inputs})
            table = table.map(lambda value: value.decode() if isinstance(value, bytes) else value)
            scores = self.bundle.predict(table)
            output = InferOutput("probabilities", list(scores.shape), "FP64")
            output.set_data_from_numpy(scores, binary_data=payload.use_binary_outputs)
            return InferResponse(payload.id or str(uuid4()), self.name, [output])
        columns = [column.name for column in self.bundle.schema.inputs]
        scores = self.bundle.predict(pd.DataFrame(payload["instances"], columns=columns))
        classes = self.bundle.manifest.classes
        labels = [classes[i] for i in scores.argmax(axis=1)]
        rows = [dict(zip(classes, row, strict=True)) for row in scores.tolist()]
        return {"predictions": [{"label": a, "probabilities": b} for a, b in zip(labels, rows, strict=True)]}


if __name__ == "__main__":
    model = Predictor("ours")
    model.load()
    ModelServer(workers=1).start([model])
