"""Counting from raw samples, against counters whose true growth is known."""

import http.server
import json
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import BadInput, SignalsLost
from components.rollout.evidence import Arm
from components.rollout.signals.api import Api, duration
from components.rollout.signals.increases import Increases, Series
from components.rollout.signals.queries import KINDS, OURS, is_failure

SHAPE = {"__name__": "sluiceway_requests_total", "instance": "10.0.0.1:8080", "pod": "a", "job": "pods"}


def series(samples, **labels):
    return Series({**SHAPE, **labels}, tuple(samples))


def total(counts):
    return sum(counts.totals.values())


# What happens between two scrapes: requests answered with 200 and with 500, and whether the server was started again
# before them.
_HISTORY = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), min_size=1, max_size=12)


@settings(deadline=None)
@given(history=_HISTORY, begin=st.integers(0, 6), looks=st.sets(st.integers(0, 12)), overlap=st.integers(1, 4))
def test_every_request_after_begin_is_counted_once_however_often_one_looks(history, begin, looks, overlap):
    counters, scrapes, true = {}, [], {"200": 0, "500": 0}
    for time, (good, bad, restarted) in enumerate(history):
        if restarted:
            counters = dict.fromkeys(counters, 0)  # seen at 0 before it counts on, as a slow start shows it
            scrapes.append((time - 0.5, dict(counters)))
        for code, more in (("200", good), ("500", bad)):
            counters[code] = counters.get(code, 0) + more
            true[code] += more if time > begin else 0
        scrapes.append((time, dict(counters)))
    counts = Increases(begin, one_process=True)
    looked = -1.0
    for look in sorted(looks | {len(history)}):
        window = [(time, seen) for time, seen in scrapes if looked - overlap < time <= look]
        counts.feed(
            series([(time, seen[code]) for time, seen in window if code in seen], code=code) for code in ("200", "500")
        )
        looked = look
    assert {dict(key)["code"]: value for key, value in counts.totals.items() if value} == {
        code: value for code, value in true.items() if value
    }


def test_a_restart_shows_in_counters_that_have_overtaken_themselves():
    counts = Increases(0, one_process=True)
    counts.feed([series([(1, 10), (2, 12)], code="200"), series([(1, 3), (2, 1)], code="500")])
    assert total(counts) == 13 + 12 + 1  # the 500s fell, so all 12 of the 200s are new


def test_counters_that_a_proxy_keeps_fall_one_by_one():
    counts = Increases(0, one_process=False)
    counts.feed([series([(1, 10), (2, 12)], code="200"), series([(1, 3), (2, 1)], code="500")])
    assert total(counts) == 12 + 3 + 1


def test_a_counter_that_is_not_seen_again_until_later_has_been_reset_too():
    counts = Increases(0, one_process=True)
    counts.feed([series([(1, 10), (2, 1)], code="200"), series([(1, 3), (4, 4)], code="500")])
    assert total(counts) == 10 + 1 + 3 + 4


def test_what_a_counter_showed_before_begin_does_not_count_and_a_new_one_counts_in_full():
    counts = Increases(5, one_process=True)
    counts.feed([series([(4, 100), (6, 101)]), series([(6, 7)], pod="b")])
    assert total(counts) == 1 + 7


def test_a_target_that_two_jobs_scrape_is_counted_once():
    counts = Increases(0, one_process=True)
    # The second job's scrape was begun later and answered sooner: no server was started again.
    for now, value in ((1, 10), (2, 20)):
        counts.feed([series([(now, value)]), series([(now + 0.01, value - 1)], job="annotated")])
    assert total(counts) == 20


def test_samples_that_are_no_numbers_are_passed_over():
    counts = Increases(0, one_process=True)
    counts.feed([series([(1, 10), (2, math.nan), (3, 12)])])
    assert total(counts) == 12


@pytest.mark.parametrize(("code", "failed"), [("200", False), ("404", False), ("500", True), ("0", True), ("", True)])
def test_no_answer_is_a_failure_and_the_client_s_mistake_is_not(code, failed):
    assert is_failure(code) is failed


def test_every_kind_says_which_revision_and_namespace_it_is_about():
    for kind in KINDS:
        matchers = "".join(kind.revision_matchers("shop", "churn-predictor-00001"))
        assert "churn-predictor-00001" in matchers
        if not kind.is_in("shop", {"namespace": "staging"}):
            continue
        assert "shop" in matchers


def test_a_series_that_is_scraped_through_another_namespace_goes_by_its_own():
    assert OURS.is_in("shop", {"namespace": "monitoring", "exported_namespace": "shop"})
    assert not OURS.is_in("shop", {"namespace": "shop", "exported_namespace": "staging"})


def test_durations_are_whole_milliseconds():
    assert (duration(60), duration(0.2504), duration(0)) == ("60000ms", "251ms", "1ms")


def test_a_certificate_authority_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICEWAY_PROMETHEUS_CA", str(tmp_path / "ca.pem"))
    with pytest.raises(BadInput, match=r"cannot be read from .*ca\.pem \(SLUICEWAY_PROMETHEUS_CA\): No such file"):
        Api("https://thanos-querier:9091")


@pytest.fixture
def answers():
    """An API that wants a token and gives one prepared answer; gives its address and what it was asked."""
    asked, prepared = [], {"status": "success", "data": {"resultType": "scalar", "result": [7.5, "7.5"]}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.headers["Authorization"])
            body = json.dumps(prepared).encode()
            self.send_response(200 if asked[-1] == "Bearer s3cret" else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", prepared
    server.shutdown()
    server.server_close()


def test_the_token_is_given_or_read_anew_from_its_file(answers, monkeypatch, tmp_path):
    api = Api(answers[0])
    with pytest.raises(SignalsLost, match="refuses access with 401; set SLUICEWAY_PROMETHEUS_TOKEN"):
        api.now()
    monkeypatch.setenv("SLUICEWAY_PROMETHEUS_TOKEN", "s3cret")
    assert api.now() == 7.5
    monkeypatch.setenv("SLUICEWAY_PROMETHEUS_TOKEN", str(tmp_path / "token"))
    (tmp_path / "token").write_text("expired\n")
    with pytest.raises(SignalsLost, match="401"):
        api.now()
    (tmp_path / "token").write_text("s3cret\n")
    assert api.now() == 7.5


def test_an_answer_in_part_is_lost_and_not_counted(answers, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_PROMETHEUS_TOKEN", "s3cret")
    answers[1]["warnings"] = ["store-2 did not answer"]
    with pytest.raises(SignalsLost, match="answers in part only: store-2 did not answer"):
        Api(answers[0]).now()


def test_histograms_with_other_edges_are_added_where_both_have_one():
    proxy, shadow = Arm(latency={5: 1, 10: 4, 25: 5, math.inf: 6}), Arm(latency={7.5: 2, 10: 2, math.inf: 2})
    assert (proxy + shadow).latency == {10: 6, math.inf: 8}
    assert (proxy + Arm(latency={7.5: 0, math.inf: 0})).latency == proxy.latency
    assert (Arm() + shadow).latency == shadow.latency
