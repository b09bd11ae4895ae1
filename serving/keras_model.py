"""Loads a Keras model that training wrote, and nothing else.

A ``.keras`` file names Python classes and functions, and Keras imports what it names: its ``safe_mode`` has been
bypassed more than once. So before Keras touches a file, its members, every class that its configuration names and the
links in its weights are held against a list. There is no prefix in the list: a new kind of layer is a new line here,
reviewed.

The list checks names, not sizes: a forged file can still ask for layers that do not fit into memory. The digests in
``bundle.json`` are what says that a file is the one that training wrote.
"""

import contextlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import BadBundle
from components.features.schema import FeatureSchema

CHUNK = 8192
"""Rows that are predicted at once."""

_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}

CLASSES: frozenset[str] = frozenset(
    {
        "keras.DTypePolicy",
        "keras.initializers.GlorotUniform",
        "keras.initializers.HeNormal",
        "keras.initializers.Ones",
        "keras.initializers.RandomNormal",
        "keras.initializers.Zeros",
        "keras.layers.Add",
        "keras.layers.Dense",
        "keras.layers.Dropout",
        "keras.layers.Embedding",
        "keras.layers.Flatten",
        "keras.layers.InputLayer",
        "keras.layers.LayerNormalization",
        "keras.layers.StringLookup",
        "keras.src.models.functional.Functional",
        "keras.src.ops.core.Cast",
        "keras.src.ops.nn.Sigmoid",
        "keras.src.ops.nn.Softmax",
        "keras.src.ops.numpy.Add",
        "keras.src.ops.numpy.Clip",
        "keras.src.ops.numpy.Concatenate",
        "keras.src.ops.numpy.Divide",
        "keras.src.ops.numpy.Isnan",
        "keras.src.ops.numpy.Multiply",
        "keras.src.ops.numpy.Subtract",
        "keras.src.ops.numpy.Take",
        "keras.src.ops.numpy.Where",
    }
)

_PLAIN = frozenset({"__keras_tensor__", "__numpy__"})
"""What Keras turns into a placeholder or an array of numbers, without importing anything."""


def tensorflow() -> Any:
    """Import TensorFlow without the dozen lines it prints, with Keras on it, and float32 that is float32.

    TF32, which TensorFlow uses on a GPU unless told otherwise, moves probabilities by up to 1e-3: a model would not
    give what its ONNX graph gives. Faster arithmetic is what bf16 is for.

    Raises:
        BadBundle: Keras is already there on another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet():
        import keras
        import tensorflow
    if keras.backend.backend() != "tensorflow":
        raise BadBundle(f"Keras runs on {keras.backend.backend()} in this process; this model needs TensorFlow.")
    tensorflow.get_logger().setLevel("ERROR")
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    return tensorflow


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what native code writes to standard error: TensorFlow's look for CUDA, whatever its log level."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


class KerasModel:
    """A Keras model that takes raw columns.

    Attributes:
        model: takes one ``(n, 1)`` tensor per feature, in the schema's order; float64 or string.
    """

    def __init__(self, model: Any) -> None:
        """Trace the model once, for any number of rows."""
        import tensorflow as tf

        self.model = model
        self._dtypes = [tf.as_dtype(given.dtype) for given in model.inputs]
        signature = [tf.TensorSpec((None, 1), dtype) for dtype in self._dtypes]
        self._call = tf.function(lambda *columns: model(list(columns), training=False), input_signature=signature)

    def predict(self, columns: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Predict from columns in the order of the features, each of ``(n,)``.

        Returns:
            Probabilities ``(n, classes)``, or values ``(n, 1)``.
        """
        import tensorflow as tf

        parts = []
        for start in range(0, len(columns[0]), CHUNK):
            given = [
                tf.constant(column[start : start + CHUNK].reshape(-1, 1), dtype)
                for column, dtype in zip(columns, self._dtypes, strict=True)
            ]
            parts.append(np.asarray(self._call(*given), "float64"))
        return np.concatenate(parts)


