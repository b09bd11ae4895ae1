"""Airflow's operator against a KFP API server: its logic without Airflow, and whole with one (make test-airflow)."""

import json
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from sluiceway_airflow import api as airflow_api
from sluiceway_airflow.api import ApiError, Kfp, Server, Unreachable
from sluiceway_airflow.attempt import Attempt, attach_or_start
from sluiceway_airflow.connection import server
from tests.kfp_api.server import KfpApi

pytest_plugins = ["tests.kfp_api.fixtures"]

ROOT = Path(__file__).parents[2]
FIRST = Attempt("nightly", "train", "scheduled__2026-11-24", -1, 1)
SECOND = Attempt("nightly", "train", "scheduled__2026-11-24", -1, 2)
PIPELINE = "train-and-deploy"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_api, "_WAIT", 0.01)


@pytest.fixture
def uploaded(kfp_api: KfpApi) -> KfpApi:
    """A server that has the pipeline."""
    package = (ROOT / "tests/golden/train-and-deploy.yaml").read_bytes()
    files = {"uploadfile": ("package.yaml", package)}
    httpx.post(
        f"{kfp_api.url}/apis/v2beta1/pipelines/upload", params={"name": PIPELINE}, files=files
    ).raise_for_status()
    return kfp_api


@pytest.fixture
def begin(uploaded: KfpApi) -> Callable[..., tuple[airflow_api.Run, bool]]:
    def attach(attempt: Attempt = FIRST, **more: Any) -> tuple[airflow_api.Run, bool]:
        given = {"pipeline": PIPELINE, "version": "", "parameters": {"target": "Churn"}, "experiment": "airflow"}
        return attach_or_start(Kfp(Server(uploaded.url)), attempt, **given | more)

    return attach


def test_a_run_is_started_under_a_name_that_says_whose_it_is(uploaded, begin):
    run, found = begin()
    assert not found
    (kept,) = uploaded.store.runs.values()
    assert kept["display_name"].startswith("nightly.train airflow-")
    assert kept["runtime_config"]["parameters"] == {"target": "Churn"}
    assert uploaded.store.experiments[kept["experiment_id"]]["display_name"] == "airflow"
    assert not run.ended


def test_a_worker_that_comes_back_waits_for_its_run_even_when_that_has_ended(uploaded, begin):
    started, _ = begin()
    assert begin() == (started, True)
    uploaded.runs.become(started.run_id, "SUCCEEDED")
    again, found = begin()
    assert (again.run_id, found, again.succeeded) == (started.run_id, True, True)
    assert len(uploaded.store.runs) == 1


def test_the_next_try_waits_for_the_run_that_goes_on(uploaded, begin):
    started, _ = begin()
    uploaded.runs.become(started.run_id, "RUNNING")
    attached, found = begin(SECOND)
    assert (attached.run_id, found) == (started.run_id, True)


def test_a_task_that_failed_or_was_cleared_runs_anew(uploaded, begin):
    started, _ = begin()
    for state in ("FAILED", "SUCCEEDED"):
        uploaded.runs.become(started.run_id, state)
        again, found = begin(SECOND)
        assert again.run_id != started.run_id
        assert not found
        del uploaded.store.runs[again.run_id]


def test_tasks_and_dag_runs_do_not_share_runs(uploaded, begin):
    others = [FIRST, Attempt("nightly", "train", "scheduled__2026-11-25", -1, 1)]
    others += [Attempt("nightly", "train", FIRST.dag_run, index, 1) for index in (0, 1)]
    assert len({begin(one)[0].run_id for one in others}) == 4


@pytest.mark.parametrize("how", [{"how": "lose"}, {"how": "after", "code": 504}])
def test_a_lost_answer_to_a_start_makes_no_second_run(uploaded, begin, how):
    uploaded.faults.add(method="POST", path="/runs$", **how)
    begin()
    assert len(uploaded.store.runs) == 1


def test_what_passes_is_waited_out_and_what_does_not_is_said(uploaded, begin):
    uploaded.faults.add("answer", code=503, times=2, path="/runs$", method="GET")
    uploaded.faults.add("drop", path="/experiments$")
    begin()
    uploaded.faults.add("answer", code=503, times=9)
    with pytest.raises(Unreachable, match="answers 503"):
        begin(SECOND)


