"""Checkpoints in a bucket, against a real emulator."""

import numpy as np
import pytest

from components.errors import BadInput, Unreachable
from components.train.checkpoints import State, StoredCheckpoints


def test_a_state_in_a_bucket_comes_back_is_replaced_and_is_cleared(gcs_bucket):
    kept = StoredCheckpoints(f"{gcs_bucket}/run/a", "a")
    assert kept.load() is None
    for value in (1.0, 2.0):
        kept.save(State({"w": np.full(1000, value)}, {"epoch": value}))
    found = StoredCheckpoints(f"{gcs_bucket}/run/a", "a").load()
    assert (found.arrays["w"] == 2.0).all()
    assert found.facts == {"epoch": 2.0}
    with pytest.raises(BadInput, match="is of another model"):
        StoredCheckpoints(f"{gcs_bucket}/run/a", "b").load()
    kept.clear()
    assert StoredCheckpoints(f"{gcs_bucket}/run/a", "a").load() is None


def test_a_bucket_that_is_not_there_is_said(gcs_bucket):
    with pytest.raises(Unreachable, match=r"checkpoint gs://nowhere/a.* cannot be used"):
        StoredCheckpoints("gs://nowhere/a", "a").save(State({"w": np.zeros(3)}, {}))
