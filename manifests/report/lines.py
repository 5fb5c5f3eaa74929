"""Charts of curves over steps, as SVG: several lines in colours of their own, levels dashed, each named at its end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from manifests.report.html import Html, element, text
from manifests.report.style import COLOURS

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 58, 185, 34, 34
"""of a chart and its margins, in pixels"""
LABEL = 14
"""from one name to the next below it, in pixels"""
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7a3e9d", "#555555")
DARK = ("#5ab0e6", "#ff9248", "#35c99b", "#e6a3c8", "#e0c040", "#9ad4f5", "#bd8ae0", "#bbbbbb")
"""for colour-blind readers too (after Okabe and Ito), on white and on black"""

Point = tuple[float, float]


def _shades(colours: Sequence[str]) -> str:
    return "".join(
        f"svg.lines path.c{n}{{stroke:{colour}}}svg.lines text.c{n}{{fill:{colour}}}"
        for n, colour in enumerate(colours)
    )


STYLE = (
    "svg.lines{max-inline-size:45rem;margin-block-end:1.5rem}svg.lines text{font:12px system-ui,sans-serif;"
    "fill:var(--ink)}svg.lines .name{font-size:15px;font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}"
    ".grid{stroke:var(--rule)}.curve,.level{fill:none;stroke-width:1.6;stroke-linejoin:round}.curve.one{stroke-width:5;"
    f"stroke-linecap:round}}.level{{stroke-dasharray:5 4;stroke-width:1}}{_shades(LIGHT)}"
    f"@media (prefers-color-scheme:dark){{{_shades(DARK)}}}"
)


@dataclass
class Chart:
    """One chart: curves by name, each with the number of its colour, and level lines drawn dashed."""

    title: str
    curves: dict[str, tuple[int, list[Point]]] = field(default_factory=dict)
    levels: dict[str, tuple[int, float]] = field(default_factory=dict)


def stacked(charts: Sequence[Chart]) -> Html:
    """An SVG file of its own: all charts one below the other, light or dark as the reader's system is."""
    height = HEIGHT * len(charts)
    parts = [lines(chart, HEIGHT * number) for number, chart in enumerate(charts)]
    style = element("style", Html(COLOURS + STYLE))
    box = f"0 0 {WIDTH} {height}"
    return element("svg", style, *parts, xmlns="http://www.w3.org/2000/svg", viewBox=box, width=WIDTH, height=height)


def lines(chart: Chart, down: int = 0) -> Html:
    """One chart; `down`: its place in another SVG, in pixels."""
    points = [point for _, curve in chart.curves.values() for point in curve]
    heights = [y for _, y in points] + [level for _, level in chart.levels.values()]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    x1 += x0 == x1
    y0, y1 = min(heights), max(heights)
    slack = (y1 - y0) * 0.04 or abs(y0) * 0.1 or 1.0
    y0, y1 = y0 - slack, y1 + slack
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + (x - x0) / (x1 - x0) * (right - LEFT)

    def up(y: float) -> float:
        return bottom - (y - y0) / (y1 - y0) * (bottom - TOP)

    parts = [element("text", text(chart.title), x=LEFT, y=20, class_="name")]
    for tick in ticks(y0, y1):
        parts.append(element("path", d=f"M{LEFT} {up(tick):.1f}H{right}", class_="grid"))
        parts.append(element("text", text(f"{tick:.4g}"), x=LEFT - 6, y=up(tick) + 4, class_="end"))
    for tick in ticks(x0, x1, max(1, min(6, int(x1 - x0)))):  # whole steps
        parts.append(element("text", text(f"{tick:,.0f}"), x=across(tick), y=bottom + 18, class_="mid"))
    parts.append(element("text", text("step"), x=LEFT - 20, y=bottom + 18, class_="end"))
    names: list[tuple[float, str, int]] = []
    for name, (colour, level) in chart.levels.items():
        place = f"M{LEFT} {up(level):.1f}H{right}"
        parts.append(element("path", d=place, class_=f"level c{colour % len(LIGHT)}"))
        names.append((up(level), name, colour))
    for name, (colour, curve) in chart.curves.items():
        if curve:
            line = "M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in curve)
            one = len(curve) == 1
            kind = f"curve{' one' * one} c{colour % len(LIGHT)}"
            parts.append(element("path", d=line + "h.01" * one, class_=kind))
            names.append((up(curve[-1][1]), name, colour))
    for y, name, colour in _apart(names, bottom - 4):
        parts.append(element("text", text(name), x=right + 6, y=y + 4, class_=f"c{colour % len(LIGHT)}"))
    said = f"{chart.title}, by step: {', '.join(filter(None, chart.curves))}".removesuffix(": ")
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        y=down,
        role="img",
        aria_label=said,
        class_="lines",
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within a range."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    apart = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [number * apart for number in range(math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9) + 1)]


def _apart(names: list[tuple[float, str, int]], bottom: float) -> list[tuple[float, str, int]]:
    """Names moved so that none covers another or lies below the chart."""
    moved: list[tuple[float, str, int]] = []
    for y, name, colour in sorted(names):
        moved.append((max(y, moved[-1][0] + LABEL) if moved else y, name, colour))
    above = range(len(moved) - 1, -1, -1)
    return [(min(y, bottom - LABEL * n), name, colour) for n, (y, name, colour) in zip(above, moved, strict=True)]
