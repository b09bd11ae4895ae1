"""Features by a SparkApplication: against a server that speaks the Kubernetes API, with the operator's own schema."""

import importlib.metadata
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyspark
import pytest

from components.cluster.api import Cluster
from components.errors import BadInput
from components.exchange import Exchange
from components.features.run import FeatureSet, run
from components.features.spark import step
from components.features.spark.application import MAIN, SPARK_APPLICATION, Job, rendered, store_settings
from components.features.spark.entrypoint import command
from components.features.spark.launch import FAILURE, RESULT, JobFailed
from components.features.spark.options import SparkOptions
from components.features.spark.places import bucket_of
from components.train.interrupt import Interrupted
from tests.cluster.kinds import KINDS
from tests.cluster.objects import Request
from tests.cluster.server import ApiServer
from tests.integration.test_features_spark import Checked, same
from tests.spark import QUICK, java_home

pytest_plugins = ["tests.cluster.fixtures"]
Plain = dict[str, Any]
ROOT = Path(__file__).parents[2]
(SERVED,) = (kind for kind in KINDS if kind.kind == SPARK_APPLICATION.kind)
DONE = {"applicationState": {"state": "COMPLETED"}}


class Operator:
    """What a Spark Operator does as far as a job's status goes: ``deed`` says how one ends.

    Attributes:
        made: jobs that it has seen, in order.
    """

    def __init__(self, server: ApiServer, namespace: str, deed: Callable[["Operator", Plain], None]) -> None:
        self._server, self._namespace, self._deed = server, namespace, deed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.made: list[Plain] = []

    def __enter__(self) -> "Operator":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def status(self, application: Plain, state: str, message: str = "", **executors: str) -> None:
        """Say how far a job is."""
        name = application["metadata"]["name"]
        status = {
            "applicationState": {"state": state, "errorMessage": message},
            "driverInfo": {"podName": f"{name}-driver"},
            "executorState": executors,
        }
        request = Request(SERVED, self._namespace, name, "spark-operator", subresource="status")
        self._server.objects.merge(request, {"status": status})

    def _run(self) -> None:
        cluster = Cluster(self._server.client(), self._namespace, patience_seconds=5)
        seen: set[str] = set()
        while not self._over.wait(0.05):
            for application in cluster.list(SPARK_APPLICATION):
                if application["metadata"]["uid"] not in seen:
                    seen.add(application["metadata"]["uid"])
                    self.made.append(application)
                    self._deed(self, application)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """What features are computed of."""
    rows = range(300)
    columns = {"x": [i * 0.37 for i in rows], "y": [f"c{i % 7}" for i in rows], "label": [i % 3 for i in rows]}
    return Checked(tmp_path_factory.mktemp("checked") / "t", pa.table(columns), "label")


class Launch:
    """The step's surroundings: a cluster, a store that its pods mount, and what is computed."""

    def __init__(self, cluster: Cluster, server: ApiServer, checked: Checked, folder: Path) -> None:
        self.cluster, self.server, self.checked, self.folder = cluster, server, checked, folder
        self.said: list[str] = []
        self.out = folder / "f"
        self.spark: Plain = {
            "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": "store"}}],
            "volume_mounts": [{"name": "store", "mountPath": str(folder)}],
            "executors": 2,
        }

    @property
    def store(self) -> Path:
        return self.folder / "home" / "store" / "spark-jobs"

    def features(self, **changed: Any) -> FeatureSet:
        given = {"target": "label", "feature_spec": "derive: {z: x * 2}", "task": "auto", "split_key": ""}
        given |= {"split_seed": 0, "feature_tables": {}}
        names = {"snapshot": "s", "quarantine": "q", "contract": "c"}
        folders = {name: self.checked.folder / short for name, short in names.items()}
        spark = self.spark | changed
        return step.on_kubernetes(folders, self.out, given, spark, self.cluster, self.said.append, every=0.05)

    def operator(self, deed: Callable[[Operator, Plain], None]) -> Operator:
        return Operator(self.server, self.cluster.namespace, deed)

    def computed(self, operator: Operator, application: Plain) -> None:
        """Stands in for Spark: leaves what the job leaves, made by DuckDB."""
        (uri,) = application["spec"]["arguments"]
        exchange = Exchange(uri)
        given = exchange.read(step.WORK)["given"]
        inputs = [self.checked.folder / name for name in "sqc"]
        made = run(*inputs, **given, out=self.folder / "by-driver")
        exchange.put(self.folder / "by-driver", step.OUT)
        said = {"quarantined": made.quarantined, "unlabelled": made.unlabelled, "classes": made.classes}
        exchange.write(RESULT, said)
        operator.status(application, "COMPLETED", **{"1": "COMPLETED", "2": "COMPLETED"})


