"""A decision as a Slack message: https://api.slack.com/reference/block-kit/blocks gives the limits."""

from collections.abc import Mapping
from typing import Any

from components.rollout.ledger import Event, Ledger

_SECTION, _CONTEXT = 3000, 2000  # characters that a block's text may have

TOLD = {
    "staged": ":package: is staged, without traffic",
    "shift": ":arrow_right: gets {weight} % of the traffic",
    "verdict": ":scales: verdict at {weight} %: {action}",
    "paused": ":double_vertical_bar: is paused at {weight} %",
    "resumed": ":arrow_forward: goes on from {weight} %",
    "frozen": ":snowflake: is frozen at {weight} %",
    "thawed": ":arrow_forward: goes on from {weight} % after a freeze",
    "signals lost": ":grey_question: cannot be judged at {weight} %: signals are lost",
    "signals back": ":arrow_forward: is judged again at {weight} %",
    "place lost": ":grey_question: cannot be looked at, at {weight} %: the cluster does not answer",
    "place back": ":arrow_forward: can be looked at again, at {weight} %",
    "taken over": ":handshake: is gone on with by another run",
    "promoted": ":white_check_mark: is promoted",
    "rolled back": ":rewind: is rolled back",
    "halted": ":octagonal_sign: is halted at {weight} %: a person has to decide",
    "failed": ":x: failed at {weight} %",
}


def message(ledger: Ledger, event: Event, link: str = "") -> dict[str, Any]:
    """The body of an incoming webhook: blocks for Slack, and text for those that show only that.

    Args:
        ledger: the rollout.
        event: one of :data:`TOLD`.
        link: the run's page; empty for none.
    """
    fields = event.model_extra or {}
    version = fields.get("version") or (ledger.candidate.version if ledger.candidate else "")
    what = TOLD[event.what].format(weight=event.weight, action=fields.get("action", "no decision"))
    title = f"*{_escape(ledger.service)}* {f'version {_escape(str(version))} ' if version else ''}{_escape(what)}"
    lines = [_because(fields), *_counts(ledger), *_evidence(fields.get("checks", []))]
    details = "\n".join(line for line in lines if line)
    about = f"run {_escape(ledger.run_id or 'unknown')}"
    text = _fit(title + ("\n" + details if details else ""), _SECTION)
    return {
        "text": text,
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": text}},
            {
                "type": "context",
                "elements": [
                    {"type": "mrkdwn", "text": _fit(f"<{link}|{about}>" if 0 < len(link) < 1500 else about, _CONTEXT)}
                ],
            },
        ],
    }


def _because(fields: Mapping[str, Any]) -> str:
    said = [str(fields[key]) for key in ("reason", "message") if fields.get(key)]
    said += [f"by {fields['by']}"] if fields.get("by") else []
    said += [f"until {fields['until']}"] if fields.get("until") else []
    return _escape("; ".join(said))


def _counts(ledger: Ledger) -> list[str]:
    """What both versions were seen to do in this step."""
    samples = (event for event in reversed(ledger.events) if event.what in ("sample", "shift"))
    newest = next(samples, None)
    if newest is None or newest.what == "shift":
        return []
    arms = newest.model_extra or {}
    return [
        f"{name}: {arms[arm].get('requests', 0):,.0f} requests, {arms[arm].get('errors', 0):,.0f} failed"
        + (f", p95 {arms[arm]['p95_ms']:,.0f} ms" if arms[arm].get("p95_ms") is not None else "")
        for name, arm in (("champion", "stable"), ("challenger", "canary"))
        if arms.get(arm)
    ]


def _evidence(checks: list[Mapping[str, Any]]) -> list[str]:
    return [_escape(f"• {one.get('signal')}: {one.get('finding')}. {one.get('reason', '')}") for one in checks]


def _escape(text: str) -> str:
    """Text as Slack takes it: nothing in it links, mentions anybody or calls a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fit(text: str, limit: int) -> str:
    """Shorten escaped text without cutting through an entity."""
    if len(text) <= limit:
        return text
    kept = text[: limit - 1]
    start = kept.rfind("&", len(kept) - 5)
    return (kept[:start] if start >= 0 and ";" not in kept[start:] else kept) + "…"
