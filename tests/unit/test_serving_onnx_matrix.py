"""A graph's inputs are bound once per batch size and thread, and answer as a plain run does."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from serving.onnx_matrix import MatrixScorer


@pytest.fixture(scope="module", params=[np.float32, np.float64])
def graph(request):
    import pandas as pd

    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(200, 4)), columns=list("abcd"))
    model = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())])
    model.fit(table, table["a"] + table["c"] > 0)
    kind = FloatTensorType if request.param is np.float32 else DoubleTensorType
    given = [(name, kind([None, 1])) for name in table]
    built = to_onnx(model, initial_types=given, options={id(model): {"zipmap": False}}).SerializeToString()
    session = onnxruntime.InferenceSession(built, providers=["CPUExecutionProvider"])
    return session, request.param, session.get_outputs()[1].name


def plain(graph, matrix):
    session, dtype, output = graph
    feed = {name: matrix[:, [place]].astype(dtype) for name, place in zip("abcd", (3, 0, 1, 2), strict=True)}
    return session.run([output], feed)[0]


def scorer(graph):
    session, dtype, output = graph
    return MatrixScorer(session, "abcd", (3, 0, 1, 2), dtype, output)


def test_every_size_answers_as_a_plain_run_whenever_it_is_asked(graph):
    random = np.random.default_rng(1)
    score = scorer(graph)
    for size in (1, 2, 1, 64, 65, 2, 64, 1, 300):
        matrix = random.normal(size=(size, 4))
        np.testing.assert_array_equal(score(matrix), plain(graph, matrix))


def test_threads_do_not_share_buffers(graph):
    score = scorer(graph)

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(300):
            matrix = random.normal(size=(2, 4))
            if not np.array_equal(score(matrix), plain(graph, matrix)):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
