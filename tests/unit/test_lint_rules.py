"""Each rule of the lint, on a package that kfp compiled from a small pipeline which breaks that rule and no other."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kfp import compiler, dsl, kubernetes

from pipelines.lint.check import lint
from pipelines.lint.package import read
from pipelines.lint.rules import RULES
from pipelines.lint.undecided import undecided
from pipelines.project import Project

IMAGE = f"registry.example.com/step@sha256:{'a' * 64}"
PROJECT = Project(file=Path("pyproject.toml"))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def step(x: str) -> str:
    """Say pip install nothing."""
    return x


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def send(x: str) -> None:
    print(x)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def parts(x: str) -> list:
    return [x]


def sound(task, *, cached=False):
    """What every task should be told."""
    task.set_caching_options(cached)
    task.set_cpu_request("500m").set_cpu_limit("1").set_memory_request("1Gi").set_memory_limit("2Gi")
    task.set_retry(2, backoff_duration="10s", backoff_max_duration="2h")
    kubernetes.set_timeout(task, 3600)
    return task


def with_gpu(task):
    sound(task).set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", "1Gi")
    return task


def forget(task, field):
    """Take back what the platform's part of the package says about a task."""
    del task.platform_config["kubernetes"][field]


def all_is_said(x: str):
    with dsl.ParallelFor(sound(parts(x=x), cached=True).output, parallelism=2) as part:
        with_gpu(step(x=part))
    sound(send(x=x))


def installs_kfp(x: str):
    @dsl.component(base_image=IMAGE, packages_to_install=["pandas==2.3.0"])
    def load(x: str) -> str:
        return x

    sound(load(x=x))


def installs_in_a_script(x: str):
    @dsl.container_component
    def script(x: str):
        return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", "pip install --upgrade pandas && run"], args=[x])

    sound(script(x=x))


def installs_in_its_code(x: str):
    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def load(x: str) -> str:
        import subprocess
        import sys

        subprocess.run([sys.executable, "-m", "pip", "install", "pandas"], check=True)
        return x

    sound(load(x=x))


def image_without_a_tag(x: str):
    sound(step(x=x)).set_container_image("registry.example.com:5000/step")


def latest_image(x: str):
    sound(step(x=x)).set_container_image("step:latest")


def tag_that_moves(x: str):
    sound(step(x=x)).set_container_image("python:3.11")


def exact_tag(x: str):
    sound(step(x=x)).set_container_image("registry.example.com/step:1.4.2-cuda")


def image_of_the_run(x: str):
    name = sound(step(x=x)).output
    task = sound(step(x=x))
    task.set_container_image(name)


def no_resources(x: str):
    task = step(x=x).set_caching_options(False).set_retry(1)
    kubernetes.set_timeout(task, 60)


def no_memory_limit(x: str):
    task = step(x=x).set_caching_options(False).set_retry(1)
    task.set_cpu_request("1").set_cpu_limit("1").set_memory_request("1Gi")
    kubernetes.set_timeout(task, 60)


def request_above_limit(x: str):
    sound(step(x=x)).set_memory_request("3Gi")


def no_retry(x: str):
    task = step(x=x).set_caching_options(False)
    task.set_cpu_request("1").set_cpu_limit("1").set_memory_request("1Gi").set_memory_limit("1Gi")
    kubernetes.set_timeout(task, 60)


def no_timeout(x: str):
    forget(sound(step(x=x)), "activeDeadlineSeconds")


def retry_ends_before_the_attempt(x: str):
    kubernetes.set_timeout(sound(step(x=x)), 6 * 3600)


def nobody_decided_on_caching(x: str):
    sound(step(x=sound(step(x=x), cached=True).output), cached=True)


def cached_though_it_sends(x: str):
    sound(send(x=x), cached=True)


def cached_under_a_key_of_its_own(x: str):
    sound(step(x=x)).set_caching_options(True, cache_key="mine")


