"""The timeline page, read as a browser would: every chart, band, mark and word is where the events say."""

import re
from html.parser import HTMLParser

import pytest

from components.rollout.ledger import Ledger, Phase
from components.rollout.release import Release
from components.rollout.report import timeline, timeline_page
from components.rollout.timeline import one_line, proof, spans, sparkline, versions_of

START = 1_800_000_000.0


class Reader(HTMLParser):
    """Checks that every element is closed, and keeps what matters."""

    def __init__(self, text):
        super().__init__()
        self.open, self.charts, self.bands, self.words, self.links = [], [], 0, [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "svg" and given.get("role") == "img":
            self.charts.append(given["aria-label"])
        self.bands += tag == "rect"
        self.links += [given[key] for key in ("src", "href") if key in given]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for key, value in attributes if key in ("src", "href")]

    def handle_endtag(self, tag):
        if tag in self.open:  # rows and cells may be closed by the next
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        self.words.append(data)

    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def ledger_of(*events, stable="6", outcome=None, reason=""):
    """A rollout of version 7 whose events are (seconds, what, weight, fields)."""
    ledger = Ledger(service="churn", run_id="run-7", phase=Phase.SHIFTING)
    ledger.stable = Release(version=stable, uri="file:///6", document={}) if stable else None
    ledger.candidate = Release(version="7", uri="file:///7", document={})
    for seconds, what, weight, fields in events:
        ledger.note(what, weight, **fields).time = START + seconds
    if outcome:
        ledger.end(outcome, reason)
    return ledger


def arm(requests, errors=0, p95=10.0, **more):
    return {"requests": requests, "errors": errors, "p50_ms": p95 / 2, "p95_ms": p95, "p99_ms": None, **more}


def check(signal="errors", evidence=1.0, finding="ok", **more):
    return {
        "signal": signal,
        "stable": 0.003,
        "canary": None,
        "finding": finding,
        "evidence": evidence,
        "decides": 2.0,
        "reason": f"{signal} compared",
        **more,
    }


def sample(seconds, weight=10, evidence=1.0, **canary):
    fields = {"stable": arm(90 * seconds), "canary": arm(10 * seconds, **canary), "checks": [check(evidence=evidence)]}
    return (seconds, "sample", weight, fields)


def rolled_back():
    bad = [check(evidence=2.5, finding="harm"), check("latency", 0.2)]
    return ledger_of(
        (0, "staged", 0, {"revision": "churn-2", "rows": 500}),
        (1, "shift", 10, {"reason": "staged and checked"}),
        *[sample(s, errors=s, evidence=s / 20) for s in range(2, 40)],
        (40, "verdict", 10, {"action": "roll back", "reason": "too many errors", "checks": bad}),
        (41, "rolled back", 0, {"reason": "too many errors", "version": "7"}),
        (41, "notified", 0, {"sent": 3, "failed": 1, "dropped": 0, "trouble": "HTTP 500"}),
        outcome="rolled_back",
        reason="too many errors",
    )


def test_a_rollback_shows_every_chart_its_verdict_and_its_evidence():
    page = Reader(timeline_page(rolled_back()))
    assert [title.split(".")[0] for title in page.charts] == [
        "Traffic to the challenger",
        "Requests per second",
        "Failed requests in this step",
        "Latency in this step",
        "Evidence of harm, as odds",
    ]
    text = page.text()
    assert "rolled back too many errors" in text
    assert "version 7 was tried; version 6 serves" in text
    assert "verdict: roll back 10 % too many errors errors: harm errors compared" in text
    assert "errors harm 0.003 125% errors compared" in text
    assert "3 sent, 1 lost: HTTP 500" in text


def test_charts_say_in_words_what_they_show():
    traffic, rates, failed, latency, evidence = Reader(timeline_page(rolled_back())).charts
    assert "0 % from 0, 10 % from 1, 0 % from 41 seconds." in traffic
    assert "champion: highest 90, last 90; challenger: highest 10, last 10." in rates
    assert "challenger: highest 10 %, last 10 %." in failed
    assert "challenger p95: highest 10 ms" in latency
    assert "p99" not in latency  # not measured
    assert "Harm is proved at 100 to 1. errors: highest 89.1 to 1, last 89.1 to 1." in evidence


def test_the_page_loads_nothing_from_anywhere_and_runs_no_script():
    text = timeline_page(rolled_back())
    assert Reader(text).links == []
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_whatever_a_reason_holds_is_text():
    evil = "<script>alert(1)</script>"
    ledger = ledger_of(
        (0, "shift", 10, {"reason": evil}),
        (1, "paused", 10, {"by": evil}),
        (2, "sample", 10, {"stable": arm(1), "canary": arm(1), "checks": [check(signal=evil, reason=evil)]}),
        (3, "halted", 10, {"reason": evil}),
        (4, "notified", 10, {"sent": 0, "failed": 1, "dropped": 0, "trouble": evil}),
        outcome="halted",
        reason=evil,
    )
    ledger.service = ledger.run_id = evil
    assert "<script" not in timeline_page(ledger)


