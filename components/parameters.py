"""Parameters that are objects: read at the edge, refused in one sentence."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from components.errors import BadInput

M = TypeVar("M", bound=BaseModel)


def parsed(model: type[M], given: Any, what: str, whole: str = "the whole") -> M:
    """Read a parameter's value.

    Args:
        model: what it must be.
        given: what it is.
        what: its name at the beginning of a sentence.
        whole: where the mistake is when it is in no one field.

    Raises:
        BadInput: a field is out of range or unknown; names the first.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or whole
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{what} is wrong at {where}: {message}.") from error
