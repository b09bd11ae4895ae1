"""What a contract says of the snapshot as a whole: how many rows, how many missing values, how old."""

from datetime import datetime

from components.errors import BadInput
from components.validate.contract import Contract
from components.validate.durations import in_words, seconds
from components.validate.profile import Profile


def check(contract: Contract, counted: Profile, where: str, now: datetime) -> None:
    """Check them.

    Args:
        contract: the contract.
        counted: what the snapshot holds.
        where: where people edit the contract.
        now: the present time, in UTC without a zone.

    Raises:
        BadInput: one does not hold.
    """
    _check_rows(contract, counted, where)
    for name, rule in contract.columns.items():
        column = counted.columns[name]
        if rule.max_missing is not None and column.missing > rule.max_missing * counted.rows:
            raise BadInput(
                f"{column.missing / counted.rows:.1%} of the values of {name} are missing, more than the "
                f"{rule.max_missing:.1%} that the data contract allows; mend the source, or edit max_missing in "
                f"{where}."
            )
        if rule.max_age is None or column.latest is None:
            continue
        age = (now - column.latest).total_seconds()
        if age > seconds(rule.max_age):
            raise BadInput(
                f"The newest {name} is {column.latest:%Y-%m-%d %H:%M} UTC, {in_words(age)} ago, and the data contract "
                f"asks for at most {rule.max_age}; see why the source has nothing newer, or edit max_age in {where}."
            )


def _check_rows(contract: Contract, counted: Profile, where: str) -> None:
    bounds = contract.rows
    if counted.rows < bounds.min or (bounds.max is not None and counted.rows > bounds.max):
        most = f" and at most {bounds.max:,}" if bounds.max is not None else ""
        raise BadInput(
            f"The snapshot has {counted.rows:,} rows, but the data contract asks for at least {bounds.min:,}{most}; "
            f"check that the export is whole, or edit rows in {where}."
        )
