"""Provide a small text, and train a SentencePiece model on it, for tests of the language model."""

from pathlib import Path

from filters.quality.pieces import lm_lines, train_pieces

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (ROOT / "samples/books/marks-that-remember.txt", ROOT / "LICENSE")


def lines() -> list[str]:
    """Return about 20 kB of normalised lines of real English text."""
    return [line for path in TEXTS for line in lm_lines(path.read_text(encoding="utf-8")) if line]


def pieces(path: Path) -> str:
    """Train a SentencePiece model of 400 pieces, write it to a file, and return the name of the file."""
    path.write_bytes(train_pieces(lines(), 400, 0.9995))
    return str(path)
