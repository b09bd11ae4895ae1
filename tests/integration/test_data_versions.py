"""Versions that are listed can be restored: the catalogue, the remote, and `sluiceway data`."""

import json
import os
import threading

import duckdb
import pytest
from typer.testing import CliRunner

from components.errors import BadInput, StorageFull, Unreachable
from components.ingest import catalog, dvc
from components.ingest import remote as remote_module
from components.ingest.remote import Remote
from components.ingest.run import run
from components.settings import settings
from components.store import Store
from pipelines.cli import app


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLUICEWAY_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"


def version(folder, name: str, query: str, dataset: str = "toy", options: dict | None = None) -> str:
    """Ingest what a query gives, from the same file each time."""
    folder.mkdir(exist_ok=True)
    duckdb.sql(query).write_csv(str(folder / f"{dataset}.csv"))
    return run(str(folder / f"{dataset}.csv"), "", options or {}, folder / name, dataset).version


def data(*arguments: str, code: int = 0) -> str:
    ended = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert ended.exit_code == code, ended.output
    return ended.stdout if code == 0 else ended.stderr


def as_json(*arguments: str) -> dict:
    return json.loads(data(*arguments, "--json"))


A = "SELECT i AS id, i % 10 / 10 AS x, ['a', 'b'][1 + i % 2] AS c, 1 AS gone, i AS r FROM range(200) t(i)"
B = (
    "SELECT i AS id, CASE WHEN i % 5 = 0 THEN NULL ELSE 5 + i % 10 / 10 END AS x, ['a', 'b'][1 + i % 2] AS c, "
    "'n' AS new, 'q' || i AS r FROM range(20, 240) t(i)"
)


def test_a_version_is_listed_shown_and_restored_with_the_same_bytes(home, tmp_path):
    old, new = version(tmp_path, "a", A), version(tmp_path, "b", B)
    listed = as_json("list")["versions"]
    assert [(one["dataset"], one["version"], one["rows"]) for one in listed] == [("toy", new, 220), ("toy", old, 200)]
    assert new[:12] in data("list", "toy")
    shown = as_json("show", "toy@previous")
    assert shown["snapshot"]["version"] == old
    assert shown["snapshot"]["source_uri"] == str(tmp_path / "toy.csv")
    assert shown["models"] == []
    assert "BIGINT" in data("show", f"toy@{old[:6]}")
    data("restore", f"toy@{old[:6]}", "--to", tmp_path / "back")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == names
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
        assert os.access(tmp_path / "back" / name, os.W_OK)


def test_what_differs_is_told_by_rows_schema_and_distribution(home, tmp_path):
    version(tmp_path, "a", A), version(tmp_path, "b", B)
    found = as_json("diff", "toy", "--key", "id", "--html", tmp_path / "diff.html")
    assert found["keyed"] == {"key": ["id"], "added": 40, "removed": 20, "changed": 180, "repeated": 0}
    assert (found["added"], found["removed"]) == (["new"], ["gone"])
    assert found["retyped"] == [{"name": "r", "before": "BIGINT", "after": "VARCHAR"}]
    columns = {one["name"]: one for one in found["columns"]}
    order = [one["name"] for one in found["columns"]]
    assert order == ["r", "x", "id", "c"]  # what cannot be compared, then by distance
    assert columns["r"]["distance"] is None
    assert columns["x"]["distance"] == pytest.approx(1)
    assert columns["c"]["distance"] == 0
    assert columns["x"]["before"]["missing"] == 0
    assert columns["x"]["after"]["missing"] == pytest.approx(0.2)
    assert columns["x"]["before"]["mean"] == pytest.approx(0.45)
    assert columns["x"]["after"]["quantiles"][0] == pytest.approx(5.1)
    for side in ("before", "after"):
        for one in columns.values():
            assert not one["bins"] or sum(bin_[side] for bin_ in one["bins"]) == pytest.approx(1)
    page = (tmp_path / "diff.html").read_text()
    assert page.count('role="img"') == 2  # x and id
    assert "220" in data("diff", "toy")


