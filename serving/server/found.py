"""The bundles that a path stands for: itself, or those in it, by name."""

from pathlib import Path

from components.errors import BadBundle
from serving.schema import FILE


def bundles_in(folder: Path) -> dict[str, Path]:
    """The bundles directly in a folder, by the names of theirs; hidden ones and links do not count."""
    found = (child for child in sorted(folder.iterdir()) if not child.name.startswith(".") and not child.is_symlink())
    return {child.name: child for child in found if (child / FILE).is_file()}


def models(path: Path, name: str = "") -> tuple[dict[str, Path], Path | None]:
    """The models to serve by name, and the folder that holds several bundles.

    Args:
        path: a bundle, or a folder of bundles.
        name: of the one bundle; its folder's by default.

    Returns:
        The folder is None where the path is one bundle.

    Raises:
        BadBundle: there is none.
    """
    if not path.is_dir():
        raise BadBundle(f"There is no folder {path}.")
    if name or (path / FILE).is_file():
        return {name or path.resolve().name: path}, None
    found = bundles_in(path)
    if not found:
        raise BadBundle(f"{path} is not a model bundle, and holds none: there is no file {FILE}.")
    return found, path
