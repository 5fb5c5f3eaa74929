"""Numbers as people read them."""

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """A whole number in full: 1,234,567."""
    return f"{value:,.0f}"


def counted(value: int, unit: str) -> str:
    """A number with its unit, a plural that loses its s for one: 1 record, 2 records."""
    return f"{value:,} {unit.removesuffix('s') if value == 1 else unit}"


def short(value: float) -> str:
    """Three digits and a unit: 1,234,567 is 1.23M (million), then B (10⁹) and T (10¹²); whole below 10,000."""
    if abs(value) < 10_000:
        return f"{value:,.0f}"
    for step, unit in _STEPS:
        if abs(value) >= 0.9995 * step:
            return f"{digits(value / step)}{'B' if unit == 'G' else unit}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in decimal units: 1.23 MB."""
    for step, unit in _STEPS:
        if abs(value) >= 0.9995 * step:
            return f"{digits(value / step)} {unit}B"
    return f"{value:,.0f} B"


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    places = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{places}f}"


def plain(value: float) -> str:
    """An edge of a bin: no more digits than it has."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.4g}"


def share(part: float, whole: float) -> str:
    """A share as a percentage; what is there but rounds to nothing says so."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "< 0.1%"
    return f"{percent:.1f}%"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    for step, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= step:
            return f"{digits(seconds / step)} {unit}"
    return f"{digits(seconds)} s" if seconds >= 0.005 else "< 0.01 s"
