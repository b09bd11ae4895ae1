"""Checkpoints in a bucket, against a real emulator."""

from collections.abc import Iterator

import numpy as np
import pytest

from components.errors import BadInput, Unreachable
from components.train.checkpoints import State, StoredCheckpoints

emulator = pytest.importorskip("gcp_storage_emulator.server")


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    import gcsfs

    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="data")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield "gs://data"
    server.stop()
    gcsfs.GCSFileSystem.clear_instance_cache()


def test_a_state_in_a_bucket_comes_back_is_replaced_and_is_cleared(bucket):
    kept = StoredCheckpoints(f"{bucket}/run/a", "a")
    assert kept.load() is None
    for value in (1.0, 2.0):
        kept.save(State({"w": np.full(1000, value)}, {"epoch": value}))
    found = StoredCheckpoints(f"{bucket}/run/a", "a").load()
    assert (found.arrays["w"] == 2.0).all()
    assert found.facts == {"epoch": 2.0}
    with pytest.raises(BadInput, match="is of another model"):
        StoredCheckpoints(f"{bucket}/run/a", "b").load()
    kept.clear()
    assert StoredCheckpoints(f"{bucket}/run/a", "a").load() is None


def test_a_bucket_that_is_not_there_is_said(bucket):
    with pytest.raises(Unreachable, match=r"checkpoint gs://nowhere/a.* cannot be used"):
        StoredCheckpoints("gs://nowhere/a", "a").save(State({"w": np.zeros(3)}, {}))
