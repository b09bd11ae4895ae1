"""What a step can import: its own modules and the libraries of others, read from the sources without running them."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("components", "serving")
_REFERENCE = re.compile(rf"({'|'.join(OURS)})(\.\w+)+(?=$|:)")
_TYPING = "TYPE_CHECKING"


@dataclass(frozen=True)
class Imports:
    """What a piece of source imports, at its top or wherever it runs."""

    ours: frozenset[str]
    others: frozenset[str]


def reachable(entries: set[str]) -> tuple[set[str], dict[str, set[str]]]:
    """Our modules that these lead to, and each library's module with those of ours that import it."""
    seen: set[str] = set()
    others: dict[str, set[str]] = {}
    left = list(entries)
    while left:
        module = left.pop()
        if module in seen:
            continue
        seen.add(module)
        found = of_module(module)
        for library in found.others:
            others.setdefault(library, set()).add(module)
        left += found.ours
    return seen, others


@cache
def of_module(module: str) -> Imports:
    """What one of our modules imports."""
    return of_source(_file(module).read_text("utf-8"))


def of_source(source: str) -> Imports:
    """What a source imports; what only type checkers read is left out."""
    ours: set[str] = set()
    others: set[str] = set()
    for name in _names(ast.parse(source)):
        top = name.split(".")[0]
        if top in OURS:
            parts = name.split(".")
            ours.update(m for n in range(1, len(parts) + 1) if _is_module(m := ".".join(parts[:n])))
        elif top not in sys.stdlib_module_names:
            others.add(name)
    return Imports(frozenset(ours), frozenset(others))


def _names(tree: ast.AST) -> Iterator[str]:
    """Names of imported modules, and of ours that a text names, such as an argument of ``python -m``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _TYPING in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            ours = node.module.split(".")[0] in OURS
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if ours else [node.module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _REFERENCE.match(node.value):
            yield node.value.partition(":")[0]
        yield from _names(node)


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
