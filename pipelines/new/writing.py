"""Files of a skeleton: all of them or none, and never over one that is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from components.errors import BadInput
from components.files import write_text

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Python and TOML, not HTML
    )


def rendered(template: str, **values: Any) -> str:
    """Fill a template."""
    return _environment().get_template(f"{template}.j2").render(**values)


@contextmanager
def all_or_none(files: dict[Path, str]) -> Iterator[None]:
    """Write files, and take them away again when the block fails.

    Raises:
        BadInput: one of them is there already.
    """
    if there := next((path for path in files if path.exists()), None):
        raise BadInput(f"{there} is there already: nothing was written; choose another name or remove it.")
    made: list[Path] = []
    try:
        for path, text in files.items():
            made += [folder for folder in reversed(path.parents) if not folder.exists()]
            write_text(path, text)
            made.append(path)
        yield
    except BaseException:
        for path in reversed(made):
            if path.is_dir():
                _remove_when_empty(path)
            else:
                path.unlink(missing_ok=True)
        raise


def _remove_when_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
