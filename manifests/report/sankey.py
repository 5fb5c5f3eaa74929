"""A Sankey diagram that reads from top to bottom and fits a phone: sources flow in from the right, join one trunk, and
what leaves at each stage turns off to the right again, beside its name and number.

Every width is its amount times one scale. The rows are the text: whatever is too thin to be seen can still be read.
"""

from dataclasses import dataclass, field

from manifests.display import format_count, format_share, format_short
from manifests.report.flows import Flow, River, amount, folded
from manifests.report.html import Html, element, join, text, visible

WIDTH = 352
TRUNK = 96.0
"""how wide everything together is drawn"""
LEFT, BANK, LABEL, RIGHT = 4.0, 136.0, 144.0, 350.0
"""where the trunk begins, where bands end, where names begin, where numbers end"""
ROW, HEADING, GAP = 21.0, 26.0, 8.0
HAIR = 0.75
"""the thinnest line that is drawn"""
SEAM = 1.0
"""by which one piece of the trunk reaches into the one before, so that no line shows between them"""
ROWS = 12
"""of one stage, or of sources; what is smaller is drawn as one"""
NAME_CHARACTERS = 23


@dataclass
class _Canvas:
    """What is drawn so far: bands below, text above; `y` is where the next row begins."""

    scale: float
    bands: list[Html] = field(default_factory=list)
    words: list[Html] = field(default_factory=list)
    y: float = 0.0

    def heading(self, name: str, number: str) -> None:
        """A line that names a stage, and what reaches it."""
        self.y += HEADING
        base = self.y - 8
        self.words.append(element("text", text(name), x=LABEL, y=base, class_="stage"))
        self.words.append(element("text", text(number), x=RIGHT, y=base, class_="stage end"))

    def row(self, flow: Flow, sign: str) -> float:
        """A flow's name and number; gives the middle of its band."""
        width = flow.amount * self.scale
        height = max(ROW, width + 5)
        middle = self.y + height / 2
        self.y += height
        mark = {"damaged": " †", "removed": " ‡"}.get(flow.kind, "")
        self.words.append(
            element("text", text(visible(flow.name, NAME_CHARACTERS) + mark), x=LABEL, y=middle + 4, class_="name")
        )
        self.words.append(element("text", text(sign + format_short(flow.amount)), x=RIGHT, y=middle + 4, class_="end"))
        return middle

    def band(self, path: str, width: float, kind: str, said: str) -> None:
        """A band along a path."""
        self.bands.append(
            element("path", element("title", text(said)), d=path, class_=f"band {kind}", stroke_width=max(width, HAIR))
        )


def sankey(river: River) -> Html:
    """The diagram; empty for a river without water."""
    total = river.total()
    if not total:
        return Html("")
    canvas = _Canvas(TRUNK / total)
    canvas.heading("enters", f"{format_short(total)} {river.unit}")
    _tributaries(canvas, folded(river.entered, ROWS), total)
    left = total
    for stage, flows in river.stages:
        canvas.heading(stage, format_short(left))
        left = _leaving(canvas, folded(flows, ROWS), left, total, "−")
        canvas.y += GAP
        _trunk(canvas, left, canvas.y - GAP, canvas.y)
    canvas.heading("shards", format_short(left))
    _leaving(canvas, folded(river.arrived, ROWS), left, total, "")
    title = f"Where {river.unit} went"
    arrived = format_count(amount(river.arrived))
    told = f"{format_count(total)} {river.unit} came in, {arrived} are in shards; the table has every number."
    return element(
        "svg",
        element("title", text(title)),
        element("desc", text(told)),
        join(canvas.bands),
        join(canvas.words),
        viewBox=f"0 0 {WIDTH} {canvas.y + 4:.0f}",
        role="img",
        aria_label=f"{title}. {told}",
        class_="sankey",
    )


def _tributaries(canvas: _Canvas, flows: list[Flow], total: int) -> None:
    """Sources that flow in, the first to the left."""
    top, edge, paths = canvas.y, LEFT, []
    for flow in flows:
        width, middle = flow.amount * canvas.scale, canvas.row(flow, "")
        centre, bend = edge + width / 2, max(width / 2, 6.0)
        paths.append((f"M{BANK:.2f} {middle:.2f}H{centre + bend:.2f}A{bend:.2f} {bend:.2f} 0 0 0 "
                      f"{centre:.2f} {middle + bend:.2f}V", width, flow))  # fmt: skip
        edge += width
    canvas.y = max(canvas.y, top + TRUNK)
    for path, width, flow in paths:
        canvas.band(f"{path}{canvas.y:.2f}", width, "in", _said(flow, total))


def _leaving(canvas: _Canvas, flows: list[Flow], left: int, total: int, sign: str) -> int:
    """Flows that turn off to the right, the first from the right edge; gives what goes on down the trunk."""
    top, edge = canvas.y - HEADING, LEFT + left * canvas.scale
    paths = []
    for flow in flows:
        width, middle = flow.amount * canvas.scale, canvas.row(flow, sign)
        centre, bend = edge - width / 2, max(width / 2, 6.0)
        path = (
            f"M{centre:.2f} {top - SEAM:.2f}V{middle - bend:.2f}A{bend:.2f} {bend:.2f} 0 0 0 "
            f"{centre + bend:.2f} {middle:.2f}H{BANK:.2f}"
        )
        paths.append((path, width, flow))
        edge -= width
    rest = left - amount(flows)
    for path, width, flow in reversed(paths):
        canvas.band(path, width, flow.kind, _said(flow, total))
    _trunk(canvas, rest, top, canvas.y)
    return rest


def _trunk(canvas: _Canvas, left: int, top: float, bottom: float) -> None:
    """What goes straight on."""
    if left > 0:
        width = left * canvas.scale
        canvas.bands.append(
            element("rect", x=LEFT, y=top - SEAM, width=width, height=bottom - top + SEAM, class_="trunk")
        )


def _said(flow: Flow, total: int) -> str:
    return f"{visible(flow.name)}: {format_count(flow.amount)} ({format_share(flow.amount, total)})"
