"""Shadow requests to two servers over HTTP, whose answers are held against each version's offline predictions."""

import http.server
import json
import math
import threading
import time

import pytest

from components.rollout.shadow import Shadow
from components.rollout.traffic import Rows

CHALLENGER = tuple((value / 100, 1 - value / 100) for value in range(20))
CHAMPION = tuple((value / 200, 1 - value / 200) for value in range(20))
ROWS = Rows(tuple({"x": value} for value in range(20)), CHALLENGER, CHAMPION)


@pytest.fixture
def serve():
    """Serves ``answer(x)``: a status and the probability of ``no``."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                (asked,) = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
                status, no = answer(asked["x"])
                label = {"label": "no", "probabilities": {"yes": 1 - no, "no": no}}
                body = json.dumps({"predictions": [label]} if status == 200 else {"error": "it fails"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def shadow(stable, canary, rows=ROWS, per_second=200):
    return Shadow("m", rows, ("no", "yes"), stable, canary, per_second, 1e-6)


def until(shadow, enough, direct_seen=False):
    deadline = time.monotonic() + 10
    while not enough(seen := shadow.counts(direct_seen)):
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
    return seen


def test_each_version_is_compared_with_its_own_offline_predictions(serve):
    stable, canary = serve(lambda x: (200, x / 200)), serve(lambda x: (200, x / 100))
    with shadow(stable, canary) as running:
        seen = until(running, lambda seen: min(seen.stable.compared, seen.canary.compared) >= 40)
    for arm in (seen.stable, seen.canary):
        assert (arm.errors, arm.mismatched) == (0, 0)
        assert arm.compared == arm.requests == arm.latency[math.inf]


def test_a_served_model_that_is_not_the_evaluated_one_mismatches(serve):
    as_champion = serve(lambda x: (200, x / 200))  # the challenger's address serves the champion
    with shadow(as_champion, as_champion) as running:
        seen = until(running, lambda seen: seen.canary.compared >= 40)
    assert seen.stable.mismatched == 0
    assert seen.canary.mismatched >= 0.9 * seen.canary.compared  # every row but the first


def test_a_row_that_is_refused_is_a_mismatch_and_a_row_that_fails_is_an_error(serve):
    refusing, failing = serve(lambda x: (400, 0)), serve(lambda x: (500, 0))
    with shadow(refusing, failing) as running:
        seen = until(running, lambda seen: seen.stable.requests >= 10 and seen.canary.requests >= 10)
    assert (seen.stable.errors, seen.stable.mismatched) == (0, seen.stable.requests)
    assert (seen.canary.errors, seen.canary.compared) == (seen.canary.requests, 0)


def test_a_server_that_is_away_is_an_error_of_its_version_and_ends_nothing(serve):
    with shadow(serve(lambda x: (200, x / 200)), "http://127.0.0.1:1") as running:
        seen = until(running, lambda seen: seen.stable.compared >= 10 and seen.canary.requests >= 10)
    assert seen.canary.errors == seen.canary.requests
    assert seen.stable.errors == 0


def test_only_comparisons_are_given_where_the_source_counts_the_requests_too(serve):
    url = serve(lambda x: (200, x / 100))
    with shadow(url, url) as running:
        seen = until(running, lambda seen: seen.canary.compared >= 10, direct_seen=True)
    assert (seen.canary.requests, seen.canary.errors, seen.canary.latency) == (0, 0, {})


def test_without_offline_predictions_of_the_champion_it_is_not_compared(serve):
    url = serve(lambda x: (200, x / 100))
    with shadow(url, url, Rows(ROWS.instances, ROWS.predictions)) as running:
        seen = until(running, lambda seen: min(seen.stable.requests, seen.canary.requests) >= 10)
    assert (seen.stable.compared, seen.canary.mismatched) == (0, 0)
    assert seen.canary.compared >= 10


def test_a_rate_of_zero_or_no_address_sends_nothing(serve):
    asked = []
    url = serve(lambda x: asked.append(x) or (200, x / 100))
    with shadow(url, url, per_second=0), shadow("", "") as running:
        time.sleep(0.1)
    assert asked == []
    assert running.counts(False).canary.requests == 0


def test_the_rate_is_kept_per_version(serve):
    url = serve(lambda x: (200, x / 100))
    began = time.monotonic()
    with shadow(url, "", per_second=100) as running:
        until(running, lambda seen: seen.stable.requests >= 60)
    assert 0.4 < time.monotonic() - began < 3


def test_a_server_that_hangs_does_not_delay_the_end(serve):
    asked = threading.Event()
    hanging = serve(lambda x: asked.set() or time.sleep(3) or (200, 0))
    with shadow("", hanging):
        assert asked.wait(5)
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
