"""scikit-learn's own data sets."""

import duckdb
import pytest

from components.ingest.resolve import resolve
from components.ingest.run import run


@pytest.mark.parametrize(
    ("name", "rows", "columns", "kind"),
    [
        ("breast_cancer", 569, 31, "VARCHAR"),
        ("wine", 178, 14, "VARCHAR"),
        ("digits", 1797, 65, "BIGINT"),
        ("diabetes", 442, 11, "DOUBLE"),
    ],
)
def test_a_built_in_set_is_a_snapshot_with_a_target(tmp_path, name, rows, columns, kind):
    made = run(f"sklearn://{name}", "", {}, tmp_path / "s")
    assert (made.rows, len(made.columns)) == (rows, columns)
    assert (made.columns[-1].name, made.columns[-1].type) == ("target", kind)
    assert resolve(f"sklearn://{name}", {}).version == made.version


def test_class_names_are_kept(tmp_path):
    run("sklearn://breast_cancer", "", {}, tmp_path / "s")
    found = duckdb.sql(f"SELECT target, count(*) FROM '{tmp_path}/s/*.parquet' GROUP BY 1 ORDER BY 1").fetchall()
    assert found == [("benign", 357), ("malignant", 212)]
