"""A rollout on one machine: real servers behind a real Envoy, a real MLflow, and people who change their minds."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from components.errors import Busy
from components.rollout import component
from components.rollout.deployment import Deployment
from components.rollout.ledger import Phase
from components.rollout.place import place_for
from components.rollout.plan import RolloutPlan, parse_plan
from components.rollout.releases import release
from components.rollout.report import timeline_page
from components.rollout.run import Request, roll_out
from components.rollout.settle import Settled, decided_by, settle
from components.rollout.store import Command
from components.rollout.traffic import Rows
from serving.local import client
from tests.serving_bundle import rows as raw_rows
from tests.serving_bundle import write_bundle

SERVICE = "churn"
HERE = Deployment()
QUICK = {"steps": [20, 100], "min_requests": 40, "max_seconds": 30}


def quiet(_text):
    return None


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "1")
    write_bundle(folder / "2", seed=1)
    return folder


@pytest.fixture
def home(sqlite):
    from components.register.mlflow_client import client as mlflow

    mlflow().create_registered_model(SERVICE)
    for _version in (1, 2):
        mlflow().create_model_version(SERVICE, "file:///nowhere")
    mlflow().set_registered_model_alias(SERVICE, "champion", "1")
    yield sqlite
    client.stop(sqlite)


def champion():
    from components.register.registry import champion as current

    return current(SERVICE).version


def rows(bundles=None):
    """Held-out rows; with both versions' own predictions where they are to be compared."""
    instances = [{k: None if v != v else v for k, v in row.items()} for row in raw_rows(100).to_dict("records")]
    if bundles is None:
        return Rows(tuple(instances), tuple((0.5, 0.5) for _ in instances))
    champion, challenger = (_predicted(bundles / version) for version in ("1", "2"))
    return Rows(tuple(instances), challenger, champion)


def _predicted(bundle):
    from serving.bundle import load

    return tuple(tuple(float(p) for p in row) for row in load(bundle).predict(raw_rows(100)))


def releases(bundles, **challenger_env):
    return [
        release(SERVICE, version, (bundles / version).as_uri(), HERE, env)
        for version, env in (("1", {}), ("2", challenger_env))
    ]


def staged(bundles, run="run-1", plan=None, **challenger_env):
    """Version 1 serves; version 2 is ready beside it without traffic, as the stage step leaves it."""
    place = place_for(HERE, plan or RolloutPlan(), SERVICE)
    stable, candidate = releases(bundles, **challenger_env)
    with place.store.owned(run):
        if not place.target.live():
            place.target.deploy(stable)
        ledger = place.store.load()
        ledger.stable, ledger.candidate, ledger.run_id, ledger.outcome = stable, candidate, run, None
        ledger.events, ledger.phase = [], Phase.STAGED
        ledger.revision = place.target.stage(candidate).revision
        place.store.save(ledger)
    return place


def request(run="run-1", replay=150, **plan):
    return Request(run, parse_plan({**QUICK, **plan}), rows(), replay_per_second=replay)


def version_served(home):
    return client.read(home, SERVICE)["metadata"]["annotations"]["sluiceway.dev/model-version"]


def events(place, *kinds):
    return [event.what for event in place.store.load().events if not kinds or event.what in kinds]


class Beside:
    """A rollout in a thread, for a test that acts meanwhile."""

    def __init__(self, place, asked):
        self.result = self.error = None

        def work():
            try:
                self.result = roll_out(place, asked, quiet)
            except Exception as error:  # noqa: BLE001 - handed to the test
                self.error = error

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def ended(self, seconds=120):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the rollout goes on"
        if self.error:
            raise self.error
        return self.result


