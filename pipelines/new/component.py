"""A new component: KFP face, plain Python, test and page."""

from pathlib import Path

from components.errors import BadInput
from pipelines.new.pages import page
from pipelines.new.repository import Names, Repository
from pipelines.new.writing import all_or_none, rendered


def new_component(repository: Repository, name: Names, image: str) -> list[Path]:
    """Write a component that does something small, passes the lint and its own tests.

    Args:
        repository: where to.
        name: its name.
        image: what its package's components run in; empty where the package says so already.

    Returns:
        What was written.

    Raises:
        BadInput: something of that name is there, or nobody said which image.
    """
    folder = repository.folder(repository.components) / name.module
    values = {"name": name, "components": repository.components, "ours": repository.ours}
    files = _first_files(repository, image) | {
        folder / "__init__.py": "",
        folder / "component.py": rendered("component.py", **values),
        folder / "run.py": rendered("run.py", **values),
        repository.tests / f"test_{name.module}.py": rendered("test_component.py", **values),
    }
    docs = repository.root / "docs" / "components" / f"{name.module}.md"
    with all_or_none(files):
        text = page(repository.components, name.module, repository.project)
        with all_or_none({docs: text}):
            return [*(path for path in files if path.name != "__init__.py"), docs]


def package_files(repository: Repository, package: str) -> dict[Path, str]:
    """The ``__init__.py`` that a package and those above it lack."""
    root = repository.project.import_root
    folder = repository.folder(package)
    missing = (one / "__init__.py" for one in (folder, *folder.parents) if one.is_relative_to(root) and one != root)
    return {path: "" for path in missing if not path.exists()}


def _first_files(repository: Repository, image: str) -> dict[Path, str]:
    """What the first component of a user's package comes with."""
    if repository.ours:
        return {}
    package = repository.folder(repository.components)
    files = package_files(repository, repository.components)
    images = package / "images.py"
    if not images.exists():
        if not image:
            raise BadInput(
                f"Nothing says which image {repository.package} runs in: give --image, one that has this repository "
                "and Sluiceway installed."
            )
        files[images] = rendered("images.py", image=image)
    elif image:
        raise BadInput(f"{repository.shown(images)} says which image components run in: change it there.")
    if not repository.project.file.exists():
        files[repository.project.file] = rendered("pyproject.toml", package=repository.package)
    return files
