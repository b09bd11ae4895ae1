"""A Keras training: when it stops, what it survives, and that where it was cut in two cannot be seen."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from components.errors import BadInput
from components.train.checkpoints import StoredCheckpoints
from components.train.contract import Data, Run
from components.train.interrupt import Interrupt, Interrupted
from components.train.keras import fit as fit_module
from components.train.keras import sources
from components.train.keras.device import Device
from components.train.keras.encoding import Encoding
from components.train.keras.fit import fit
from components.train.keras.learner import Learner
from components.train.keras.loop import Loop
from components.train.keras.network import Shape
from components.train.keras.settings import Settings
from components.train.keras.sources import Held, Streamed
from tests.feature_sets import feature_set, mixed_frame, sklearn_frame

CPU = Device(("CPU:0",), "fp32", 10**9, "On the CPU;")
TOO_SMALL = Device(("CPU:0",), "fp32", 0, "On the CPU;")
TINY = Settings(epochs=4, width=8, blocks=0, batch_size=32)
DROPS = TINY.model_copy(update={"blocks": 1, "dropout": 0.3})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Made-up customers in row groups; the last batch of 32 has a single row."""
    tf.config.experimental.enable_op_determinism()
    folder = feature_set(tmp_path_factory.mktemp("mixed"), mixed_frame(300), "binary")
    table = pd.read_parquet(folder / "train.parquet")
    table.head(161).to_parquet(folder / "train.parquet", row_group_size=50)
    return Data.read(folder)


class Losses:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, Mapping[str, float]] = {}

    def __call__(self, number, metrics) -> None:
        self.told[number] = metrics


