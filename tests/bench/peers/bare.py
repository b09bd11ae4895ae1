"""Bare ASGI applications on uvicorn, uvloop and httptools: ``bare.py KIND FOLDER PORT``.

``echo`` gives the body back, ``sklearn`` calls scikit-learn, ``onnx`` runs ONNX on the graph that is in the folder. The
latter two read and write V1 JSON with orjson. Nothing is checked, limited, counted or logged: these are floors.
"""

import sys
from pathlib import Path

import uvicorn

KIND, FOLDER, PORT = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])


def echo():
    """Body to body."""
    return lambda body: body


def sklearn():
    """V1 JSON to scikit-learn."""
    import joblib
    import numpy as np
    import orjson
    import pandas as pd

    model = joblib.load(FOLDER / "model.joblib")

    def answer(body):
        instances = orjson.loads(body)["instances"]
        rows = pd.DataFrame(instances) if isinstance(instances[0], dict) else np.array(instances)
        return orjson.dumps({"predictions": model.predict_proba(rows)}, option=orjson.OPT_SERIALIZE_NUMPY)

    return answer


def onnx():
    """V1 JSON to onnxruntime: one input per feature, or one matrix."""
    import numpy as np
    import onnxruntime
    import orjson

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"])
    given = [(one.name, _DTYPES[one.type]) for one in session.get_inputs()]
    numbers = {dtype for _, dtype in given if dtype != "object"}
    wanted = [session.get_outputs()[-1].name]

    def of_matrix(instances):
        return {given[0][0]: np.array(instances, dtype=given[0][1])}

    def of_arrays(instances):
        matrix = np.array(instances, dtype=next(iter(numbers)))
        return {name: matrix[:, index : index + 1] for index, (name, _) in enumerate(given)}

    def of_objects(instances):
        return {name: np.array([[instance[name]] for instance in instances], dtype=dtype) for name, dtype in given}

    read = of_matrix if len(given) == 1 else of_arrays if len(numbers) == 1 and len(given) == 30 else of_objects

    def answer(body):
        scores = session.run(wanted, read(orjson.loads(body)["instances"]))[0]
        return orjson.dumps({"predictions": scores}, option=orjson.OPT_SERIALIZE_NUMPY)

    return answer


_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(string)": "object"}
answer = {"echo": echo, "sklearn": sklearn, "onnx": onnx}[KIND]()


async def app(scope, receive, send):
    """Answer any POST."""
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    reply = answer(body) if body else b"{}"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, loop="uvloop", http="httptools", log_level="warning", access_log=False, lifespan="off")
