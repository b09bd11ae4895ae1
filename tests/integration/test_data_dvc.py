"""The real DVC: it restores what a pointer means, and runs the road as stages."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import yaml

from components.ingest import catalog, dvc
from components.ingest.run import run
from components.ingest.snapshot import Part, Snapshot

pytestmark = pytest.mark.skipif(shutil.which("dvc") is None, reason="DVC is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLUICEWAY_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def repository(folder: Path, remote: str) -> Path:
    """A Git repository in which DVC is set up, as ``dvc init`` and ``dvc remote add`` do (a second each)."""
    (folder / ".dvc").mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / ".dvc" / "config").write_text(f"[core]\n    remote = data\n    analytics = false\n{remote}")
    return folder


def pulled(folder: Path, pointer: bytes) -> Path:
    (folder / "snapshot.dvc").write_bytes(pointer)
    ended = subprocess.run(["dvc", "pull", "-q", "snapshot.dvc"], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return folder / "snapshot"


def same(one: Path, other: Path) -> None:
    names = sorted(path.name for path in other.iterdir() if path.name != "snapshot.dvc")
    assert sorted(path.name for path in one.iterdir()) == names
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes()


def several_parts(folder: Path) -> Snapshot:
    """A snapshot of two parts."""
    (folder.parent / "a.csv").write_text("a\n1\n")
    made = run(str(folder.parent / "a.csv"), "", {}, folder)
    parts = []
    for index in range(2):
        name = f"part-{index:05}.parquet"
        (folder / name).unlink(missing_ok=True)
        duckdb.sql(f"SELECT {index} AS a").write_parquet(str(folder / name))
        parts.append(Part(name=name, rows=1, bytes=(folder / name).stat().st_size, md5=dvc.md5(folder / name)))
    made = made.model_copy(update={"rows": 2, "parts": tuple(parts)})
    (folder / "snapshot.json").write_text(made.model_dump_json())
    return made


def test_dvc_pull_restores_a_snapshot_of_several_parts_from_a_folder(home, tmp_path):
    made = several_parts(tmp_path / "s")
    entry = catalog.publish(tmp_path / "s", made, "toy")
    pointer = (home / "store" / "versions" / "toy" / f"{made.version}.dvc").read_bytes()
    folder = repository(tmp_path / "repository", f"['remote \"data\"']\n    url = {entry.remote}\n")
    same(pulled(folder, pointer), tmp_path / "s")


def test_dvc_pull_restores_a_snapshot_from_a_bucket(home, tmp_path, monkeypatch):
    pytest.importorskip("dvc_gs")
    import gcsfs

    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="data")
    server.start()
    address = f"http://127.0.0.1:{server._api._httpd.server_address[1]}"
    gcsfs.GCSFileSystem.clear_instance_cache()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("SLUICEWAY_STORE", "gs://data/store")
        run("sklearn://wine", "", {}, tmp_path / "s", "wine")
        monkeypatch.delenv("STORAGE_EMULATOR_HOST")
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # gRPC, which the emulator does not speak
        options = f"    url = gs://data/store/dvc\n    endpointurl = {address}\n    allow_anonymous_login = true\n"
        config = f"['remote \"data\"']\n{options}"
        folder = repository(tmp_path / "repository", config)
        # The pointer that the snapshot itself carries.
        same(pulled(folder, (tmp_path / "s" / "snapshot.dvc").read_bytes()), tmp_path / "s")
    finally:
        server.stop()
        gcsfs.GCSFileSystem.clear_instance_cache()


def test_dvc_repro_runs_the_road_to_the_gate(home, tmp_path):
    folder = repository(tmp_path / "repository", "")
    shutil.copy(ROOT / "dvc.yaml", folder)
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    rows = "".join(f"{i},{i % 7},{int(i % 7 > 3)}\n" for i in range(300))
    (folder / "few.csv").write_text(f"a,b,target\n{rows}")
    (folder / "params.yaml").write_text(yaml.safe_dump({**given, "source_uri": "few.csv", "trainer": "linear"}))
    program = str(Path(sys.executable).parent)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{program}:{os.environ['PATH']}"}
    ended = subprocess.run(["dvc", "repro"], cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr

    made = folder / "build" / "road"
    assert json.loads((made / "evaluate.json").read_text()) == {"Output": True}
    assert json.loads((made / "evaluate" / "metrics.json").read_text())["roc_auc"] > 0.99
    (version,) = catalog.entries("few")
    assert json.loads((made / "resolve.json").read_text())["source_version"] == version.version
    locked = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    assert list(locked) == ["resolve", "ingest", "validate", "features", "train", "evaluate"]
    assert locked["ingest"]["params"]["build/road/resolve.json"]["source_version"] == version.version
    (snapshot,) = locked["ingest"]["outs"]
    assert snapshot["md5"].endswith(".dir")
