"""A rollout in the terminal and as JSON."""

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from components.rollout.evidence import Arm
from components.rollout.ledger import Event, Ledger
from components.rollout.timeline import (
    AT_WORK,
    decisions,
    extra,
    newest_checks,
    proof,
    sparkline,
    state_of,
    versions_of,
    why,
)

_LAST = 6
_TONES = {"ok": "green", "harm": "red", "unclear": "yellow"}
_KINDS = {"promoted": "green", "rolled back": "red", "halted": "red", "signals lost": "yellow", "place lost": "yellow"}


def as_json(ledger: Ledger, owner: str) -> dict[str, Any]:
    """What ``sluiceway rollout status --json`` gives of one service."""
    return {
        "service": ledger.service,
        "phase": ledger.phase.value,
        "outcome": ledger.outcome,
        "reason": ledger.reason,
        "run_id": ledger.run_id,
        "owner": owner,
        "weight": ledger.weight,
        "stable_version": ledger.stable.version if ledger.stable else "",
        "candidate_version": ledger.candidate.version if ledger.candidate else "",
        "revision": ledger.revision,
        "paused_by": ledger.paused_by,
        "step_seconds": round(ledger.step_seconds, 3),
        "total_seconds": round(ledger.total_seconds, 3),
        "saved": ledger.saved,
        "stable": _counts(ledger.seen.stable),
        "canary": _counts(ledger.seen.canary),
        "checks": newest_checks(ledger.events),
        "decisions": [event.model_dump() for event in decisions(ledger.events)[-_LAST:]],
    }


def shown(ledger: Ledger, owner: str) -> RenderableType:
    """One service's rollout: where it is, what was seen of both versions, how sure the judge is, the last decisions."""
    weights = [float(event.weight) for event in ledger.events if event.what in ("sample", "shift")]
    head = Text.assemble(
        (ledger.service, "bold"), "  ", (sparkline(weights, 100), "cyan"), "  ", (state_of(ledger), _tone(ledger))
    )
    parts: list[RenderableType] = [head, _facts(ledger, owner)]
    if ledger.phase in AT_WORK and ledger.seen.canary.requests + ledger.seen.stable.requests:
        parts += [Text(), _arms(ledger)]
        checks = newest_checks(ledger.events)
        parts += [Text(), _checks(checks)] if checks else []
    last = decisions(ledger.events)[-_LAST:]
    return Group(*parts, Text(), decisions_table(last, ledger.events[0].time)) if last else Group(*parts)


def decisions_table(events: list[Event], start: float) -> Table:
    """Decisions with their time since the rollout began."""
    table = Table("when", "what", "challenger", "why", box=None, pad_edge=False, header_style="dim")
    for event in events:
        what = f"verdict: {extra(event).get('action', '')}" if event.what == "verdict" else event.what
        table.add_row(
            duration(event.time - start),
            Text(what, _KINDS.get(event.what, "")),
            f"{event.weight} %",
            escape(why(event)),
        )
    return table


def duration(seconds: float) -> str:
    """A time span as people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {seconds % 60:.0f} s"


def show_history(ledger: Ledger, console: Console) -> None:
    """Print every decision of a service's newest rollout."""
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ledger.events[0].time))
    console.print(f"[bold]{escape(ledger.service)}[/]  run {escape(ledger.run_id)}, began {began}", highlight=False)
    console.print(decisions_table(decisions(ledger.events), ledger.events[0].time))


def _tone(ledger: Ledger) -> str:
    if ledger.phase in AT_WORK:
        return "yellow" if ledger.paused_by else "cyan"
    return {"promoted": "green", "rolled_back": "red", "halted": "red"}.get(ledger.outcome or "", "dim")


def _facts(ledger: Ledger, owner: str) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row(Text("versions", "dim"), versions_of(ledger))
    if ledger.phase in AT_WORK:
        table.add_row(Text("at work", "dim"), escape(owner) if owner else Text("nobody: its run has ended", "red"))
        table.add_row(
            Text("time", "dim"),
            f"{duration(ledger.step_seconds)} in this step, {duration(ledger.total_seconds)} in all",
        )
    if ledger.reason:
        table.add_row(Text("because", "dim"), escape(ledger.reason))
    return table


def _arms(ledger: Ledger) -> Table:
    table = Table("in this step", box=None, pad_edge=False, header_style="dim")
    for name in ("requests", "failed", "p50", "p95", "p99", "restarts"):
        table.add_column(name, justify="right")
    for name, arm in (("champion", ledger.seen.stable), ("challenger", ledger.seen.canary)):
        quantiles = [arm.latency_quantile(q) for q in (0.5, 0.95, 0.99)]
        table.add_row(
            name,
            f"{arm.requests:,}",
            f"{arm.errors:,} ({arm.error_rate():.2%})" if arm.requests else "0",
            *("" if value != value else f"{value:,.1f} ms" for value in quantiles),
            str(arm.restarts),
        )
    return table


def _checks(checks: list[dict[str, Any]]) -> Table:
    table = Table("signal", "says", "proof of harm", "because", box=None, pad_edge=False, header_style="dim")
    for check in checks:
        share = proof(check)
        bar = "" if share is None else f"{'█' * round(10 * min(share, 1)):░<10} {min(share, 9.99):.0%}"
        finding = str(check["finding"])
        table.add_row(check["signal"], Text(finding, _TONES.get(finding, "")), bar, escape(str(check["reason"])))
    return table


def _counts(arm: Arm) -> dict[str, float | int | None]:
    counts: dict[str, float | int | None] = {"requests": arm.requests, "errors": arm.errors, "restarts": arm.restarts}
    for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        value = arm.latency_quantile(q)
        counts[name] = round(value, 3) if value == value else None
    return counts
