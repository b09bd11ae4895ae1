"""The page of ``sluiceway data diff --html``: what changed, and a chart or table for each column that did."""

import math
from html import escape

from components.charts import Series, XAxis, line_chart
from components.page import page
from pipelines.data.model import Bin, ColumnChange, Diff, Profile

_SHOWN = 50
"""Columns with a chart of their own, the most changed ones."""

_BEFORE, _AFTER = "var(--ink-soft)", "var(--accent)"


def report(diff: Diff) -> str:
    """The whole page, self-contained."""
    title = f"{diff.dataset}: {diff.before.version[:12]} → {diff.after.version[:12]}"
    parts = [f"<h1>{escape(title)}</h1>", _facts(diff), _schema(diff), _table(diff)]
    changed = [change for change in diff.columns if change.distance][:_SHOWN]
    parts += ["<h2>Distributions</h2>"] if changed else []
    parts += [_chart(change) if change.kind == "number" else _shares(change) for change in changed]
    return page(title, "".join(parts))


def _facts(diff: Diff) -> str:
    facts = {"rows before": f"{diff.before.rows:,}", "rows after": f"{diff.after.rows:,}"}
    if diff.identical:
        facts["content"] = "the same bytes"
    if diff.keyed:
        by = ", ".join(diff.keyed.key)
        facts |= {f"added (by {by})": f"{diff.keyed.added:,}", "removed": f"{diff.keyed.removed:,}"}
        facts["changed"] = f"{diff.keyed.changed:,}"
    shown = "".join(f"<div>{escape(name)}<b>{escape(value)}</b></div>" for name, value in facts.items())
    return f'<p class="soft">{escape(diff.after.source_uri)}</p><div class="facts">{shown}</div>'


def _schema(diff: Diff) -> str:
    lines = [f'<li class="good">{escape(name)} is new</li>' for name in diff.added]
    lines += [f'<li class="bad">{escape(name)} is gone</li>' for name in diff.removed]
    lines += [
        f'<li class="bad">{escape(one.name)}: {escape(one.before)} → {escape(one.after)}</li>' for one in diff.retyped
    ]
    return f"<h2>Schema</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _table(diff: Diff) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.name)}</td><td>{escape(one.type)}</td><td class=n>{number(one.distance)}</td>"
        f"<td class=n>{number(one.psi)}</td><td class=n>{one.before.missing:.2%} → {one.after.missing:.2%}</td>"
        f"<td class=n>{one.before.distinct:,} → {one.after.distinct:,}</td>"
        f"<td class=n>{number(one.before.mean)} → {number(one.after.mean)}</td>"
        f"<td class=n>{_middle(one.before)} → {_middle(one.after)}</td></tr>"
        for one in diff.columns
    )
    return (
        "<h2>Columns</h2><div class=scroll><table><tr><th>column<th>type<th class=n>Jensen-Shannon distance"
        "<th class=n>PSI<th class=n>missing<th class=n>distinct, about<th class=n>mean<th class=n>median, about</tr>"
        f"{rows}</table></div>"
    )


def _chart(change: ColumnChange) -> str:
    """Both cumulative distributions: they need no equal bins to be compared."""
    bins = [one for one in change.bins if one.upper is not None and math.isfinite(one.upper)]
    series = []
    for name, colour, shares in (
        ("before", _BEFORE, [one.before for one in bins]),
        ("after", _AFTER, [one.after for one in bins]),
    ):
        total, points = 0.0, []
        for one, share in zip(bins, shares, strict=True):
            total += share
            points.append((float(one.upper or 0.0), total))
        series.append(Series(name, points, colour, dash="" if name == "after" else "6 3"))
    told = f"Jensen-Shannon distance {number(change.distance)}"
    return line_chart(change.name, series, XAxis(f"share of rows up to the value; {told}"), y_range=(0.0, 1.0))


def _shares(change: ColumnChange) -> str:
    most = sorted(change.bins, key=lambda one: -abs(one.after - one.before))[:12]
    rows = "".join(
        f"<tr><td>{escape(one.label)}</td><td class=n>{one.before:.2%}</td><td class=n>{one.after:.2%}</td>"
        f"<td style='width:40%'>{_bars(one)}</td></tr>"
        for one in most
    )
    return (
        f"<figure><figcaption><b>{escape(change.name)}</b><em>Jensen-Shannon distance {number(change.distance)}"
        f"</em></figcaption><table><tr><th>value<th class=n>before<th class=n>after<th></tr>{rows}</table></figure>"
    )


def _bars(one: Bin) -> str:
    return "".join(
        f'<div style="height:.45rem;width:{share:.2%};background:{colour}"></div>'
        for share, colour in ((one.before, _BEFORE), (one.after, _AFTER))
    )


def _middle(profile: Profile) -> str:
    if not profile.quantiles:
        return "-"
    median = profile.quantiles[2]
    return escape(median) if isinstance(median, str) else number(median)


def number(value: float | None) -> str:
    """A figure for people; a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"
