"""The torch fit: the same bits for the same seed, and what it does where things go wrong."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components.errors import BadInput
from components.train.contract import Data, Run
from components.train.interrupt import Interrupted
from components.train.run import train
from components.train.torch import learner, table
from components.train.torch.device import Device
from components.train.torch.prepare import prepare
from components.train.torch.settings import Settings
from components.train.torch.table import ParquetRows, Resident, Rows, Streamed, encoded
from components.train.torch.trainer import TRAINER
from serving.schema import ARCHITECTURE_FILE
from tests.feature_sets import feature_set, mixed_frame, sklearn_frame

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Data.read(feature_set(tmp_path_factory.mktemp("f") / "features", mixed_frame(1200), "binary"))


def fit(data, *, seed=0, **chosen):
    told, said = [], []
    run = Run(seed, "cpu", listeners=(lambda _number, metrics: told.append(dict(metrics)),), say=said.append)
    parameters = TRAINER.parameters(data.schema.task) | {"epochs": 4, "width": 16} | chosen
    return TRAINER.fit(data, parameters, run), told, said


def losses(told):
    return [(metrics["train_loss"], metrics["valid_loss"]) for metrics in told]


@pytest.fixture(scope="module")
def plain(data):
    return fit(data)


def test_the_same_seed_gives_the_same_bits_whatever_else_the_process_did(data, plain):
    torch.manual_seed(99)
    torch.rand(3)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again, told, _ = fit(data)
    finally:
        torch.set_num_threads(threads)
    assert losses(told) == losses(plain[1])
    assert (again.predict(data.valid.inputs) == plain[0].predict(data.valid.inputs)).all()
    other, _, _ = fit(data, seed=1)
    assert (other.predict(data.valid.inputs) != plain[0].predict(data.valid.inputs)).any()


def test_a_fit_leaves_torch_as_it_was(data):
    torch.manual_seed(5)
    before = (torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    fit(data, epochs=1)
    assert (torch.get_rng_state() == before[0]).all()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]


def test_every_epoch_tells_losses_metric_speed_and_learning_rate(plain):
    _, told, said = plain
    assert len(told) == 4
    assert set(told[0]) == {
        "train_loss",
        "valid_loss",
        "valid_roc_auc",
        "rows_per_second",
        "host_memory_gb",
        "learning_rate",
    }
    assert told[-1]["train_loss"] < told[0]["train_loss"]
    assert said[-1].startswith("Training on the CPU (")


def test_the_best_epochs_weights_are_kept_and_the_fit_stops_when_none_follows(data):
    fitted, told, _ = fit(data, epochs=200, patience=3, learning_rate=0.02)
    valid = [metrics["valid_loss"] for metrics in told]
    best = int(np.argmin(valid))
    assert len(valid) == best + 1 + 3 < 200
    assert fitted.facts["best_epoch"] == best + 1
    likely = fitted.predict(data.valid.inputs)[np.arange(len(data.valid.target)), data.valid.target]
    assert -np.log(likely).mean() == pytest.approx(valid[best], rel=1e-5)


def test_a_loss_that_is_no_number_stops_it_with_epoch_and_learning_rate(data, monkeypatch):
    plain = learner.Objective.forward

    def diverging(self, *rows):
        loss = plain(self, *rows)
        return loss * float("nan") if seen.append(1) or len(seen) > 20 else loss

    seen = []
    monkeypatch.setattr(learner.Objective, "forward", diverging)
    with pytest.raises(
        BadInput, match=r"train_loss is nan in epoch 2 at learning rate \d.*Choose a lower learning_rate"
    ):
        fit(data, batch_size=64)


@pytest.mark.parametrize("fails", ["forward", "backward"])
def test_a_step_that_runs_out_of_memory_is_done_in_halves_and_the_batch_stays_what_it_was(data, monkeypatch, fails):
    plain, room, tried = learner.Objective.forward, 40, []

    def full(self, *rows):
        tried.append(len(rows[0]))
        loss = plain(self, *rows)
        if len(rows[0]) > room:
            if fails == "forward":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            loss.register_hook(_out_of_memory)
        return loss

    wanted = losses(fit(data, batch_size=128, dropout=0.0)[1])
    monkeypatch.setattr(learner.Objective, "forward", full)
    _, told, said = fit(data, batch_size=128, dropout=0.0)
    assert tried[:3] == [128, 64, 32]
    assert max(tried[3:]) == 32
    assert "Out of memory with 128 rows at once: going on with 64." in said
    assert np.allclose(losses(told), wanted, rtol=1e-4)


def _out_of_memory(_gradient):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_device_without_memory_for_one_row_is_said(data, monkeypatch):
    monkeypatch.setattr(learner.Objective, "forward", lambda *_: _out_of_memory(None))
    with pytest.raises(BadInput, match="has no memory for 1 rows at once: choose a smaller width"):
        fit(data)


def test_a_last_batch_of_one_row_and_a_table_of_few_rows_train(tmp_path):
    frame = mixed_frame(600)
    folder = feature_set(tmp_path / "f", frame, "binary")
    rows = len(pd.read_parquet(folder / "train.parquet"))
    _, told, _ = fit(Data.read(folder), batch_size=rows - 1, epochs=2)
    assert np.isfinite(losses(told)).all()
    small = feature_set(tmp_path / "g", frame.head(12), "binary")
    assert np.isfinite(fit(Data.read(small), epochs=2)[0].predict(Data.read(small).train.inputs)).all()


def test_a_class_that_no_row_of_train_has_is_named(tmp_path):
    folder = feature_set(tmp_path / "f", mixed_frame(), "binary")
    rows = pd.read_parquet(folder / "train.parquet")
    rows[rows["target"] == 0].to_parquet(folder / "train.parquet")
    with pytest.raises(BadInput, match="No row of the train split has 'target' = 'yes'"):
        fit(Data.read(folder))


def test_weights_lift_the_rare_class(tmp_path):
    frame = mixed_frame(2000)
    rare = frame[(frame["target"] == "no") | (np.arange(2000) % 12 == 0)].reset_index(drop=True)
    data = Data.read(feature_set(tmp_path / "f", rare, "binary"))
    share = data.train.target.mean()
    even = fit(data, class_weight="balanced", epochs=15)[0].predict(data.valid.inputs)[:, 1].mean()
    as_is = fit(data, epochs=15)[0].predict(data.valid.inputs)[:, 1].mean()
    by_hand = fit(data, class_weight={0: 1.0, 1: (1 - share) / share}, epochs=15)[0].predict(data.valid.inputs)[:, 1]
    assert as_is == pytest.approx(share, abs=0.1)
    assert even > as_is + 0.15
    assert by_hand.mean() == pytest.approx(even, abs=1e-3)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"learning_rate": -1.0}, "'learning_rate' of the trainer 'torch' is -1.0: Input should be greater than 0"),
        ({"precision": "fp64"}, "'precision' of the trainer 'torch' is 'fp64'"),
        ({"class_weight": "fair"}, "'class_weight' of the trainer 'torch' is 'fair'"),
        ({"dropout": float("nan")}, "'dropout' of the trainer 'torch' is nan"),
    ],
)
def test_a_value_that_cannot_be_is_named(data, chosen, said):
    with pytest.raises(BadInput, match=said):
        fit(data, **chosen)


def test_bf16_learns_too(data, plain):
    _, told, _ = fit(data, precision="bf16")
    assert told[-1]["valid_loss"] == pytest.approx(plain[1][-1]["valid_loss"], abs=0.02)


def test_a_compiler_that_fails_is_said_and_done_without(data, plain, monkeypatch):
    def broken(_function, **_options):
        def call(*_rows):
            raise RuntimeError("no C++ compiler\nin 20 lines")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    _, told, said = fit(data, compile="on")
    assert "Going on without compiling the network: no C++ compiler" in said
    assert losses(told) == losses(plain[1])


def test_sigterm_while_measuring_keeps_the_epochs_steps(data, tmp_path, monkeypatch):
    from components.train.checkpoints import StoredCheckpoints

    monkeypatch.setattr(table, "_SPLIT", 50)
    kept, plain = StoredCheckpoints(str(tmp_path), "a"), learner.Learner.predict
    run = Run(0, "cpu", kept)

    def reclaimed(self, rows, stop):
        run.interrupt._came.set()
        return plain(self, rows, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner.Learner, "predict", reclaimed)
        parameters = TRAINER.parameters("binary") | {"epochs": 4, "width": 16}
        with pytest.raises(Interrupted, match=r"in epoch 1, batch (\d+) of \1"):
            TRAINER.fit(data, parameters, run)
    told = []
    after = Run(0, "cpu", kept, listeners=(lambda _number, metrics: told.append(dict(metrics)),))
    TRAINER.fit(data, parameters, after)
    assert losses(told) == losses(fit(data)[1])


# Tables that do not fit


def as_tensor(values):
    return torch.from_numpy(values.copy())


def grouped(data, tmp_path, rows=97):
    """The feature set with row groups of so many rows."""
    for name in ("train", "valid"):
        pq.write_table(
            pq.read_table(data.folder / f"{name}.parquet"), tmp_path / f"{name}.parquet", row_group_size=rows
        )
    (tmp_path / "features.json").write_text((data.folder / "features.json").read_text())
    return Data.read(tmp_path)


def test_row_groups_are_encoded_as_frames_are(data, tmp_path):
    prepared = prepare(data.train.inputs, data.schema, Settings())
    folder = grouped(data, tmp_path).folder
    read = ParquetRows(folder / "train.parquet", data.schema, prepared.encoder, as_tensor)
    columns = {name: data.train.inputs[name].to_numpy() for name in data.train.inputs}
    wanted = encoded(prepared.encoder, columns, torch.from_numpy(data.train.target))
    found = read.whole(CPU, lambda: None)
    for name in ("numbers", "missing", "codes", "target"):
        assert torch.equal(getattr(found, name), getattr(wanted, name).to(getattr(found, name).dtype)), name
    assert wanted.codes.unique().numel() > 30


@pytest.mark.parametrize("kind", ["dictionary", "int", "bool", "timestamp"])
def test_every_type_of_column_is_encoded_as_in_a_frame(tmp_path, kind):
    random = np.random.default_rng(0)
    frame = mixed_frame(400).drop(columns=["city", "age"])
    values = {
        "dictionary": pd.Categorical(random.choice(["a", "b", None], 400)),
        "int": pd.array(random.choice([1, 2, 3], 400), dtype="Int64"),
        "bool": pd.array(random.choice([True, False, None], 400), dtype="boolean"),
        "timestamp": pd.to_datetime(random.choice(["2024-01-01 00:00", "2025-06-01 12:30", None], 400)),
    }[kind]
    folder = feature_set(tmp_path / "f", frame.assign(plan="x"), "binary")
    rows = pd.read_parquet(folder / "train.parquet")
    rows["plan"] = values[: len(rows)]
    rows.to_parquet(folder / "train.parquet", row_group_size=50)
    data = Data.read(folder)
    prepared = prepare(data.train.inputs, data.schema, Settings())
    read = ParquetRows(folder / "train.parquet", data.schema, prepared.encoder, as_tensor)
    columns = {name: data.train.inputs[name].to_numpy() for name in data.train.inputs}
    assert torch.equal(read.whole(CPU, lambda: None).codes, torch.from_numpy(prepared.encoder.encode(columns)[2]))


def numbered(count: int) -> Rows:
    numbers = torch.arange(count, dtype=torch.float32).reshape(-1, 1)
    empty = torch.zeros(count, 0)
    return Rows(numbers, empty, empty, torch.arange(count))


def streamed(monkeypatch, chunk: int) -> Streamed:
    monkeypatch.setattr(table, "CHUNK_ROWS", chunk)
    sizes = [7, 10, 10, 10, 3]
    starts = np.cumsum([0, *sizes])

    def read(groups):
        rows = torch.cat([torch.arange(starts[group], starts[group + 1]) for group in groups])
        return numbered(40).at(rows)

    return Streamed(read, sizes, CPU, 4, 7)


@pytest.mark.parametrize("source", ["resident", "streamed", "streamed at once"])
def test_every_epoch_has_every_row_once_in_an_order_of_its_own(monkeypatch, source):
    rows = {
        "resident": lambda: Resident(numbered(40), CPU, 4, 7),
        "streamed": lambda: streamed(monkeypatch, 15),
        "streamed at once": lambda: streamed(monkeypatch, 1000),
    }[source]()
    orders = []
    for epoch in range(3):
        batches = list(rows.batches(epoch, 0))
        assert len(batches) == rows.steps
        orders.append(torch.cat([batch.target for batch in batches]).tolist())
        assert sorted(orders[-1]) == list(range(40))
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("source", ["resident", "streamed"])
def test_from_any_batch_on_an_epoch_goes_on_as_it_would_have(monkeypatch, source):
    rows = Resident(numbered(40), CPU, 4, 7) if source == "resident" else streamed(monkeypatch, 15)
    whole = [batch.target.tolist() for batch in rows.batches(2, 0)]
    for start in range(len(whole) + 1):
        assert [batch.target.tolist() for batch in rows.batches(2, start)] == whole[start:]


def test_a_table_that_does_not_fit_is_streamed_and_learnt_as_well(data, tmp_path, monkeypatch, plain):
    monkeypatch.setattr(Device, "room", lambda _self: 10_000)
    monkeypatch.setattr(table, "CHUNK_ROWS", 300)
    _, told, said = fit(grouped(data, tmp_path))
    assert any("streamed from Parquet" in sentence for sentence in said)
    assert told[-1]["valid_loss"] == pytest.approx(plain[1][-1]["valid_loss"], abs=0.03)


def test_a_long_table_is_read_by_row_groups_and_checked_whole(data, tmp_path, monkeypatch, plain):
    long = grouped(data, tmp_path)
    monkeypatch.setattr("components.train.torch.fit.MEASURED_ROWS", 100)
    monkeypatch.setattr("components.train.contract.MEASURED_ROWS", 1000)
    _, told, _ = fit(long)
    assert told[-1]["valid_loss"] == pytest.approx(plain[1][-1]["valid_loss"], abs=0.03)
    rows = pq.read_table(tmp_path / "train.parquet")
    target = pa.array([float("nan"), *rows["target"].to_pylist()[1:]])
    rows = rows.set_column(rows.column_names.index("target"), "target", target)
    pq.write_table(rows, tmp_path / "train.parquet", row_group_size=97)
    with pytest.raises(BadInput, match=r"1 of .* rows of the train split have no finite value"):
        fit(Data.read(tmp_path))


# The bundle


def test_the_bundle_serves_onnx_and_natively_the_same_and_mlflow_loads_it(tmp_path):
    import mlflow

    from serving.bundle import load, model_frame
    from serving.explain import explain
    from serving.server.served import Served

    features = feature_set(tmp_path / "f", sklearn_frame("wine"), "multiclass")
    rows = pd.read_parquet(features / "test.parquet")
    chosen = {"epochs": 3, "width": 16}
    made = train(features, tmp_path / "onnx", trainer="torch", hyperparameters=chosen, device="cpu")
    assert made.manifest.runtime == "onnx"
    assert made.manifest.parity.max_abs < 1e-6
    assert ARCHITECTURE_FILE in made.manifest.files
    native = train(
        features, tmp_path / "native", trainer="torch", hyperparameters=chosen, device="cpu", parity_tolerance=0.0
    )
    assert native.manifest.runtime == "native"
    predictions = [load(tmp_path / name).predict(rows) for name in ("onnx", "native")]
    assert np.abs(predictions[0] - predictions[1]).max() < 1e-6
    schema = load(tmp_path / "onnx").schema
    for name, wanted in zip(("onnx", "native"), predictions, strict=True):
        loaded = mlflow.pyfunc.load_model(str(tmp_path / name))
        assert (loaded.predict(model_frame(rows, schema)) == wanted).all()
    columns = {column.name: rows[column.name].head(1).tolist() for column in schema.inputs}
    graph, network = (
        explain(Served(name, "1", load(tmp_path / name)), columns, 1, seconds=60, precision=0.05)[0]
        for name in ("onnx", "native")
    )
    assert graph.contributions == pytest.approx(network.contributions, abs=1e-5)
    assert max(map(abs, network.contributions.values())) > 0.001
