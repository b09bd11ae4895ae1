"""Where a training runs: what is refused before anything starts, and what the compiled package asks Kubernetes for."""

import re
from dataclasses import replace

import pytest
import yaml

from components import images
from components.errors import BadInput
from components.train.schedule import SHARED_MEMORY, Wish, amount, schedule

WISH = Wish(
    trainer="hist_gradient_boosting",
    hyperparameters={},
    task="auto",
    device="auto",
    search={},
    train_image="",
    nodes=1,
    accelerator_type="nvidia.com/gpu",
    accelerator_count=0,
    resources={},
    node_selector={},
    tolerations=[],
    spot="",
)
GPU = replace(WISH, trainer="torch", accelerator_count=2)


@pytest.mark.parametrize(
    ("wish", "branch", "image"),
    [
        (WISH, "cpu", images.TRAIN_SKLEARN),
        (replace(WISH, trainer="torch"), "cpu", images.TRAIN_TORCH),
        (GPU, "gpu", images.TRAIN_TORCH_CUDA),
        (replace(WISH, trainer="keras"), "cpu", images.TRAIN_TENSORFLOW),
        (replace(GPU, trainer="keras"), "gpu", images.TRAIN_TENSORFLOW_CUDA),
        (replace(WISH, search={"trials": 8.0, "workers": 4.0}), "cpu search", images.TRAIN_SKLEARN),
        (replace(GPU, search={"trials": 8, "workers": 4}), "gpu search", images.TRAIN_TORCH_CUDA),
        (replace(GPU, search={"trials": 8}), "gpu", images.TRAIN_TORCH_CUDA),
        (replace(GPU, nodes=3), "nodes", images.TRAIN_TORCH_CUDA),
        (replace(WISH, trainer="mine.trainer:make", train_image="me/python-mine:1"), "cpu", "me/python-mine:1"),
    ],
)
def test_branch_and_image_follow_from_trainer_accelerators_search_and_nodes(wish, branch, image):
    made = schedule(wish)
    assert (made.branch, made.image) == (branch, image)
    assert made.accelerators == str(wish.accelerator_count)
    assert made.workers == ([0, 1, 2, 3] if "search" in branch else [])


def test_spot_nodes_are_added_to_what_the_user_asks_for():
    own = {"key": "team", "operator": "Exists"}
    made = schedule(replace(WISH, spot="gke", node_selector={"zone": "a"}, tolerations=[own]))
    assert made.node_selector == {"cloud.google.com/gke-spot": "true", "zone": "a"}
    assert [one["key"] for one in made.tolerations] == ["cloud.google.com/gke-spot", "team"]


def test_a_pod_with_accelerators_tolerates_how_their_nodes_are_tainted():
    made = schedule(replace(GPU, spot="gke"))
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert [one["key"] for one in made.tolerations] == ["cloud.google.com/gke-spot", "nvidia.com/gpu"]
    assert made.tolerations[1] == taint
    assert not schedule(WISH).tolerations


