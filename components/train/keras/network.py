"""The network, and the model around it that takes raw columns.

Numbers go in piecewise linear ("On Embeddings for Numerical Features in Tabular Deep Learning", Gorishniy et al.,
2022): one input per bin between quantiles, 0 below the bin, 1 above it. No value is too extreme for it, and a skewed
column needs no transformation. Categories go in as embeddings. Then residual blocks.

Everything is made of Keras's own layers and operations with their constants as plain numbers, so that the saved model
needs no code of ours.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from components.features.schema import FeatureSchema
from components.train.keras.encoding import Encoding
from components.train.keras.settings import Settings

EMBEDDING = 8
EPSILON = 1e-5
OUTPUT = "output"


@dataclass(frozen=True)
class Shape:
    """Of a network: its width, its blocks, the share of inner values dropped, and how many outputs."""

    width: int
    blocks: int
    dropout: float
    outputs: int

    @classmethod
    def of(cls, settings: Settings, schema: FeatureSchema) -> "Shape":
        """One output for two classes and for values, else one per class."""
        outputs = len(schema.classes) if schema.task == "multiclass" else 1
        return cls(settings.width, settings.blocks, settings.dropout, outputs)


def network(encoding: Encoding, shape: Shape, seed: int, policy: str = "float32") -> keras.Model:
    """Codes and standardised numbers in, logits ``(n, outputs)`` out.

    Args:
        encoding: of the columns.
        shape: of the network.
        seed: of the weights it starts from, and of what is dropped.
        policy: Keras's name of the arithmetic; the weights and the logits are float32 in any.
    """
    seeds = _seeds(seed)
    codes = keras.Input((len(encoding.vocabularies),), dtype="int32", name="codes")
    numbers = keras.Input((len(encoding.numbers.names),), dtype="float32", name="numbers")
    parts = [*_numbers(encoding, numbers), *_categories(encoding, codes, next(seeds), policy)]
    hidden = _dense("first", shape.width, next(seeds), policy)(_side_by_side(parts))
    for block in range(shape.blocks):
        inner = layers.LayerNormalization(epsilon=EPSILON, dtype=policy, name=f"norm_{block}")(hidden)
        inner = _dense(f"wide_{block}", shape.width * 2, next(seeds), policy, "relu")(inner)
        inner = layers.Dropout(shape.dropout, seed=next(seeds), dtype=policy, name=f"drop_{block}")(inner)
        inner = _dense(f"back_{block}", shape.width, next(seeds), policy)(inner)
        hidden = layers.Add(dtype=policy, name=f"block_{block}")([hidden, inner])
    hidden = layers.LayerNormalization(epsilon=EPSILON, dtype=policy, name="norm")(hidden)
    logits = layers.Dense(shape.outputs, kernel_initializer="zeros", dtype="float32", name=OUTPUT)(hidden)
    return keras.Model(used(encoding, codes, numbers), logits, name="network")


def used(encoding: Encoding, codes: Any, numbers: Any) -> list[Any]:
    """What the network takes of the two; a table may have no categories, or no number that varies."""
    return [codes] * bool(encoding.vocabularies) + [numbers] * bool(encoding.numbers.inputs)


def whole(core: keras.Model, encoding: Encoding, schema: FeatureSchema) -> keras.Model:
    """The model of raw columns: one ``(n, 1)`` float64 or string input per feature, in the schema's order.

    Gives float64 probabilities ``(n, classes)``, or values ``(n, 1)``.
    """
    names = input_names(schema)
    given = [
        keras.Input((1,), dtype="float64" if feature.kind == "numeric" else "string", name=name)
        for feature, name in zip(schema.features, names, strict=True)
    ]
    by_column = {feature.name: value for feature, value in zip(schema.features, given, strict=True)}
    taken = used(encoding, _looked_up(encoding, by_column), _standardised(encoding, by_column))
    logits = ops.cast(core(taken), "float64")
    return keras.Model(given, _ending(logits, encoding, schema), name="sluiceway")


def settle_unseen(core: keras.Model, encoding: Encoding) -> None:
    """Make an unseen category the average one, in columns where no row of the train split had one to learn from."""
    if not encoding.vocabularies:
        return
    layer = core.get_layer("categories")
    (table,) = layer.get_weights()
    for vocabulary, first in zip(encoding.vocabularies.values(), encoding.offsets, strict=True):
        if not vocabulary.others:
            seen = table[first + 1 : first + 1 + len(vocabulary.words)]
            table[first] = np.average(seen, axis=0, weights=vocabulary.counts)
    layer.set_weights([table])


def input_names(schema: FeatureSchema) -> list[str]:
    """The features' names where Keras takes all of them, else numbered; the order is the schema's either way."""
    names = [feature.name for feature in schema.features]
    if all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) for name in names):
        return names
    return [f"feature_{index}" for index in range(len(names))]


def _numbers(encoding: Encoding, given: Any) -> Iterator[Any]:
    numbers = encoding.numbers
    missing = ops.isnan(given)
    if len(numbers.column):
        known = ops.take(ops.where(missing, 0.0, given), numbers.column, axis=1)
        yield ops.clip(ops.divide(ops.subtract(known, numbers.low), numbers.width), 0.0, 1.0)
    if len(numbers.gaps):
        yield ops.cast(ops.take(missing, numbers.gaps, axis=1), "float32")


def _categories(encoding: Encoding, codes: Any, seed: int, policy: str) -> Iterator[Any]:
    if encoding.vocabularies:
        start = keras.initializers.RandomNormal(stddev=0.1, seed=seed)
        table = layers.Embedding(
            encoding.size, EMBEDDING, embeddings_initializer=start, dtype=policy, name="categories"
        )
        yield layers.Flatten(dtype=policy, name="flat")(table(codes))


def _dense(name: str, units: int, seed: int, policy: str, activation: str = "linear") -> layers.Dense:
    start = (
        keras.initializers.HeNormal(seed=seed) if activation == "relu" else keras.initializers.GlorotUniform(seed=seed)
    )
    return layers.Dense(units, activation=activation, kernel_initializer=start, dtype=policy, name=name)


def _looked_up(encoding: Encoding, by_column: dict[str, Any]) -> Any:
    """The codes ``(n, columns)``; a dot in a layer's name keeps it apart from a column's."""
    looked = []
    for index, (column, vocabulary) in enumerate(encoding.vocabularies.items()):
        words = list(vocabulary.words)
        lookup = layers.StringLookup(vocabulary=words, oov_token=_unused(words), dtype="int64", name=f"codes.{index}")
        looked.append(lookup(by_column[column]))
    if not looked:
        return None
    return ops.cast(ops.add(_side_by_side(looked), np.array(encoding.offsets, "int64")), "int32")


def _standardised(encoding: Encoding, by_column: dict[str, Any]) -> Any:
    numbers = encoding.numbers
    if not numbers.names:
        return None
    values = _side_by_side([by_column[name] for name in numbers.names])
    return ops.cast(ops.divide(ops.subtract(values, numbers.centre), numbers.scale), "float32")


def _side_by_side(columns: list[Any]) -> Any:
    return ops.concatenate(columns, axis=1) if len(columns) > 1 else columns[0]


def _ending(logits: Any, encoding: Encoding, schema: FeatureSchema) -> Any:
    if schema.task == "regression":
        return ops.add(ops.multiply(logits, np.array([encoding.scale])), np.array([encoding.centre]))
    if schema.task == "multiclass":
        return ops.softmax(logits, axis=-1)
    last = ops.sigmoid(logits)
    return ops.concatenate([ops.subtract(np.array([1.0]), last), last], axis=1)


def _unused(words: list[str]) -> str:
    name = "[unseen]"
    while name in words:
        name += "]"
    return name


def _seeds(seed: int) -> Iterator[int]:
    random = np.random.default_rng(seed)
    while True:
        yield int(random.integers(2**31))