def test_refusals_are_one_clear_sentence(uploaded, begin):
    with pytest.raises(ApiError, match="no pipeline 'typo' here: upload it with `sluiceway upload`"):
        begin(pipeline="typo")
    with pytest.raises(ApiError, match="no version 'v9' here"):
        begin(version="v9")
    with pytest.raises(ApiError, match="refused POST /apis/v2beta1/runs with 400"):
        begin(parameters={"no_such_parameter": 1})
    uploaded.gate.tokens = {"good": "anna@example.com"}
    with pytest.raises(ApiError, match="wants another token \\(401; none was given\\)"):
        begin()


def test_a_token_file_is_read_for_every_request(uploaded, tmp_path):
    token = tmp_path / "token"
    token.write_text("old\n")
    kfp = Kfp(Server(uploaded.url, token_file=str(token)))
    uploaded.gate.tokens = {"old": "airflow"}
    assert kfp.named("x") == []
    uploaded.gate.tokens = {"new": "airflow"}
    with pytest.raises(ApiError):
        kfp.named("x")
    token.write_text("new\n")
    assert kfp.named("x") == []


def test_a_failure_names_the_steps_that_failed(uploaded, begin):
    started, _ = begin()
    tasks = [{"display_name": "train", "state": "FAILED"}, {"display_name": "ingest", "state": "SUCCEEDED"}]
    uploaded.runs.become(started.run_id, "FAILED", "no more disk", tasks)
    assert Kfp(Server(uploaded.url)).run(started.run_id).why == "failed in train; no more disk"


def test_ending_a_run_twice_or_when_it_has_ended_is_no_failure(uploaded, begin):
    started, _ = begin()
    kfp = Kfp(Server(uploaded.url))
    kfp.terminate(started.run_id)
    kfp.terminate(started.run_id)
    assert uploaded.store.runs[started.run_id]["state"] == "CANCELING"
    uploaded.runs.become(started.run_id, "CANCELED")
    kfp.terminate(started.run_id)


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ({"host": "https://kfp.example.com/pipeline"}, "https://kfp.example.com/pipeline"),
        ({"host": "kfp", "port": 8888}, "http://kfp:8888"),
        (
            {"host": "kfp.example.com/pipeline", "schema": "https", "port": 8443},
            "https://kfp.example.com:8443/pipeline",
        ),
    ],
)
def test_a_connection_is_read_as_airflow_writes_it(said, url):
    extra = {"namespace": "team-a", "token_file": "/t"}
    connection = SimpleNamespace(**{"schema": None, "port": None, "password": "p", "extra_dejson": extra} | said)
    assert server(connection) == Server(url, "p", "/t", "team-a")
    assert "'p'" not in repr(server(connection))


AIRFLOW = os.environ.get("SLUICEWAY_TEST_AIRFLOW", "")


