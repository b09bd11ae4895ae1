"""The evaluation as a page: the decision, the metrics with their intervals, and what the errors look like."""

from collections.abc import Sequence
from html import escape

import numpy as np

from components.charts import Series, XAxis, line_chart
from components.evaluate.curves import Confusion, calibration, roc
from components.evaluate.decision import Check, Decision, Interval, Measured
from components.evaluate.metrics import Floats
from components.evaluate.run import Evaluation
from components.page import page

_CHALLENGER, _CHAMPION, _REFERENCE = "var(--accent)", "var(--warn)", "var(--line)"
_DIAGONAL = Series("perfect", [(0.0, 0.0), (1.0, 1.0)], _REFERENCE)
_MOST_CLASSES = 30


def report(evaluation: Evaluation) -> str:
    """The whole page; it needs no network."""
    decision = evaluation.decision
    word, colour = ("passed", "good") if decision.passed else ("blocked", "bad")
    title = f"Evaluation of {evaluation.schema.target}"
    body = [
        f'<h1>{escape(title)} <span class="badge {colour}">{word}</span></h1>',
        f"<p class=soft>{_subtitle(decision)}</p>",
        _decision_table(decision.checks),
        _metrics_table(decision),
        *_plots(evaluation),
    ]
    return page(title, "".join(body))


def _subtitle(decision: Decision) -> str:
    against = f"champion version {decision.champion_version}" if decision.champion_version else "no champion yet"
    draws = f"{decision.confidence:.0%} from {decision.bootstrap:,} bootstrap resamples"
    return escape(
        f"{decision.rows:,} test rows of data version {decision.data_version[:12]}, "
        f"model {decision.recipe_digest[:12]}, {against}; intervals are {draws}"
    )


def _decision_table(checks: Sequence[Check]) -> str:
    rows = "".join(
        f'<tr><td class="{"good" if check.passed else "bad"}">{"✓" if check.passed else "✗"}</td>'
        f"<td>{escape(check.name)}</td><td>{escape(check.reason)}</td></tr>"
        for check in checks
    )
    return f"<h2>Decision</h2><div class=scroll><table><tr><th></th><th>check</th><th>why</th></tr>{rows}</table></div>"


def _metrics_table(decision: Decision) -> str:
    compared = any(measured.champion is not None for measured in decision.metrics.values())
    heads = ["metric", "challenger", "interval", *(["champion", "difference"] if compared else []), "better is"]
    head = "".join(f"<th{'' if i == 0 else ' class=n'}>{name}</th>" for i, name in enumerate(heads))
    rows = "".join(_metric_row(name, measured, decision, compared) for name, measured in decision.metrics.items())
    return f"<h2>Metrics</h2><div class=scroll><table><tr>{head}</tr>{rows}</table></div>"


def _metric_row(name: str, measured: Measured, decision: Decision, compared: bool) -> str:
    label = f"<b>{escape(name)}</b>" if name == decision.primary_metric else escape(name)
    cells = [_number(measured.value), _interval(measured.interval)]
    if compared:
        cells += [_number(measured.champion), _interval(measured.difference, signed=True)]
    cells.append("higher" if measured.higher_is_better else "lower")
    return f"<tr><td>{label}</td>" + "".join(f"<td class=n>{cell}</td>" for cell in cells) + "</tr>"


def _number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "n/a"
    return f"{value:+.4g}" if signed else f"{value:.4g}"


def _interval(interval: Interval | None, signed: bool = False) -> str:
    if interval is None:
        return "n/a"
    return f"{_number(interval.low, signed)} to {_number(interval.high, signed)}"


def _plots(evaluation: Evaluation) -> list[str]:
    if not np.isfinite(evaluation.scores).all():
        return ["<p class=bad>No plots: some predictions are not numbers.</p>"]
    if evaluation.schema.task == "regression":
        return _regression_plots(evaluation)
    counts = evaluation.confusion()
    plots = [] if counts is None else [_confusion_table(counts)]
    return (_binary_plots(evaluation) if evaluation.schema.task == "binary" else []) + plots


def _models(evaluation: Evaluation) -> list[tuple[str, Floats, str]]:
    models = [("challenger", evaluation.scores, _CHALLENGER)]
    if evaluation.champion is not None:
        models.insert(0, ("champion", evaluation.champion, _CHAMPION))
    return models


def _binary_plots(evaluation: Evaluation) -> list[str]:
    positive = evaluation.target == 1
    label = evaluation.schema.classes[1]
    curves, calibrated = [Series("chance", [(0.0, 0.0), (1.0, 1.0)], _REFERENCE)], [_DIAGONAL]
    for name, scores, colour in _models(evaluation):
        curve = roc(positive, scores[:, 1])
        points = list(zip(curve.false_positive_rate, curve.true_positive_rate, strict=True))
        curves.append(Series(name, points, colour))
        calibrated.append(Series(name, calibration(positive, scores[:, 1]), colour))
    return [
        "<h2>Curves</h2>",
        line_chart("ROC: true positive rate", curves, XAxis("false positive rate", (0.0, 1.0)), y_range=(0.0, 1.0)),
        line_chart(
            f"Calibration: observed share of {label}",
            calibrated,
            XAxis("predicted probability", (0.0, 1.0)),
            y_range=(0.0, 1.0),
        ),
    ]


def _regression_plots(evaluation: Evaluation) -> list[str]:
    """Mean value by tenths of prediction: on the diagonal where the model is right on average; and error quantiles."""
    fitted, errors = [], []
    for name, scores, colour in _models(evaluation):
        parts = [part for part in np.array_split(np.argsort(scores, kind="stable"), 10) if len(part)]
        points = [(float(scores[part].mean()), float(evaluation.target[part].mean())) for part in parts]
        fitted.append(Series(name, points, colour))
        sizes = np.quantile(np.abs(scores - evaluation.target), np.linspace(0, 1, 51))
        errors.append(Series(name, list(zip(np.linspace(0, 100, 51).tolist(), sizes.tolist(), strict=True)), colour))
    low = min(min(x for x, _ in series.points) for series in fitted)
    high = max(max(x for x, _ in series.points) for series in fitted)
    perfect = Series("perfect", [(low, low), (high, high)], _REFERENCE)
    return [
        "<h2>Errors</h2>",
        line_chart("Mean value, by tenths of prediction", [perfect, *fitted], XAxis("prediction")),
        line_chart("Size of the error", errors, XAxis("percent of rows with at most this error")),
    ]


def _confusion_table(counts: Confusion) -> str:
    if len(counts.classes) > _MOST_CLASSES:
        return ""
    head = "".join(f"<th class=n>{escape(label)}</th>" for label in counts.classes)
    rows = []
    for label, row in zip(counts.classes, counts.counts, strict=True):
        total = max(sum(row), 1)
        cells = "".join(
            f'<td class=n style="background:color-mix(in srgb,var(--accent) {60 * count / total:.0f}%,transparent)">'
            f"{count:,}</td>"
            for count in row
        )
        rows.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
    return (
        "<h2>Confusion</h2><p class=soft>rows: true class, columns: predicted class</p>"
        f"<div class=scroll><table><tr><th></th>{head}</tr>{''.join(rows)}</table></div>"
    )
