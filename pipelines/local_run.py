"""The process that executes a compiled package with KFP's local runner: ``python -m pipelines.local_run``.

It is a process of its own so that KFP's log can go to a file and so that a run can be ended whole. It leads its own
process group and ends the group when its parent dies, however that dies: no step outlives its run.
"""

import argparse
import contextlib
import ctypes
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the package given on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path)
    parser.add_argument("parameters", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    _end_with(options.parent)

    logging.basicConfig(level=logging.INFO)  # KFP says on the root logger which steps it kept from an earlier run
    from kfp import components, local

    _merge_artifacts_of_branches()
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(options.root),
        enable_caching=options.cache is not None,
        cache_root=str(options.cache) if options.cache else None,
    )
    pipeline = components.load_component_from_file(str(options.package))
    pipeline(**json.loads(options.parameters.read_text(encoding="utf-8")))


def _merge_artifacts_of_branches() -> None:
    """Let the local runner do what KFP's back end does: ``dsl.OneOf`` takes the artifact of the branch that ran.

    KFP 2.17's local runner merges the parameters of branches so, and refuses their artifacts.
    """
    from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils

    def merged(_cls: type, *, dag_outputs_spec: Any, io_store: Any) -> dict[str, Any]:
        return {
            name: from_the_branch_that_ran(list(spec.artifact_selectors), io_store)
            for name, spec in dag_outputs_spec.artifacts.items()
        }

    OrchestratorUtils.get_dag_output_artifacts = classmethod(merged)


def from_the_branch_that_ran(selectors: list[Any], io_store: Any) -> Any:
    """The artifact of the one branch that ran; ``io_store`` is KFP's memory of what tasks have made."""
    made = []
    for selector in selectors:
        with contextlib.suppress(ValueError):  # KFP's word for a task that did not run
            made.append(io_store.get_task_output(selector.producer_subtask, selector.output_artifact_key))
    if len(made) != 1:
        raise RuntimeError(f"{len(made)} of {len(selectors)} branches made an artifact that one of them must make.")
    return made[0]


def _end_with(parent: int) -> None:
    def end_group(*_signal: object) -> None:
        os.killpg(os.getpgrp(), signal.SIGKILL)

    signal.signal(signal.SIGTERM, end_group)
    if hasattr(signal, "SIGSTKFLT"):  # Linux: the kernel tells us when the parent is gone
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked to be told
        end_group()


if __name__ == "__main__":
    main()