def test_values_of_every_kind_are_compared(home, tmp_path):
    query = (
        "SELECT [1.5, 'nan'::DOUBLE, 'inf'::DOUBLE, NULL][1 + i % 4] AS odd, "
        "CASE WHEN i > {} THEN TIMESTAMP '2026-01-01' + to_hours(i::INT) END AS t, NULL::INT AS empty, i % 2 = 0 AS b, "
        "repeat('long', 100) || i AS u, 'it''s' AS \"a \"\"b\" FROM range(300) t(i)"
    )
    for name, first in (("a", 0), ("b", 100)):
        duckdb.sql(query.format(first)).write_parquet(str(tmp_path / "toy.parquet"))
        run(str(tmp_path / "toy.parquet"), "", {}, tmp_path / name, "toy")
    columns = {one["name"]: one for one in as_json("diff", "toy")["columns"]}
    assert {name: one["kind"] for name, one in columns.items()} == {
        "odd": "number", "t": "time", "empty": "number", "b": "category", "u": "category", 'a "b': "category",
    }  # fmt: skip
    assert [name for name, one in columns.items() if one["distance"]] == ["t"]
    assert columns["t"]["after"]["quantiles"][0] == "2026-01-05T05:00:00"
    assert {one["label"]: one["before"] for one in columns["odd"]["bins"]}["(not finite)"] == 0.5
    assert all(len(one["label"]) <= 80 for one in columns["u"]["bins"])


def test_rows_are_matched_by_the_contracts_key(home, tmp_path):
    version(tmp_path, "a", A), version(tmp_path, "b", B)
    contract = "dataset: toy\nkeys: [[gone], [id]]\ncolumns: {id: {type: integer}, gone: {type: integer}}\n"
    Store(settings().store).write("contracts/toy.yaml", contract.encode())
    assert as_json("diff", "toy")["keyed"]["key"] == ["id"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nope"], ["'nope'", "toy"]),
        (["show", "toy@previous"], ["one version only"]),
        (["show", "toy@ffffffffffff"], ["no version ffffffffffff"]),
        (["diff", "toy", "latest", "latest", "--key", "missing"], ["'missing'", "id"]),
        (["restore", "toy", "--to", "{home}"], ["is not empty", "--force"]),
        (["restore", "models:/toy@champion", "--to", "x"], ["no model models:/toy@champion"]),
        (["restore", "models:/toy", "--to", "x"], ["models:/NAME@ALIAS"]),
        (["ingest", "sklearn://wine", "--options", "[]"], ["JSON object"]),
        (["ingest", "sklearn://wine", "--dataset", "../x"], ["cannot name versions"]),
    ],
)
def test_a_mistake_is_one_sentence(home, tmp_path, arguments, words):
    version(tmp_path, "a", A)
    said = data(*(word.format(home=home) for word in arguments), code=1)
    assert all(word in said for word in words), said


def test_a_prefix_of_two_versions_is_refused(home, tmp_path):
    entry = catalog.find("toy", version(tmp_path, "a", A))
    twin = entry.version[:8] + "0" * 56
    other = entry.model_copy(update={"snapshot": entry.snapshot.model_copy(update={"version": twin})})
    Store(settings().store).write(f"versions/toy/{twin}.json", other.model_dump_json().encode())
    with pytest.raises(BadInput, match="may be any of"):
        catalog.find("toy", entry.version[:8])


def test_a_damaged_or_missing_part_restores_nothing_and_force_replaces(home, tmp_path):
    entry = catalog.find("toy", version(tmp_path, "a", A))
    back = tmp_path / "back"
    back.mkdir()
    (back / "mine").write_text("kept")
    part = Remote(entry.remote).local(entry.snapshot.parts[0].md5)
    content = part.read_bytes()
    part.unlink()
    assert "is gone" in data("restore", "toy", "--to", back, "--force", code=1)
    part.write_bytes(content[:-1] + b"?")
    assert "is damaged" in data("restore", "toy", "--to", back, "--force", code=1)
    assert [path.name for path in back.iterdir()] == ["mine"]
    part.write_bytes(content)
    data("restore", "toy", "--to", back, "--force")
    assert sorted(path.name for path in back.iterdir()) == sorted(path.name for path in (tmp_path / "a").iterdir())
    assert not list(tmp_path.glob(".back*"))


def test_bytes_are_kept_once_as_read_only_links_and_a_version_again_changes_only_its_time(home, tmp_path):
    first = catalog.find("toy", version(tmp_path, "a", A))
    version(tmp_path, "b", B)
    again = catalog.find("toy", version(tmp_path, "again", A))
    part = Remote(first.remote).local(first.snapshot.parts[0].md5)
    assert part.samefile(tmp_path / "a" / first.snapshot.parts[0].name)
    assert part.stat().st_mode & 0o777 == 0o444
    assert (again.created, again.directory) == (first.created, first.directory)
    assert again.ingested > first.ingested
    assert catalog.find("toy").version == first.version
    assert len(catalog.entries("toy")) == 2


def test_the_newest_version_of_the_same_source_and_options_is_found(home, tmp_path):
    source = str(tmp_path / "toy.csv")
    assert catalog.previous("toy", source, {}) is None
    old = version(tmp_path, "a", A)
    other = version(tmp_path, "c", A, options={"types": {"x": "FLOAT"}})
    assert catalog.previous("toy", source, {}).version == old
    assert catalog.previous("toy", source, {"types": {"x": "FLOAT"}}).version == other
    assert catalog.previous("toy", "elsewhere", {}) is None


