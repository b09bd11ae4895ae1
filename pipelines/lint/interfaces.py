"""Interfaces of a pipeline and its components: read from a package, kept at a release, compared."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import BadInput
from components.files import write_json
from pipelines.lint.package import INJECTED, Package
from pipelines.lint.spot import Spot
from pipelines.lint.versions import allows_breaking

PIPELINE = "(pipeline)"
"""Stands among the components' names for the pipeline, which may be called like one of them."""

_ANY = "system.Artifact"


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        type: KFP's name of a parameter's type or an artifact's schema.
        required: whether an input must be given.
    """

    type: str
    required: bool = False


@dataclass(frozen=True)
class Interface:
    """What a pipeline or component takes and gives."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]


@dataclass(frozen=True)
class Located:
    """An interface and where the package declares it."""

    interface: Interface
    spot: Spot

    def line(self, subject: str) -> int:
        """The line of an input or output; of the whole for one that is not there."""
        for side in ("inputDefinitions", "outputDefinitions"):
            for kind in ("parameters", "artifacts"):
                if self.spot[side][kind][subject]:
                    return self.spot[side][kind][subject].line
        return self.spot.line


@dataclass(frozen=True)
class Released:
    """The interfaces of a pipeline's last release."""

    pipeline: str
    version: str
    interfaces: dict[str, Interface]


@dataclass(frozen=True)
class Change:
    """A change that breaks whoever uses an interface.

    Attributes:
        subject: the input or output.
        text: what happened, to go on after "Component train".
    """

    subject: str
    text: str


def interfaces_of(package: Package) -> dict[str, Located]:
    """The pipeline's own interface, and its components' by their names."""
    found = {PIPELINE: Located(_interface(package.spec["root"]), package.spec["root"])}
    for task in package.tasks:
        here = Located(_interface(task.component), task.component)
        name = task.function
        if name in found and found[name].interface != here.interface:
            name = task.name  # another component of the same function name
        found.setdefault(name, here)
    return found


def _interface(spot: Spot) -> Interface:
    return Interface(dict(_ports(spot["inputDefinitions"])), dict(_ports(spot["outputDefinitions"])))


def _ports(spot: Spot) -> Iterator[tuple[str, Port]]:
    for kind in ("artifacts", "parameters"):
        for name, spec in spot[kind].items():
            if not name.startswith(INJECTED):
                title = spec["artifactType"]["schemaTitle"] or spec["artifactType"]["instanceSchema"]
                type_ = spec["parameterType"].text() or title.text() or _ANY
                optional = spec["isOptional"].value is True or bool(spec["defaultValue"])
                yield name, Port(f"list of {type_}" if spec["isArtifactList"].value else type_, not optional)


def breaks(before: Interface, now: Interface) -> Iterator[Change]:
    """What of a change breaks whoever uses the interface."""
    for name, port in before.inputs.items():
        new = now.inputs.get(name)
        if new is None:
            yield Change(name, f"no longer takes {name}{_renamed(name, port, before.inputs, now.inputs)}")
        elif new.type not in (port.type, _ANY if "." in port.type else port.type):
            yield Change(name, f"takes {name} as {new.type}, not {port.type},")
        elif new.required and not port.required:
            yield Change(name, f"now requires {name}")
    for name, port in now.inputs.items():
        if name not in before.inputs and port.required:
            yield Change(name, f"requires the new input {name}")
    for name, port in before.outputs.items():
        new = now.outputs.get(name)
        if new is None:
            yield Change(name, f"no longer gives {name}{_renamed(name, port, before.outputs, now.outputs)}")
        elif new.type != port.type and port.type != _ANY:
            yield Change(name, f"gives {name} as {new.type}, not {port.type},")


def _renamed(name: str, port: Port, before: dict[str, Port], now: dict[str, Port]) -> str:
    new = [other for other, one in now.items() if other not in before and one.type == port.type]
    near = new if len(new) == 1 else difflib.get_close_matches(name, new, n=1, cutoff=0.4)
    return f" (renamed to {near[0]}?)" if near else ""


def released(folder: Path, pipeline: str) -> Released | None:
    """Read what a pipeline's last release promised; None where it has had none.

    Raises:
        BadInput: the file is not what ``sluiceway lint --release`` writes.
    """
    path = folder / f"{pipeline}.json"
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        interfaces = {
            name: Interface(_kept(one["inputs"]), _kept(one["outputs"])) for name, one in kept["interfaces"].items()
        }
        return Released(str(kept["pipeline"]), str(kept["version"]), interfaces)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is not what `sluiceway lint --release` writes: take it back from the last release."
        ) from error


def _kept(ports: dict[str, Any]) -> dict[str, Port]:
    return {name: Port(str(port["type"]), bool(port.get("required", False))) for name, port in ports.items()}


def release(package: Package, folder: Path, version: str) -> Path:
    """Write the interfaces of a package as those of a release.

    Raises:
        BadInput: a release of the same or a later version has promised something else.
    """
    now = {name: located.interface for name, located in interfaces_of(package).items()}
    before = released(folder, package.name)
    if before is not None and before.version == version and before.interfaces != now:
        raise BadInput(
            f"{package.name} {version} was released with another interface: raise version under [project] in "
            "pyproject.toml."
        )
    if before is not None and not allows_breaking(before.version, version):
        for name in before.interfaces.keys() & now.keys():
            for change in breaks(before.interfaces[name], now[name]):
                raise BadInput(
                    f"{package.name}: {name} {change.text} since {before.version}, which {version} does not allow; "
                    "`sluiceway lint` says more."
                )
    path = folder / f"{package.name}.json"
    interfaces = {
        name: {"inputs": _plain(one.inputs), "outputs": _plain(one.outputs)} for name, one in sorted(now.items())
    }
    write_json(path, {"pipeline": package.name, "version": version, "interfaces": interfaces})
    return path


def _plain(ports: dict[str, Port]) -> dict[str, Any]:
    return {
        name: {"type": port.type, **({"required": True} if port.required else {})}
        for name, port in sorted(ports.items())
    }
