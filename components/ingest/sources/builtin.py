"""The real data sets that scikit-learn carries: `sklearn://breast_cancer` and three more.

The column to predict is called ``target``; for breast_cancer and wine it holds the class names.
"""

import hashlib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from components.errors import BadInput
from components.ingest.options import ReadOptions
from components.ingest.sources import SourceFile

_DATA = {
    "breast_cancer": ("breast_cancer.csv",),
    "wine": ("wine_data.csv",),
    "digits": ("digits.csv.gz",),
    "diabetes": ("diabetes_data_raw.csv.gz", "diabetes_target.csv.gz"),
}


class BuiltinSource:
    """An ``sklearn://`` URI."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Check the name; the tables need no options.

        Raises:
            BadInput: there is no such data set.
        """
        self._name = uri.partition("://")[2].strip("/")
        if self._name not in _DATA:
            raise BadInput(f"{uri}: there is no such built-in data set; choose one of {', '.join(_DATA)}.")

    def files(self) -> tuple[SourceFile, ...]:
        """Digest the package's data files where they lie, without importing scikit-learn (1.7 s)."""
        package = find_spec("sklearn")
        if package is None or package.origin is None:
            raise BadInput(f"sklearn://{self._name} needs scikit-learn, which is not installed.")
        data = Path(package.origin).parent / "datasets" / "data"
        digest = hashlib.sha256(f"sklearn {version('scikit-learn')} {self._name}\n".encode())
        for file in _DATA[self._name]:
            digest.update((data / file).read_bytes())
        size = sum((data / file).stat().st_size for file in _DATA[self._name])
        return (SourceFile(f"{self._name}.parquet", f"sha256:{digest.hexdigest()}", size),)

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Load the set and write it as one table."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from sklearn import datasets

        loaded = getattr(datasets, f"load_{self._name}")()
        columns = {str(name): loaded.data[:, index] for index, name in enumerate(loaded.feature_names)}
        target = loaded.target
        if self._name in ("breast_cancer", "wine"):
            target = [str(loaded.target_names[index]) for index in loaded.target]
        path = folder / files[0].name
        pq.write_table(pa.table({**columns, "target": target}), path)
        return [path]

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """An installed package does not change while a step runs."""
        return True

    def pinned(self) -> str:
        """The URI."""
        return f"sklearn://{self._name}"
