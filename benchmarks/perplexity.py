"""Measure the language model on one core: scoring beside CCNet, estimating beside lmplz, and hashing lines.

Pieces and models are trained here, on the real books; the pages are real, too. Every rate is per CPU second, lmplz's
threads included; the ways of one table alternate.
"""

import gzip
import statistics
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import sentencepiece

from benchmarks.data import ABSENT, ROOT, SHARED, table
from benchmarks.measure import alternate
from benchmarks.stages import page_texts
from filters.models.kneser_ney import estimate, run_lmplz, write_arpa
from filters.quality.duplicate_lines import line_hashes
from filters.quality.perplexity import PageScorer, load_kenlm
from filters.quality.pieces import REPLACED_MARKS, PieceEncoder, lm_lines, number_pieces, train_pieces

BOOKS = "gutenberg/*.txt.gz"
PROGRAMS = ROOT / "build/lmplz/bin"
VOCABULARY, ORDER, ROUNDS = 16_000, 5, 3


def book_lines() -> list[str]:
    """Return the books' paragraphs, normalised, one line each."""
    lines = []
    for path in sorted(SHARED.glob(BOOKS)):
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace").replace("\r\n", "\n")
        lines += [" ".join(lm_lines(paragraph)).strip() for paragraph in text.split("\n\n")]
    return [line for line in lines if line]


def ccnet_normalize(line: str) -> str:
    """Normalise a line with cc_net's own steps: accents character by character, one substitution per mark."""
    line = "".join([c for c in unicodedata.normalize("NFD", line.strip().lower()) if unicodedata.category(c) != "Mn"])
    line = "".join(["0" if c.isdecimal() else c for c in line])
    for mark, plain in REPLACED_MARKS.items():
        line = line.replace(mark, plain)
    return "".join([c for c in line if not unicodedata.category(c).startswith("Cc")])


def medians(ways: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Return the units per CPU second of each way, medians of alternating rounds."""
    seconds, units = alternate(ways, ROUNDS)
    return {name: units[name] / statistics.median(seconds[name]) for name in ways}


def scoring(pages: list[str], pieces: str, model: str) -> str:
    """Return a table: tokens and pages per second of CCNet's way and of ours."""
    peer, kenlm = sentencepiece.SentencePieceProcessor(model_file=pieces), load_kenlm(model)
    warm = PageScorer(pieces, model)
    tokens = sum(warm.score(page)[1] for page in pages)

    def ccnet() -> int:
        for page in pages:
            for line in page.split("\n"):
                if line.strip():
                    kenlm.score(" ".join(peer.encode_as_pieces(ccnet_normalize(line))))
        return tokens

    def ours(scorer: PageScorer) -> int:
        return sum(scorer.score(page)[1] for page in pages)

    rates = medians(
        {
            "as CCNet: a line at a time": ccnet,
            "ours, words looked up, cache empty": lambda: ours(PageScorer(pieces, model)),
            "ours, words looked up": lambda: ours(warm),
        }
    )
    base = rates["as CCNet: a line at a time"]
    rows = [
        [name, f"{rate / 1e6:.2f} M", f"{rate * len(pages) / tokens:,.0f}", f"{rate / base:.1f}"]
        for name, rate in rates.items()
    ]
    return table(["scoring", "tokens per CPU second", "pages per CPU second", "ratio"], rows)


def estimating(sentences: list[bytes], folder: Path) -> str:
    """Return a table: tokens per second from sentences to ARPA, of ours and of lmplz if it is built."""
    tokens = sum(sentence.count(b" ") for sentence in sentences)
    (folder / "sentences").write_bytes(b"\n".join(sentences) + b"\n")

    def ours() -> int:
        with (folder / "ours.arpa").open("wb") as file:
            write_arpa(estimate(*number_pieces(sentences), ORDER), file)
        return tokens

    def lmplz() -> int:
        run_lmplz(PROGRAMS / "lmplz", folder / "sentences", folder / "lmplz.arpa", ORDER)
        return tokens

    built = (PROGRAMS / "lmplz").exists()
    rates = medians({"ours": ours, **({"lmplz": lmplz} if built else {})})
    rows = [[name, f"{rate / 1e6:.2f} M"] for name, rate in rates.items()] + ([] if built else [["lmplz", "not built"]])
    return table([f"estimating {tokens:,} tokens, order {ORDER}, to ARPA", "tokens per CPU second"], rows)


def hashing(pages: list[str]) -> str:
    """Return a table: MB of text per second through the normal forms."""
    size = sum(len(page.encode()) for page in pages)

    def through(form: Callable[[str], object]) -> int:
        for page in pages:
            form(page)
        return size

    rates = medians({"line hashes": lambda: through(line_hashes), "lines for the model": lambda: through(lm_lines)})
    return table(["normal form", "MB per CPU second"], [[name, f"{rate / 1e6:.1f}"] for name, rate in rates.items()])


def run() -> str:
    """Return the three tables."""
    pages = list(page_texts())
    lines = book_lines()
    if not pages or not lines:
        return ABSENT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pieces = folder / "sp.model"
        pieces.write_bytes(train_pieces(lines, VOCABULARY, 0.9995))
        sentences = list(map(PieceEncoder(str(pieces)).sentence, lines))
        estimated = estimating(sentences, folder)
        model = folder / "ours.arpa"
        if (PROGRAMS / "build_binary").exists():
            binary = folder / "ours.arpa.bin"
            subprocess.run([PROGRAMS / "build_binary", "probing", model, binary], check=True, capture_output=True)
            model = binary
        return "\n\n".join([scoring(pages, str(pieces), str(model)), estimated, hashing(pages)])