def cached_by_the_run(x: str):
    sound(step(x=f"{x} {dsl.PIPELINE_JOB_ID_PLACEHOLDER}"), cached=True)


def password_in_the_environment(x: str):
    sound(step(x=x)).set_env_variable("WAREHOUSE_PASSWORD", "hunter2")


def token_as_an_input(x: str):
    sound(step(x="gh" + "p_" + "Zx9" * 13))
    sound(step(x=x))


def key_in_the_code(x: str):
    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def ask(x: str) -> str:
        key = "AKIAIOSFODNN7EXAMPLE"
        return x + key

    sound(ask(x=x))


def gpu_without_toleration(x: str):
    forget(with_gpu(step(x=x)), "tolerations")


def gpu_without_shared_memory(x: str):
    forget(with_gpu(step(x=x)), "emptyDirMounts")


def shared_memory_without_a_limit(x: str):
    task = with_gpu(step(x=x))
    del task.platform_config["kubernetes"]["emptyDirMounts"][0]["sizeLimit"]


def shared_memory_as_large_as_the_limit(x: str):
    with_gpu(step(x=x)).set_memory_limit("1Gi")


def parameter_nobody_uses(x: str, y: str = ""):
    sound(step(x=x))


def loop_without_end(x: str):
    with dsl.ParallelFor(sound(parts(x=x)).output) as part:
        sound(step(x=part))


BROKEN = [
    (installs_kfp, "SW001", "put pandas==2.3.0 into the image"),
    (installs_in_a_script, "SW001", "pip install --upgrade pandas"),
    (installs_in_its_code, "SW001", "pip install pandas"),
    (image_without_a_tag, "SW002", "without a tag"),
    (latest_image, "SW002", "tag latest moves"),
    (tag_that_moves, "SW002", "tag 3.11 moves"),
    (exact_tag, "SW002", "a tag can be moved"),
    (image_of_the_run, "SW002", "output Output of task step"),
    (no_resources, "SW003", "set_cpu_request, set_cpu_limit, set_memory_request, set_memory_limit"),
    (no_memory_limit, "SW003", "call set_memory_limit on it"),
    (request_above_limit, "SW003", r"requests more memory \(3Gi\)"),
    (no_retry, "SW004", "set_retry"),
    (no_timeout, "SW005", "kubernetes.set_timeout"),
    (retry_ends_before_the_attempt, "SW006", "backoff_max_duration='43200s'"),
    (nobody_decided_on_caching, "SW007", "All 2 tasks"),
    (cached_though_it_sends, "SW008", "has no output"),
    (cached_under_a_key_of_its_own, "SW008", "cache key of its own"),
    (cached_by_the_run, "SW008", "differs in every run"),
    (password_in_the_environment, "SW009", "WAREHOUSE_PASSWORD"),
    (token_as_an_input, "SW009", "holds a GitHub token"),
    (key_in_the_code, "SW009", "holds an AWS access key"),
    (gpu_without_toleration, "SW010", "tolerates no taint"),
    (gpu_without_shared_memory, "SW011", "64 MB of shared memory"),
    (shared_memory_without_a_limit, "SW011", "without a limit"),
    (shared_memory_as_large_as_the_limit, "SW011", "may fill 1Gi"),
    (parameter_nobody_uses, "SW014", "Parameter y is used by no task"),
    (loop_without_end, "SW015", "dsl.ParallelFor a parallelism"),
]
OUTRIGHT = {"SW012", "SW013", "SW098", "SW099"}  # tested below and in the neighbouring files


def compiled(wire, path):
    """Compile a pipeline of which only what the wiring function does can be wrong."""
    wire.__doc__ = "Do.\n\nArgs:\n    x: What to do it with.\n    y: What else."
    pipeline = dsl.pipeline(name=wire.__name__.replace("_", "-"), description="A pipeline to lint.")(wire)
    compiler.Compiler().compile(pipeline, str(path))
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    wirings = [all_is_said, *(wire for wire, _, _ in BROKEN)]
    # kfp looks through the whole call stack for every setter of a task: in a thread it is short.
    with ThreadPoolExecutor(1) as thread:
        paths = thread.map(lambda wire: compiled(wire, folder / f"{wire.__name__}.yaml"), wirings)
    return {wire: read(path) for wire, path in zip(wirings, paths, strict=True)}