def until(check, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def tell(place, what):
    place.store.send(Command(what=what, by="ann@laptop", time=time.time()))


def test_a_good_challenger_is_promoted_and_a_retry_of_the_same_run_changes_nothing(home, bundles):
    place = staged(bundles)
    result = roll_out(place, request(), quiet)
    assert (result.outcome, result.failed, champion(), version_served(home)) == ("promoted", 0, "2", "2")
    before = client.read(home, SERVICE)["metadata"]["generation"]

    again = roll_out(place_for(HERE, RolloutPlan(), SERVICE), request(), quiet)
    assert (again.outcome, again.sent) == ("promoted", 0)
    assert client.read(home, SERVICE)["metadata"]["generation"] == before, "a retry touched the service"
    with pytest.raises(Busy, match="run again"):
        roll_out(place_for(HERE, RolloutPlan(), SERVICE), request("another"), quiet)


def test_a_challenger_that_fails_is_rolled_back_at_once_also_when_paused(home, bundles):
    place = staged(bundles, SLUICEWAY_FAULTS="errors=0.5")
    tell(place, "resume")  # of an earlier rollout: forgotten
    result = roll_out(place, request(min_seconds=5), quiet)
    assert (result.outcome, champion(), version_served(home)) == ("rolled_back", "1", "1")
    assert "failed" in result.reason
    ledger = place.store.load()
    assert (ledger.phase, ledger.candidate) == (Phase.SETTLED, None)
    assert "command" not in events(place)


def test_pause_holds_resume_goes_on_and_abort_rolls_back(home, bundles):
    place = staged(bundles)
    rollout = Beside(place, request(steps=[20, 40, 100]))
    until(lambda: "shift" in events(place))
    tell(place, "pause")
    until(lambda: "paused" in events(place))
    weight = place.store.load().weight
    time.sleep(2.5)  # the step would have ended
    assert rollout.thread.is_alive()
    assert place.store.load().weight == weight
    tell(place, "resume")
    until(lambda: "resumed" in events(place))
    tell(place, "abort")
    result = rollout.ended()
    assert (result.outcome, champion(), version_served(home)) == ("rolled_back", "1", "1")
    assert "ann@laptop" in result.reason


def test_promote_by_hand_skips_the_steps(home, bundles):
    place = staged(bundles)
    rollout = Beside(place, request(replay=0))  # no traffic: it would hold
    until(lambda: "shift" in events(place))
    tell(place, "promote")
    assert rollout.ended().outcome == "promoted"
    assert champion() == version_served(home) == "2"


def test_no_traffic_is_not_health_and_ends_by_policy(home, bundles):
    place = staged(bundles)
    result = roll_out(place, request(replay=0, max_seconds=1.5, on_unclear="halt"), quiet)
    assert (result.outcome, champion(), version_served(home)) == ("halted", "1", "2")
    (weight,) = {e["percent"] for e in _traffic(home) if e["latestRevision"]}
    assert weight == 20, "a halt leaves the weights"
    # Only a person ends it, and the next run says so.
    assert settle(lambda: place, place.store) == Settled("nothing to settle")
    assert decided_by(lambda: place, place.store, "abort", "ann") == "rolled back to version 1"
    assert version_served(home) == "1"


def _traffic(home):
    return client.read(home, SERVICE)["status"]["components"]["predictor"]["traffic"]


def test_held_out_rows_to_both_versions_stand_in_for_traffic_that_there_is_not(home, bundles):
    place = staged(bundles)
    asked = replace(
        request(replay=0, shadow_per_second=100, steps=[20, 100]), rows=rows(bundles), classes=("No", "Yes")
    )
    result = roll_out(place, asked, quiet)
    assert (result.outcome, champion()) == ("promoted", "2")


def test_answers_that_differ_from_the_offline_predictions_are_harm(home, bundles):
    place = staged(bundles)
    wrong = replace(rows(bundles), predictions=rows(bundles).champion)  # version 2 was evaluated as something else
    asked = replace(request(replay=0, shadow_per_second=100), rows=wrong, classes=("No", "Yes"))
    result = roll_out(place, asked, quiet)
    assert (result.outcome, champion()) == ("rolled_back", "1")
    assert "offline" in result.reason


def test_a_freeze_takes_no_step(home, bundles):
    frozen = {"freeze": [{"start": "00:00", "end": "00:00"}]}  # all day, every day
    place = staged(bundles)
    result = roll_out(place, request(**frozen, max_total_seconds=3), quiet)
    assert result.outcome == "rolled_back"
    assert {event.weight for event in place.store.load().events if event.what == "shift"} == {20}
    assert "frozen" in events(place)


def test_a_persons_change_is_left_as_it_is(home, bundles):
    place = staged(bundles)
    rollout = Beside(place, request(min_seconds=20))
    until(lambda: "shift" in events(place))
    document = {k: v for k, v in client.read(home, SERVICE).items() if k != "status"}
    document["spec"]["predictor"]["canaryTrafficPercent"] = 35
    client.apply(home, document)
    result = rollout.ended()
    assert result.outcome == "halted"
    assert "35 instead of 20" in result.reason
    assert client.read(home, SERVICE)["spec"]["predictor"]["canaryTrafficPercent"] == 35


def test_a_clock_that_is_set_back_in_the_middle_changes_nothing(home, bundles, monkeypatch):
    place, now, began = staged(bundles), time.time, time.monotonic()
    # An hour back from the second second on, and a week back from the fourth.
    back = ((4, 7 * 24 * 3600), (2, 3600), (0, 0))
    monkeypatch.setattr(
        time, "time", lambda: now() - next(less for since, less in back if time.monotonic() - began >= since)
    )
    result = roll_out(place, request(steps=[20, 50, 100], min_seconds=2), quiet)
    record = place.store.load()
    assert (result.outcome, champion()) == ("promoted", "2")
    times = [event.time for event in record.events]
    assert times != sorted(times), "the clock was not set back while it ran"
    assert 0 < record.total_seconds < 60
    assert "promoted" in timeline_page(record)


def test_never_back_onto_a_champion_that_has_died(home, bundles):
    place = staged(bundles, SLUICEWAY_FAULTS="errors=0.5,after_requests=300")
    rollout = Beside(place, request(steps=[100], min_requests=2000, max_seconds=60))
    until(lambda: "shift" in events(place))
    servers = {s["revision"]: s for s in client.read(home, SERVICE)["status"]["local"]["servers"]}
    stable = next(s for revision, s in servers.items() if revision != place.store.load().revision)
    ended = threading.Event()

    def keep_it_dead():
        while not ended.is_set():
            for server in client.read(home, SERVICE)["status"]["local"]["servers"]:
                if server["revision"] == stable["revision"] and server["pid"]:
                    with _gone():
                        os.kill(server["pid"], signal.SIGKILL)
            time.sleep(0.1)

    killer = threading.Thread(target=keep_it_dead)
    killer.start()
    try:
        result = rollout.ended()  # its step alone may take a minute
    finally:
        ended.set()
        killer.join()
    assert result.outcome == "halted"
    assert "could not take the traffic" in result.reason
    assert httpx.get(f"{place.target.url()}/v2/models/{SERVICE}/ready", trust_env=False).status_code == 200


def _gone():
    import contextlib

    return contextlib.suppress(ProcessLookupError)


_CHILD = """
import sys
from pathlib import Path
from tests.integration.test_rollout_run import HERE, SERVICE, place_for, request, roll_out
from components.rollout.plan import RolloutPlan
asked = request(min_seconds=float(sys.argv[1]), max_seconds=90)
print(roll_out(place_for(HERE, RolloutPlan(), SERVICE), asked, print).outcome)
"""


def child(min_seconds):
    command = [sys.executable, "-c", _CHILD, str(min_seconds)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)


def test_a_killed_rollout_goes_on_where_it_was_with_what_it_had_seen(home, bundles):
    place = staged(bundles)
    killed = child(60)
    until(lambda: place.store.load().seen.canary.requests > 30, 30)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = place.store.load()
    assert (before.phase, before.weight) == (Phase.SHIFTING, 20)

    result = roll_out(place, request(), quiet)
    assert (result.outcome, champion(), version_served(home)) == ("promoted", "2", "2")
    after = place.store.load()
    first = next(e for e in after.events if e.what == "verdict")
    assert "taken over" in events(place)
    assert first.weight == 20
    assert after.total_seconds > before.total_seconds


def test_a_killed_rollout_that_nobody_tries_again_is_settled_on_the_champion(home, bundles, capsys):
    place = staged(bundles)
    killed = child(60)
    until(lambda: place.store.load().weight == 20, 30)
    with pytest.raises(Busy):
        settle(lambda: place, place.store, "run-1")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert "run run-1's" in settle(lambda: place, place.store, "run-0").said
    component.settle.python_func(SERVICE, "", None, {}, "run-1")
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["fact"] == "rolled back to version 1"
    assert (said["step"], said["service"], said["outcome"]) == ("settle", SERVICE, "rolled_back"), "for alerts"
    assert (version_served(home), champion()) == ("1", "1")
