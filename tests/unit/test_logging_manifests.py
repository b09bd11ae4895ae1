"""The log agent's manifests: what its configuration reads is there, and another store takes the place of Loki."""

import os
import re
import subprocess

import pytest
import yaml

from tests.manifests import FOLDER, kubectl

STORES = {"loki": ("logging",), "es": ("logging", "logging/elasticsearch")}


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    """By store, the objects by kind and name."""
    if not kubectl():
        pytest.skip("there is no kubectl from 1.22 on here to render the manifests with")
    return {store: rendered(tmp_path_factory.mktemp(store), components) for store, components in STORES.items()}


def rendered(folder, components):
    paths = [os.path.relpath(FOLDER / component, folder.resolve()) for component in components]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"components": paths}))
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}


@pytest.mark.parametrize("store", STORES)
def test_what_the_configuration_reads_is_mounted_and_set(agents, store):
    objects = agents[store]
    pod = objects["DaemonSet", "sluiceway-log-agent"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (name,) = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    files = objects["ConfigMap", name]["data"]
    assert set(files) == {"fluent-bit.yaml", "output.yaml", "lines.lua"}
    given = {entry["name"] for entry in container["env"]} | set(objects["ConfigMap", "sluiceway-log-store"]["data"])
    assert set(re.findall(r"\$\{(\w+)\}", files["fluent-bit.yaml"] + files["output.yaml"])) == given
    written = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert written == ["/var/lib/sluiceway-log-agent"]  # its root is read-only
    assert dict(entry.values() for entry in container["env"] if "value" in entry)["STATE"] == written[0]


@pytest.mark.parametrize("store", STORES)
def test_lines_go_to_one_store(agents, store):
    objects = agents[store]
    (files,) = [
        one["data"] for (kind, name), one in objects.items() if kind == "ConfigMap" and "output.yaml" in one["data"]
    ]
    (output,) = yaml.safe_load(files["output.yaml"])["pipeline"]["outputs"]
    assert output["name"] == store
    assert output["alias"] == "logs"  # what SluicewayLogsLost looks at
    assert output["storage.total_limit_size"]
    assert objects["ConfigMap", "sluiceway-log-store"]["data"]["STORE_PORT"] == {"loki": "3100", "es": "9200"}[store]
