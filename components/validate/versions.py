"""A data set's contract in the store: the one that is applied, and those before it.

``contracts/<dataset>.yaml`` is applied, and people may edit it there or keep it in Git and set it from there;
``contracts/<dataset>/<version>.yaml`` is each one that was set or inferred.
"""

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from components.errors import BadInput
from components.store import Store, contract_name
from components.validate.contract import Contract, dumps, loads
from components.validate.pandera_schema import read_by, row_rule

if TYPE_CHECKING:
    import ibis.expr.types as ir

_DOUBLES = {"integer": "float64", "number": "float64", "timestamp": "timestamp(6)", "boolean": "boolean"}


@dataclass(frozen=True)
class Replaced:
    """What setting a contract did: the contract as stored, and the lines that differ from the one before."""

    contract: Contract
    diff: tuple[str, ...]


def read(store: Store, dataset: str, version: int | None = None) -> Contract:
    """The contract that is applied, or an earlier version.

    Raises:
        BadInput: there is none, or it is no contract.
    """
    name = contract_name(dataset) if version is None else _kept(dataset, version)
    content = store.read(name)
    if content is None:
        which = "no contract yet" if version is None else f"no version {version} of its contract"
        raise BadInput(f"{dataset} has {which} at {store.where(name)}; it is inferred when validate first runs.")
    return loads(content.decode(), store.where(name))


def keep(store: Store, contract: Contract) -> None:
    """Keep a contract under its version; one that was edited in place without a new version keeps its digest beside."""
    content = dumps(contract).encode()
    name = _kept(contract.dataset, contract.version)
    if store.create(name, content) != content:
        store.create(name.removesuffix(".yaml") + f"-{contract.digest[:8]}.yaml", content)


def replace(store: Store, contract: Contract, where: str) -> Replaced:
    """Check a contract and make it the data set's, as the next version.

    Args:
        store: the store.
        contract: the new contract; its version does not matter.
        where: where it was read from, for messages.

    Raises:
        BadInput: an expression or pattern in it cannot be used.
    """
    check(contract, where)
    content = store.read(contract_name(contract.dataset))
    before: Contract | None = None
    if content is not None:
        before = loads(content.decode(), store.where(contract_name(contract.dataset)))
        keep(store, before)
        contract = contract.model_copy(update={"version": before.version + 1})
        if contract.digest == before.model_copy(update={"version": contract.version}).digest:
            return Replaced(before, ())
    keep(store, contract)
    store.write(contract_name(contract.dataset), dumps(contract).encode())
    return Replaced(contract, difference(before, contract))


def difference(before: Contract | None, after: Contract) -> tuple[str, ...]:
    """The lines that differ, as a unified diff."""
    old = dumps(before).splitlines() if before else []
    names = f"version {before.version}" if before else "nothing", f"version {after.version}"
    return tuple(difflib.unified_diff(old, dumps(after).splitlines(), *names, lineterm="", n=2))


def check(contract: Contract, where: str) -> None:
    """Check what only shows when it is used: patterns and expressions.

    Raises:
        BadInput: one is wrong.
    """
    patterns = {name: rule.pattern for name, rule in contract.columns.items() if rule.pattern is not None}
    if patterns:
        with duckdb.connect() as connection:  # the module's own one belongs to whoever uses it
            for name, pattern in patterns.items():
                try:
                    connection.execute("SELECT regexp_full_match('', $1)", [pattern]).fetchall()
                except duckdb.Error as error:
                    raise BadInput(f"{where}: the pattern of {name}, {pattern!r}, cannot be used: {error}") from error
    if not contract.rules:
        return
    values = _values(contract)
    for name, text in contract.rules.items():
        unknown = [column for column in read_by(name, text) if column not in values]
        if unknown:
            raise BadInput(f"{where}: the rule {name!r} reads {unknown[0]!r}, which is not among its columns.")
        row_rule(values, name, text)


def _values(contract: Contract) -> "dict[str, ir.Value]":
    import ibis

    kinds = {name: _DOUBLES.get(rule.type, "string") for name, rule in contract.columns.items()}
    table = ibis.table(kinds, name="contract")
    return {name: table[name] for name in kinds}


def _kept(dataset: str, version: int) -> str:
    return f"contracts/{dataset}/{version}.yaml"
