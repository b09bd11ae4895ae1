"""Counts that several processes share."""

import os

import numpy as np
import pytest

from serving.schema import BundleManifest
from serving.server.counters import GAUGE, ROW_BYTES, Board
from serving.server.telemetry import Metrics


def in_child(do):
    pid = os.fork()
    if pid == 0:
        try:
            do()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def manifest(task, classes=(), bins=()):
    return BundleManifest(
        framework="sklearn",
        task=task,
        classes=classes,
        prediction_bins=bins,
        runtime="onnx",
        recipe={},
        recipe_digest="0" * 64,
        files={},
    )


def samples(page):
    lines = [line for line in page.decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_what_a_process_counts_is_seen_by_the_others_and_outlives_it():
    board = Board(2)

    def count():
        row = board.row(1)
        row.values[row.place("theirs")] += 3
        row.values[row.place("both")] += 4
        row.values[row.place(GAUGE + "waiting")] = 7

    mine = board.row(0)
    mine.values[mine.place("both")] += 1
    in_child(count)
    assert board.sums() == {"both": [5.0], "theirs": [3.0], GAUGE + "waiting": [7.0]}
    board.release(1)
    assert board.sums() == {"both": [5.0], "theirs": [3.0], GAUGE + "waiting": [0.0]}
    assert board.pids() == [os.getpid()]
    in_child(count)  # its successor goes on where it stopped
    assert board.sums()["both"] == [9.0]


def test_a_row_that_is_full_says_so_and_keeps_what_it_has():
    board = Board()
    row = board.row(0)
    row.values[row.place("kept")] = 1.0
    with pytest.raises(MemoryError):
        row.place("large", ROW_BYTES // 8)
    assert board.sums() == {"kept": [1.0]}


def test_two_workers_metrics_are_one_page_with_the_sums_of_both():
    board = Board(2)

    def work():
        model = Metrics(board, 1).model("m", "r")
        model.expect(manifest("binary", ("No", "Yes"), (0.5,)))
        model.answered(200, 0.002)
        model.answered(429, 0.002)
        model.predicted(np.array([[0.2, 0.8]]), manifest("binary", ("No", "Yes")))

    metrics = Metrics(board, 0)
    model = metrics.model("m", "r")
    model.expect(manifest("binary", ("No", "Yes"), (0.5,)))
    model.answered(200, 0.002)
    model.scored(2, 3, 0.001)
    in_child(work)
    found = samples(metrics.page())
    who = 'model_name="m",revision="r"'
    assert found[f'sluiceway_requests_total{{code="200",{who}}}'] == 2
    assert found[f'sluiceway_requests_total{{code="429",{who}}}'] == 1
    assert found[f'sluiceway_requests_total{{code="500",{who}}}'] == 0
    assert found[f"sluiceway_request_seconds_count{{{who}}}"] == 3
    assert found[f"sluiceway_request_seconds_sum{{{who}}}"] == pytest.approx(0.006)
    assert found[f'sluiceway_prediction_bucket{{le="0.5",{who}}}'] == 0
    assert found[f'sluiceway_prediction_bucket{{le="+Inf",{who}}}'] == 1
    assert found['request_predict_seconds_count{model_name="m"}'] == 2
    assert found[f"sluiceway_batch_rows_sum{{{who}}}"] == 3
    for phase in ("preprocess", "postprocess", "explain"):
        assert found[f'request_{phase}_seconds_count{{model_name="m"}}'] == 0


@pytest.mark.parametrize("rows", [1, 5, 400])
def test_few_and_many_predictions_are_counted_alike(rows):
    scores = np.random.default_rng(rows).random((rows, 1))
    scores = np.hstack([1 - scores, scores])
    scores[0, 1] = 0.5  # an edge belongs to the bin below it
    binary = manifest("binary", ("No", "Yes"), (0.25, 0.5, 0.75))
    metrics = Metrics()
    model = metrics.model("m", "r")
    model.expect(binary)
    model.predicted(scores, binary)
    found = samples(metrics.page())
    for edge in (0.25, 0.5, 0.75):
        key = f'sluiceway_prediction_bucket{{le="{edge}",model_name="m",revision="r"}}'
        assert found[key] == (scores[:, 1] <= edge).sum()
    assert found['sluiceway_prediction_sum{model_name="m",revision="r"}'] == pytest.approx(scores[:, 1].sum())


def test_labels_are_counted_and_those_without_a_prediction_are_there():
    multi = manifest("multiclass", ("low", "mid", "high"))
    metrics = Metrics()
    model = metrics.model("m", "r")
    model.expect(multi)
    model.predicted(np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.0, 0.1, 0.9]]), multi)
    found = samples(metrics.page())
    counts = {
        label: found[f'sluiceway_predicted_total{{label="{label}",model_name="m",revision="r"}}']
        for label in multi.classes
    }
    assert counts == {"low": 1, "mid": 0, "high": 2}


def test_after_a_swap_predictions_are_counted_over_the_new_bundle_s_bins():
    metrics = Metrics()
    model = metrics.model("m", "r")
    model.expect(manifest("regression", bins=(1.0, 2.0)))
    model.predicted(np.array([1.5]), manifest("regression"))
    model.expect(manifest("regression", bins=(5.0,)))
    model.predicted(np.array([1.5]), manifest("regression"))
    edges = [name for name in samples(metrics.page()) if name.startswith("sluiceway_prediction_bucket")]
    assert [edge.split('"')[1] for edge in edges] == ["5.0", "+Inf"]


def test_payload_counts_of_a_new_process_are_added_to_what_was():
    board = Board()
    Metrics(board).payloads({"offered": 5, "dropped.queue": 1})
    metrics = Metrics(board)  # as after a restart: the log's own counts begin at zero
    metrics.payloads({"offered": 2})
    metrics.payloads({"offered": 4})
    found = samples(metrics.page())
    assert found['sluiceway_payloads_total{outcome="offered"}'] == 9
    assert found['sluiceway_payloads_total{outcome="dropped.queue"}'] == 1


def test_the_processor_time_of_a_worker_that_is_gone_is_not_lost():
    metrics = Metrics()
    before = samples(metrics.page())["process_cpu_seconds_total"]
    metrics.ended(1_000.0)
    assert samples(metrics.page())["process_cpu_seconds_total"] >= before + 1_000.0