class AfterLooks(Interrupt):
    """SIGTERM that comes after so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.fixture(scope="module", params=[CPU, TOO_SMALL], ids=["held", "streamed"])
def undisturbed(request, data):
    """A training that nothing disturbs: the device, its reports, what it said, and its model."""
    losses, said = Losses(), []
    return request.param, losses, said, fit(data, DROPS, Run(3, listeners=(losses,), say=said.append), request.param)


def predictions(fitted, data):
    return fitted.predict(data.valid.inputs)


def test_every_epoch_is_reported_with_both_losses_and_the_learning_rate(undisturbed):
    device, losses, said, fitted = undisturbed
    assert list(losses.told) == [1, 2, 3, 4]
    assert all(set(told) == {"train_loss", "valid_loss", "learning_rate"} for told in losses.told.values())
    for name in ("train_loss", "valid_loss"):
        assert losses.told[4][name] < losses.told[1][name]
    how = "the table held on the device" if device is CPU else "streamed from Parquet: the table does not fit"
    assert len(said) == 1
    assert said[0].startswith(f"On the CPU; 32 rows at a time, {how}")
    assert fitted.facts["epochs"] == 4


def test_told_to_stop_in_the_middle_of_an_epoch_it_goes_on_at_that_row_and_ends_bit_equal(
    tmp_path, data, undisturbed, monkeypatch
):
    device, wanted, _, model = undisturbed
    monkeypatch.setattr(Loop, "_pace", lambda _loop, _seconds: None)  # one step a call
    kept = StoredCheckpoints(str(tmp_path), "a")
    with pytest.raises(Interrupted, match="told to stop in epoch 2: its state is saved"):
        fit(data, DROPS, Run(3, checkpoints=kept, interrupt=AfterLooks(9)), device)
    losses, said = Losses(), []
    ended = fit(data, DROPS, Run(3, checkpoints=kept, listeners=(losses,), say=said.append), device)
    assert said[1] == "Going on from the checkpoint: 1 epochs and 128 rows of the next are done."
    assert losses.told == wanted.told  # the reports of the earlier attempt are told again
    assert (predictions(ended, data) == predictions(model, data)).all()


def test_a_table_is_held_where_it_fits_to_the_byte(data):
    encoding = Encoding.fit(data.train, data.schema)
    needed = len(data.train.target) * (len(data.schema.features) + 1) * 4
    assert isinstance(sources.source(data, encoding, 0, needed), Held)
    assert isinstance(sources.source(data, encoding, 0, needed - 1), Streamed)


def test_it_stops_when_the_valid_loss_no_longer_falls_and_keeps_the_best_epoch(data):
    losses = Losses()
    settings = TINY.model_copy(update={"epochs": 60, "patience": 2, "learning_rate": 0.03})
    fitted = fit(data, settings, Run(3, listeners=(losses,)), CPU)
    valid = {number: told["valid_loss"] for number, told in losses.told.items()}
    best = min(valid, key=valid.__getitem__)
    assert len(valid) == best + 2 < 60
    assert fitted.facts["best_epoch"] == best
    truth = data.valid.target
    given = -np.log(predictions(fitted, data)[np.arange(len(truth)), truth]).mean()
    assert given == pytest.approx(valid[best], abs=2e-3)  # the average vector of unseen cities came after it


def test_a_checkpoint_of_another_network_is_refused(tmp_path, data):
    kept = StoredCheckpoints(str(tmp_path), "a")
    with pytest.raises(Interrupted):
        fit(data, TINY, Run(3, checkpoints=kept, interrupt=AfterLooks(0)), CPU)
    with pytest.raises(BadInput, match="checkpoint is of another network"):
        fit(data, TINY.model_copy(update={"width": 16}), Run(3, checkpoints=kept), CPU)


class Memory:
    """A source on a device that holds only so many rows at a time."""

    def __init__(self, inner, most: int) -> None:
        self.inner, self.most, self.how, self.rows = inner, most, inner.how, inner.rows

    def epoch(self, learner, number, done, batch):
        inner, memory = self.inner.epoch(learner, number, done, batch), self

        class Epoch:
            def advance(self, steps, totals):
                totals = inner.advance(steps, totals)
                if batch > memory.most:
                    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
                return totals

        return Epoch()


def test_out_of_memory_halves_the_batch_and_leaves_no_trace_of_the_steps_before(data, monkeypatch):
    real = sources.source
    monkeypatch.setattr(fit_module, "source", lambda *given: Memory(real(*given), 10))
    losses, said = Losses(), []
    fitted = fit(data, TINY, Run(3, listeners=(losses,), say=said.append), CPU)
    assert said[1:] == [
        "A batch of 32 rows does not fit on the device: going on with 16.",
        "A batch of 16 rows does not fit on the device: going on with 8.",
    ]
    assert fitted.facts["batch_size"] == 8
    assert list(losses.told) == [1, 2, 3, 4]
    monkeypatch.undo()
    from_the_start = fit(data, TINY.model_copy(update={"batch_size": 8}), Run(3), CPU)
    assert (predictions(fitted, data) == predictions(from_the_start, data)).all()


def test_a_device_that_holds_not_even_one_row_is_said(data, monkeypatch):
    real = sources.source
    monkeypatch.setattr(fit_module, "source", lambda *given: Memory(real(*given), 0))
    with pytest.raises(BadInput, match="Not even one row at a time fits on the device"):
        fit(data, TINY, Run(3), CPU)


def test_a_loss_that_is_not_a_number_stops_with_the_epoch_and_the_learning_rate(tmp_path):
    folder = feature_set(tmp_path, sklearn_frame("diabetes"), "regression")
    settings = Settings(epochs=5, width=8, blocks=2, learning_rate=10.0, weight_decay=10.0)
    with pytest.raises(BadInput, match=r"Training diverged: .*_loss is (nan|inf) in epoch \d+ at learning rate 10"):
        fit(Data.read(folder), settings, Run(0), CPU)


def test_classes_weigh_what_is_asked_for(data):
    encoding, rows = Encoding.fit(data.train, data.schema), data.train.target
    table, shape = encoding.encode(data.train), Shape.of(TINY, data.schema)
    counts = np.bincount(rows)
    weights = {
        "none": np.ones(2),
        "balanced": len(rows) / (2 * counts),
        "chosen": np.array([1.0, 5.0]),
    }
    for name, wanted in weights.items():
        settings = TINY.model_copy(update={"class_weight": {1: 5.0} if name == "chosen" else name})
        learner = Learner(encoding, shape, "binary", settings, CPU, 0, settings.weights(rows, 2))
        learner.core.get_layer("output").set_weights([np.full((8, 1), 0.3), np.ones(1)])
        logits = np.asarray(learner.core([table.codes, table.numbers]), "float64")[:, 0]
        losses = np.where(rows == 1, np.logaddexp(0, -logits), np.logaddexp(0, logits))
        assert learner.measure(table, 50) == pytest.approx(np.average(losses, weights=wanted[rows]), rel=1e-5)


def test_a_stream_gives_every_row_once_in_another_order_each_epoch_and_goes_on_after_any_row(data):
    encoding = Encoding.fit(data.train, data.schema)
    stream = Streamed(data.folder / "train.parquet", data.schema, encoding, 5, pool_rows=120)

    def rows(number, done=0, batch=32):
        parts = list(stream.batches(number, done, batch))
        assert [len(part) for part in parts[:-1]] == [batch] * (len(parts) - 1)
        return np.concatenate([np.column_stack([part.codes, part.numbers, part.target]) for part in parts])

    first, second = rows(1), rows(2)
    held = encoding.encode(data.train)
    everything = np.column_stack([held.codes, held.numbers, held.target])
    order = np.lexsort(np.nan_to_num(everything).T)
    for found in (first, second):
        assert np.array_equal(found[np.lexsort(np.nan_to_num(found).T)], everything[order], equal_nan=True)
    assert not np.array_equal(first, second, equal_nan=True)
    for done in (32, 96, len(first) - 1):
        assert np.array_equal(rows(1, done), first[done:], equal_nan=True)


def test_a_split_too_long_for_pandas_is_encoded_part_by_part(data, monkeypatch):
    encoding = Encoding.fit(data.train, data.schema)
    monkeypatch.setattr(sources, "MEASURED_ROWS", 100)
    held = sources.source(data, encoding, 0, 10**9)
    assert isinstance(held, Held)
    for one, other in zip(held._table.arrays(), encoding.encode(data.train).arrays(), strict=True):
        assert np.array_equal(one, other, equal_nan=True)
