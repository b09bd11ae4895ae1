"""Small line charts as inline SVG: they print, scale and need no script or network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 12, 30
_LABEL_ROWS = 4


@dataclass(frozen=True)
class Series:
    """One line: points in rising x, a CSS colour, drawn as steps where the value holds until the next point.

    ``dash`` is an SVG dash pattern, for lines that must be told apart without colour.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    steps: bool = False
    fill: bool = False
    dash: str = ""


@dataclass(frozen=True)
class Band:
    """A stretch of the x axis that is shaded, with what it was."""

    start: float
    end: float
    label: str
    colour: str = "var(--warn)"


@dataclass(frozen=True)
class Limit:
    """A value that is drawn across the chart."""

    y: float
    label: str
    colour: str = "var(--bad)"


@dataclass(frozen=True)
class Mark:
    """A moment worth a vertical line."""

    x: float
    label: str
    colour: str = "var(--ink-soft)"


@dataclass(frozen=True)
class XAxis:
    """What the x axis counts, its range (from the data when not given), its vertical lines and shaded stretches."""

    label: str
    range: tuple[float, float] | None = None
    marks: Sequence[Mark] = ()
    bands: Sequence[Band] = ()


def line_chart(
    title: str,
    series: Sequence[Series],
    axis: XAxis,
    *,
    unit: str = "",
    y_range: tuple[float, float] | None = None,
    limit: Limit | None = None,
    tick: Callable[[float], str] = lambda value: f"{value:.4g}",
    description: str = "",
) -> str:
    """Draw lines over a shared x axis.

    Args:
        title: what the chart shows, also its text for screen readers.
        series: the lines; non-finite points are left out.
        axis: the x axis.
        unit: put behind each y label.
        y_range: from 0 to a round number above the data when not given.
        limit: a value to draw across.
        tick: how a y label is written.
        description: what a reader who does not see the chart should know.

    Returns:
        A ``<figure>`` element.
    """
    lines = [(s, [(x, y) for x, y in s.points if math.isfinite(x) and math.isfinite(y)]) for s in series]
    xs = [x for _, points in lines for x, _ in points] or [0.0, 1.0]
    ys = [y for _, points in lines for _, y in points] or [0.0, 1.0]
    x0, x1 = axis.range or (min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1)
    y0, y1 = y_range or (min(0.0, min(ys)), _round_up(max(ys)))

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)

    spoken = escape(f"{title}. {description}" if description else title)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{spoken}">']
    for band in axis.bands:
        parts.append(_band(band, place(max(band.start, x0), y0)[0], place(min(band.end, x1), y0)[0]))
    for value in _ticks(y0, y1, 5):
        _, y = place(x0, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick(value)}{escape(unit)}</text>')
    for value in _ticks(x0, x1, 8):
        x, _ = place(value, y0)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{value:.4g}</text>')
    if limit is not None:
        parts.append(_limit(limit, place(x0, limit.y)[1]))
    parts.extend(_mark(mark, place(mark.x, y0)[0], row) for mark, row in _rows(axis.marks, lambda x: place(x, y0)[0]))
    for s, points in lines:
        parts.append(_line(s, [place(x, y) for x, y in points], place(x0, y0)[1]))
    parts.append("</svg>")
    legend = "".join(f"<span>{_swatch(s)}{escape(s.name)}</span>" for s, _ in lines)
    caption = f"<figcaption><b>{escape(title)}</b>{legend}<em>{escape(axis.label)}</em></figcaption>"
    return f"<figure>{caption}{''.join(parts)}</figure>"


def _swatch(series: Series) -> str:
    """A line's sign in the legend, dashed as the line is."""
    if not series.dash:
        return f'<i style="background:{series.colour}"></i>'
    return (
        '<svg style="display:inline;width:1.6rem;height:.6rem;margin-right:.35rem" '
        'viewBox="0 0 26 10" aria-hidden="true">'
        f'<line x1="0" x2="26" y1="5" y2="5" stroke="{series.colour}" stroke-width="3" '
        f'stroke-dasharray="{series.dash}"/></svg>'
    )


def _line(series: Series, points: list[tuple[float, float]], floor: float) -> str:
    if not points:
        return ""
    if series.steps:
        stepped = [points[0]]
        for (x, y), (_, before) in zip(points[1:], points, strict=False):
            stepped += [(x, before), (x, y)]
        points = stepped
    dash = f' stroke-dasharray="{series.dash}"' if series.dash else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    drawn = f'<polyline points="{path}" fill="none" stroke="{series.colour}" stroke-width="2"{dash}/>'
    if len(points) == 1:
        drawn += f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3" fill="{series.colour}"/>'
    if series.fill:
        ends = f"{points[0][0]:.1f},{floor:.1f} {path} {points[-1][0]:.1f},{floor:.1f}"
        drawn = f'<polygon points="{ends}" fill="{series.colour}" opacity="0.15"/>' + drawn
    return drawn


def _rows(marks: Sequence[Mark], across: Callable[[float], float]) -> list[tuple[Mark, int]]:
    """Each mark with the row of its label, so that labels of marks that are close do not overlap."""
    placed, ends = [], [-math.inf] * _LABEL_ROWS
    for mark in sorted(marks, key=lambda mark: mark.x):
        x, width = across(mark.x), 10 + 6 * len(mark.label)
        left = x - width if x > _WIDTH * 0.75 else x
        row = next((row for row, end in enumerate(ends) if end <= left), None)
        if row is None:  # no room: the line alone
            placed.append((Mark(mark.x, "", mark.colour), 0))
            continue
        ends[row] = left + width
        placed.append((mark, row))
    return placed


def _mark(mark: Mark, x: float, row: int) -> str:
    anchor = "end" if x > _WIDTH * 0.75 else "start"
    shift = -5 if anchor == "end" else 5
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{mark.colour}" '
        f'stroke-dasharray="4 3"/><text x="{x + shift:.1f}" y="{_TOP + 10 + 13 * row}" text-anchor="{anchor}" '
        f'style="fill:{mark.colour}">{escape(mark.label)}</text>'
    )


def _band(band: Band, left: float, right: float) -> str:
    return (
        f'<rect x="{left:.1f}" y="{_TOP}" width="{max(right - left, 1.5):.1f}" height="{_HEIGHT - _TOP - _BOTTOM}" '
        f'fill="{band.colour}" opacity="0.18"><title>{escape(band.label)}</title></rect>'
    )


def _limit(limit: Limit, y: float) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{limit.colour}" '
        f'stroke-dasharray="6 3"/><text x="{_WIDTH - _RIGHT}" y="{y + 13:.1f}" text-anchor="end" '
        f'style="fill:{limit.colour}">{escape(limit.label)}</text>'
    )


def _round_up(value: float) -> float:
    """The first tick at or above a value."""
    if value <= 0:
        return 1.0
    step = _tick_step(value, 5)
    return step * math.ceil(value / step)


def _ticks(low: float, high: float, most: int) -> list[float]:
    step = _tick_step(high - low, most)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, first + most + 1) if i * step <= high + step * 1e-9]


def _tick_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5, 10, 20, … that divides a span into at most so many parts."""
    size = 10.0 ** math.floor(math.log10(span / most))
    return next(factor * size for factor in (1, 2, 5, 10) if span / (factor * size) <= most + 1e-9)
