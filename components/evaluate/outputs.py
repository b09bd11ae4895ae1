"""Writes an evaluation's artifacts."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from components.evaluate.columns import CHAMPION, PREDICTION
from components.evaluate.report import report
from components.evaluate.run import Evaluation
from components.files import whole_file, write_text


class _Metrics(Protocol):
    def log_metric(self, metric: str, value: float) -> None: ...


def write(evaluation: Evaluation, decision: Path, predictions: Path, page: Path) -> None:
    """Write ``decision.json``, the predictions as Parquet, and the report, each whole.

    Raises:
        StorageFull: the disk or quota ran out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_text(decision, evaluation.decision.model_dump_json(indent=2) + "\n")
    table = evaluation.rows
    for name, scores in ((PREDICTION, evaluation.scores), (CHAMPION, evaluation.champion)):
        if scores is not None:
            table = table.append_column(name, pa.array(list(np.atleast_2d(scores.T).T), type=pa.list_(pa.float64())))
    with whole_file(predictions) as aside:
        pq.write_table(table, aside)
    write_text(page, report(evaluation))


def log(evaluation: Evaluation, metrics: _Metrics, classification: Any) -> None:
    """Log the metrics, their intervals, the ROC curve and the confusion matrix where the KFP UI shows them.

    Args:
        evaluation: what to log; what is not defined is left out, since KFP cannot hold NaN.
        metrics: a KFP ``Metrics`` artifact.
        classification: a KFP ``ClassificationMetrics`` artifact.
    """
    for name, measured in evaluation.decision.metrics.items():
        shown = {"": measured.value, "_low": measured.interval.low, "_high": measured.interval.high}
        for ending, value in (shown | {"_champion": measured.champion}).items():
            if value is not None:
                metrics.log_metric(name + ending, value)
    curve, counts = evaluation.roc(), evaluation.confusion()
    if curve is not None:
        classification.log_roc_curve(curve.false_positive_rate, curve.true_positive_rate, curve.thresholds)
    if counts is not None:
        classification.log_confusion_matrix(counts.classes, counts.counts)