def load(path: Path, schema: FeatureSchema) -> KerasModel:
    """Load a model that holds nothing outside :data:`CLASSES`, to run on the CPU.

    Args:
        path: a ``.keras`` file.
        schema: the features that the model must take, in order.

    Raises:
        BadBundle: the file holds something else, is damaged, or takes other inputs.
    """
    check(path)
    _leave_gpus(tensorflow())
    import keras

    failures = (TypeError, ValueError, KeyError, AttributeError, IndexError, ImportError, OSError, NotImplementedError)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (*failures, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadBundle(f"{path} does not load as a Keras model: {reason} Train the model again.") from error
    wanted = ["float64" if feature.kind == "numeric" else "string" for feature in schema.features]
    found = [str(given.dtype) for given in getattr(model, "inputs", [])]
    if found != wanted:
        raise BadBundle(f"{path} takes {len(found)} inputs ({', '.join(found)}) that are not the bundle's features.")
    return KerasModel(model)


def _leave_gpus(tf: Any) -> None:
    """TensorFlow takes the memory of every GPU it sees; few rows at a time gain nothing from one."""
    with contextlib.suppress(RuntimeError):  # a training in this process has them in use
        tf.config.set_visible_devices([], "GPU")


def check(path: Path) -> None:
    """Refuse a file that Keras would import anything for that is not on the list.

    Raises:
        BadBundle: says which member, class or link.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
            config = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
    except (OSError, KeyError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise BadBundle(f"{path} is not a Keras file: {error}.") from error
    refused = sorted(set(_refused(config)))
    if refused:
        raise BadBundle(
            f"{path} holds what a model bundle may not hold: {', '.join(refused)}. "
            "Only models made by this suite's trainers are served."
        )
    _check_weights(path, weights)


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    names = [member.filename for member in archive.infolist()]
    extra = sorted({name for name in names if name not in _MEMBERS or names.count(name) > 1})
    if extra:
        raise BadBundle(f"{path} holds {', '.join(map(repr, extra))}, which no Keras model of this suite holds.")
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED:
            raise BadBundle(f"{path} holds {member.filename} compressed; Keras writes it as it is.")


def _refused(config: Any) -> Iterator[str]:
    """Every class, function or file that the configuration names outside the list."""
    left = [config]
    if not isinstance(config, dict) or "class_name" not in config:
        yield "a configuration without a model"
    while left:
        node = left.pop()
        if isinstance(node, list):
            left.extend(node)
        if not isinstance(node, dict):
            continue
        left.extend(node.values())
        if "class_name" in node or "registered_name" in node:
            yield from _refused_node(node)
        if "module_objects" in node or node.get("compile_config"):
            yield "a compiled model"
        if not isinstance(node.get("vocabulary", []), list):
            yield f"the vocabulary file {node['vocabulary']}"


def _refused_node(node: dict[str, Any]) -> Iterator[str]:
    name, module, registered = node.get("class_name"), node.get("module"), node.get("registered_name")
    if name in _PLAIN and module is None and registered is None:
        return
    if f"{module}.{name}" not in CLASSES:
        called = node.get("config") if name == "function" else name
        yield f"{module}.{called}" if module else str(called)
    elif registered not in (None, name):
        yield f"the registered name {registered}"


def _check_weights(path: Path, data: bytes) -> None:
    """Only plain arrays that lie in the file: HDF5 can point at other files, and unpack to any size."""
    import h5py  # type: ignore[import-untyped]  # it ships no type hints

    def look(group: Any) -> None:
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise BadBundle(f"{path}: the weights link elsewhere at {group.name}/{name}.")
            item = group[name]
            if isinstance(item, h5py.Group):
                look(item)
            elif not _is_plain(item):
                raise BadBundle(f"{path}: the weights {item.name} are not a plain array.")

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            look(file)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise BadBundle(f"{path}: the weights are damaged: {error}.") from error


def _is_plain(item: Any) -> bool:
    elsewhere = item.external or item.is_virtual
    return not elsewhere and not item.chunks and item.dtype.kind in "fiub" and item.id.get_storage_size() == item.nbytes
