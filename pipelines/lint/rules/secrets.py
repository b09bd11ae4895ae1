"""SW009: no secret in what KFP stores and shows."""

import re
from collections.abc import Iterator
from typing import Any

from pipelines.lint.findings import Severity
from pipelines.lint.package import INJECTED, Package
from pipelines.lint.rule import Found, Rule
from pipelines.lint.secret_text import secret_in, secret_name
from pipelines.lint.spot import Spot
from pipelines.project import Project

_SAID = re.compile(
    r"\b(passwords?|passphrase|api[ -]keys?|access keys?|private keys?|secret|bearer token|credentials?)\b", re.I
)
_NAMED = re.compile(
    r"\b(name|names|file|files|path|where|mounted|Kubernetes|environment|variable|vault|URI|no|never)\b", re.I
)
_INSTEAD = "mount a Kubernetes Secret with kubernetes.use_secret_as_env instead"


def _check(package: Package, _: Project) -> Iterator[Found]:
    yield from _parameters(package)
    for task in package.tasks:
        for name, given in task.node["inputs"]["parameters"].items():
            yield from _value(given["runtimeValue"]["constant"], task.name, f"Input {name} of task {task.name}")
        for variable in task.container["env"].each():
            name, value = variable["name"].text(), variable["value"]
            what = f"Environment variable {name} of task {task.name}"
            if secret_name(name) and value.text():
                yield Found(variable.line, task.name, f"{what} is written into the package: {_INSTEAD}.")
            else:
                yield from _value(value, task.name, what)
        for field in ("command", "args"):
            for part in task.container[field].each():
                if (kind := secret_in(part.text(), known=True)) is not None:
                    yield Found(
                        part.line, task.name, f"The code of task {task.name} holds {kind}: {_INSTEAD}, and revoke it."
                    )


def _parameters(package: Package) -> Iterator[Found]:
    """What the pipeline and its components take, by name, description and default; a name is told of once."""
    told: set[str] = set()
    places = [("Parameter", package.parameters)]
    places += [
        (f"Input of task {task.name}", task.component["inputDefinitions"]["parameters"]) for task in package.tasks
    ]
    for where, declared in places:
        for name, spec in declared.items():
            if name in told or name.startswith(INJECTED):
                continue
            what = f"{where} {name}"
            text = spec["parameterType"].text() in ("STRING", "STRUCT", "LIST")
            if text and secret_name(name):
                told.add(name)
                yield Found(
                    spec.line, name, f"{what} looks like a secret, and KFP stores and shows parameters: {_INSTEAD}."
                )
                continue
            said = " ".join(spec["description"].text().split())
            if text and (match := _SAID.search(said)) and not _NAMED.search(said):
                told.add(name)
                yield Found(
                    spec["description"].line,
                    name,
                    f"{what} is described with {match[0]!r}: if it takes one, {_INSTEAD}; if it takes where one is, "
                    "say so.",
                    Severity.WARNING,
                )
            for found in _value(spec["defaultValue"], name, f"The default of {what[0].lower()}{what[1:]}"):
                told.add(name)
                yield found


def _value(spot: Spot, subject: str, what: str) -> Iterator[Found]:
    for text in _texts(spot.plain()):
        if (kind := secret_in(text, known=True)) is not None:
            yield Found(spot.line, subject, f"{what} holds {kind}: {_INSTEAD}, and revoke it.")
        elif (kind := secret_in(text, known=False)) is not None:
            yield Found(spot.line, subject, f"{what} holds {kind}: if it is a secret, {_INSTEAD}.", Severity.WARNING)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if secret_name(str(key)) and isinstance(item, str) and item and "{{$" not in item:
                yield f"password={item}"
            else:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


RULE = Rule(
    id="SW009",
    name="secrets",
    severity=Severity.ERROR,
    summary="No secret in parameters, defaults, constants, environment variables or code.",
    why="""KFP keeps parameters in its database, shows them in its UI to whoever may see the run, copies them into
the metadata store and into pods' arguments, where logs pick them up. A package is a file that lies in a repository
and a bucket. A secret in any of these is known to all who can read them, for as long as they are kept.

```python
kubernetes.use_secret_as_env(task, secret_name="warehouse", secret_key_to_env={"password": "WAREHOUSE_PASSWORD"})
```
The step reads the variable. A parameter may say *which* Secret: call it `warehouse_secret_name`.

The rule goes by names (password, token, api_key, …), by descriptions, by the forms of well-known tokens and private
keys, and, as a warning, by texts that look random.""",
    check=_check,
)
