"""The skew check against a server that answers with known predictions."""

import http.server
import json
import threading

import pytest

from components.errors import NotReady, SkewFound
from components.rollout.traffic import Rows
from components.stage.skew import check_skew, difference


@pytest.fixture
def serve():
    """Serves ``answer(instance)`` as the prediction of each instance."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
                body = json.dumps({"predictions": [answer(instance) for instance in asked]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def rows(values):
    return Rows(tuple({"x": value} for value in values), tuple((value,) for value in values), ())


def test_values_may_differ_by_their_own_rounding(serve):
    prices = [1e6 + n for n in range(60)]
    url = serve(lambda instance: instance["x"] * (1 + 3e-8))  # what float32 keeps of a million
    skew = check_skew(url, "m", rows(prices), (), 1e-6)
    assert skew.rows == 60
    assert skew.max_abs > 1e-2


def test_values_that_differ_by_more_are_skew_and_the_row_is_named(serve):
    url = serve(lambda instance: instance["x"] + (30 if instance["x"] == 1e6 + 41 else 0))
    with pytest.raises(SkewFound, match="Test row 41 is predicted as"):
        check_skew(url, "m", rows([1e6 + n for n in range(60)]), (), 1e-6)


def test_probabilities_differ_by_no_more_than_the_tolerance(serve):
    offline = Rows(({"p": 0.25},) * 3, ((0.75, 0.25),) * 3, ())

    def answer(shift):
        return lambda instance: {"probabilities": {"no": 0.75 - shift, "yes": 0.25 + shift}}

    assert check_skew(serve(answer(5e-5)), "m", offline, ("no", "yes"), 1e-4).max_abs == pytest.approx(5e-5)
    with pytest.raises(SkewFound):
        check_skew(serve(answer(2e-4)), "m", offline, ("no", "yes"), 1e-4)


@pytest.mark.parametrize("answer", [None, "yes", {"label": "yes"}, {"probabilities": {"no": "much"}}])
def test_an_answer_that_is_no_prediction_is_skew_and_is_quoted(serve, answer):
    url = serve(lambda _instance: answer)
    offline = Rows(({"p": 0.25},), ((0.75, 0.25),), ())
    with pytest.raises(SkewFound, match="answer to test rows 0 to 0 is no prediction: "):
        check_skew(url, "m", offline, ("no", "yes"), 1e-4)


def test_a_probability_that_is_missing_is_skew(serve):
    url = serve(lambda _instance: {"probabilities": {"no": 0.75}})
    with pytest.raises(SkewFound, match=r"nan.*difference of inf"):
        check_skew(url, "m", Rows(({"p": 0.25},), ((0.75, 0.25),), ()), ("no", "yes"), 1e-4)


def test_not_a_number_differs_from_everything_wherever_it_stands():
    assert difference((0.5, float("nan")), (0.5, 0.5)) == float("inf")
    assert difference((float("nan"), 0.5), (0.5, 0.5)) == float("inf")
    assert difference((0.5,), (0.5, 0.5)) == float("inf")
    assert difference((0.5, 0.25), (0.5, 0.5)) == 0.25


def test_a_server_that_is_gone_is_said_to_be(serve):
    url = serve(lambda instance: instance["x"])
    with pytest.raises(NotReady, match="does not answer test rows 0 to 0"):
        check_skew(url.replace("127.0.0.1", "127.0.0.2"), "m", rows([1.0]), (), 1e-6)
