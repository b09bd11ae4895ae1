"""The data contract: what every snapshot of a data set must look like. YAML that people edit.

The file lives in the store, one per data set; it is inferred from the first snapshot and then only read.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.errors import BadInput

Type = Literal["integer", "number", "string", "boolean", "timestamp", "nested"]

FILE = "contract.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnRule(_Frozen):
    """What the values of a column must be.

    Attributes:
        type: what the values mean, which is not always how they are stored: numbers may come as text with blanks.
        nullable: whether values may be missing; blank texts are missing.
        identifier: whether it names the row, so that it is no feature and the split goes by it.
        unique: whether a value may occur only once.
        empty: whether all values were missing when the contract was made.
        min: least number.
        max: greatest number.
        allowed: the only texts that may occur.
    """

    type: Type
    nullable: bool = True
    identifier: bool = False
    unique: bool = False
    empty: bool = False
    min: float | None = None
    max: float | None = None
    allowed: tuple[str, ...] | None = None


class RowBounds(_Frozen):
    """How many rows a snapshot may have; no upper bound by default."""

    min: int = Field(default=1, ge=0)
    max: int | None = None


class Contract(_Frozen):
    """A data set's contract.

    Attributes:
        version: raised by people who edit it, for their own orientation; the digest tells contracts apart.
        dataset: the data set's name.
        inferred_from: the snapshot version that it was first inferred from.
        rows: bounds of the row count.
        columns: rules by column name, in order.
    """

    version: int = 1
    dataset: str
    inferred_from: str = ""
    rows: RowBounds = RowBounds()
    columns: dict[str, ColumnRule]

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of the content; comments and layout of the YAML do not matter."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The columns that name the row."""
        return tuple(name for name, rule in self.columns.items() if rule.identifier)

    @classmethod
    def read(cls, folder: Path) -> "Contract":
        """Read ``contract.yaml`` from the validate step's output."""
        return loads((folder / FILE).read_text(encoding="utf-8"), str(folder / FILE))


def loads(text: str, where: str) -> Contract:
    """Parse a contract's YAML.

    Raises:
        BadInput: it is no contract; the message says where it is wrong.
    """
    try:
        return Contract.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"The data contract {where}{line} is not valid YAML; mend it or delete it.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"The data contract {where} is wrong at {place}: {first['msg']}; mend that entry.") from error


def dumps(contract: Contract) -> str:
    """Write a contract as YAML for people; defaults are left out."""
    content: dict[str, Any] = {
        "version": contract.version,
        "dataset": contract.dataset,
        "inferred_from": contract.inferred_from,
        "rows": contract.rows.model_dump(mode="json", exclude_none=True),
        "columns": {
            name: rule.model_dump(mode="json", exclude_defaults=True) | ({} if rule.nullable else {"nullable": False})
            for name, rule in contract.columns.items()
        },
    }
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return (
        f"# Data contract of {contract.dataset}: later snapshots are checked against it, row by row. Edit it freely.\n"
        "# Per column: type (integer, number, string, boolean, timestamp, nested), nullable (default true), unique,\n"
        "# identifier, min, max, allowed.\n" + body
    )
