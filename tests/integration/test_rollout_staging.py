"""The stage step on a cluster: a challenger is proved by itself before any client can meet it."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.cluster.api import INFERENCE_SERVICE, REVISION
from components.errors import Changed, SkewFound, TooSlow
from components.evaluate.columns import PREDICTION
from components.rollout.ledger import Phase
from components.rollout.targets.choose import target_for
from components.stage.load import Load
from components.stage.run import Request, run
from tests.cluster.kserve.api import RESOURCES, Api
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.model import Model
from tests.cluster.kserve.rollouts import SERVICE, Rollout, rows
from tests.cluster.kserve.simulation import kserve

pytest_plugins = ["tests.cluster.fixtures"]


@pytest.fixture(scope="module")
def simulation(api_server):
    with kserve(api_server, timing=Timing(back_off=0.1, most_back_off=0.5)) as running:
        yield running


@pytest.fixture
def rollout(simulation, api_server, sqlite, request):
    from components.register.mlflow_client import client

    client().create_registered_model(SERVICE)
    for _version in (1, 2):
        client().create_model_version(SERVICE, "file:///nowhere")
    client().set_registered_model_alias(SERVICE, "champion", "1")
    where = getattr(request, "param", "knative")
    made = Rollout(simulation, api_server, "http://127.0.0.1:9", where)  # nothing is judged here
    made.deploy()
    yield made
    simulation.faults.clear()
    made.new_place().target.remove()


def asked(rollout, folder, shift=0.0, **load):
    """What the stage step is asked for; ``shift`` is how far the offline predictions are from what is served."""
    model, instances = Model(SERVICE, "offline"), rows().instances
    table = [{**row, PREDICTION: [model.predict(row) + shift]} for row in instances]
    pq.write_table(pa.Table.from_pylist(table), folder / "predictions.parquet")
    given = Load(**{"requests_per_second": 40, "seconds": 0.5, "warmup_seconds": 0.1, **load})
    return Request("run-1", rollout.candidate, rollout.stable, folder / "predictions.parquet", (), 1e-4, given)


def with_staging(rollout):
    """The same place with a staging namespace, and that namespace."""
    name = f"{rollout.namespace}-s"
    rollout.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    there = rollout.cluster.inside(name)
    deployment = rollout.deployment.model_copy(update={"namespace": name})
    target = target_for(deployment, SERVICE, rollout.place.guard, there)
    target.tick, target.hopeless_seconds = 0.1, 1.0
    return replace(rollout.place, staging=target), there


def served(cluster):
    found = cluster.get(INFERENCE_SERVICE, SERVICE)
    return found and found["spec"]["predictor"]["model"]["storageUri"].rpartition("/")[2]


@pytest.mark.parametrize("rollout", ["knative", "standard", "two-services"], indirect=True)
def test_a_challenger_is_asked_by_its_own_address_while_clients_have_the_champion(rollout, tmp_path):
    with rollout.client(per_second=50) as client:
        staged = run(rollout.place, asked(rollout, tmp_path), lambda _text: None)
        client.wait(20)
    assert client.failed == []
    assert len(client.counts()) == 1, "a client met the challenger"
    assert staged.revision not in client.counts()
    assert (staged.skew.rows, staged.load.failed) == (100, 0)
    ledger = rollout.ledger()
    assert (ledger.phase, ledger.revision, ledger.deployment) == (Phase.STAGED, staged.revision, rollout.deployment)


def test_a_challenger_is_proved_in_the_staging_namespace_first_and_leaves_it(rollout, tmp_path):
    place, there = with_staging(rollout)
    said = []

    def say(text):
        if text == "ready in the staging namespace":
            said.append((served(there), served(rollout.cluster)))

    staged = run(place, asked(rollout, tmp_path), say)
    assert said == [("2", "1")], "the challenger was not alone in the staging namespace while the champion served"
    assert staged.revision
    assert served(there) is None


@pytest.mark.parametrize(
    ("error", "more"),
    [(SkewFound, {"shift": 0.2}), (TooSlow, {"p99_ms": 1})],
    ids=["predicts otherwise than offline", "too slow at the expected load"],
)
def test_a_challenger_that_fails_in_staging_never_comes_near_production(rollout, tmp_path, error, more):
    place, there = with_staging(rollout)
    if error is TooSlow:
        rollout.simulation.faults.worse(rollout.about("2"), delay_ms=80)
    with pytest.raises(error):
        run(place, asked(rollout, tmp_path, **more), lambda _text: None)
    assert (served(there), served(rollout.cluster)) == (None, "1")
    assert len(rollout.cluster.list(REVISION)) == 1, "the challenger was made in the production namespace"
    assert (rollout.ledger().outcome, rollout.ledger().candidate) == ("rolled_back", None)


def test_tried_again_a_challenger_that_failed_fails_again_until_the_cause_is_gone(rollout, tmp_path):
    """As Argo does, and a person who retries a run: what failed must not look as if it had nothing to do."""
    for _attempt in (1, 2):
        with pytest.raises(SkewFound):
            run(rollout.place, asked(rollout, tmp_path, shift=0.2), lambda _text: None)
        assert served(rollout.cluster) == "1"
    assert run(rollout.place, asked(rollout, tmp_path), lambda _text: None).revision
    assert rollout.ledger().phase is Phase.STAGED


def test_somebody_elses_service_in_the_staging_namespace_is_left_alone(rollout, tmp_path):
    place, there = with_staging(rollout)
    theirs = place.staging.manifest(rollout.stable)
    theirs["spec"]["predictor"]["model"]["storageUri"] = "file:///models/theirs/7"
    Api(rollout.server.client(), "ann").create(RESOURCES["InferenceService"], theirs)
    with pytest.raises(Changed, match="ann"):
        run(place, asked(rollout, tmp_path), lambda _text: None)
    assert (served(there), served(rollout.cluster)) == ("7", "1")
