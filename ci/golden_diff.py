"""What a change does to the compiled packages, as Markdown for a pull or merge request.

``python -m ci.golden_diff BUILD --base origin/main`` compares the packages in a folder with the reviewed ones in
``tests/golden`` of a git commit: what a person asks first (parameters, steps, images), then the whole diff.
"""

import argparse
import difflib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

GOLDEN = "tests/golden"
MARKER = "<!-- sluiceway: golden diff -->"
LONGEST = 60_000
"""Of a comment: GitHub takes 65,536 characters."""
_PER_FILE = 15_000
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C is ten times faster, and not in every build."""


def reviewed(base: str) -> dict[str, str]:
    """The reviewed packages by name: of a commit, or of the working tree when none is named."""
    if not base:
        return texts(Path(GOLDEN))
    listed = _git("ls-tree", "-r", "--name-only", base, "--", f"{GOLDEN}/")
    names = [name for name in listed.splitlines() if name.endswith(".yaml")]
    return {name.removeprefix(f"{GOLDEN}/"): _git("show", f"{base}:{name}") for name in names}


def texts(folder: Path) -> dict[str, str]:
    """The packages under a folder by their path in it."""
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in sorted(folder.rglob("*.yaml"))}


def report(before: dict[str, str], after: dict[str, str]) -> str:
    """The comment: one section for each package that differs."""
    changed = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    if not changed:
        return f"{MARKER}\n### Compiled packages\nNo package changes.\n"
    head = f"{MARKER}\n### Compiled packages\n{len(changed)} of {len(before | after)} packages change.\n"
    parts = [_section(name, before.get(name, ""), after.get(name, "")) for name in changed]
    text = head + "".join(f"\n{facts}{whole}" for facts, whole in parts)
    if len(text) > LONGEST:
        text = (
            head + "".join(f"\n{facts}" for facts, _ in parts) + "\nThe diff is too long to show: `make golden-diff`.\n"
        )
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit("\n", 1)[0] + "\n…\n"


def _section(name: str, before: str, after: str) -> tuple[str, str]:
    verb = "is new" if not before else "is removed" if not after else "changes"
    facts = f"#### `{name}` {verb}\n" + "".join(f"- {line}\n" for line in _facts(_read(before), _read(after)))
    lines = list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), "reviewed", "this change", lineterm="", n=2)
    )
    added, gone = (sum(line.startswith(mark) for line in lines[2:]) for mark in "+-")
    # The code of a component is part of the diff, and may hold fences of its own.
    diff = "\n".join(line.replace("```", "'''") for line in lines)
    if len(diff) > _PER_FILE:
        diff = diff[:_PER_FILE].rsplit("\n", 1)[0] + "\n…"
    return facts, f"<details><summary>diff: +{added} -{gone} lines</summary>\n\n```diff\n{diff}\n```\n</details>\n"


def _facts(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> Iterator[str]:
    for what in sorted(before | after):
        old, new = before.get(what, {}), after.get(what, {})
        yield from (f"{what} `{name}` is new{_value(new[name])}" for name in new if name not in old)
        yield from (f"{what} `{name}` is **removed**" for name in old if name not in new)
        yield from (
            f"{what} `{name}`: `{old[name]}` → `{new[name]}`" for name in new if name in old and old[name] != new[name]
        )


def _value(value: Any) -> str:
    return f": `{value}`" if value != "" else ""


def _read(text: str) -> dict[str, dict[str, Any]]:
    """What is said of a package in the list above its diff; nothing for a file that is no package."""
    documents = [one for one in yaml.load_all(text, _LOADER) if isinstance(one, dict)]
    package = next((one for one in documents if "deploymentSpec" in one), None)
    if package is None:
        return {}
    declared = package["root"].get("inputDefinitions", {}).get("parameters", {})
    executors = package["deploymentSpec"].get("executors", {})
    return {
        "parameter": {name: _declared(spec) for name, spec in declared.items()},
        "step": dict.fromkeys(package.get("components", {}), ""),
        "image": {
            name.removeprefix("exec-"): spec["container"]["image"]
            for name, spec in executors.items()
            if "container" in spec
        },
    }


def _declared(spec: dict[str, Any]) -> str:
    kind = str(spec["parameterType"]).lower().removeprefix("number_")
    return f"{kind} = {spec['defaultValue']!r}" if "defaultValue" in spec else kind


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Write the comment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="folder with the packages as they compile now")
    parser.add_argument("--base", default="", help="git commit whose reviewed packages they are compared with")
    parser.add_argument("--out", type=Path, help="file to write; standard output when it is left out")
    given = parser.parse_args()
    try:
        before = reviewed(given.base)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"Cannot read {GOLDEN} of {given.base}: {error.stderr.strip()} (fetch it first).\n")
        return 1
    text = report(before, texts(given.build))
    if given.out:
        given.out.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
