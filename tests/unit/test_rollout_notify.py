"""The notifier against a real HTTP server that is as strict as Slack and misbehaves on request."""

import http.server
import json
import logging
import re
import threading
import time
from email.utils import formatdate

import pytest
from pydantic import SecretStr

from components.rollout.ledger import Ledger
from components.rollout.message import TOLD, message
from components.rollout.notify import Notifier, run_link
from components.rollout.release import Release

SECRET = "/services/T0000/B0000/xoxb-very-secret"


def slack_would_refuse(body):
    """Why Slack would answer 400, by the limits that its reference states; empty when it would not."""
    if not body.get("text"):
        return "no_text"
    blocks = body.get("blocks", [])
    if not 1 <= len(blocks) <= 50:
        return "invalid_blocks: number"
    for block in blocks:
        texts = [block["text"]] if block["type"] == "section" else block["elements"]
        limit = 3000 if block["type"] == "section" else 2000
        if len(texts) > 10 or any(text["type"] != "mrkdwn" or not 1 <= len(text["text"]) <= limit for text in texts):
            return "invalid_blocks: text"
    return ""


class Webhook(http.server.ThreadingHTTPServer):
    """Answers by ``script`` first (status, headers, seconds to wait), then as Slack does."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.got, self.tries, self.script = [], [], []
        self.url = f"http://127.0.0.1:{self.server_port}{SECRET}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.tries.append(time.monotonic())
        status, headers, seconds = self.server.script.pop(0) if self.server.script else (200, {}, 0)
        time.sleep(seconds)
        if status == 200:
            status = 400 if slack_would_refuse(body) else 200
            self.server.got.append(body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def webhook(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Webhook()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def said():
    return []


def rollout():
    ledger = Ledger(
        service="churn", run_id="run-7", candidate=Release(version="7", uri="file:///b", document={}), weight=10
    )
    arm = {"requests": 4321, "errors": 12, "p50_ms": 3.0, "p95_ms": 18.2, "p99_ms": None}
    ledger.note("sample", 10, stable=arm, canary={**arm, "requests": 480}, checks=[])
    return ledger


def notifier(webhook, said, **more):
    return Notifier(SecretStr(webhook.url), said.append, pause_seconds=0.02, **more)


def test_a_verdict_is_posted_with_service_version_weight_reason_counts_evidence_and_link(webhook, said):
    ledger = rollout()
    checks = [{"signal": "errors", "finding": "harm", "reason": "5.0% failed, 0.3% of the champion's", "evidence": 410}]
    event = ledger.note("verdict", 10, action="roll back", reason="too many errors", checks=checks)
    with notifier(webhook, said, link=run_link("https://kfp.example/", "run-7")) as told:
        told.tell(ledger, event)
    (body,) = webhook.got
    assert body["text"].splitlines() == [
        "*churn* version 7 :scales: verdict at 10 %: roll back",
        "too many errors",
        "champion: 4,321 requests, 12 failed, p95 18 ms",
        "challenger: 480 requests, 12 failed, p95 18 ms",
        "• errors: harm. 5.0% failed, 0.3% of the champion's",
    ]
    assert body["blocks"][1]["elements"][0]["text"] == "<https://kfp.example/#/runs/details/run-7|run run-7>"
    assert said == []


def test_every_kind_of_decision_is_told_in_order_and_samples_are_not(webhook, said):
    ledger = rollout()
    with notifier(webhook, said) as told:
        for what in (*TOLD, "sample", "something new"):
            told.tell(ledger, ledger.note(what, 50, reason="because", by="ada@desk", until="18:00 UTC"))
    assert [body["text"].splitlines()[0] for body in webhook.got] == [
        f"*churn* version 7 {text.format(weight=50, action='no decision')}" for text in TOLD.values()
    ]
    assert all("because; by ada@desk; until 18:00 UTC" in body["text"] for body in webhook.got)


def test_the_longest_reason_stays_within_slacks_limits_and_calls_nobody(webhook, said):
    ledger = rollout()
    checks = [{"signal": f"s{n}", "finding": "ok", "reason": "<!channel> & " * 60} for n in range(60)]
    with notifier(webhook, said, link="https://kfp.example/" + "x" * 1990) as told:
        for cut in range(12):  # wherever the cut falls, no entity is cut through
            told.tell(ledger, ledger.note("verdict", 10, action="hold", reason="x" * cut, checks=checks))
    assert said == []
    assert len(webhook.got) == 12
    for body in webhook.got:
        assert "<!channel>" not in body["text"]
        assert len(body["text"]) > 2990
        assert re.fullmatch(r"(?:[^&<>]|&amp;|&lt;|&gt;)*", body["text"])


def test_a_failed_message_is_tried_three_times_then_given_up_and_the_next_goes_through(webhook, said):
    webhook.script = [(500, {}, 0)] * 3
    ledger = rollout()
    with notifier(webhook, said) as told:
        told.tell(ledger, ledger.note("shift", 10, reason="first"))
        told.tell(ledger, ledger.note("shift", 50, reason="second"))
    assert [body["text"].splitlines()[1] for body in webhook.got] == ["second"]
    assert said == ["A notification did not reach the webhook (HTTP 500); the rollout goes on."]
    assert (told.told().sent, told.told().failed, told.told().trouble) == (1, 1, "HTTP 500")


@pytest.mark.parametrize("retry_after", ["1", lambda: formatdate(time.time() + 2, usegmt=True)])
def test_a_limit_on_messages_is_waited_out_as_the_server_asks(webhook, said, retry_after):
    webhook.script = [(429, {"Retry-After": retry_after if isinstance(retry_after, str) else retry_after()}, 0)]
    ledger = rollout()
    with notifier(webhook, said) as told:
        told.tell(ledger, ledger.note("promoted", 100))
    assert len(webhook.got) == 1
    assert 0.9 < webhook.tries[1] - webhook.tries[0] < 2.5


@pytest.mark.parametrize("status", [302, 400, 403, 404, 410])
def test_a_refusal_is_not_tried_again(webhook, said, status):
    webhook.script = [(status, {"Location": "/elsewhere"}, 0)]
    ledger = rollout()
    with notifier(webhook, said) as told:
        told.tell(ledger, ledger.note("promoted", 100))
    assert len(webhook.tries) == 1
    assert said == [f"A notification did not reach the webhook (HTTP {status}); the rollout goes on."]


def test_a_webhook_that_hangs_neither_blocks_a_decision_nor_the_end(webhook, said):
    webhook.script = [(200, {}, 1.0)] * 20
    ledger, began = rollout(), time.monotonic()
    with notifier(webhook, said, timeout_seconds=0.2, flush_seconds=0.5) as told:
        for _ in range(250):
            told.tell(ledger, ledger.note("shift", 10))
        assert time.monotonic() - began < 0.5
    assert time.monotonic() - began < 1.5
    count = told.told()
    assert count.failed >= 1
    assert count.trouble == "ReadTimeout"
    assert count.sent + count.failed + count.dropped in (249, 250)  # one may be under way


def test_the_newest_messages_are_kept_when_too_many_wait(webhook, said):
    webhook.script = [(200, {}, 0.3)]
    ledger = rollout()
    with notifier(webhook, said) as told:
        for number in range(150):
            told.tell(ledger, ledger.note("shift", 10, reason=f"number {number}"))
    assert "number 149" in webhook.got[-1]["text"]
    assert told.told().sent + told.told().dropped == 150


@pytest.mark.parametrize("url", ["http://127.0.0.1:9" + SECRET, "ftp://nowhere" + SECRET, "not a url" + SECRET])
def test_an_address_where_nobody_listens_is_said_without_naming_it(monkeypatch, said, url):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    ledger = rollout()
    with Notifier(url, said.append, pause_seconds=0.01) as told:
        told.tell(ledger, ledger.note("promoted", 100))
    assert told.told().failed == 1
    assert len(said) == 1
    assert "secret" not in said[0]


def test_the_secret_is_in_no_log_line_whatever_the_level(webhook, said, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, name)
    webhook.script = [(500, {}, 0)]
    ledger = rollout()
    with notifier(webhook, said) as told:
        told.tell(ledger, ledger.note("promoted", 100))
    assert "(webhook)" in caplog.text
    assert "xoxb" not in caplog.text
    assert "xoxb" not in repr(vars(told)["_trouble"])


def test_without_a_webhook_nobody_is_told_and_no_thread_is_started(said):
    ledger = rollout()
    with Notifier("", said.append) as told:
        told.tell(ledger, ledger.note("promoted", 100))
        assert "notifier" not in [thread.name for thread in threading.enumerate()]
    told.note(ledger)
    assert ledger.events[-1].what == "promoted"


def test_the_timeline_keeps_how_many_messages_arrived(webhook, said):
    ledger = rollout()
    with notifier(webhook, said) as told:
        told.tell(ledger, ledger.note("promoted", 100))
        told.note(ledger)
    assert ledger.events[-1].model_extra == {"sent": 1, "failed": 0, "dropped": 0, "trouble": ""}


def test_a_first_deployment_has_no_counts_to_tell():
    ledger = Ledger(service="churn", run_id="r")
    assert message(ledger, ledger.note("promoted", 100, version="1"))["text"] == (
        "*churn* version 1 :white_check_mark: is promoted"
    )
