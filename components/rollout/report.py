"""The rollout as a page: traffic, errors and latency over time, with each decision."""

from collections.abc import Sequence
from html import escape
from typing import Any

from components.charts import Mark, Series, XAxis, line_chart
from components.page import page
from components.rollout.ledger import Event, Ledger

_STABLE, _CANARY = "var(--ink-soft)", "var(--accent)"
_ENDS = {"promoted": "var(--good)", "rolled back": "var(--bad)"}


def timeline_page(ledger: Ledger) -> str:
    """The whole page for one rollout."""
    body = f"<h1>Rollout of {escape(ledger.service)}</h1><p class=soft>run {escape(ledger.run_id)}</p>"
    return page(f"Rollout of {ledger.service}", body + timeline(ledger.events))


def timeline(events: Sequence[Event]) -> str:
    """Charts and the table of decisions, as HTML to put in a page."""
    if not events:
        return "<p>No traffic was shifted: this model is the champion already.</p>"
    start = events[0].time
    samples = [event for event in events if event.what == "sample"]
    end = max(events[-1].time - start, 1.0)
    marks = [_mark(event, start) for event in events if event.what in ("shift", *_ENDS)]
    axis = XAxis("seconds since the rollout began", (0.0, end), marks)
    charts = [
        line_chart("Traffic to the challenger", [_weights(events, start)], axis, unit=" %", y_range=(0, 100)),
        line_chart("Failed requests", _both(samples, start, _error_share), axis, unit=" %"),
        line_chart("Latency, 95th percentile", _both(samples, start, _p95), axis, unit=" ms"),
    ]
    return "".join(charts) + _decisions(events, start)


def _weights(events: Sequence[Event], start: float) -> Series:
    kinds = ("shift", "promoted", "rolled back", "sample")
    points = [(event.time - start, float(event.weight)) for event in events if event.what in kinds]
    return Series("challenger", [(0.0, 0.0), *points], _CANARY, steps=True, fill=True)


def _both(samples: Sequence[Event], start: float, value: Any) -> list[Series]:
    return [
        Series(name, [(s.time - start, value(getattr(s, arm))) for s in samples], colour)
        for name, arm, colour in (("champion", "stable", _STABLE), ("challenger", "canary", _CANARY))
    ]


def _error_share(arm: dict[str, Any]) -> float:
    return 100 * arm["errors"] / arm["requests"] if arm["requests"] else float("nan")


def _p95(arm: dict[str, Any]) -> float:
    return float("nan") if arm["p95_ms"] is None else float(arm["p95_ms"])


def _mark(event: Event, start: float) -> Mark:
    if event.what == "shift":
        return Mark(event.time - start, f"{event.weight} %")
    return Mark(event.time - start, event.what, _ENDS[event.what])


def _decisions(events: Sequence[Event], start: float) -> str:
    rows = []
    for event in events:
        if event.what == "sample":
            continue
        fields = event.model_extra or {}
        reason = fields.get("reason", "")
        if event.what == "staged":
            reason = f"{fields['revision']} answers {fields['rows']} test rows as offline"
        rows.append(
            f"<tr><td class=n>{event.time - start:.1f} s</td><td>{escape(event.what)}</td>"
            f"<td class=n>{event.weight} %</td><td>{escape(str(reason))}{_checks(fields.get('checks', []))}</td></tr>"
        )
    head = "<tr><th class=n>when</th><th>what</th><th class=n>challenger</th><th>why</th></tr>"
    return f"<h2>Decisions</h2><div class=scroll><table>{head}{''.join(rows)}</table></div>"


def _checks(checks: Sequence[dict[str, Any]]) -> str:
    classes = {"ok": "good", "harm": "bad", "unclear": "warn"}
    return "".join(
        f'<br><small><span class="{classes[check["finding"]]}">{check["signal"]}: {check["finding"]}</span> '
        f"<span class=soft>{escape(check['reason'])}</span></small>"
        for check in checks
    )
