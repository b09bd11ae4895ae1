"""KServe's scikit-learn server, from the parts that are on PyPI: ``kserve_sklearn.py FOLDER PORT``.

``sklearnserver`` itself is only published as an image. Its model does what is done here: KServe's own conversion of the
payload, scikit-learn, KServe's own conversion of the reply.
"""

import sys
from pathlib import Path

FOLDER, PORT = Path(sys.argv[1]), sys.argv[2]
sys.argv = [sys.argv[0], "--http_port", PORT, "--enable_grpc", "false", "--workers", "1"]  # kserve parses it

import joblib  # noqa: E402
import kserve  # noqa: E402
from kserve.utils.utils import get_predict_input, get_predict_response  # noqa: E402


class SKLearnModel(kserve.Model):
    """One scikit-learn model with ``PREDICT_PROBA=true``."""

    def load(self):
        self._model = joblib.load(FOLDER / "model.joblib")
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None, response_headers=None):
        return get_predict_response(payload, self._model.predict_proba(get_predict_input(payload)), self.name)


if __name__ == "__main__":
    model = SKLearnModel("model")
    model.load()
    kserve.ModelServer().start([model])
