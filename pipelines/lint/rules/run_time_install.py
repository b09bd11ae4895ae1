"""SW001: nothing is installed when a step starts."""

import ast
import re
from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package, Task
from pipelines.lint.rule import Found, Rule, about
from pipelines.project import Project

_INSTALL = re.compile(
    r"\b(?:pip3?|conda|mamba|micromamba|poetry|npm|apt|apt-get|yum|dnf|apk|gem)\s+(?:-\S+\s+)*(?:install|add)\b[^;&|\n]*"
)
_KFP_ITSELF = re.compile(r"'(kfp(?:==|\[|>|<|@|')[^ ]*)")
_QUOTED = re.compile(r"'([^']+)'")
_STARTS = {"run", "call", "check_call", "check_output", "Popen", "system", "popen", "main", "getoutput", "execvp"}


def _check(package: Package, _: Project) -> Iterator[Found]:
    for task in package.containers():
        installs = list(_installs(task))
        if not installs:
            continue
        kfp = any(_KFP_ITSELF.search(text) for text in installs)
        others = [word for text in installs for word in _packages(text)]
        advice = [
            *(["set install_kfp_package=False and have kfp in the image"] if kfp else []),
            *([f"put {', '.join(others)} into the image instead of packages_to_install"] if others else []),
        ] or ["put what it installs into the image"]
        shown = installs[0] if len(installs[0]) < 60 else f"{installs[0][:57]}..."
        yield about(task, task.container["command"], f"installs when it starts ({shown}): {' and '.join(advice)}.")


def _installs(task: Task) -> Iterator[str]:
    """Every command that installs something, in the scripts that a container starts with and in its Python source."""
    parts = [part.text() for field in ("command", "args") for part in task.container[field].each()]
    shell = []
    for part in parts:
        tree = _python(part)
        if tree is None:
            shell.append(part)
        else:
            yield from _from_python(tree)
    for match in _INSTALL.finditer(" ".join(shell)):
        if "python3-pip" not in match[0]:  # what kfp's own script falls back to where there is no pip
            yield " ".join(match[0].split())


def _python(text: str) -> ast.Module | None:
    if "import " not in text and "def " not in text:
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _from_python(tree: ast.Module) -> Iterator[str]:
    """Calls that start a process which installs; words in texts and docstrings are none."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name not in _STARTS:
            continue
        words = [
            node.value
            for arg in call.args
            for node in ast.walk(arg)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        if match := _INSTALL.search(" ".join(words)):
            yield " ".join(match[0].split())


def _packages(text: str) -> list[str]:
    if "--no-warn-script-location" not in text:
        return []  # not kfp's own script, so nobody gave packages_to_install
    return [word for word in _QUOTED.findall(text) if not word.startswith(("kfp==", "--", "typing-extensions>=3.7.4"))]


RULE = Rule(
    id="SW001",
    name="run-time-install",
    severity=Severity.ERROR,
    summary="Nothing is installed when a step starts.",
    why="""A step that runs `pip install` gets what the index serves that minute: not what was tested. It is slow, on
every start and every retry; it fails when the index is down or the cluster has no way out; it runs code that nobody
scanned; and with a read-only root file system it fails always. KFP's cache does not see it: the key knows the image,
not what was installed over it.

kfp installs itself into every lightweight component, and `packages_to_install` on top. Build an image that has both:

```python
@dsl.component(base_image="registry.example.com/train@sha256:…", install_kfp_package=False)
```""",
    check=_check,
)
