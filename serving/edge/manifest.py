"""What ``edge.json`` says: all that a client on a device needs to know of an exported model."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.features.schema import Encoding, InputType, Task
from serving.schema import FileDigest

FILE = "edge.json"
MODEL_FILE = "model.ort"
OPERATORS_FILE = "required_operators.config"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EdgeInput(_Frozen):
    """An input of the graph, a tensor (rows, 1).

    Attributes:
        name: of the input and of the column.
        dtype: of the tensor.
        takes: type of the raw column; ``derived`` where the device must compute it.
        expression: of a derived column, in the language of feature specs.
        encoding: what becomes of the expression's value, where it is a category to look up.
    """

    name: str
    dtype: Literal["float32", "float64", "string"]
    takes: InputType | Literal["derived"]
    expression: str = ""
    encoding: Encoding | None = None


class EdgeParity(_Frozen):
    """How far predictions are from the server's on the same rows, each sent alone.

    Attributes:
        rows: how many were compared.
        source: where they are from: ``background`` rows of the bundle, or a file.
        max_abs: largest difference.
        tolerance: largest difference allowed, of a probability or of a value.
    """

    rows: int
    source: str
    max_abs: float
    tolerance: float


class EdgeManifest(_Frozen):
    """What ``edge.json`` holds.

    Attributes:
        recipe_digest: which model it is, as in its bundle.
        bundle_sha256: of the ``bundle.json`` that it was made of.
        task: what it predicts.
        classes: in the order of the probabilities; empty for regression.
        file: the model.
        quantized: whether its layers are 8-bit integers.
        onnxruntime: version that wrote it; a device needs this one or newer.
        inputs: of the graph, in order.
        output: what holds probabilities (rows, classes), or values (rows, 1).
        parity: measured when it was written.
        files: digest and size of every other file.
    """

    version: Literal[1] = 1
    recipe_digest: str
    bundle_sha256: str
    task: Task
    classes: tuple[str, ...]
    file: str = MODEL_FILE
    quantized: bool
    onnxruntime: str
    inputs: tuple[EdgeInput, ...]
    output: str
    parity: EdgeParity
    files: dict[str, FileDigest]
