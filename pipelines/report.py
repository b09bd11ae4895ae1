"""The run report: one self-contained page that says what happened, why, and how to use what came of it."""

import json
import shlex
import time
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components.files import write_text
from components.page import page
from components.rollout import ledger as ledgers
from components.rollout.report import timeline
from components.rollout.traffic import read_rows
from pipelines.record import RunRecord, State
from pipelines.result import RunResult

_WORDS = {
    "promoted": ("promoted", "good"),
    "done": ("done", "good"),
    "blocked": ("blocked at the gate", "warn"),
    "rolled_back": ("rolled back", "bad"),
    "halted": ("halted for a person to decide", "warn"),
    "failed": ("failed", "bad"),
}


def write_report(path: Path, record: RunRecord, result: RunResult) -> None:
    """Write the page of a run that has ended."""
    environment = Environment(
        loader=PackageLoader("pipelines", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=_number, interval=_interval)
    word, tone = _WORDS[result.state]
    total = max(record.seconds, 0.001)
    body = environment.get_template("report.html.j2").render(
        result=result,
        word=word,
        tone=tone,
        began=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.began)),
        facts=_facts(record, result),
        steps=_steps(record, total),
        total=total,
        metrics=result.metrics,
        decision=result.decision,
        champion=result.decision.get("champion_version", ""),
        timeline=_timeline(record),
        replayed=_replayed(record),
        serving=_serving(result),
        curl=_curl(record, result),
        parameters=json.dumps(record.parameters, indent=2),
    )
    write_text(path, page(f"{result.service}: {word}", body))


def _facts(record: RunRecord, result: RunResult) -> list[tuple[str, str, str]]:
    snapshot = record.step("ingest").metadata("snapshot")
    facts = []
    if snapshot:
        facts.append(("data version", str(snapshot.get("version", ""))[:12], f"{snapshot.get('rows', 0):,} rows"))
    primary = result.decision.get("primary_metric", "")
    if primary:
        measured = result.metrics[primary]
        facts.append((primary, _number(measured["value"]), _interval(measured["interval"])))
    if result.model_version:
        facts.append(("model version", result.model_version, result.service))
    for entry in result.traffic:
        facts.append(("live traffic", f"{entry.get('percent', 0)} %", str(entry.get("revisionName", ""))))
    return facts


def _steps(record: RunRecord, total: float) -> list[dict[str, Any]]:
    shown = [step for step in record.steps.values() if step.state is not State.PENDING]
    return [
        {
            "name": step.name,
            "state": step.state.value,
            "seconds": step.seconds,
            "fact": step.fact,
            "error": step.error,
            "offset": f"{200 * max(step.began - record.began, 0) / total:.1f}" if step.began else "0",
            "width": f"{max(200 * step.seconds / total, 1.5):.1f}" if step.began else "0",
            "links": [
                (name, path.relative_to(record.folder).as_posix())
                for name in ("report", "timeline")
                if (path := step.artifact(name)) is not None and path.is_relative_to(record.folder)
            ],
        }
        for step in shown
    ]


def _timeline(record: RunRecord) -> Markup:
    evidence = record.step("rollout").artifact("evidence")
    if evidence is None or not evidence.exists():
        return Markup()
    ledger = ledgers.Ledger.model_validate_json(evidence.read_text(encoding="utf-8"))
    return Markup(timeline(ledger.events))  # noqa: S704 - every text in it is escaped where it is made


def _replayed(record: RunRecord) -> str:
    seen = record.step("rollout").metadata("evidence")
    if not seen.get("sent"):
        return ""
    return f"{seen['sent']:,.0f} held-out rows were replayed as requests meanwhile; {seen['failed']:,.0f} failed."


def _serving(result: RunResult) -> str:
    shares = ", ".join(f"{entry.get('revisionName')} {entry.get('percent')} %" for entry in result.traffic)
    return f"The service answers at {result.url} ({shares}) until `make stop`."


def _curl(record: RunRecord, result: RunResult) -> str:
    """A request with a held-out row that works as it stands; empty when no row is at hand."""
    predictions = record.step("evaluate").artifact("predictions")
    if not result.url or predictions is None or not predictions.exists():
        return ""
    rows = read_rows(predictions, 1)
    body = json.dumps({"instances": list(rows.instances)}, ensure_ascii=False)
    endpoint = f"{result.url}/v1/models/{result.service}:predict"
    return f"curl -s {endpoint} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"


def _interval(interval: dict[str, float | None] | None) -> str:
    if not interval or interval.get("low") is None or interval.get("high") is None:
        return "n/a"
    return f"{interval['low']:.4g} to {interval['high']:.4g}"