@pytest.mark.skipif(not AIRFLOW, reason="needs Airflow in an environment of its own: make test-airflow")
class TestWithAirflow:
    """The DAG as Airflow runs it: scheduler's logic, connection, templates, deferral, retries, signals."""

    @pytest.fixture(scope="class")
    def home(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        home = tmp_path_factory.mktemp("airflow")
        subprocess.run([AIRFLOW, "-m", "airflow", "db", "migrate"], env=self.variables(home), check=True)
        return home

    def variables(self, home: Path, url: str = "", dags: Path = ROOT / "integrations/airflow/dags") -> dict[str, str]:
        connection = {"conn_type": "http", "host": url}
        return os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW_CONN_KFP_DEFAULT": json.dumps(connection),
            "PYTHONPATH": str(ROOT / "integrations/airflow"),
        }

    @pytest.fixture
    def run(self, home: Path, uploaded: KfpApi, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
        started: list[subprocess.Popen[str]] = []

        def run(options: str = "poke_interval=0.2") -> subprocess.Popen[str]:
            """A DAG with one task, run as `airflow dags test` runs it."""
            file = tmp_path / "dag.py"
            file.write_text(
                textwrap.dedent(f"""
                from datetime import datetime, timedelta, timezone
                from airflow.sdk import DAG
                from sluiceway_airflow.operator import SluicewayRunOperator
                with DAG("{tmp_path.name}", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
                    SluicewayRunOperator(
                        task_id="train",
                        pipeline="{PIPELINE}",
                        parameters={{"source_uri": "gs://b/{{{{ ds }}}}"}},
                        {options},
                    )
                if __name__ == "__main__":
                    day = datetime(2026, 11, 24, tzinfo=timezone.utc)
                    ended = dag.test(run_after=day, logical_date=day)  # so that it is the same DAG run again
                    (task,) = ended.get_task_instances()
                    print("RESULT", task.state, task.xcom_pull(task_ids="train"))
                """)
            )
            started.append(
                subprocess.Popen(
                    [AIRFLOW, str(file)],
                    env=self.variables(home, uploaded.url, tmp_path),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            return started[-1]

        yield run
        for one in started:
            one.kill()
            print(one.communicate()[0])  # shown when the test has failed

    def awaited(self, api: KfpApi, count: int = 1) -> list[str]:
        deadline = time.monotonic() + 180
        while len(api.store.runs) < count:
            assert time.monotonic() < deadline, "no run was started"
            time.sleep(0.05)
        return list(api.store.runs)

    def watched(self, api: KfpApi, path: str, method: str = "GET") -> None:
        deadline = time.monotonic() + 180
        while not api.count(method, path):
            assert time.monotonic() < deadline, f"nobody asked {method} {path}"
            time.sleep(0.05)

    @pytest.mark.parametrize("options", ["mode='poke'", "mode='reschedule'", "deferrable=True"])
    def test_the_task_waits_and_succeeds_with_the_run(self, uploaded, run, options):
        process = run(f"poke_interval=0.2, {options}")
        (run_id,) = self.awaited(uploaded)
        assert uploaded.store.runs[run_id]["runtime_config"]["parameters"] == {"source_uri": "gs://b/2026-11-24"}
        time.sleep(0.5)
        uploaded.runs.become(run_id, "SUCCEEDED")
        said, _ = process.communicate(timeout=180)
        assert "RESULT success" in said, said
        assert run_id in said.split("RESULT")[-1]
        assert len(uploaded.store.runs) == 1

    def test_a_failed_run_fails_the_task_and_a_retry_runs_anew(self, uploaded, run):
        process = run("poke_interval=0.2, mode='poke', retries=1, retry_delay=timedelta(seconds=0)")
        (first,) = self.awaited(uploaded)
        uploaded.runs.become(first, "FAILED", "no more disk")
        _, second = self.awaited(uploaded, 2)
        uploaded.runs.become(second, "SUCCEEDED")
        said, _ = process.communicate(timeout=180)
        assert "no more disk" in said
        assert "RESULT success" in said, said

    def test_a_killed_worker_leaves_the_run_and_the_next_one_waits_for_it(self, uploaded, run):
        process = run("poke_interval=0.2, mode='poke'")
        (run_id,) = self.awaited(uploaded)
        process.kill()
        process.wait()
        uploaded.requests.clear()
        again = run("poke_interval=0.2, mode='poke'")
        self.watched(uploaded, run_id)
        uploaded.runs.become(run_id, "SUCCEEDED")
        said, _ = again.communicate(timeout=180)
        assert "RESULT success" in said, said
        assert len(uploaded.store.runs) == 1

    def test_killing_the_task_ends_the_run(self, uploaded, run):
        process = run("poke_interval=0.2, mode='poke'")
        (run_id,) = self.awaited(uploaded)
        self.watched(uploaded, run_id)
        process.send_signal(signal.SIGTERM)
        self.watched(uploaded, f"{run_id}:terminate", "POST")
        assert uploaded.store.runs[run_id]["state"] == "CANCELING"
        uploaded.runs.become(run_id, "CANCELED")
        said, _ = process.communicate(timeout=180)
        assert "RESULT failed" in said, said
        assert "Somebody ended run" in said

    def test_the_example_dag_loads(self, home):
        listed = subprocess.run(
            [AIRFLOW, "-m", "airflow", "dags", "list-import-errors", "--local"],
            env=self.variables(home),
            capture_output=True,
            text=True,
            check=False,
        )
        assert "No data found" in listed.stdout, listed.stdout + listed.stderr
