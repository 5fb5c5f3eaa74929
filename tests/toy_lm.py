"""A small text and models trained on it, for the language model's tests."""

from pathlib import Path

from filters.quality.pieces import lm_lines, train_pieces

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (ROOT / "samples/books/marks-that-remember.txt", ROOT / "LICENSE")


def lines() -> list[str]:
    """Return about 20 kB of real English lines, normalised."""
    return [line for path in TEXTS for line in lm_lines(path.read_text(encoding="utf-8")) if line]


def pieces(path: Path) -> str:
    """Train 400 pieces into a file and return its name."""
    path.write_bytes(train_pieces(lines(), 400, 0.9995))
    return str(path)
