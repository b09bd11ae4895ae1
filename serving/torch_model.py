"""A torch bundle's model: plain data that says what the network is, and weights. Nothing in it runs when it is read.

``architecture.json`` holds the features with their vocabularies and the sizes of the layers; ``model.safetensors``
holds the network's weights as float32 under ``net.``, and as float64 what prepares the numbers. Raw columns go in:
numbers are centred, scaled and squashed in doubles and rounded to float32 once, so that no value, however extreme,
overflows and every runtime starts from the same float32.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import BadBundle
from components.features.schema import FeatureSchema, Task
from serving.schema import ARCHITECTURE_FILE, NATIVE_FILES

if TYPE_CHECKING:
    from serving.torch_net import Net

CHUNK = 8192
"""Rows that are predicted at once."""
FAR = 1e6
"""Scaled numbers are clipped here before they are squashed."""
NET = "net."

Columns = Mapping[str, NDArray[Any]]
_Size = Field(ge=1, le=65_536)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Numeric(_Frozen):
    """A numeric feature; ``indicator`` where its missing values are an input of their own."""

    name: str
    indicator: bool


class Categorical(_Frozen):
    """A categorical feature; code 0 is every category that is not in the vocabulary, the first there has code 1."""

    name: str
    vocabulary: tuple[str, ...]


class Architecture(_Frozen):
    """What ``architecture.json`` holds.

    Attributes:
        task: what the outputs mean.
        outputs: one logit for binary, one per class for multiclass, one standardised value for regression.
        numeric: the numeric features, in order.
        categorical: the categorical features, in order.
        numeric_embedding: what the network makes of a number beside the number itself.
        numeric_detail: bins of a piecewise embedding, frequencies of a periodic one.
        numeric_size: values per number of an embedding.
        categorical_size: values per category.
        width: of the residual stream.
        blocks: how many residual blocks.
        members: how many networks share the blocks.
        dropout: in training.
    """

    version: Literal[1] = 1
    task: Task
    outputs: int = _Size
    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]
    numeric_embedding: Literal["none", "piecewise", "periodic"]
    numeric_detail: int = _Size
    numeric_size: int = _Size
    categorical_size: int = _Size
    width: int = _Size
    blocks: int = Field(ge=0, le=1000)
    members: int = Field(ge=1, le=1000)
    dropout: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [feature.name for feature in self.numeric] + [feature.name for feature in self.categorical]
        if len(set(names)) < len(names) or not names:
            raise ValueError("a feature is there twice, or none is")
        if any(len(set(feature.vocabulary)) < len(feature.vocabulary) for feature in self.categorical):
            raise ValueError("a category is there twice")
        if self.task != "multiclass" and self.outputs != 1:
            raise ValueError(f"{self.task} has one output")
        return self

    @property
    def categories(self) -> int:
        """Rows of the embedding table: every vocabulary, and one more each for what is not in it."""
        return sum(len(feature.vocabulary) + 1 for feature in self.categorical)

    @property
    def offsets(self) -> list[int]:
        """The first row of the embedding table of each categorical feature."""
        sizes = [len(feature.vocabulary) + 1 for feature in self.categorical]
        return [sum(sizes[:index]) for index in range(len(sizes))]

    @property
    def indicators(self) -> list[int]:
        """Which numeric features have an indicator, by position."""
        return [index for index, feature in enumerate(self.numeric) if feature.indicator]

    @property
    def inputs(self) -> int:
        """How many values go into the first layer."""
        embedded = self.numeric_size if self.numeric_embedding != "none" else 0
        numbers = len(self.numeric) * (1 + embedded) + len(self.indicators)
        return numbers + len(self.categorical) * self.categorical_size


class Encoder:
    """Turns raw columns into what the network takes.

    Args:
        architecture: names, indicators, vocabularies.
        centre: subtracted from each number, float64 ``(numbers,)``; a missing number takes this value.
        factor: multiplied with each centred number, float64 ``(numbers,)``; 0 for a number that never varied.
    """

    def __init__(self, architecture: Architecture, centre: NDArray[np.float64], factor: NDArray[np.float64]) -> None:
        """Index the vocabularies."""
        self.architecture = architecture
        self.centre, self.factor = centre, factor
        self._codes = [
            {category: offset + code for code, category in enumerate(feature.vocabulary, 1)}
            for feature, offset in zip(architecture.categorical, architecture.offsets, strict=True)
        ]

    def numbers(self, columns: Columns) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Prepared numbers ``(n, numbers)``, and the missing indicators ``(n, indicators)``."""
        given = np.stack([np.asarray(columns[f.name], "float64") for f in self.architecture.numeric], axis=1)
        missing = np.isnan(given[:, self.architecture.indicators]).astype("uint8")
        return squashed(given, self.centre, self.factor), missing

    def codes(self, index: int, values: NDArray[Any]) -> NDArray[np.int32]:
        """Rows of the embedding table for values ``(n,)`` of the categorical feature at this position."""
        known, unseen = self._codes[index], self.architecture.offsets[index]
        return np.fromiter((known.get(value, unseen) for value in values), "int32", len(values))

    def encode(self, columns: Columns) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int32]]:
        """What the network takes: numbers, indicators, codes; each ``(n, any)``, with no column where there is none."""
        rows = len(next(iter(columns.values())))
        numbers, missing = np.empty((rows, 0), "float32"), np.empty((rows, 0), "uint8")
        if self.architecture.numeric:
            numbers, missing = self.numbers(columns)
        codes = np.empty((rows, len(self.architecture.categorical)), "int32")
        for index, feature in enumerate(self.architecture.categorical):
            codes[:, index] = self.codes(index, columns[feature.name])
        return numbers, missing, codes


