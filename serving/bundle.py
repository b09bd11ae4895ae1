"""The model bundle: verify its files, load its model, predict from raw rows."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from components.errors import BadBundle, BadInput
from components.features import schema as features
from components.features.rowwise import compile_rows
from components.features.schema import FeatureSchema
from serving import inputs, signing
from serving.background import Background
from serving.inputs import Column, Columns
from serving.onnx_matrix import MatrixScorer
from serving.schema import ARCHITECTURE_FILE, FILE, NATIVE_FILES, ONNX_FILE, SIGNATURE_FILE, BundleManifest, FileDigest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Predictions = NDArray[np.float64]

_THREADS = "SLUICEWAY_SERVE_THREADS"


def digest_files(folder: Path) -> dict[str, FileDigest]:
    """Digest every file of a bundle except its manifest and its signature, by path relative to the bundle, sorted.

    Raises:
        BadBundle: the folder holds a symbolic link, or something that is neither a file nor a folder.
    """
    digests: dict[str, FileDigest] = {}
    for parent, folders, files in os.walk(folder):
        for name in sorted(folders) + sorted(files):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise BadBundle(f"The bundle {folder} holds a symbolic link, {relative}; a bundle holds only files.")
            if path.is_dir() or relative in (FILE, SIGNATURE_FILE):
                continue
            if not path.is_file():
                raise BadBundle(f"The bundle {folder} holds {relative}, which is not a regular file.")
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            digests[relative] = FileDigest(sha256=sha256, bytes=path.stat().st_size)
    return dict(sorted(digests.items()))


def verify(folder: Path) -> BundleManifest:
    """Check a bundle's files against its manifest: all there, none altered, none more.

    Where ``SLUICEWAY_VERIFY_KEY`` names a public key, the signature is checked too; see :mod:`serving.signing`.

    Raises:
        BadBundle: says which file is missing, altered or extra, or what is wrong with the manifest or the signature.
    """
    if not (folder / FILE).is_file() or (folder / FILE).is_symlink():
        raise BadBundle(f"{folder} is not a model bundle: it has no file {FILE}.")
    try:
        manifest = BundleManifest.read(folder)
    except (ValidationError, ValueError) as error:
        raise BadBundle(f"{folder / FILE} is not a valid manifest: {_first_line(error)}.") from error
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or path.as_posix() != name:
            raise BadBundle(f"{folder / FILE} names a path outside the bundle: {name!r}.")
    found = digest_files(folder)
    _compare(folder, manifest.files, found)
    needed = {features.FILE, ONNX_FILE if manifest.runtime == "onnx" else NATIVE_FILES[manifest.framework]}
    if manifest.framework == "torch":
        needed.add(ARCHITECTURE_FILE)
    if absent := sorted(needed - set(found)):
        raise BadBundle(f"The bundle {folder} lacks {', '.join(absent)}, which its runtime {manifest.runtime!r} needs.")
    signing.check_if_asked(folder)
    return manifest


def _compare(folder: Path, wanted: dict[str, FileDigest], found: dict[str, FileDigest]) -> None:
    complaints = {
        "missing": sorted(set(wanted) - set(found)),
        "not in the manifest": sorted(set(found) - set(wanted)),
        "altered": sorted(name for name in set(wanted) & set(found) if wanted[name] != found[name]),
    }
    said = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {what}" for what, names in complaints.items() if names
    ]
    if said:
        raise BadBundle(f"The bundle {folder} is not what was trained: {'; '.join(said)}. Train or fetch it again.")


def load(folder: Path) -> "Model":
    """Verify a bundle and load the model that its manifest says to serve.

    Only the library of that runtime is imported: scikit-learn stays out of a server that runs ONNX.

    Raises:
        BadBundle: the bundle does not verify, or its model holds something that is not allowed.
    """
    manifest = verify(folder)
    try:
        schema = FeatureSchema.read(folder)
    except (ValidationError, ValueError) as error:
        raise BadBundle(f"{folder / features.FILE} is not a valid feature schema: {_first_line(error)}.") from error
    try:
        return Model(manifest, schema, _scorer(folder, manifest, schema), Background.read(folder, schema))
    except BadInput as error:
        raise BadBundle(f"{folder / features.FILE} holds an expression that is none: {error}") from error
    except ModuleNotFoundError as error:
        raise BadBundle(
            f"{folder} is served by {manifest.framework} itself, since its ONNX graph does not hold parity, and "
            f"{error.name} is not installed here: use the image python-train-{manifest.framework}, install "
            f"sluiceway[{manifest.framework}], or train with a larger parity_tolerance."
        ) from error


def model_frame(frame: "pd.DataFrame", schema: FeatureSchema) -> "pd.DataFrame":
    """The frame that the model sees, in training and in serving alike.

    Numeric features are float64 with NaN for missing values; a timestamp is seconds since 1970, a boolean 0 or 1.
    Categorical features are ``str`` with the empty string for missing values. The native pipeline takes this frame. The
    ONNX graph has one input of shape (n, 1) per feature, named as the column: a float or double tensor for numeric, a
    string tensor for categorical features. Its outputs are label and probabilities (a tensor, no ZipMap) for
    classification, the value for regression.

    Args:
        frame: at least the schema's feature columns, (n, any).
        schema: names the features and their kinds.

    Returns:
        The feature columns in the schema's order, (n, number of features), with the index of ``frame``.

    Raises:
        BadInput: a numeric feature holds text that is not a number.
    """
    import pandas as pd

    names = [feature.name for feature in schema.features]
    inputs.require(names, list(frame.columns))
    columns = inputs.model_columns({name: inputs.from_pandas(frame[name]) for name in names}, schema)
    return pd.DataFrame(columns, columns=names, index=frame.index)


class Model:
    """A loaded bundle."""

    def __init__(
        self,
        manifest: BundleManifest,
        schema: FeatureSchema,
        scorer: "_Scorer",
        background: Background | None = None,
    ) -> None:
        """Keep the parts; :func:`load` makes them."""
        self.background = background
        self.manifest = manifest
        self.schema = schema
        self._scorer = scorer
        self._derive = compile_rows(schema)

    @property
    def runtime(self) -> Literal["onnx", "native"]:
        """What runs the model."""
        return self.manifest.runtime

    def predict(self, table: "pa.Table | pd.DataFrame") -> Predictions:
        """Predict from a table of raw input columns; other columns are ignored.

        Returns:
            Probabilities of shape (n, k), columns in the order of ``manifest.classes``; for regression values, (n,).

        Raises:
            BadInput: an input column is missing, or holds a value that does not fit; says column and row.
        """
        return self.predict_columns(inputs.columns_of(table, self.schema))

    def predict_columns(self, columns: Mapping[str, Sequence[Any] | Column]) -> Predictions:
        """Predict from raw input columns by name, all of one length; as :meth:`predict` otherwise."""
        return self.predict_typed(inputs.coerce(columns, self.schema))

    def predict_typed(self, typed: Columns) -> Predictions:
        """Predict from input columns as :func:`serving.inputs.coerce` gives them; as :meth:`predict` otherwise."""
        rows = len(next(iter(typed.values()))) if typed else 0
        if rows == 0:
            return self.no_predictions()
        return self._scorer.score(inputs.model_columns(self._derive(typed) if self._derive else typed, self.schema))

    def no_predictions(self) -> Predictions:
        """What is predicted for no rows at all."""
        return np.zeros((0,) if self.manifest.task == "regression" else (0, len(self.manifest.classes)))

    def matrix_scorer(self) -> "Callable[[NDArray[np.float64]], Predictions] | None":
        """Scores a matrix (n, number of inputs) of typed numbers without a detour through columns.

        Returns:
            None unless an ONNX graph takes every feature as a number, and every feature is an input as it is.
        """
        if self._derive or not isinstance(self._scorer, _Onnx):
            return None
        places = {column.name: place for place, column in enumerate(self.schema.inputs)}
        numbers = {column.name for column in self.schema.inputs if column.type in ("number", "boolean")}
        if not {feature.name for feature in self.schema.features} <= numbers:
            return None
        return self._scorer.matrix_scorer(places)

    def predict_frame(self, frame: "pd.DataFrame") -> Predictions:
        """Predict from the frame that :func:`model_frame` makes: the features, derived already.

        Raises:
            BadInput: a feature is missing, or holds text where a number belongs.
        """
        columns = model_frame(frame, self.schema)
        return self._scorer.score({str(name): columns[name].to_numpy() for name in columns})


def _scorer(folder: Path, manifest: BundleManifest, schema: FeatureSchema) -> "_Scorer":
    if manifest.runtime == "onnx" or manifest.framework == "onnx":
        return _Onnx(folder / ONNX_FILE, manifest, schema)
    if manifest.framework == "sklearn":
        return _Sklearn(folder / NATIVE_FILES["sklearn"], manifest)
    if manifest.framework == "torch":
        return _Torch(folder, manifest, schema)
    if manifest.framework == "tensorflow":
        return _Keras(folder / NATIVE_FILES["tensorflow"], manifest, schema)
    raise BadBundle(f"{folder} holds a {manifest.framework} model, which this server cannot run natively.")


class _Scorer(Protocol):
    def score(self, columns: Columns) -> Predictions:
        """Score the feature columns of :func:`serving.inputs.model_columns`."""


class _Onnx:
    """The ONNX graph, on one thread unless told otherwise: a server answers many small requests side by side."""

    def __init__(self, path: Path, manifest: BundleManifest, schema: FeatureSchema) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get(_THREADS, "1"))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise BadBundle(f"{path} does not load in onnxruntime: {_first_line(error)}") from error
        self._classes = len(manifest.classes)
        self._dtypes: dict[str, Any] = {}
        kinds = {feature.name: feature.kind for feature in schema.features}
        for given in self._session.get_inputs():
            if given.name not in kinds:
                raise BadBundle(f"{path} has an input {given.name!r} that is no feature of the bundle.")
            allowed = _ONNX_TYPES[kinds[given.name]]
            if given.type not in allowed:
                raise BadBundle(f"{path}: input {given.name!r} is {given.type}, but {kinds[given.name]} in the schema.")
            self._dtypes[given.name] = allowed[given.type]
        wanted = 1 if manifest.task == "regression" else 2
        outputs = [output.name for output in self._session.get_outputs()]
        if len(outputs) < wanted:
            raise BadBundle(f"{path} has {len(outputs)} outputs; {manifest.task} needs {wanted}.")
        self._output = outputs[wanted - 1]

    def score(self, columns: Columns) -> Predictions:
        feed = {name: columns[name].astype(dtype).reshape(-1, 1) for name, dtype in self._dtypes.items()}
        (scores,) = self._session.run([self._output], feed)
        return _shaped(scores, self._classes, "model.onnx")

    def matrix_scorer(self, places: Mapping[str, int]) -> "Callable[[NDArray[np.float64]], Predictions] | None":
        """As :meth:`Model.matrix_scorer`; ``places`` are the columns of the matrix by feature."""
        if len(set(self._dtypes.values())) != 1:
            return None
        (dtype,) = set(self._dtypes.values())
        names = tuple(self._dtypes)
        scored = MatrixScorer(self._session, names, [places[name] for name in names], dtype, self._output)
        classes = self._classes
        return lambda matrix: _shaped(scored(matrix).astype(np.float64), classes, "model.onnx")


_ONNX_TYPES: dict[str, dict[str, Any]] = {
    "numeric": {"tensor(float)": np.float32, "tensor(double)": np.float64},
    "categorical": {"tensor(string)": object},
}


class _Sklearn:
    """The scikit-learn pipeline."""

    def __init__(self, path: Path, manifest: BundleManifest) -> None:
        from serving.trust import load_native

        self._model = load_native(path)
        self._classes = len(manifest.classes)
        needed = "predict" if manifest.task == "regression" else "predict_proba"
        if not hasattr(self._model, needed):
            raise BadBundle(f"{path} holds a {type(self._model).__name__}, which cannot {needed}.")

    def score(self, columns: Columns) -> Predictions:
        import pandas as pd

        frame = pd.DataFrame(columns)
        if not self._classes:
            return _shaped(self._model.predict(frame), 0, NATIVE_FILES["sklearn"])
        return _shaped(self._model.predict_proba(frame), self._classes, NATIVE_FILES["sklearn"])


class _Torch:
    """The network of a torch bundle, on the CPU."""

    def __init__(self, folder: Path, manifest: BundleManifest, schema: FeatureSchema) -> None:
        from serving.torch_model import load as load_network

        self._model = load_network(folder, schema)
        self._classes = len(manifest.classes)

    def score(self, columns: Columns) -> Predictions:
        return _shaped(self._model.predict(columns), self._classes, NATIVE_FILES["torch"])


class _Keras:
    """The Keras model of a TensorFlow bundle."""

    def __init__(self, path: Path, manifest: BundleManifest, schema: FeatureSchema) -> None:
        from serving.keras_model import load as load_model

        self._model = load_model(path, schema)
        self._features = [feature.name for feature in schema.features]
        self._classes = len(manifest.classes)

    def score(self, columns: Columns) -> Predictions:
        scores = self._model.predict([columns[name] for name in self._features])
        return _shaped(scores, self._classes, NATIVE_FILES["tensorflow"])


def _shaped(scores: Any, classes: int, file: str) -> Predictions:
    values = np.asarray(scores, dtype=np.float64)
    if not classes:
        return values.reshape(-1)
    if values.ndim != 2 or values.shape[1] != classes:
        raise BadBundle(f"{file} gives scores of shape {values.shape}; the bundle names {classes} classes.")
    return values


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
