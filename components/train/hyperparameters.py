"""Checks the hyperparameters that a user gives against the trainer's own parameters."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from components.errors import BadInput
from components.features.schema import FeatureSchema
from components.train.contract import Trainer

_Settings = TypeVar("_Settings", bound=BaseModel)


def validated(settings: type[_Settings], values: Mapping[str, Any], name: str) -> _Settings:
    """The hyperparameters of a trainer that describes them as a pydantic model.

    Raises:
        BadInput: names the hyperparameter and what is wrong with it.
    """
    try:
        return settings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            f"The hyperparameter {first['loc'][0]!r} of the trainer {name!r} is {first['input']!r}: {first['msg']}."
        ) from error


def checked(name: str, trainer: Trainer, schema: FeatureSchema, chosen: dict[str, Any]) -> dict[str, Any]:
    """The trainer's full parameters: its defaults, and what the user chose.

    KFP passes numbers as doubles, so ``200.0`` for a parameter that counts becomes ``200``; the keys of
    ``class_weight`` are class labels, as in the data.

    Raises:
        BadInput: an unknown parameter; the message lists the valid names, near matches first.
    """
    valid = trainer.parameters(schema.task)
    for key in chosen:
        if key == "random_state":
            raise BadInput("The hyperparameter 'random_state' is set by the parameter 'seed': use that.")
        if key not in valid:
            raise BadInput(f"The trainer {name!r} has no hyperparameter {key!r}{near(key, list(valid))}.")
    values = {key: _number(value, valid[key]) for key, value in chosen.items()}
    if isinstance(values.get("class_weight"), dict):
        values["class_weight"] = _by_index(values["class_weight"], schema.classes)
    return valid | values


def near(name: str, valid: list[str]) -> str:
    """The end of a sentence about an unknown name: what was meant, or what there is."""
    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    meant = f": did you mean {' or '.join(map(repr, close))}?" if close else ";"
    return (
        f"{meant} The valid names are {', '.join(sorted(valid))}"
        if close
        else f"; use one of {', '.join(sorted(valid))}"
    )


def _number(value: Any, default: Any) -> Any:
    counts = not isinstance(default, float)
    return int(value) if isinstance(value, float) and counts and value.is_integer() else value


def _by_index(weights: dict[str, float], classes: tuple[str, ...]) -> dict[int, float]:
    unknown = [label for label in weights if label not in classes]
    if unknown:
        raise BadInput(f"class_weight names the class {unknown[0]!r}; the target's classes are {', '.join(classes)}.")
    return {classes.index(label): weight for label, weight in weights.items()}