def test_resources_that_are_not_named_keep_their_default_and_numbers_are_quantities():
    made = schedule(replace(WISH, resources={"memory_limit": "64Gi", "cpu_limit": 8.0}))
    assert made.resources == {"cpu_request": "1", "cpu_limit": "8", "memory_request": "2Gi", "memory_limit": "64Gi"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"trainer": "hist_gradient_bosting"}, "did you mean 'hist_gradient_boosting'"),
        ({"trainer": "mine.trainer:make"}, "train_image"),
        ({"hyperparameters": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
        ({"hyperparameters": {"random_state": 1}}, "'seed'"),
        ({"search": {"workers": 4}}, "budget"),
        ({"search": {"trials": 4, "worker": 2}}, "worker"),
        ({"search": {"trials": 4, "workers": 0}}, "search.workers is 0"),
        ({"search": {"trials": 4}, "trainer": "torch", "nodes": 2}, "nodes to 1"),
        ({"device": "tpu"}, "auto, gpu, cpu"),
        ({"accelerator_count": 1}, "uses no accelerator"),
        ({"accelerator_count": 1, "trainer": "torch", "device": "cpu"}, 'device "cpu"'),
        ({"accelerator_count": 1, "trainer": "torch", "accelerator_type": ""}, "accelerator_type"),
        ({"accelerator_count": -1}, "at least 0"),
        ({"nodes": 2}, "trains in one pod"),
        ({"resources": {"gpu": "1"}}, "no 'gpu'"),
        ({"resources": {"memory_limit": "8 GB"}}, "resources.memory_limit is '8 GB'"),
        ({"resources": {"memory_limit": "1Gi", "memory_request": "1Gi"}}, "shared memory"),
        ({"resources": {"cpu_request": "8"}}, "more than its cpu_limit, 4"),
        ({"spot": "gcp"}, "no spot nodes called 'gcp'"),
    ],
)
def test_what_no_cluster_or_trainer_could_use_is_refused_in_one_sentence(changed, words):
    with pytest.raises(BadInput, match=re.escape(words)) as refused:
        schedule(replace(WISH, **changed))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [("2", 2), ("500m", 0.5), ("1.5Gi", 1.5 * 2**30), ("3Ti", 3 * 2**40), ("2k", 2000), ("7M", 7e6)],
)
def test_quantities_are_read_as_kubernetes_reads_them(quantity, value):
    assert amount("x", quantity) == value


@pytest.fixture(scope="module")
def compiled(package):
    """The package: its components with what KFP and Kubernetes are told of each, by component, and its graph."""
    spec, platform = yaml.safe_load_all(package.read_text())
    executors = spec["deploymentSpec"]["executors"]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return spec, {name.removeprefix("exec-"): (executors[name]["container"], pods[name]) for name in executors}


@pytest.fixture(scope="module")
def branches(compiled):
    """The components of each branch of the training, its iterations included, by the branch's name."""
    spec, _ = compiled
    dags = {name: part["dag"]["tasks"] for name, part in spec["components"].items() if "dag" in part}

    def components(name):
        for task in dags[name].values():
            inner = task["componentRef"]["name"]
            yield from components(inner) if inner in dags else [(inner.removeprefix("comp-"), task)]

    (around,) = [tasks for name, tasks in dags.items() if name.startswith("comp-condition-branches")]
    return {task["taskInfo"]["name"]: dict(components(task["componentRef"]["name"])) for task in around.values()}


def parameter(name):
    return f"{{{{$.inputs.parameters['pipelinechannel--{name}']}}}}"


def test_only_the_branches_on_gpus_ask_for_accelerators(compiled, branches):
    _, steps = compiled
    wanted = {"resourceType": parameter("accelerator_type"), "resourceCount": parameter("resolve-accelerators")}
    asking = {
        branch: {steps[name][0]["resources"].get("accelerator") == wanted for name in components}
        for branch, components in branches.items()
    }
    assert asking == {
        "on CPUs": {False},
        "on GPUs": {True},
        "search on CPUs": {False},
        "search on GPUs": {True},
        "in several pods": {True},
    }
    for name, (container, _) in steps.items():
        if not re.match(r"train|search", name):
            assert "accelerator" not in container.get("resources", {}), name


def test_each_training_runs_in_the_image_that_resolve_chose_and_a_jobs_launcher_in_the_small_one(compiled, branches):
    _, steps = compiled
    for branch, components in branches.items():
        for name in components:
            own = images.CONTROL if branch == "in several pods" else parameter("resolve-python_image")
            assert steps[name][0]["image"] == own, name


