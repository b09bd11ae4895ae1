"""The feature spec: what a person wants beyond the columns as they are. YAML."""

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from components.errors import BadInput
from components.parameters import parsed


class FeatureSpec(BaseModel):
    """A small spec.

    For instance::

        derive:
          charges_per_month: TotalCharges / tenure
          is_new: tenure <= 3
        drop: [gender]
        key: [customerID]

    Attributes:
        derive: new features by name; see :mod:`components.features.language`.
        drop: columns that are no features; expressions may still read them.
        key: columns that name the entity: no features, and rows with the same key are in the same split.
        order: split by time instead of by key: a column (it may still be a feature), or ``rows`` for the order of the
            source. The first 70 % train, the next 15 % decide when to stop, the last 15 % test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    derive: dict[str, str] = {}
    drop: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    order: str = ""

    @classmethod
    def loads(cls, text: str) -> "FeatureSpec":
        """Parse the YAML of a pipeline parameter; an empty text is an empty spec.

        Raises:
            BadInput: it is no spec; the message says where it is wrong.
        """
        try:
            content: Any = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}" if mark else ""
            raise BadInput(
                f"feature_spec is not valid YAML{where}; it has the keys derive, drop, key and order."
            ) from error
        if not isinstance(content, dict):
            raise BadInput("feature_spec must be a YAML mapping with the keys derive, drop, key and order.")
        derive = content.get("derive")
        if isinstance(derive, dict):  # an expression such as 1 is read as a number by YAML
            content["derive"] = {str(name): str(expression) for name, expression in derive.items()}
        return parsed(cls, content, "feature_spec")
