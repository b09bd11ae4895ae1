"""The components' pages are what their specs say."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_components_page_is_written_from_its_spec_and_the_rules_table_from_the_rules():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    pages = generate.pages()
    assert len(pages) > 8
    for page, text in pages.items():
        assert page.read_text() == text, f"{page} is out of date: make docs"


def test_every_parameter_and_artifact_is_described():
    for page in (ROOT / "docs" / "components").glob("*.md"):
        for line in page.read_text().splitlines():
            assert not line.startswith("| `") or not line.endswith("|  |"), f"{page.name}: {line}"