def test_requests_limits_nodes_and_tolerations_are_those_that_resolve_passes_on(compiled, branches):
    _, steps = compiled
    for name in (name for components in branches.values() for name in components):
        container, pod = steps[name]
        for ours, theirs in (
            ("cpu_request", "resourceCpuRequest"),
            ("cpu_limit", "resourceCpuLimit"),
            ("memory_request", "resourceMemoryRequest"),
            ("memory_limit", "resourceMemoryLimit"),
        ):
            assert container["resources"][theirs] == parameter(f"resolve-{ours}"), name
        selector = pod["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]
        (toleration,) = pod["tolerations"]
        assert selector == "pipelinechannel--resolve-node_selector", name
        assert toleration["tolerationJson"]["componentInputParameter"] == "pipelinechannel--resolve-tolerations", name


def test_whatever_a_step_refers_to_is_an_input_of_every_graph_around_it(compiled):
    """KFP 2.17 does not pass on what only resources refer to; its back end then fails, its local runner does not."""
    spec, _ = compiled
    for name, part in spec["components"].items():
        known = set(part.get("inputDefinitions", {}).get("parameters", {}))
        for task in part.get("dag", {}).get("tasks", {}).values():
            for given in task.get("inputs", {}).get("parameters", {}).values():
                assert given.get("componentInputParameter") in {None, *known}, (name, task["taskInfo"]["name"])


def test_training_pods_have_shared_memory_a_deadline_and_the_signing_key(compiled, branches):
    _, steps = compiled
    for branch, components in branches.items():
        for name in components:
            pod = steps[name][1]
            assert pod["activeDeadlineSeconds"] == str(2 * 24 * 3600), name
            assert pod["secretAsVolume"][0]["secretName"] == "sluiceway-signing", name
            assert pod["secretAsVolume"][0]["optional"], name
            if branch == "in several pods":
                continue  # the job's own pods have it, see test_train_trainjob_manifest
            (memory,) = pod["emptyDirMounts"]
            assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory"), name
            assert memory["sizeLimit"] == SHARED_MEMORY, name


def test_a_training_is_tried_again_with_growing_pauses_for_as_long_as_it_may_take(branches):
    for components in branches.values():
        for name, task in components.items():
            policy = task["retryPolicy"]
            assert policy["maxRetryCount"] == 5, name
            assert policy["backoffDuration"] == "10s", name
            assert policy["backoffFactor"] > 1, name
            # Argo counts from the start of the first attempt: an hour, KFP's default, ends retries of long trainings.
            assert int(policy["backoffMaxDuration"][:-1]) > 2 * 24 * 3600, name


def test_the_gate_takes_the_bundle_of_whichever_branch_ran(compiled, branches):
    spec, _ = compiled
    (name,) = [name for name in spec["components"] if name.startswith("comp-condition-branches")]
    (merged,) = spec["components"][name]["dag"]["outputs"]["artifacts"].values()
    assert len(merged["artifactSelectors"]) == len(branches) == 5
    (handler,) = [part for name, part in spec["components"].items() if name.startswith("comp-exit-handler")]
    model = handler["dag"]["tasks"]["evaluate"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
    assert model["producerTask"] == name.removeprefix("comp-")


def test_the_branches_exclude_each_other(compiled):
    spec, _ = compiled
    (name,) = [name for name in spec["components"] if name.startswith("comp-condition-branches")]
    conditions = [task["triggerPolicy"]["condition"] for task in spec["components"][name]["dag"]["tasks"].values()]
    for branch in ("cpu", "gpu", "cpu search", "gpu search", "nodes"):
        asked = [
            eval(  # the compiler's own text, as its local runner reads it
                condition.replace("inputs.parameter_values['pipelinechannel--resolve-Output']", repr(branch))
                .replace("&&", " and ")
                .replace("!(", "not (")
            )
            for condition in conditions
        ]
        assert asked.count(True) == 1, branch


def test_a_searchs_workers_share_a_list_and_come_before_the_training(branches):
    for branch in ("search on CPUs", "search on GPUs"):
        (train,) = [task for name, task in branches[branch].items() if name.startswith("train")]
        found = train["inputs"]["parameters"]["found"]["taskOutputParameter"]
        assert found["producerTask"].startswith("for-loop")


def test_no_input_of_a_training_has_a_name_that_kfp_gives_to_a_resource(compiled):
    """The compiler writes resources that are parameters over inputs of the same name, without a word."""
    spec, _ = compiled
    taken = {"base_image", "accelerator_type", "accelerator_count"}
    taken |= {f"{kind}_{side}" for kind in ("cpu", "memory") for side in ("request", "limit")}
    for name, part in spec["components"].items():
        if re.match(r"comp-(train|search)", name):
            assert not taken & set(part["inputDefinitions"]["parameters"]), name
