"""The data contract: what every snapshot of a data set must look like. YAML that people edit.

The file lives in the store, one per data set; it is inferred from the first snapshot and then only read. Its words are
pandera's, and :mod:`components.validate.pandera_schema` makes a pandera schema of it.
"""

import hashlib
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import BadInput
from components.validate.durations import seconds

Type = Literal["integer", "number", "string", "boolean", "timestamp", "nested"]

FILE = "contract.yaml"


def _checked(text: str) -> str:
    seconds(text)
    return text


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml where PyYAML has it: ten thousand columns take half a minute without."""

Duration = Annotated[str, AfterValidator(_checked)]
"""Such as ``36 hours``; see :func:`components.validate.durations.seconds`."""

Share = Annotated[float, Field(ge=0, le=1)]
Bound = float | datetime
Allowed = bool | int | float | str


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
        min: least number or time.
        max: greatest number or time.
        allowed: the only values that may occur.
        pattern: regular expression that whole texts match.
        min_length: of texts, in characters.
        max_length: of texts, in characters.
        max_age: how old the newest time may be when the step runs, else the run stops.
        max_ahead: how far times may lie in the future when the step runs, as they do when clocks are wrong.
        max_missing: which share of the values may be missing, else the run stops.
        max_share: which share of the rows may break this column's rules, else the run stops.
        personal: the kind of personal data that it holds.
    """

    type: Type
    nullable: bool = True
    identifier: bool = False
    unique: bool = False
    empty: bool = False
    min: Bound | None = None
    max: Bound | None = None
    allowed: tuple[Allowed, ...] | None = None
    pattern: str | None = None
    min_length: int | None = Field(default=None, ge=0)
    max_length: int | None = Field(default=None, ge=0)
    max_age: Duration | None = None
    max_ahead: Duration | None = None
    max_missing: Share | None = None
    max_share: Share | None = None
    personal: str = ""

    @model_validator(mode="after")
    def _fits_its_type(self) -> "ColumnRule":
        only: tuple[tuple[tuple[Type, ...], tuple[str, ...]], ...] = (
            (("integer", "number", "timestamp"), ("min", "max")),
            (("string",), ("pattern", "min_length", "max_length")),
            (("timestamp",), ("max_age", "max_ahead")),
        )
        for types, names in only:
            for name in names:
                if getattr(self, name) is not None and self.type not in types:
                    raise ValueError(f"{name} is for columns of type {' or '.join(types)}, not {self.type}")
        for name in ("min", "max"):
            value = getattr(self, name)
            if value is not None and isinstance(value, date) != (self.type == "timestamp"):
                raise ValueError(f"{name} must be a {'time' if self.type == 'timestamp' else 'number'}, not {value}")
        return self


class RowBounds(_Frozen):
    """How many rows a snapshot may have; no upper bound by default."""

    min: int = Field(default=1, ge=0)
    max: int | None = None


class Contract(_Frozen):
    """A data set's contract.

    Attributes:
        version: raised when it is replaced; the digest tells contracts apart.
        dataset: the data set's name.
        inferred_from: the snapshot version that it was first inferred from.
        rows: bounds of the row count.
        keys: columns of which no two rows may have the same values, each a list.
        rules: expressions over a row that must not be false, by name, as in ``ended: start <= end``.
        columns: rules by column name, in order.
    """

    version: int = 1
    dataset: str
    inferred_from: str = ""
    rows: RowBounds = RowBounds()
    keys: tuple[tuple[str, ...], ...] = ()
    rules: dict[str, str] = {}
    columns: dict[str, ColumnRule]

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of the content; comments and layout of the YAML do not matter."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()

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
        contract = Contract.model_validate(yaml.load(text, _Loader))  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"The data contract {where}{line} is not valid YAML; mend it or delete it.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"The data contract {where} is wrong at {place}: {message}; mend that entry.") from error
    for name in dict.fromkeys(column for key in contract.keys for column in key):
        if name not in contract.columns:
            raise BadInput(f"The data contract {where} is wrong at keys: there is no column {name!r}; mend that entry.")
    return contract


def dumps(contract: Contract) -> str:
    """Write a contract as YAML for people; defaults are left out."""
    content: dict[str, Any] = {
        "version": contract.version,
        "dataset": contract.dataset,
        "inferred_from": contract.inferred_from,
        "rows": contract.rows.model_dump(mode="json", exclude_none=True),
    }
    if contract.keys:
        content["keys"] = [list(key) for key in contract.keys]
    if contract.rules:
        content["rules"] = dict(contract.rules)
    content["columns"] = {
        name: rule.model_dump(mode="json", exclude_defaults=True) | ({} if rule.nullable else {"nullable": False})
        for name, rule in contract.columns.items()
    }
    body = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return (
        f"# Data contract of {contract.dataset}: later snapshots are checked against it, row by row. Edit it freely.\n"
        "# Per column: type (integer, number, string, boolean, timestamp, nested), nullable (default true), unique,\n"
        "# identifier, min, max, allowed, pattern, min_length, max_length, max_age, max_ahead, max_missing,\n"
        "# max_share, personal. For the table: rows, keys, rules. docs/contracts.md says what they mean.\n" + body
    )