def test_pauses_freezes_and_faults_are_shaded_and_listed_with_their_reason():
    ledger = ledger_of(
        (0, "shift", 10, {"reason": "x"}),
        (2, "command", 10, {"command": "pause", "by": "ada@desk"}),
        (2, "paused", 10, {"by": "ada@desk"}),
        (5, "signals lost", 10, {"reason": "Prometheus does not answer"}),
        (9, "resumed", 10, {"by": "ada@desk"}),
        (11, "signals back", 10, {}),
        (12, "frozen", 10, {"until": "2026-08-07T18:00+00:00"}),
        (14, "place lost", 10, {"reason": "no API server"}),
        sample(20),
    )
    assert [(span.what, span.start - START, span.end - START) for span in spans(ledger.events)] == [
        ("paused", 2, 9),
        ("no signals", 5, 11),
        ("frozen", 12, 20),
        ("no answer from the cluster", 14, 20),
    ]
    page = Reader(timeline_page(ledger))
    assert page.bands == 4 * len(page.charts)
    assert "2 to 9 seconds: paused: by ada@desk" in page.text()
    assert "5 to 11 seconds: no signals: Prometheus does not answer" in page.text()
    assert "12 to 20 seconds: frozen: until 2026-08-07T18:00+00:00" in page.text()
    assert "command 10 % pause, by ada@desk" in page.text()


def test_a_first_deployment_has_no_champion_to_draw():
    ledger = ledger_of(
        (0, "shift", 100, {"reason": "staged and checked"}),
        *[
            (s, "sample", 100, {"stable": arm(0, p95=float("nan")), "canary": arm(9 * s), "checks": []})
            for s in (1, 2, 3)
        ],
        (4, "promoted", 100, {"reason": "no harm in 27 requests", "version": "7"}),
        stable="",
        outcome="promoted",
    )
    page = Reader(timeline_page(ledger))
    assert "version 7 serves" in page.text()
    assert "champion p95" not in page.text()
    assert "nan" not in timeline_page(ledger).lower()


def test_a_halted_rollout_says_that_a_person_has_to_decide_about_which_version():
    ledger = ledger_of((0, "shift", 50, {}), (9, "halted", 50, {"reason": "sick"}), outcome="halted", reason="sick")
    text = Reader(timeline_page(ledger)).text()
    assert "halted sick" in text
    assert "version 7 in place of version 6" in text


def test_restarts_are_drawn_when_there_were_any():
    quiet = ledger_of((0, "shift", 10, {}), sample(1, restarts=0), sample(2, restarts=0))
    crashing = ledger_of((0, "shift", 10, {}), sample(1, restarts=0), sample(2, restarts=3))
    assert not [title for title in Reader(timeline_page(quiet)).charts if "Restarts" in title]
    (chart,) = [title for title in Reader(timeline_page(crashing)).charts if "Restarts" in title]
    assert "challenger: highest 3, last 3" in chart


def test_ten_thousand_samples_make_a_small_page_that_still_shows_the_one_peak():
    events = [sample(s, evidence=1.9 if s == 6001 else 0.1) for s in range(1, 10_001)]
    text = timeline_page(ledger_of((0, "shift", 10, {}), *events))
    assert len(text) < 150_000
    evidence = Reader(text).charts[-1]
    assert "errors: highest 79.4 to 1, last 1.26 to 1" in evidence
    assert "hours since the rollout began" not in text
    assert "minutes since the rollout began" in text


def test_thousands_of_decisions_are_cut_to_the_last():
    events = [(s, "paused" if s % 2 else "resumed", 10, {"by": "a"}) for s in range(5000)]
    text = timeline_page(ledger_of(*events))
    assert "The first 4,700 are left out." in text
    assert len(text) < 400_000


@pytest.mark.parametrize("events", [[(0, "shift", 10, {})], [(0, "rolled back", 0, {})], [sample(0)]])
def test_the_shortest_rollouts_have_a_page(events):
    assert "Traffic to the challenger" in timeline_page(ledger_of(*events))


def test_a_rollout_that_shifted_nothing_says_so():
    assert "this model is the champion already" in timeline([])


def test_one_line_for_a_terminal():
    ledger = ledger_of((0, "shift", 10, {}), sample(1), sample(2, weight=50, evidence=1.5))
    ledger.weight, ledger.paused_by = 50, "ada@desk"
    assert one_line(ledger) == (
        "churn ▂▂▅ shifting at 50 %, paused by ada@desk; version 7 in place of version 6; 0 requests, 0 failed; "
        "errors at 75% of proof of harm"
    )
    assert versions_of(Ledger(service="x")) == "nothing serves"
    assert one_line(Ledger(service="x")) == "x no rollout yet; nothing serves"


def test_a_sparkline_keeps_its_width_and_its_newest_value():
    assert sparkline([0.0] * 500 + [100.0], 100) == "▁" * 15 + "█"
    assert sparkline([], 100) == ""


def test_proof_is_a_share_of_the_evidence_that_decides():
    assert proof({"evidence": 1.0, "decides": 2.0}) == 0.5
    assert proof({"evidence": -1.0, "decides": 2.0}) == 0
    assert proof({"evidence": 1.0, "decides": 0.0}) is None
    assert proof({"signal": "errors"}) is None
