"""The uploader's Role holds what `sluiceway upload`, `schedule` and their kin ask of a multi-user KFP.

KFP authorizes each of its API's methods as a verb on a resource of its own: the table is from the sources of its API
server (backend/src/apiserver/server, version 2.17). Versions of a pipeline count as the pipeline, recurring runs as
jobs.
"""

import re
from pathlib import Path

from tests import manifests

ASKS = {
    "list_pipelines": ("pipelines", "list"),
    "list_pipeline_versions": ("pipelines", "list"),
    "get_pipeline": ("pipelines", "get"),
    "get_pipeline_version": ("pipelines", "get"),
    "upload_pipeline_version": ("pipelines", "create"),
    "delete_pipeline_version": ("pipelines", "delete"),
    "pipeline_service_create_pipeline": ("pipelines", "create"),
    "pipeline_service_get_pipeline": ("pipelines", "get"),
    "pipeline_service_get_pipeline_version": ("pipelines", "get"),
    "list_experiments": ("experiments", "list"),
    "get_experiment": ("experiments", "get"),
    "experiment_service_get_experiment": ("experiments", "get"),
    "experiment_service_create_experiment": ("experiments", "create"),
    "run_service_list_runs": ("runs", "list"),
    "run_service_get_run": ("runs", "get"),
    "run_service_create_run": ("runs", "create"),
    "run_service_retry_run": ("runs", "retry"),
    "run_service_terminate_run": ("runs", "terminate"),
    "list_runs": ("runs", "list"),
    "get_run": ("runs", "get"),
    "terminate_run": ("runs", "terminate"),
    "recurring_run_service_list_recurring_runs": ("jobs", "list"),
    "recurring_run_service_get_recurring_run": ("jobs", "get"),
    "recurring_run_service_create_recurring_run": ("jobs", "create"),
    "recurring_run_service_delete_recurring_run": ("jobs", "delete"),
    "recurring_run_service_enable_recurring_run": ("jobs", "enable"),
    "recurring_run_service_disable_recurring_run": ("jobs", "disable"),
}
FREE = {"get_user_namespace"}
"""What kfp's client does without asking, and what KFP does not authorize."""

WITHOUT_A_CALL = {
    ("experiments", "get"): "KFP looks up a run's experiment as whoever starts it",
}


def test_what_the_commands_ask_of_kfp_is_in_the_uploaders_role_and_nothing_else() -> None:
    (role,) = (one for one in manifests.overlay("dev") if manifests.named(one) == "Role kubeflow/sluiceway-uploader")
    may = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if rule["apiGroups"] == ["pipelines.kubeflow.org"]
    }
    asked = {ASKS[name] for name in called()}
    assert asked <= may, f"the Role lacks {asked - may}"
    assert may <= asked | set(WITHOUT_A_CALL), f"nothing asks for {may - asked - set(WITHOUT_A_CALL)}"


def called() -> set[str]:
    """The methods of KFP's API, and of kfp's client, that the code names."""
    source = "".join(path.read_text(encoding="utf-8") for path in Path("pipelines/server").glob("*.py"))
    generated = set(re.findall(r"\b((?:pipeline|experiment|run|recurring_run)_service_\w+)", source))
    own = {
        one or other for one, other in re.findall(r"\bconnection\.client\.(\w+)|\bclient\.([a-z]+_[a-z_]+)\(", source)
    }
    own -= {"experiments", "pipelines", "pipeline_uploads", "recurring_runs", "runs"}
    return (generated | own) - FREE