def test_a_package_in_which_all_is_said_has_no_finding(packages):
    assert lint([packages[all_is_said]], PROJECT).findings == ()


@pytest.mark.parametrize(("wire", "rule", "words"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_package_that_breaks_one_rule_has_its_finding_and_no_other(packages, wire, rule, words):
    (finding,) = lint([packages[wire]], PROJECT).findings
    assert finding.rule == rule
    assert re.search(words, finding.message)


def test_every_rule_is_broken_by_some_test():
    assert {rule for _, rule, _ in BROKEN} | OUTRIGHT == set(RULES)


def test_a_pipeline_and_parameters_without_description_are_told_of(tmp_path):
    def silent(x: str):
        sound(step(x=x))

    compiler.Compiler().compile(dsl.pipeline(name="silent")(silent), str(tmp_path / "silent.yaml"))
    found = lint([read(tmp_path / "silent.yaml")], PROJECT).findings
    assert [(one.rule, one.subject) for one in found] == [("SW013", "silent"), ("SW013", "x")]


def test_a_finding_names_the_line_to_look_at(packages):
    (finding,) = lint([packages[tag_that_moves]], PROJECT).findings
    line = Path(finding.file).read_text().splitlines()[finding.line - 1]
    assert line.strip() == "image: python:3.11"


def test_a_resource_that_a_parameter_or_task_gives_counts_as_said_unless_it_is_empty(tmp_path):
    @dsl.pipeline(name="inner")
    def inner(x: str, memory: str):
        sound(step(x=x)).set_memory_limit(memory)

    def asked(x: str, memory: str = "2Gi"):
        sound(step(x=x)).set_memory_limit(memory)

    def unsaid(x: str, memory: str = ""):
        sound(step(x=x)).set_memory_limit(memory)

    def of_a_task(x: str):
        sound(step(x=x)).set_memory_limit(sound(step(x=x)).output)

    def handed_down_empty(x: str):
        inner(x=x, memory="")

    for wire, rules in ((asked, []), (unsaid, ["SW003"]), (of_a_task, []), (handed_down_empty, ["SW003"])):
        package = read(compiled(wire, tmp_path / "package.yaml"))
        assert [one.rule for one in lint([package], PROJECT).findings if one.rule != "SW013"] == rules


def test_the_tasks_of_a_pipeline_in_a_pipeline_are_looked_at(tmp_path):
    @dsl.pipeline(name="inner")
    def inner(x: str) -> str:
        return sound(step(x=x)).set_container_image("step:latest").output

    def outer(x: str):
        inner(x=x)

    (finding,) = lint([read(compiled(outer, tmp_path / "outer.yaml"))], PROJECT).findings
    assert finding.rule == "SW002"


def test_a_manifest_for_kubernetes_is_a_package_too(tmp_path):
    wire = dsl.pipeline(name="latest", description="Said.")(latest_image)
    path = tmp_path / "manifest.yaml"
    compiler.Compiler().compile(wire, str(path), kubernetes_manifest_format=True)
    (finding,) = lint([read(path)], PROJECT).findings
    assert finding.rule == "SW002"
    assert "latest" in path.read_text().splitlines()[finding.line - 1]


def test_a_task_that_leaves_caching_to_kfp_is_found_in_the_source_where_the_package_no_longer_shows_it():
    @dsl.pipeline(name="half-said")
    def half_said(x: str):
        first = step(x=x).set_caching_options(True)
        with dsl.If(first.output == "a"):
            step(x=x).set_caching_options(False)
            send(x=x)

    assert undecided(half_said) == ["send"]
