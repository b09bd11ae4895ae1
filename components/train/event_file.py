"""Writes what a training reports as a TensorBoard event file, without TensorFlow or torch."""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import StorageFull
from components.files import is_full


class EventFile:
    """A listener of :class:`components.train.contract.Run`; the file is opened with the first epoch.

    TensorBoard's ``EventFileWriter`` imports TensorFlow where it is installed; this uses the record writer beneath it.
    ``train_loss`` and ``valid_loss`` become ``loss/train`` and ``loss/valid``, so that they share a section.

    Args:
        folder: where the file is made; ``tensorboard --logdir`` opens it.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is written yet."""
        self._folder = folder
        self._records: Any = None
        self._step = 0

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None:
        """Write an epoch.

        Raises:
            StorageFull: there is no space left.
        """
        self._step = number
        self._write(self._scalars({_grouped(name): value for name, value in metrics.items()}))

    def finish(self, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write the hyperparameters and the final metrics for the HPARAMS page, and close the file.

        Raises:
            StorageFull: there is no space left.
        """
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.api_pb2 import Status
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

        now = time.time()
        start = SessionStartInfo(start_time_secs=now)
        for name, value in parameters.items():
            _set(start.hparams[name], value)
        end = SessionEndInfo(status=Status.STATUS_SUCCESS, end_time_secs=now)
        for tag, content in (
            (metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
            (metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
        ):
            described = metadata.create_summary_metadata(content)
            self._write([{"tag": tag, "metadata": described, "tensor": metadata.NULL_TENSOR}])
        self._write(self._scalars({f"final/{name}": value for name, value in metrics.items()}))
        self.close()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._records is not None:
            self._records.close()
            self._records = None

    def _scalars(self, values: Mapping[str, float]) -> list[dict[str, Any]]:
        return [{"tag": tag, "simple_value": float(value)} for tag, value in values.items()]

    def _write(self, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        event = Event(wall_time=time.time(), step=self._step, summary=summary)
        try:
            if self._records is None:
                self._records = self._open()
            self._records.write(event.SerializeToString())
            self._records.flush()
        except OSError as error:
            if is_full(error):
                raise StorageFull(f"No space left for TensorBoard's events in {self._folder}: free some.") from error
            raise

    def _open(self) -> Any:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        records = RecordWriter((self._folder / name).open("wb"))
        records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        return records


def ui_metadata(logs_uri: str) -> str:
    """What makes the KFP UI offer TensorBoard for a step.

    No artifact type or metadata of KFP 2 does. What its UI still honours is an output artifact that is named
    ``mlpipeline_ui_metadata`` and whose file holds this text; the button starts a TensorBoard pod where the cluster
    runs KFP's viewer controller.

    Args:
        logs_uri: the folder of event files as the cluster sees it, ``artifact.uri``.
    """
    return json.dumps({"outputs": [{"type": "tensorboard", "source": logs_uri}]})


def _grouped(name: str) -> str:
    split, _, metric = name.partition("_")
    return f"{metric}/{split}" if split in ("train", "valid") and metric else name


def _set(field: Any, value: Any) -> None:
    """Set a protobuf value as a number, a truth value or text."""
    if isinstance(value, bool):
        field.bool_value = value
    elif isinstance(value, int | float):
        field.number_value = value
    else:
        field.string_value = str(value)
