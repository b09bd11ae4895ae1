"""The split is the stated hash of the key, and nothing else."""

import hashlib

import duckdb
import pytest

from components.features.split import assigned, digits
from components.ingest.engine import sql, table


@pytest.mark.parametrize("seed", [0, 7])
def test_the_split_is_the_first_eight_digits_of_the_md5_as_a_share(seed):
    with duckdb.connect() as connection:
        connection.execute("CREATE VIEW keys AS SELECT 'k' || i AS key FROM range(5000) t(i)")
        keys = table(connection, "keys")
        query = sql(keys.select("key", split=assigned(digits(keys.key, seed))))
        found = dict(connection.execute(query).fetchall())
    for key, split in found.items():
        share = int(hashlib.md5(f"{seed}|{key}".encode()).hexdigest()[:8], 16) / 2**32
        assert split == ("train" if share < 0.70 else "valid" if share < 0.85 else "test")
    assert 3400 < sum(split == "train" for split in found.values()) < 3600
