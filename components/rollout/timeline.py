"""A rollout's events as what people ask of them: how far, for how long, how sure, and what was decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.rollout.ledger import Event, Ledger, Phase

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPANS = {  # what begins a span, what it is called, and what ends it besides the end of the rollout
    "paused": ("paused", ("resumed",)),
    "frozen": ("frozen", ("thawed",)),
    "signals lost": ("no signals", ("signals back",)),
    "place lost": ("no answer from the cluster", ("place back",)),
}
_ENDS = ("promoted", "rolled back", "halted")
AT_WORK = frozenset({Phase.STAGING, Phase.STAGED, Phase.SHIFTING, Phase.PROMOTING, Phase.ROLLING_BACK})


@dataclass(frozen=True)
class Span:
    """A stretch of time in which something was so; ``start`` and ``end`` in seconds since the epoch."""

    what: str
    start: float
    end: float
    why: str = ""


def extra(event: Event) -> dict[str, Any]:
    """The fields of an event beyond time, kind and weight."""
    return event.model_extra or {}


def samples(events: Sequence[Event]) -> list[Event]:
    """The events that hold counts."""
    return [event for event in events if event.what == "sample"]


def decisions(events: Sequence[Event]) -> list[Event]:
    """The events that a person reads: all but counts and the tally of notifications."""
    return [event for event in events if event.what not in ("sample", "notified")]


def spans(events: Sequence[Event]) -> list[Span]:
    """Pauses, freezes and faults; one that is not over ends with the last event."""
    found, begun = [], dict[str, Event]()
    for event in events:
        for kind, start in list(begun.items()):
            if event.what in _SPANS[kind][1] or event.what in _ENDS:
                found.append(Span(_SPANS[kind][0], start.time, event.time, why(start)))
                del begun[kind]
        if event.what in _SPANS:
            begun.setdefault(event.what, event)
    found += [Span(_SPANS[kind][0], start.time, events[-1].time, why(start)) for kind, start in begun.items()]
    return sorted(found, key=lambda span: span.start)


def why(event: Event) -> str:
    """Why something happened and by whom, in one line."""
    fields = extra(event)
    said = [str(fields["reason"])] if fields.get("reason") else []
    if event.what == "staged" and "rows" in fields:
        said.append(f"{fields.get('revision') or 'the challenger'} answers {fields['rows']} test rows as offline")
    if event.what == "command":
        said.append(str(fields.get("command", "")))
    said += [f"by {fields['by']}"] if fields.get("by") else []
    said += [f"until {fields['until']}"] if fields.get("until") else []
    return ", ".join(said)


def newest_checks(events: Sequence[Event]) -> list[dict[str, Any]]:
    """What each signal says as of now; empty before the first look of a step."""
    for event in reversed(events):
        if event.what in ("sample", "verdict"):
            return list(extra(event).get("checks") or [])
        if event.what == "shift":
            break
    return []


def proof(check: Mapping[str, Any]) -> float | None:
    """How near a signal is to proving harm: 0 where nothing speaks for it, 1 where it is proved; None if not known."""
    evidence, decides = check.get("evidence"), check.get("decides")
    if evidence is None or not decides:
        return None
    return max(0.0, float(evidence) / float(decides))


def sparkline(values: Sequence[float], highest: float, width: int = 16) -> str:
    """Values as a row of blocks, thinned to a width; the newest is always there."""
    if not values:
        return ""
    number = min(width, len(values))
    picked = [values[(index + 1) * len(values) // number - 1] for index in range(number)]
    return "".join(_BLOCKS[min(7, max(0, round(7 * value / highest)))] for value in picked)


def state_of(ledger: Ledger) -> str:
    """Where a rollout stands, in a few words."""
    if ledger.phase in AT_WORK:
        held = f", paused by {ledger.paused_by}" if ledger.paused_by else ""
        frozen = next((e for e in reversed(ledger.events) if e.what in ("frozen", "thawed")), None)
        if frozen is not None and frozen.what == "frozen":
            held += f", frozen until {extra(frozen).get('until', 'later')}"
        return f"{ledger.phase.value} at {ledger.weight} %{held}"
    return ledger.outcome.replace("_", " ") if ledger.outcome else "no rollout yet"


def versions_of(ledger: Ledger) -> str:
    """Which versions a rollout is about."""
    stable = f"version {ledger.stable.version}" if ledger.stable else "nothing"
    if ledger.candidate is not None:
        return f"version {ledger.candidate.version} in place of {stable}"
    tried = next((extra(event).get("version") for event in reversed(ledger.events) if event.what == "rolled back"), "")
    return f"{f'version {tried} was tried; ' if tried else ''}{stable} serves"


def one_line(ledger: Ledger) -> str:
    """A rollout in one line for a terminal: service, path of the traffic, state, versions, counts, nearest proof."""
    weights = [float(event.weight) for event in ledger.events if event.what in ("shift", "sample", *_ENDS)]
    parts = [f"{ledger.service} {sparkline(weights, 100)} {state_of(ledger)}".replace("  ", " "), versions_of(ledger)]
    if ledger.phase in AT_WORK:
        canary = ledger.seen.canary
        parts.append(f"{canary.requests:,} requests, {canary.errors:,} failed")
        near = [(share, check["signal"]) for check in newest_checks(ledger.events) if (share := proof(check))]
        if near:
            share, signal = max(near)
            parts.append(f"{signal} at {share:.0%} of proof of harm")
    return "; ".join(parts)
