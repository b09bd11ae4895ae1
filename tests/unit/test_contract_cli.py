"""``sluiceway data contract``: print, edit, set."""

import duckdb
import pytest
from typer.testing import CliRunner

from components.errors import BadInput
from components.store import Store
from components.validate.contract import loads
from components.validate.versions import check
from pipelines.cli import app

TEXT = """
dataset: churn
keys: [[id, day]]
rules: {ended: started <= ended}
columns:
  id: {type: integer, nullable: false, min: 1}
  day: {type: timestamp, max_age: 2 days}
  plan: {type: string, allowed: [free, paid], pattern: "[a-z]+", max_length: 9}
  started: {type: number}
  ended: {type: number}
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLUICEWAY_STORE", str(tmp_path / "store"))
    (tmp_path / "churn.yaml").write_text(TEXT)
    return Store(str(tmp_path / "store"))


def ask(*arguments: str):
    return CliRunner().invoke(app, ["data", "contract", *arguments])


def test_a_contract_kept_in_git_is_set_and_printed_back(store, tmp_path):
    path = tmp_path / "churn.yaml"
    assert ask("churn").exit_code == 1
    first = ask("churn", "--set", str(path))
    assert (first.exit_code, "Version 1 of churn's contract applies" in first.output) == (0, True)
    path.write_text(TEXT.replace("max_length: 9", "max_length: 12"))
    second = ask("churn", "--set", str(path))
    assert "-    max_length: 9" in second.output
    assert "Version 2" in second.output
    assert "is what is applied already" in ask("churn", "--set", str(path)).output
    assert loads(ask("churn").output, "").columns["plan"].max_length == 12
    assert loads(ask("churn", "--version", "1").output, "").columns["plan"].max_length == 9
    assert ask("churn", "--out", str(tmp_path / "out.yaml")).exit_code == 0
    assert loads((tmp_path / "out.yaml").read_text(), "").version == 2


def test_a_wrong_contract_changes_nothing(store, tmp_path):
    path = tmp_path / "churn.yaml"
    path.write_text(TEXT.replace("started <= ended", "started <= finished"))
    refused = ask("churn", "--set", str(path))
    assert (refused.exit_code, "'finished'" in refused.output) == (1, True)
    assert ask("other", "--set", str(path)).exit_code == 1
    assert store.read("contracts/churn.yaml") is None


def test_it_goes_to_pandera_and_comes_back(store, tmp_path):
    ask("churn", "--set", str(tmp_path / "churn.yaml"))
    schema = ask("churn", "--pandera").output
    assert "# Not in pandera's YAML: rule ended: started <= ended" in schema
    (tmp_path / "schema.yaml").write_text(schema)
    assert "day has no dtype" in ask("churn", "--set", str(tmp_path / "schema.yaml")).output
    (tmp_path / "schema.yaml").write_text(schema.replace("dtype: null", "dtype: datetime"))
    assert ask("churn", "--set", str(tmp_path / "schema.yaml")).exit_code == 0
    back = loads(ask("churn").output, "")
    assert (back.keys, back.columns["id"].min, back.columns["id"].nullable) == ((("id", "day"),), 1, False)
    assert (back.columns["plan"].allowed, back.columns["plan"].max_length) == (("free", "paid"), 9)
    assert back.columns["day"].type == "timestamp"


def test_a_pattern_that_cannot_be_used_is_named_and_duckdbs_own_connection_is_left_alone():
    contract = loads(TEXT, "contract.yaml")
    check(contract, "contract.yaml")
    assert duckdb.sql("SELECT 1").fetchall() == [(1,)]
    plan = contract.columns["plan"].model_copy(update={"pattern": "["})
    with pytest.raises(BadInput, match=r"contract\.yaml: the pattern of plan, '\[', cannot be used"):
        check(contract.model_copy(update={"columns": {**contract.columns, "plan": plan}}), "contract.yaml")
