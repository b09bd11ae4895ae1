"""The components' pages are what their specs say."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_components_page_is_written_from_its_spec():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, text in generate.pages().items():
        page = generate.FOLDER / name
        assert page.read_text() == text + "\n", f"{page} is out of date: make docs"


def test_every_parameter_and_artifact_is_described():
    for page in (ROOT / "docs" / "components").glob("*.md"):
        for line in page.read_text().splitlines():
            assert not line.startswith("| `") or not line.endswith("|  |"), f"{page.name}: {line}"
