"""The training as a page: what was made of what, how the fit went, and how the graph compares with the model."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from components.charts import Series, XAxis, line_chart
from components.evaluate.metrics import NAMES, PRIMARY
from components.page import page
from components.train.history import History
from serving.schema import BundleManifest, Parity

_TRAIN, _VALID = "var(--warn)", "var(--accent)"
_BESIDE = {
    "learning_rate": ("Learning rate", ""),
    "rows_per_second": ("Rows per second", ""),
    "gpu_utilisation": ("Share of the time in which the GPU is busy", ""),
    "gpu_memory_gb": ("GPU memory", " GB"),
}


def report(
    manifest: BundleManifest, metrics: Mapping[str, float], history: History, trials: Sequence[float] = ()
) -> str:
    """The whole page; it needs no network.

    Args:
        manifest: of the bundle that was written.
        metrics: by name, with ``train_`` and ``valid_`` in front.
        history: what the fit reported; empty for a trainer without epochs.
        trials: the value that each trial of a search reached, in order.
    """
    title = f"Training of {manifest.recipe['trainer']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=soft>model {manifest.recipe_digest[:12]}, data version {manifest.recipe['data_version'][:12]}</p>",
        _facts(manifest),
        _metrics(manifest, metrics),
        *_curves(manifest, history),
        *_search(manifest, trials),
        _parity(manifest),
        _table("Hyperparameters", manifest.recipe["parameters"]),
        _table("Where it was made", manifest.origin),
    ]
    return page(title, "".join(body))


def _facts(manifest: BundleManifest) -> str:
    size = sum(file.bytes for file in manifest.files.values())
    facts = {
        "framework": manifest.framework,
        "served by": manifest.runtime,
        "bundle": f"{size / 1e6:,.1f} MB",
        "seconds": f"{manifest.origin.get('seconds', 0.0):,.1f}",
        "seed": manifest.recipe["seed"],
    }
    cells = "".join(f"<div>{escape(name)}<b>{escape(str(value))}</b></div>" for name, value in facts.items())
    return f"<div class=facts>{cells}</div>"


def _metrics(manifest: BundleManifest, metrics: Mapping[str, float]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td class=n>{_number(metrics.get(f'{split}_{name}'))}</td>" for split in ("train", "valid"))
        + "</tr>"
        for name in NAMES[manifest.task]
    )
    head = "<tr><th>metric</th><th class=n>train</th><th class=n>valid</th></tr>"
    return f"<h2>Metrics</h2><table>{head}{rows}</table>"


def _curves(manifest: BundleManifest, history: History) -> list[str]:
    if not history.epochs:
        return []
    axis = XAxis("epoch")
    losses = [
        Series("train", history.series("train_loss"), _TRAIN),
        Series("valid", history.series("valid_loss"), _VALID),
    ]
    charts = ["<h2>How the fit went</h2>", line_chart("Loss", [line for line in losses if line.points], axis)]
    primary = history.series(f"valid_{PRIMARY[manifest.task]}")
    if primary:
        values = [value for _, value in primary]
        room = (max(values) - min(values)) * 0.1 or abs(values[0]) * 0.1 or 1.0
        shown = (min(values) - room, max(values) + room)
        title = f"{PRIMARY[manifest.task]} on the valid split"
        charts.append(line_chart(title, [Series("valid", primary, _VALID)], axis, y_range=shown))
    for name, (title, unit) in _BESIDE.items():
        if points := history.series(name):
            charts.append(line_chart(title, [Series(title, points, _VALID)], axis, unit=unit))
    return charts


def _search(manifest: BundleManifest, trials: Sequence[float]) -> list[str]:
    if not trials:
        return []
    name = PRIMARY[manifest.task]
    points = [(float(number), value) for number, value in enumerate(trials, 1)]
    low, high = min(trials), max(trials)
    room = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    chart = line_chart(
        f"{name} on the valid split",
        [Series("trial", points, _VALID)],
        XAxis("trial"),
        y_range=(low - room, high + room),
    )
    return [f"<h2>Search: {len(trials)} trials</h2>", chart]


def _parity(manifest: BundleManifest) -> str:
    parity = manifest.parity or Parity(rows=0, max_abs=0, p999_abs=0, tolerance=0, holds=False, reason="not built")
    word, colour = ("holds", "good") if parity.holds else ("does not hold", "warn")
    said = (
        f"{parity.rows:,} real and adversarial rows; largest difference {parity.max_abs:.2g}, 99.9th percentile "
        f"{parity.p999_abs:.2g}, allowed {parity.tolerance:.2g}"
        if parity.rows
        else "no row was compared"
    )
    reason = f": {parity.reason}" if parity.reason else ""
    return f'<h2>ONNX graph</h2><p><b class="{colour}">{word}</b> ({escape(said)}){escape(reason)}</p>'


def _table(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td><code>{escape(str(value))}</code></td></tr>"
        for name, value in values.items()
        if value not in ("", None)
    )
    return f"<h2>{escape(title)}</h2><div class=scroll><table>{rows}</table></div>"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"