@pytest.fixture
def launch(
    cluster: Cluster, fake: ApiServer, checked: Checked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Launch:
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLUICEWAY_STORE", raising=False)
    return Launch(cluster, fake, checked, tmp_path)


def test_a_job_is_made_followed_brought_back_and_removed(launch: Launch) -> None:
    def runs(operator: Operator, application: Plain) -> None:
        operator.status(application, "RUNNING", **{"1": "RUNNING", "2": "PENDING"})
        time.sleep(0.3)
        launch.computed(operator, application)

    with launch.operator(runs) as operator:
        made = launch.features()
    (application,) = operator.made
    assert made.rows == 300
    assert made.schema.rows.keys() == {"train", "valid", "test"}
    assert (launch.out / "train.parquet").exists()
    assert "running; executors: 1 pending, 1 running" in launch.said
    assert launch.cluster.list(SPARK_APPLICATION) == []
    assert list(launch.store.iterdir()) == []
    assert application["metadata"]["name"].startswith("sluiceway-features-")
    assert application["spec"]["executor"]["instances"] == 2


def test_a_failure_is_the_drivers_own_sentence_else_the_operators(launch: Launch) -> None:
    def fails(operator: Operator, application: Plain) -> None:
        Exchange(application["spec"]["arguments"][0]).write(FAILURE, {"message": "Column 'x' holds a mystery."})
        operator.status(application, "FAILED", "driver container failed with ExitCode: 1, Reason: Error")

    with launch.operator(fails), pytest.raises(JobFailed, match=r"failed: Column 'x' holds a mystery\."):
        launch.features()
    assert launch.cluster.list(SPARK_APPLICATION) == []
    assert not launch.out.exists()

    killed = lambda operator, application: operator.status(application, "FAILED", "OOMKilled, ExitCode: 137")  # noqa: E731
    with launch.operator(killed), pytest.raises(JobFailed, match="failed: OOMKilled, ExitCode: 137"):
        launch.features(executors=3)
    silent = lambda operator, application: operator.status(application, "COMPLETED")  # noqa: E731
    with launch.operator(silent), pytest.raises(JobFailed, match="ended without a result at"):
        launch.features(executors=4)


def test_a_retry_follows_the_job_that_the_attempt_before_left(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """The step's pod is gone."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("components.features.spark.launch._follow", killed)
        patch.setattr("components.features.spark.launch._remove_quietly", lambda *_: None)
        launch.features()
    with launch.operator(launch.computed) as operator:
        launch.features()
    assert len(operator.made) == 1
    assert "is there already" in launch.said[-2] + launch.said[-1] + launch.said[1]


def test_a_job_that_failed_before_is_made_anew_and_one_that_ended_before_is_only_brought_back(launch: Launch) -> None:
    outcomes = [lambda operator, application: operator.status(application, "FAILED", "lost"), launch.computed]
    with launch.operator(lambda *given: outcomes.pop(0)(*given)) as operator:
        with pytest.raises(JobFailed, match="lost"):
            launch.features()
        launch.features()
    assert len(operator.made) == 2
    exchange = launch.store / operator.made[0]["metadata"]["name"]
    shutil.copytree(launch.folder / "by-driver", exchange / step.OUT)
    (exchange / RESULT).write_text('{"quarantined": 0, "unlabelled": 0, "classes": {}}')
    shutil.rmtree(launch.out)
    assert launch.features().rows == 300  # no operator is there


def test_a_cancelled_step_removes_its_job(launch: Launch) -> None:
    def runs(operator: Operator, application: Plain) -> None:
        operator.status(application, "RUNNING")
        os.kill(os.getpid(), signal.SIGTERM)

    with launch.operator(runs), pytest.raises(Interrupted, match="was told to stop, and is removed"):
        launch.features()
    assert launch.cluster.list(SPARK_APPLICATION) == []


def test_a_job_that_somebody_removes_ends_the_step(launch: Launch) -> None:
    gone = lambda _, application: launch.cluster.delete(SPARK_APPLICATION, application["metadata"]["name"])  # noqa: E731
    with launch.operator(gone), pytest.raises(JobFailed, match="was removed while it ran"):
        launch.features()


def test_a_cluster_without_the_operator_and_a_store_that_pods_cannot_see_are_refused(launch: Launch) -> None:
    launch.server.discovery.hidden = {"sparkoperator.k8s.io"}
    try:
        with pytest.raises(BadInput, match="does not know SparkApplication"):
            launch.features()
    finally:
        launch.server.discovery.hidden = set()
    with pytest.raises(BadInput, match=r"do not share this step's disk, and cannot use .*: set SLUICEWAY_STORE to a"):
        launch.features(volumes=[], volume_mounts=[])


@pytest.mark.parametrize(
    ("spark", "message"),
    [
        ({"executor": 3}, r"spark is wrong at executor: Extra inputs"),
        ({"executors": 0}, r"spark is wrong at executors: Input should be greater than or equal to 1"),
        ({"executor_memory": "8 GB"}, r"spark is wrong at executor_memory"),
        ({"conf": {"spark.sql.session.timeZone": "CET"}}, r"spark is wrong at conf: .* is set by this suite"),
        ({"conf": {"memory": "1"}}, r"spark is wrong at conf: 'memory' is no setting of Spark"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_runs(spark: Plain, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SparkOptions.given(spark)


def test_everything_that_can_be_asked_for_is_in_the_object_as_the_operators_schema_has_it(cluster: Cluster) -> None:
    options = SparkOptions.given(
        {
            "executors": 8,
            "executor_cores": 4,
            "executor_memory": "16g",
            "driver_memory": "3g",
            "conf": {"spark.sql.shuffle.partitions": 400, "spark.speculation": True},
            "image": "example/spark:1",
            "secret": "keys",
            "node_selector": {"pool": "spark"},
            "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        }
    )
    environment = {"AWS_ENDPOINT_URL": "http://minio.kubeflow:9000", "AWS_REGION": "us-east-1", "HOME": "/root"}
    owner = {"name": "step", "uid": "1"}
    applied = cluster.apply(rendered(Job("job", "s3://b/work", options, owner), environment))
    spec = applied["spec"]
    assert spec["mainApplicationFile"] == MAIN
    assert (ROOT / MAIN.partition("/opt/code/")[2]).is_file()
    assert spec["arguments"] == ["s3://b/work"]
    assert spec["sparkVersion"] == importlib.metadata.version("pyspark")
    assert spec["image"] == "example/spark:1"
    assert spec["sparkConf"]["spark.sql.shuffle.partitions"] == "400"
    assert spec["sparkConf"]["spark.speculation"] == "true"
    assert spec["sparkConf"]["spark.hadoop.fs.s3a.endpoint"] == "http://minio.kubeflow:9000"
    assert (spec["executor"]["instances"], spec["executor"]["cores"], spec["executor"]["memory"]) == (8, 4, "16g")
    for pod in (spec["driver"], spec["executor"]):
        assert pod["env"] == [
            {"name": "AWS_ENDPOINT_URL", "value": "http://minio.kubeflow:9000"},
            {"name": "AWS_REGION", "value": "us-east-1"},
        ]
        assert pod["envFrom"] == [{"secretRef": {"name": "keys", "optional": True}}]
        assert (pod["nodeSelector"], pod["tolerations"][0]["key"]) == ({"pool": "spark"}, "spot")
        assert pod["securityContext"]["runAsNonRoot"] is True
    assert spec["driver"]["serviceAccount"] == "sluiceway-spark"
    assert applied["metadata"]["ownerReferences"][0]["uid"] == "1"


def test_the_artifacts_of_a_pipeline_are_read_where_kfp_took_them_from() -> None:
    assert bucket_of(Path("/gcs/bucket/v2/snapshot")) == "gs://bucket/v2/snapshot"
    assert bucket_of(Path("/minio/mlpipeline/x/part-0.parquet")) == "s3://mlpipeline/x/part-0.parquet"
    assert bucket_of(Path("/tmp/x")) == bucket_of(Path("/")) == ""
    assert "spark.hadoop.fs.gs.impl" in store_settings("gs://b/x", SparkOptions(), {})


def test_a_pod_of_spark_begins_with_what_spark_asks_for() -> None:
    given = {
        "SPARK_HOME": "/spark",
        "JAVA_HOME": "/java",
        "SPARK_DRIVER_BIND_ADDRESS": "10.0.0.1",
        "SPARK_JAVA_OPT_10": "-Db",
        "SPARK_JAVA_OPT_2": "-Da",
        "SPARK_EXECUTOR_MEMORY": "4g",
        "SPARK_CONF_DIR": "/conf",
        "SPARK_DRIVER_URL": "spark://d",
        "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "2",
        "SPARK_APPLICATION_ID": "app",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.2",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_EXECUTOR_POD_NAME": "pod",
    }
    driver = command(["driver", "--class", "X", "local:///job.py", "gs://b"], given)
    assert driver[0] == "/spark/bin/spark-submit"
    assert driver[-5:] == ["client", "--class", "X", "local:///job.py", "gs://b"]
    executor = command(["executor"], given)
    assert executor[:5] == ["/java/bin/java", "-Da", "-Db", "-Xms4g", "-Xmx4g"]
    assert executor[5:7] == ["-cp", "/spark/jars/*:/conf"]
    assert executor[7].endswith("KubernetesExecutorBackend")
    assert dict(zip(executor[8::2], executor[9::2], strict=True))["--podName"] == "pod"
    assert command(["python", "-V"], given) == ["python", "-V"]


def test_a_driver_that_spark_submit_starts_computes_what_duckdb_computes(launch: Launch, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "JAVA_HOME": java_home(tmp_path) or os.environ.get("JAVA_HOME", "")}
    # spark-submit asks whatever Python is first on the path where Spark is.
    environment |= {"SPARK_HOME": str(Path(pyspark.__file__).parent), "PYSPARK_PYTHON": sys.executable}
    environment = {**os.environ, **{key: value for key, value in environment.items() if value}}

    def submits(operator: Operator, application: Plain) -> None:
        spec = application["spec"]
        conf = {name: value for name, value in spec["sparkConf"].items() if ".kubernetes." not in name}
        conf |= {"spark.driver.extraJavaOptions": QUICK, "spark.sql.shuffle.partitions": "2"}
        told = [f"--conf={name}={value}" for name, value in conf.items()]
        file = spec["mainApplicationFile"].replace("local:///opt/code", str(ROOT))
        submit = [Path(sys.executable).with_name("spark-submit"), "--master=local[2]", *told, file, *spec["arguments"]]
        ran = subprocess.run(submit, env=environment, capture_output=True, text=True)
        log = f"{shlex.join(map(str, submit))}\n{ran.stdout}\n{ran.stderr}"
        operator.status(application, "FAILED" if ran.returncode else "COMPLETED", log[-3000:] if ran.returncode else "")

    with launch.operator(submits):
        made = launch.features()
    assert made.rows == 300
    same(launch.checked.features("duckdb", "derive: {z: x * 2}"), launch.out)
