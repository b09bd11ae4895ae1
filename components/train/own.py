"""Bring your own trainer: a function of yours, named ``package.module:function``, in an image derived from ours.

::

    from components.train.own import trainer

    @trainer(framework="sklearn")
    def extra_trees(data: Data, run: Run, *, n_estimators: int = 300) -> Pipeline:
        ...

It is given the feature set and the run (:mod:`components.train.contract`), and its keyword-only arguments are its
hyperparameters: their names, types and defaults are checked before it is called. What it may return:

=============  =======================================================================================================
``sklearn``    a fitted pipeline or estimator of the types in :mod:`serving.trust`, which takes the model frame
``onnx``       :class:`Onnx`: the model of any other library, as a graph; see also :func:`behind`
``tensorflow`` a ``keras.Model`` of the layers in :mod:`serving.keras_model`, with an input of shape ``(1,)`` for each
               feature, in order; float64 or string
any            an object with the methods of :class:`components.train.contract.Fitted`
=============  =======================================================================================================

Your code is imported where it trains, and nowhere else: what is served is the bundle. ``examples/own_trainer`` is a
whole one.
"""

import hashlib
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from components.errors import BadInput
from components.features.schema import FeatureSchema, Task
from components.train.contract import Data, Fitted, Run
from components.train.hyperparameters import near
from serving.schema import Framework

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd


@dataclass(frozen=True)
class Onnx:
    """A model of any library, as an ONNX graph that is served as it is.

    Attributes:
        model: the graph: one input of shape ``[N, 1]`` per feature, named as the column, double (or float) or string;
            its last output is probabilities ``[N, classes]`` behind a label, or a value ``[N, 1]``.
        predict: what the graph was made of, to compare it with: predictions of a model frame, probabilities
            ``(rows, classes)`` or values ``(rows,)``. A graph that predicts anything else is refused. Without it
            nothing is compared.
        facts: what the fit ended with, by name.
    """

    model: "onnx.ModelProto"
    predict: "Callable[[pd.DataFrame], np.ndarray[Any, Any]] | None" = None
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Own:
    """A user's function as a trainer; see :class:`components.train.contract.Trainer`.

    Attributes:
        train: the function.
        framework: what it returns.
        tried: what a search tries.
    """

    train: Callable[..., Any]
    framework: Framework
    tried: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name that it is asked for by."""
        return f"{self.train.__module__}:{self.train.__name__}"

    def parameters(self, task: Task) -> dict[str, Any]:
        """The function's keyword-only arguments with their defaults."""
        given = inspect.signature(self.train).parameters.values()
        return {parameter.name: parameter.default for parameter in given if parameter.kind is parameter.KEYWORD_ONLY}

    def space(self, task: Task) -> dict[str, dict[str, Any]]:
        """What a search tries."""
        return dict(self.tried)

    def fit(self, data: Data, parameters: Mapping[str, Any], run: Run) -> Fitted:
        """Call the function, and check what it returns.

        Raises:
            BadInput: a value does not fit its argument's type, or what was returned cannot be a bundle's model.
        """
        from components.train.own_fitted import fitted

        return fitted(self(data, run, **self._typed(parameters)), self, data)

    def __call__(self, data: Data, run: Run, **hyperparameters: Any) -> Any:
        """Call the function itself."""
        return self.train(data, run, **hyperparameters)

    def _typed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        from pydantic import TypeAdapter, ValidationError

        hints = typing.get_type_hints(self.train)
        typed = {}
        for name, value in parameters.items():
            try:
                typed[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
            except ValidationError as error:
                said = error.errors()[0]["msg"]
                raise BadInput(f"The hyperparameter {name!r} of {self.name} is {value!r}: {said}.") from error
        return typed


def trainer(
    *, framework: Framework, space: Mapping[str, dict[str, Any]] | None = None
) -> Callable[[Callable[..., Any]], Own]:
    """Make a trainer of a function ``(data, run, *, hyperparameters with defaults)``.

    Args:
        framework: what it returns; decides the image and the recipe before it is called.
        space: what a search tries; see :mod:`components.train.space`.

    Raises:
        BadInput: the framework or the function's signature is not usable.
    """
    if framework not in get_args(Framework):
        raise BadInput(f"@trainer(framework={framework!r}): it must be one of {', '.join(get_args(Framework))}.")

    def mark(function: Callable[..., Any]) -> Own:
        own = Own(function, framework, dict(space or {}))
        given = list(inspect.signature(function).parameters.values())
        is_called_so = len(given) >= 2 and all(one.kind is one.POSITIONAL_OR_KEYWORD for one in given[:2])
        if not is_called_so or any(one.kind is not one.KEYWORD_ONLY or one.default is one.empty for one in given[2:]):
            raise BadInput(
                f"The trainer {own.name} must take (data, run, *, …), with each argument of its own after the star and "
                "with a default: those are its hyperparameters."
            )
        return own

    return mark


def load(name: str) -> Own:
    """Import a trainer.

    Args:
        name: ``package.module:function``.

    Raises:
        BadInput: there is no such module or function here, or it is no trainer.
    """
    path, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in path.split(".")):
        raise BadInput(f"The trainer {name!r} must read package.module:function.")
    module = _imported(name, path)
    own = getattr(module, attribute, None)
    if isinstance(own, Own):
        return own
    there = [found for found, value in vars(module).items() if isinstance(value, Own)]
    if own is not None:
        raise BadInput(f"{name} is no trainer: mark the function with @trainer of components.train.own.")
    raise BadInput(
        f"The module {path} has no {attribute!r}{near(attribute, there)}."
        if there
        else f"The module {path} has no {attribute!r}, and no function marked with @trainer of components.train.own."
    )


def _imported(name: str, path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ImportError as error:
        missing = error.name or ""
        if isinstance(error, ModuleNotFoundError) and (path == missing or path.startswith(f"{missing}.")):
            raise BadInput(
                f"There is no module {missing!r} here for the trainer {name}: on this machine put its folder on "
                "PYTHONPATH; on a cluster set train_image to an image that holds it."
            ) from error
        raise BadInput(
            f"The trainer {name} cannot be imported: {error}; its image must hold what it imports."
        ) from error


def source_digest(name: str) -> str:
    """sha256 of a trainer's source: of its module's file, or of every Python file of its package.

    Another version of the code is another recipe. What the code imports from elsewhere is not covered.
    """
    top = importlib.import_module(name.partition(":")[0].split(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = {file.relative_to(folder).as_posix(): file for folder in folders for file in folder.rglob("*.py")}
    sha256 = hashlib.sha256()
    for place, file in sorted(files.items()) or [("", Path(str(top.__file__)))]:
        sha256.update(place.encode() + b"\0" + file.read_bytes() + b"\0")
    return sha256.hexdigest()


def behind(prepare: Any, model: "onnx.ModelProto", schema: FeatureSchema) -> "onnx.ModelProto":
    """Put a fitted scikit-learn preparation in front of a graph that takes one matrix, so that raw columns go in.

    Args:
        prepare: a fitted ``ColumnTransformer`` of scalers, imputers and encoders, or a pipeline of transformers.
        model: takes ``[N, columns of the matrix]``, float or double; its last output is probabilities ``[N, classes]``,
            or a value ``[N, 1]``.
        schema: of the feature set.

    Raises:
        NoGraph: a transformer that has no counterpart in ONNX here.
        BadInput: the graph uses operators that are not ONNX's own, or takes more than one input.
    """
    from components.train.own_graph import joined

    return joined(prepare, model, schema)