def test_a_version_is_not_listed_where_its_bytes_could_not_be_kept(home, tmp_path, monkeypatch):
    put = Remote.put_bytes
    monkeypatch.setattr(Remote, "put_bytes", lambda *_: (_ for _ in ()).throw(Unreachable("the remote is down")))
    with pytest.raises(Unreachable):
        version(tmp_path, "a", A)
    assert catalog.datasets() == []
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(Remote, "put_bytes", put)
    version(tmp_path, "a", A)
    assert catalog.datasets() == ["toy"]


def test_two_runs_at_once_list_one_version_that_is_whole(home, tmp_path):
    (tmp_path / "toy.csv").write_text("a,b\n" + "".join(f"{i},{i}\n" for i in range(5000)))
    failures = []

    def ingest(name: str) -> None:
        try:
            run(str(tmp_path / "toy.csv"), "", {}, tmp_path / name / "s", "toy")
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=ingest, args=(f"t{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    (entry,) = catalog.entries("toy")
    data("restore", "toy", "--to", tmp_path / "back")
    remote = Remote(entry.remote)
    assert not list((home / "store").rglob(".*"))
    assert remote.get_bytes(entry.directory) == dvc.directory(dvc.tracked(tmp_path / "back", but=("snapshot.dvc",)))


def test_a_store_in_a_bucket_serves_all_commands(home, gcs_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_STORE", f"{gcs_bucket}/store")
    uploads = []
    send = Remote._send
    monkeypatch.setattr(Remote, "_send", lambda self, *rest: (uploads.append(rest[1].name), send(self, *rest)))
    old, new = version(tmp_path, "a", A), version(tmp_path, "b", B)
    version(tmp_path, "again", A)
    assert sorted(uploads) == ["part-00000.parquet"] * 2 + ["snapshot.json"] * 2
    assert {one["version"] for one in as_json("list")["versions"]} == {old, new}
    assert as_json("diff", "toy", old[:8], new[:8], "--key", "id")["keyed"]["added"] == 40
    data("restore", f"toy@{old[:8]}", "--to", tmp_path / "back")
    assert (tmp_path / "back" / "part-00000.parquet").read_bytes() == (
        tmp_path / "a" / "part-00000.parquet"
    ).read_bytes()
    assert catalog.previous("toy", str(tmp_path / "toy.csv"), {}).version == old


def test_a_transfer_that_breaks_off_is_tried_again_and_one_that_is_refused_is_not(
    home, gcs_bucket, tmp_path, monkeypatch
):
    import gcsfs

    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    put = gcsfs.GCSFileSystem.put_file
    tries = []

    def breaks(self, *arguments, **more):
        tries.append(1)
        if len(tries) < 3:
            raise OSError("connection reset")
        return put(self, *arguments, **more)

    monkeypatch.setattr(gcsfs.GCSFileSystem, "put_file", breaks)
    remote = Remote(f"{gcs_bucket}/dvc")
    remote.put(file, dvc.md5(file))
    assert len(tries) == 3
    remote.get(dvc.md5(file), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"bytes"
    tries.clear()
    with pytest.raises(Unreachable, match=r"gs://nowhere/dvc does not exist"):
        Remote("gs://nowhere/dvc").put(file, dvc.md5(file))
    with pytest.raises(BadInput, match="is gone"):
        remote.get("ab" * 16, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_disks_that_do_not_link_are_copied_to_and_a_full_one_keeps_nothing(home, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    remote = Remote(str(tmp_path / "dvc"))

    def refuses(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remote_module.os, "link", refuses)
    with monkeypatch.context() as patch:
        patch.setattr(remote_module.shutil, "copyfile", full)
        with pytest.raises(StorageFull, match="nothing half-written"):
            remote.put(file, dvc.md5(file))
    assert not [path for path in (tmp_path / "dvc").rglob("*") if path.is_file()]
    remote.put(file, dvc.md5(file))
    kept = remote.local(dvc.md5(file))
    assert kept.read_bytes() == b"bytes"
    assert not kept.samefile(file)


@pytest.mark.parametrize("root", ["memory://dvc", "unknown://x"])
def test_other_file_systems_work_or_say_why_not(home, tmp_path, root):
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    if root.startswith("memory"):
        remote = Remote(root)
        remote.put(file, dvc.md5(file))
        remote.get(dvc.md5(file), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"bytes"
        return
    with pytest.raises(Unreachable, match=root):
        Remote(root).put(file, dvc.md5(file))
