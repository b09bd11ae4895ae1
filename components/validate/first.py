"""The first look at a data set: everything that its contract is inferred from."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.ingest.engine import literal
from components.ingest.personal import across, detect
from components.ingest.snapshot import Snapshot
from components.validate.contract import Contract
from components.validate.counting import lists_texts, profile
from components.validate.formats import pattern
from components.validate.glance import sample_texts
from components.validate.infer import Clues, infer, likely_key, may_identify
from components.validate.profile import LISTED, Profile
from components.validate.reader import SOURCE, Reader
from components.validate.unique import is_unique

if TYPE_CHECKING:
    import duckdb


def first_contract(
    connection: "duckdb.DuckDBPyConnection",
    reader: Reader,
    folder: Path,
    described: Snapshot,
    dataset: str,
    target: str,
    now: datetime,
) -> tuple[Profile, Contract]:
    """Profile a snapshot and infer its contract.

    Args:
        connection: where the reader's view is.
        reader: the snapshot, read as what its values mean.
        folder: the snapshot's folder.
        described: the snapshot.
        dataset: the data set's name.
        target: the column to predict.
        now: the present time, in UTC without a zone.
    """
    known, parts = reader.known, [folder / part.name for part in described.parts]
    texts = {name for name, kind in reader.types.items() if kind == "string" and known.nulls[name] < known.rows}
    many = [name for name in texts if known.seen[name].distinct > LISTED]
    found = {name: pattern(values) for name, values in sample_texts(connection, parts, sorted(many)).items()}
    patterns = {name: one for name, one in found.items() if one is not None}
    unmatched = {
        name: f"count_if(NOT regexp_full_match({reader.value(name)}, {literal(one)}))"
        for name, one in patterns.items()
        if not lists_texts(reader, name)
    }
    unique = {
        name
        for name, kind in reader.types.items()
        if name != target and may_identify(name, kind, known.seen[name], known.rows)
    }
    # How long texts are that nearly all differ is not looked at: it would take reading most of the file.
    repeated = {name for name in texts if known.seen[name].distinct <= known.seen[name].present // 2}
    counted = profile(connection, reader, exact={target}, unique=unique, lengths=repeated, also=unmatched)
    counts = counted.profile
    key = likely_key(counts, target)
    clues = Clues(
        now=now,
        patterns={
            name: one
            for name, one in patterns.items()
            if not counted.also.get(name) and all(re.fullmatch(one, text) for text in counted.texts.get(name, ()))
        },
        personal=personal(connection, parts, known.stored),
        keys=(key,) if key and is_unique(connection, SOURCE, [reader.value(name) for name in key]) else (),
        seen=known.seen,
    )
    return counts, infer(counts, dataset, described.version, target, clues)


def personal(connection: "duckdb.DuckDBPyConnection", parts: list[Path], stored: Mapping[str, str]) -> dict[str, str]:
    """Columns with personal data, and which kind."""
    return {name: kind for name, kind, _ in detect(connection, across(connection, parts), dict(stored))}
