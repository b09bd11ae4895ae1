"""Epochs on their way to TensorBoard and MLflow."""

import errno
import json
import subprocess
import sys
from types import ModuleType

import pytest

from components.errors import StorageFull, Unreachable
from components.train.event_file import EventFile, ui_metadata
from components.train.tracking import EpochLog, OpenRun

EPOCHS = {1: {"train_loss": 0.7, "valid_loss": 0.6, "learning_rate": 0.01}, 2: {"train_loss": 0.5, "valid_loss": 0.55}}


def told(listener):
    for number, metrics in EPOCHS.items():
        listener(number, metrics)


@pytest.fixture(scope="module", autouse=True)
def read_without_tensorflow():
    """TensorBoard's reader would import TensorFlow, which takes seconds; this module's presence makes it do without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path_factory.mktemp("logs") / "run"
    file = EventFile(folder)
    told(file)
    file.finish({"width": 64, "dropout": 0.1, "amp": True, "activation": "relu", "none": None}, {"valid_roc_auc": 0.84})
    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_reads_every_epoch_with_train_and_valid_in_one_section(written):
    assert set(written.Tags()["scalars"]) == {"loss/train", "loss/valid", "learning_rate", "final/valid_roc_auc"}
    assert [(event.step, round(event.value, 6)) for event in written.Scalars("loss/train")] == [(1, 0.7), (2, 0.5)]
    assert written.Scalars("learning_rate")[0].step == 1
    assert written.Scalars("final/valid_roc_auc")[0].step == 2


def test_tensorboard_reads_the_hyperparameters_with_their_types(written):
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    content = written.summary_metadata[SESSION_START_INFO_TAG].plugin_data.content
    said = parse_session_start_info_plugin_data(content).hparams
    assert (said["width"].number_value, said["amp"].bool_value, said["activation"].string_value) == (64, True, "relu")
    assert said["none"].string_value == "None"


def test_an_epoch_is_on_disk_before_the_next_one_ends(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = EventFile(tmp_path)
    file(1, EPOCHS[1])
    assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("loss/train")) == 1
    file.close()


def test_without_an_epoch_there_is_no_folder(tmp_path):
    EventFile(tmp_path / "logs").close()
    assert not (tmp_path / "logs").exists()


def test_a_full_disk_is_one_sentence(tmp_path):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    file = EventFile(tmp_path)
    file._records = Full()
    with pytest.raises(StorageFull, match="No space left for TensorBoard's events in"):
        file(1, EPOCHS[1])


def test_neither_tensorflow_nor_torch_nor_mlflow_is_imported_for_it(tmp_path):
    code = f"""
import sys
from pathlib import Path
from components.train.event_file import EventFile
from components.train.tracking import tracked
file = EventFile(Path({str(tmp_path)!r}))
file(1, {{"train_loss": 1.0}}); file.finish({{"a": 1}}, {{"b": 2.0}})
with tracked("m", {{}}, "d", print):
    pass
print([name for name in ("tensorflow", "torch", "mlflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_kfp_ui_is_told_where_the_event_files_are():
    assert json.loads(ui_metadata("s3://bucket/logs")) == {
        "outputs": [{"type": "tensorboard", "source": "s3://bucket/logs"}]
    }


class Server:
    """MLflow's client, as far as a log of epochs goes; away while ``away``."""

    def __init__(self):
        self.away, self.got, self.calls, self.status = False, [], 0, ""

    def log_batch(self, run_id, metrics):
        self.calls += 1
        if self.away:
            raise Unreachable("MLflow at http://mlflow cannot be used (Connection refused).")
        assert len(metrics) <= 1000
        self.got += [(metric.key, metric.value, metric.step) for metric in metrics]

    def set_terminated(self, run_id, status):
        self.status = status


def log(server, said, every=0.0, **fields):
    return EpochLog(lambda first: OpenRun(server, "run", **fields), said.append, every)


def test_what_mlflow_missed_is_sent_in_order_when_it_is_back_and_its_absence_is_said_once():
    server, said = Server(), []
    server.away = True
    epochs = log(server, said)
    told(epochs)
    assert len(said) == 1
    assert said[0].startswith("Training goes on without MLflow")
    assert "Connection refused" in said[0]
    server.away = False
    epochs.close("FINISHED")
    assert [(name, step) for name, _, step in server.got if name == "train_loss"] == [
        ("train_loss", 1),
        ("train_loss", 2),
    ]
    assert server.status == "FINISHED"
    assert len(said) == 1


def test_what_never_arrived_is_said_at_the_end():
    server, said = Server(), []
    server.away = True
    epochs = log(server, said)
    told(epochs)
    epochs.close("FINISHED")
    assert said[-1] == "5 metrics of epochs were never sent to MLflow: it did not come back."


def test_an_absent_mlflow_is_tried_ever_more_rarely(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("components.train.tracking.time.monotonic", lambda: now[0])
    server = Server()
    server.away = True
    epochs = log(server, [], every=10.0)
    tries = []
    for second in range(3000):
        now[0] = float(second)
        before = server.calls
        epochs(second + 1, {"train_loss": 1.0})
        if server.calls > before:
            tries.append(second)
    assert tries == [0, 20, 60, 140, 300, 620, 1220, 1820, 2420]


def test_epochs_go_in_batches_and_not_one_by_one():
    server = Server()
    epochs = log(server, [], every=1000.0)
    for number in range(1, 601):
        epochs(number, {"train_loss": 1.0, "valid_loss": 2.0})
    assert server.calls == 1  # the first epoch, so that the run is seen at once
    epochs.close("FINISHED")
    assert server.calls == 3
    assert len(server.got) == 1200


def test_epochs_that_a_killed_attempt_has_sent_are_not_sent_twice():
    server = Server()
    epochs = log(server, [], after=1)
    told(epochs)
    epochs.close("FINISHED")
    assert {step for _, _, step in server.got} == {2}


def test_a_run_of_kfp_is_not_ended_and_what_is_not_a_number_is_left_out():
    server = Server()
    epochs = log(server, [], ours=False)
    epochs(1, {"train_loss": 1.0, "valid_roc_auc": float("nan")})
    epochs.close("FINISHED")
    assert server.status == ""
    assert server.got == [("train_loss", 1.0, 1)]
