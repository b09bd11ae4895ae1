"""Compiled packages: written the same, byte for byte, on every machine, and read back for their parameters."""

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.errors import BadInput
from components.files import whole_file
from pipelines.catalog import Entry, catalog
from pipelines.pinning import Pins, pins

_TYPES = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool, "STRUCT": dict, "LIST": list}


@dataclass(frozen=True)
class Parameter:
    """A pipeline parameter as the package declares it."""

    name: str
    type: str
    description: str
    default: Any
    required: bool


def entry(name: str) -> Entry:
    """Look a pipeline up.

    Raises:
        BadInput: there is no such pipeline.
    """
    known = catalog()
    if name not in known:
        raise BadInput(f"There is no pipeline {name!r}: choose from {', '.join(known)}.")
    return known[name]


def compile_package(name: str, path: Path, pinned: Pins | None = None) -> None:
    """Compile a pipeline to KFP IR YAML, whole.

    Args:
        name: the pipeline's.
        path: where to.
        pinned: what stands for the images; None goes by ``images/lock.json`` where there is one.

    Raises:
        BadInput: there is no such pipeline, or the lock of the images is wrong or lacks one.
    """
    function = entry(name).function()
    pinned = pinned or pins()
    from kfp import compiler

    with whole_file(path) as aside:
        named = aside.with_suffix(".yaml")  # the compiler goes by the suffix
        compiler.Compiler().compile(function, package_path=str(named))
        named.rename(aside)
        aside.write_text(pinned.applied(aside.read_text(encoding="utf-8")), encoding="utf-8")


def check_caching_is_decided(name: str) -> None:
    """Look whether every task of a pipeline says if it is cached, which its package no longer shows.

    Raises:
        BadInput: there is no such pipeline, or a task of it does not say.
    """
    function = entry(name).function()
    from pipelines.lint.undecided import undecided

    if tasks := undecided(function):
        raise BadInput(
            f"Pipeline {name} does not say whether to cache {', '.join(tasks)}, and kfp does unless told otherwise: "
            "call set_caching_options(True) or (False) on each."
        )


def digest(path: Path) -> str:
    """The sha256 of a package, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def commit() -> str:
    """The git commit that this is run at: ``SLUICEWAY_GIT_COMMIT``, else the working folder's.

    It ends in ``-dirty`` where files differ from it; empty outside of a repository.
    """
    given = os.environ.get("SLUICEWAY_GIT_COMMIT", "")
    if given or not shutil.which("git"):
        return given
    asked = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def version_name(path: Path) -> str:
    """The name of a package as a pipeline's version: twelve digits of the git commit, then of the package's digest."""
    where, mark, _ = commit().partition("-dirty")
    return f"{where[:12] or 'no-commit'}{mark}-{digest(path)[:12]}"


def documents(path: Path) -> list[dict[str, Any]]:
    """A package's documents: the pipeline spec, and what is said of it for Kubernetes where anything is."""
    return list(yaml.load_all(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that a package takes, in its own order."""
    return parameters_of(documents(path)[0])


def parameters_of(spec: dict[str, Any]) -> dict[str, Parameter]:
    """The parameters that a pipeline spec takes, in its own order."""
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    return {
        name: Parameter(
            name,
            spec["parameterType"],
            spec.get("description", ""),
            spec.get("defaultValue"),
            not spec.get("isOptional", False) and "defaultValue" not in spec,
        )
        for name, spec in declared.items()
    }


def read_values(given: dict[str, str], known: dict[str, Parameter]) -> dict[str, Any]:
    """Turn ``--set name=text`` into typed values.

    Raises:
        BadInput: an unknown parameter, a text that is not of its type, or a required parameter left out.
    """
    import difflib

    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}."
            raise BadInput(f"There is no parameter {name!r}: {hint}")
        values[name] = _value(known[name], text)
    missing = [p.name for p in known.values() if p.required and p.name not in values]
    if missing:
        raise BadInput(f"Parameter {missing[0]} has no default: give it with --set {missing[0]}=…")
    return values


def _value(parameter: Parameter, text: str) -> Any:
    wanted = _TYPES[parameter.type]
    if wanted is str:
        return text
    try:
        value = json.loads(text.lower() if wanted is bool else text)
    except json.JSONDecodeError:
        value = None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        example = {int: "10", float: "0.5", bool: "true", dict: "'{\"max_iter\": 50}'", list: "'[10, 50, 100]'"}[wanted]
        raise BadInput(
            f"Parameter {parameter.name} takes a {parameter.type.lower().replace('_', ' ')}, not {text!r}; "
            f"for instance --set {parameter.name}={example}"
        )
    return value