def squashed(values: NDArray[Any], centre: NDArray[Any], factor: NDArray[Any]) -> NDArray[np.float32]:
    """Scale robustly and squash into +-3, in doubles (Holzmueller, Grinsztajn, Steinwart 2024, RealMLP)."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values - centre) * factor
    scaled = np.clip(np.where(np.isnan(scaled), 0.0, scaled), -FAR, FAR)
    squashed: NDArray[np.float32] = (scaled / np.sqrt(1.0 + (scaled / 3.0) ** 2)).astype("float32")
    return squashed


class TorchModel:
    """A network that takes raw columns.

    Attributes:
        encoder: prepares the columns.
        net: on the CPU, in evaluation mode.
        centre: mean of a regression's target; ``spread`` its standard deviation.
    """

    def __init__(self, encoder: Encoder, net: "Net", centre: float = 0.0, spread: float = 1.0) -> None:
        """Keep the parts."""
        self.encoder, self.net = encoder, net
        self.centre, self.spread = centre, spread

    @property
    def architecture(self) -> Architecture:
        """What the network is."""
        return self.encoder.architecture

    def predict(self, columns: Columns) -> NDArray[np.float64]:
        """Predict from the columns of a model frame, each ``(n,)``.

        Returns:
            Probabilities ``(n, classes)``, or values ``(n,)``.
        """
        import torch

        encoded = self.encoder.encode(columns)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(encoded[0]), CHUNK):
                raw = self.net(*(torch.from_numpy(part[start : start + CHUNK]) for part in encoded))
                parts.append(self.linked(raw.numpy().astype("float64")))
        shape = (0,) if self.architecture.task == "regression" else (0, max(2, self.architecture.outputs))
        return np.concatenate(parts) if parts else np.empty(shape)

    def linked(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predictions from raw outputs ``(members, n, outputs)``: the mean of the members' own."""
        if self.architecture.task == "regression":
            values: NDArray[np.float64] = raw.mean(axis=0).reshape(-1) * self.spread + self.centre
            return values
        if self.architecture.task == "binary":
            with np.errstate(over="ignore"):
                last = (1.0 / (1.0 + np.exp(-raw))).mean(axis=0)
            return np.concatenate([1.0 - last, last], axis=1)
        raised = np.exp(raw - raw.max(axis=2, keepdims=True))
        probabilities: NDArray[np.float64] = (raised / raised.sum(axis=2, keepdims=True)).mean(axis=0)
        return probabilities

    def save(self, folder: Path) -> None:
        """Write ``architecture.json`` and ``model.safetensors``."""
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[Any]] = {
            NET + name: np.ascontiguousarray(value.numpy()) for name, value in self.net.state_dict().items()
        }
        arrays |= {"numeric.centre": self.encoder.centre, "numeric.factor": self.encoder.factor}
        arrays["target"] = np.array([self.centre, self.spread])
        save_file(arrays, folder / NATIVE_FILES["torch"])
        text = self.architecture.model_dump_json(indent=2)
        (folder / ARCHITECTURE_FILE).write_text(text + "\n", encoding="utf-8")


