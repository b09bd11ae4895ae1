"""The rollout as a page: traffic, requests, errors, latency and evidence over time, with each decision."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from components.charts import Band, Limit, Mark, Series, XAxis, line_chart
from components.page import page
from components.rollout.ledger import Event, Ledger
from components.rollout.timeline import (
    decisions,
    extra,
    newest_checks,
    proof,
    samples,
    spans,
    state_of,
    versions_of,
    why,
)

_STABLE, _CANARY = "var(--ink-soft)", "var(--accent)"
_ARMS = (("champion", "stable", _STABLE), ("challenger", "canary", _CANARY))
_ENDS = {"promoted": "var(--good)", "rolled back": "var(--bad)", "halted": "var(--bad)"}
_TONES = {"ok": "good", "harm": "bad", "unclear": "warn"}
_FAULTS = ("no signals", "no answer from the cluster")
_COLOURS = ("var(--accent)", "var(--bad)", "var(--good)", "var(--warn)", "var(--ink-soft)", "var(--ink)")
_DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 4", "1 4")
_POINTS = 300  # per line: more cannot be seen
_ROWS = 300  # of the table of decisions

Value = Callable[[Event], float]


@dataclass(frozen=True)
class _Clock:
    """Time since the rollout began, in a unit that suits its length."""

    start: float
    unit: str
    seconds: float

    def __call__(self, moment: float) -> float:
        return (moment - self.start) / self.seconds


def timeline_page(ledger: Ledger) -> str:
    """The whole page for one rollout."""
    tone = {"promoted": "good", "rolled_back": "bad", "halted": "bad"}.get(ledger.outcome or "", "warn")
    reason = f"<p>{escape(ledger.reason)}</p>" if ledger.reason else ""
    body = (
        f"<h1>Rollout of {escape(ledger.service)}</h1>"
        f'<p><span class="badge {tone}">{escape(state_of(ledger))}</span></p>{reason}{_facts(ledger)}'
    )
    return page(f"Rollout of {ledger.service}", body + timeline(ledger.events))


def timeline(events: Sequence[Event]) -> str:
    """Charts and the table of decisions, as HTML to put in a page."""
    if not events:
        return "<p>No traffic was shifted: this model is the champion already.</p>"
    clock = _clock(events)
    axis = XAxis(
        f"{clock.unit} since the rollout began",
        (0.0, max(clock(events[-1].time), 1e-3)),
        [_mark(event, clock) for event in events if event.what in ("shift", *_ENDS)],
        _bands(events, clock),
    )
    seen = samples(events)
    charts = [_weights(events, clock, axis), *_traffic(seen, clock, axis)] if seen else [_weights(events, clock, axis)]
    return _legend(axis.bands, clock.unit) + "".join(charts) + _signals(events) + _decisions(events)


def _clock(events: Sequence[Event]) -> _Clock:
    lasts = events[-1].time - events[0].time
    unit, seconds = next(
        (unit, size)
        for unit, size, upto in (("seconds", 1, 300), ("minutes", 60, 3 * 3600), ("hours", 3600, math.inf))
        if lasts <= upto
    )
    return _Clock(events[0].time, unit, seconds)


def _facts(ledger: Ledger) -> str:
    facts = [("versions", versions_of(ledger)), ("run", ledger.run_id or "unknown")]
    if ledger.events:
        began, ended = ledger.events[0].time, ledger.events[-1].time
        facts.append(("began", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(began))))
        facts.append(("took", f"{ended - began:,.0f} s"))
    owners = [str(extra(event).get("by", "")) for event in ledger.events if event.what == "taken over"]
    if owners:
        facts.append(("gone on with by", owners[-1]))
    told = next((extra(event) for event in reversed(ledger.events) if event.what == "notified"), None)
    if told is not None:
        lost = told["failed"] + told["dropped"]
        facts.append(("notifications", f"{told['sent']} sent" + (f", {lost} lost: {told['trouble']}" if lost else "")))
    cells = "".join(f"<div><span class=soft>{escape(name)}</span><b>{escape(value)}</b></div>" for name, value in facts)
    return f"<div class=facts>{cells}</div>"


def _bands(events: Sequence[Event], clock: _Clock) -> list[Band]:
    return [
        Band(
            clock(span.start),
            clock(span.end),
            f"{span.what}{f': {span.why}' if span.why else ''}",
            "var(--bad)" if span.what in _FAULTS else "var(--warn)",
        )
        for span in spans(events)
    ]


def _legend(bands: Sequence[Band], unit: str) -> str:
    """What the shaded stretches are, in words: colour alone says nothing to some readers."""
    if not bands:
        return ""
    rows = "".join(
        f'<li><i style="background:{band.colour}"></i>{band.start:.4g} to {band.end:.4g} {unit}: '
        f"{escape(band.label)}</li>"
        for band in bands[:_ROWS]
    )
    style = "<style>.bands{list-style:none;padding:0;font-size:.85rem}.bands i{display:inline-block;width:.8rem;"
    style += "height:.8rem;opacity:.4;margin-right:.4rem;vertical-align:-1px}</style>"
    return f"<h2>Shaded in the charts</h2>{style}<ul class=bands>{rows}</ul>"


def _weights(events: Sequence[Event], clock: _Clock, axis: XAxis) -> str:
    kinds = ("shift", "promoted", "rolled back", "sample")
    points = [(clock(event.time), float(event.weight)) for event in events if event.what in kinds]
    changes = [
        point for before, point in pairwise([(0.0, -1.0), *points]) if point[1] != before[1] or point == points[-1]
    ]
    path = [(0.0, 0.0), *changes]
    steps = ", ".join(f"{y:.0f} % from {x:.4g}" for x, y in path[:20])
    line = Series("challenger", path, _CANARY, steps=True, fill=True)
    return line_chart(
        "Traffic to the challenger", [line], axis, unit=" %", y_range=(0, 100), description=f"{steps} {clock.unit}."
    )


def _traffic(seen: Sequence[Event], clock: _Clock, axis: XAxis) -> list[str]:
    """What was counted: requests, failures, latency, restarts and evidence."""
    rates = [Series(name, _thin(_rates(seen, arm, clock)), colour) for name, arm, colour in _ARMS]
    failed = [_series(name, seen, clock, _share(arm), colour) for name, arm, colour in _ARMS]
    charts = [
        line_chart("Requests per second", rates, axis, description=_last(rates, "")),
        line_chart("Failed requests in this step", failed, axis, unit=" %", description=_last(failed, " %")),
    ]
    latencies = [
        _series(f"{name} {label}", seen, clock, _field(arm, key), colour, dash)
        for name, arm, colour in _ARMS
        for label, key, dash in (("p50", "p50_ms", "2 3"), ("p95", "p95_ms", ""), ("p99", "p99_ms", "7 3"))
    ]
    latencies = [line for line in latencies if any(math.isfinite(y) for _, y in line.points)]
    if latencies:
        charts.append(
            line_chart("Latency in this step", latencies, axis, unit=" ms", description=_last(latencies, " ms"))
        )
    restarts = [_series(name, seen, clock, _field(arm, "restarts"), colour) for name, arm, colour in _ARMS]
    if any(y > 0 for line in restarts for _, y in line.points):
        charts.append(line_chart("Restarts of servers in this step", restarts, axis, description=_last(restarts, "")))
    return charts + _evidence(seen, clock, axis)


def _evidence(seen: Sequence[Event], clock: _Clock, axis: XAxis) -> list[str]:
    """The odds against "within its margin", by signal, on a log scale, towards the odds at which it rolls back."""
    found: dict[str, list[tuple[float, float]]] = {}
    decides = 0.0
    for event in seen:
        for check in extra(event).get("checks") or []:
            if check.get("evidence") is None or not check.get("decides"):
                continue
            found.setdefault(str(check["signal"]), []).append((clock(event.time), float(check["evidence"])))
            decides = max(decides, float(check["decides"]))
    if not found:
        return []
    lines = [
        Series(signal, _thin([(x, max(y, 0.0)) for x, y in points]), colour, dash=dash)
        for (signal, points), colour, dash in zip(found.items(), _COLOURS, _DASHES, strict=False)
    ]
    top = max(decides, *(y for line in lines for _, y in line.points)) * 1.1
    return [
        line_chart(
            "Evidence of harm, as odds",
            lines,
            axis,
            y_range=(0, top),
            limit=Limit(decides, "rolls back"),
            tick=lambda exponent: f"{10**exponent:,.0f} : 1" if exponent < 6 else f"10^{exponent:.0f} : 1",
            description=f"Harm is proved at {10**decides:,.0f} to 1. "
            + _last(lines, "", lambda y: f"{10**y:,.3g} to 1"),
        )
    ]


def _series(name: str, seen: Sequence[Event], clock: _Clock, value: Value, colour: str, dash: str = "") -> Series:
    return Series(name, _thin([(clock(event.time), value(event)) for event in seen]), colour, dash=dash)


def _field(arm: str, key: str) -> Value:
    def read(event: Event) -> float:
        value = (extra(event).get(arm) or {}).get(key)
        return math.nan if value is None else float(value)

    return read


def _share(arm: str) -> Value:
    def read(event: Event) -> float:
        counts = extra(event).get(arm) or {}
        return 100 * counts["errors"] / counts["requests"] if counts.get("requests") else math.nan

    return read


def _rates(seen: Sequence[Event], arm: str, clock: _Clock) -> list[tuple[float, float]]:
    """Requests per second between looks of one step; the looks are so far apart that a line has few of them."""
    requests = _field(arm, "requests")
    every = max(1, len(seen) // _POINTS)
    kept = [event for index, event in enumerate(seen) if index % every == 0]
    return [
        (clock(after.time), (requests(after) - requests(before)) / (after.time - before.time))
        for before, after in pairwise(kept)
        if after.time > before.time and after.weight == before.weight and requests(after) >= requests(before)
    ]


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Few enough points to draw; of those left out none is higher than one that is kept beside it."""
    every = -(-len(points) // _POINTS)
    if every <= 1:
        return list(points)
    groups = [points[first : first + every] for first in range(0, len(points), every)]
    highest = [max(group, key=lambda point: -math.inf if math.isnan(point[1]) else point[1]) for group in groups]
    return highest if highest[-1] == points[-1] else [*highest, points[-1]]


def _last(lines: Sequence[Series], unit: str, said: Callable[[float], str] = lambda y: f"{y:.4g}") -> str:
    ends = [(line.name, [y for _, y in line.points if math.isfinite(y)]) for line in lines]
    return (
        "; ".join(f"{name}: highest {said(max(ys))}{unit}, last {said(ys[-1])}{unit}" for name, ys in ends if ys) + "."
    )


def _mark(event: Event, clock: _Clock) -> Mark:
    if event.what == "shift":
        return Mark(clock(event.time), f"{event.weight} %")
    return Mark(clock(event.time), event.what, _ENDS[event.what])


def _signals(events: Sequence[Event]) -> str:
    """What each signal says at the end."""
    checks = newest_checks(events)
    if not checks:
        return ""
    head = "<tr><th>signal</th><th>says</th><th class=n>champion</th><th class=n>challenger</th>"
    head += "<th class=n>proof of harm</th><th>because</th></tr>"
    rows = "".join(
        f'<tr><td>{escape(str(check["signal"]))}</td><td class="{_TONES.get(str(check["finding"]), "soft")}">'
        f"{escape(str(check['finding']))}</td><td class=n>{_number(check.get('stable'))}</td>"
        f"<td class=n>{_number(check.get('canary'))}</td><td class=n>{_percent(proof(check))}</td>"
        f"<td>{escape(str(check.get('reason', '')))}</td></tr>"
        for check in checks
    )
    return f"<h2>What each signal says</h2><div class=scroll><table>{head}{rows}</table></div>"


def _decisions(events: Sequence[Event]) -> str:
    start, shown = events[0].time, decisions(events)
    left_out = len(shown) - _ROWS
    note = f"<p class=soft>The first {left_out:,} are left out.</p>" if left_out > 0 else ""
    rows = []
    for event in shown[-_ROWS:]:
        fields = extra(event)
        what = f"verdict: {fields.get('action', '')}" if event.what == "verdict" else event.what
        rows.append(
            f"<tr><td class=n>{event.time - start:,.1f} s</td><td>{escape(what)}</td>"
            f"<td class=n>{event.weight} %</td><td>{escape(why(event))}{_checks(fields.get('checks') or [])}</td></tr>"
        )
    head = "<tr><th class=n>when</th><th>what</th><th class=n>challenger</th><th>why</th></tr>"
    return f"<h2>Decisions</h2>{note}<div class=scroll><table>{head}{''.join(rows)}</table></div>"


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    return "".join(
        f'<br><small><span class="{_TONES.get(str(check["finding"]), "soft")}">{escape(str(check["signal"]))}: '
        f"{escape(str(check['finding']))}</span> <span class=soft>{escape(str(check.get('reason', '')))}</span></small>"
        for check in checks
    )


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:,.4g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{min(share, 9.99):.0%}"
