"""Whether every task of a pipeline says if it is cached, seen where a package no longer shows it: in the source."""

from collections.abc import Iterator
from typing import Any

from kfp import dsl
from kfp.dsl.pipeline_context import Pipeline


def undecided(pipeline: Any) -> list[str]:
    """The tasks that leave caching to kfp's default: those that change when the default does.

    A pipeline in a pipeline was compiled before, and is not looked into.

    Args:
        pipeline: what ``@dsl.pipeline`` made of a function.
    """
    default = Pipeline._execution_caching_default
    Pipeline._execution_caching_default = not default  # kfp has no other way to set it once it is imported
    try:
        other = dsl.pipeline(name=pipeline.name)(pipeline.pipeline_func)
    finally:
        Pipeline._execution_caching_default = default
    otherwise = dict(_cached(other.pipeline_spec))
    return [place[1] for place, cached in _cached(pipeline.pipeline_spec) if otherwise[place] != cached]


def _cached(spec: Any) -> Iterator[tuple[tuple[str, str], bool]]:
    """Whether each task that runs something is cached, by the component that it is in and its name."""
    groups = [("root", spec.root), *sorted(spec.components.items())]
    for group, component in groups:
        for name, task in component.dag.tasks.items():
            if spec.components[task.component_ref.name].executor_label:
                yield (group, name), task.caching_options.enable_cache