def load(folder: Path, schema: FeatureSchema) -> TorchModel:
    """Load a model that is what its architecture says, and takes the schema's features.

    Raises:
        BadBundle: the architecture or the weights are not valid, or do not belong together; says what.
    """
    path = folder / ARCHITECTURE_FILE
    try:
        architecture = Architecture.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        raise BadBundle(f"{path} does not describe a network: {_first(error)}.") from error
    kinds = {f.name: "numeric" for f in architecture.numeric} | {
        f.name: "categorical" for f in architecture.categorical
    }
    if kinds != {feature.name: feature.kind for feature in schema.features}:
        raise BadBundle(f"{path} takes other features than the bundle's features.json names.")
    if architecture.task != schema.task or (
        schema.task == "multiclass" and architecture.outputs != len(schema.classes)
    ):
        raise BadBundle(f"{path} predicts for another task, or other classes, than the bundle.")
    return _built(folder / NATIVE_FILES["torch"], architecture)


def _built(path: Path, architecture: Architecture) -> TorchModel:
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load as parsed

    from serving.torch_net import Net

    with torch.device("meta"):  # no memory is taken before the weights prove to be of these shapes
        net = Net(architecture)
    wanted = {NET + name: (tuple(value.shape), "float32") for name, value in net.state_dict().items()}
    numbers = (len(architecture.numeric),)
    wanted |= {"numeric.centre": (numbers, "float64"), "numeric.factor": (numbers, "float64")}
    wanted["target"] = ((2,), "float64")
    try:
        arrays = parsed(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadBundle(f"{path} is not a safetensors file: {error}.") from error
    _check(path, wanted, arrays)
    weights = {name.removeprefix(NET): torch.from_numpy(v.copy()) for name, v in arrays.items() if name.startswith(NET)}
    net.load_state_dict(weights, assign=True)
    encoder = Encoder(architecture, arrays["numeric.centre"], arrays["numeric.factor"])
    return TorchModel(encoder, net.eval().requires_grad_(False), *map(float, arrays["target"]))


def _check(path: Path, wanted: dict[str, tuple[tuple[int, ...], str]], arrays: Mapping[str, NDArray[Any]]) -> None:
    odd = sorted(set(wanted) ^ set(arrays))
    if odd:
        what = "lacks" if odd[0] in wanted else "holds"
        raise BadBundle(f"{path} {what} {odd[0]!r}, against what {ARCHITECTURE_FILE} says.")
    for name, (shape, kind) in wanted.items():
        found = arrays[name]
        if found.shape != shape or str(found.dtype) != kind:
            raise BadBundle(
                f"{path}: {name} is {found.dtype} of shape {found.shape}; {ARCHITECTURE_FILE} says {kind} of {shape}."
            )
        if not np.isfinite(found).all():
            raise BadBundle(f"{path}: {name} holds a value that is not finite.")


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return (str(error).splitlines() or [type(error).__name__])[0]
