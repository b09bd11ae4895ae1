"""Writes a page per component from its own spec: ``make docs``; and tables of rules and packages into their guides."""

import re
from pathlib import Path

from components.files import write_text
from pipelines.lint.rules import RULES
from pipelines.lint.show import table
from pipelines.new.pages import found, page
from pipelines.package_table import tables
from pipelines.project import project

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "components"
LINT = ROOT / "docs" / "lint.md"
PACKAGES = ROOT / "docs" / "packages.md"
GOLDEN = ROOT / "tests" / "golden"
_TABLE = re.compile(r"(?<=<!-- rules -->\n).*(?=<!-- end of rules -->)", re.DOTALL)
_PACKAGES = re.compile(r"(?<=<!-- packages -->\n).*(?=<!-- end of packages -->)", re.DOTALL)


def pages() -> dict[Path, str]:
    """What every page that is written says, by its path."""
    here = project(ROOT)
    made = {FOLDER / f"{name}.md": page("components", name, here) for name in found(ROOT / "components")}
    rules = "\n".join(table(RULES)) + "\n"
    golden = "".join(f"\n## {path.stem}\n\n{tables(path)}" for path in sorted(GOLDEN.glob("*.yaml"))) + "\n"
    return made | {
        LINT: _TABLE.sub(lambda _: rules, LINT.read_text(encoding="utf-8")),
        PACKAGES: _PACKAGES.sub(lambda _: golden, PACKAGES.read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        write_text(path, text)
        print(path)
