"""Measure the n-gram language model on one core: scoring beside CCNet, estimation beside lmplz, and hashing lines.

The SentencePiece model and the language model are trained on the real books. The scored pages are also real. Every rate
is per CPU second, including the threads of lmplz. The methods of one table are measured in alternation.
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
    """Return the normalised paragraphs of the books, one line per paragraph."""
    lines = []
    for path in sorted(SHARED.glob(BOOKS)):
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace").replace("\r\n", "\n")
        lines += [" ".join(lm_lines(paragraph)).strip() for paragraph in text.split("\n\n")]
    return [line for line in lines if line]


def ccnet_normalize(line: str) -> str:
    """Normalise a line as cc_net does: accents character by character, and one substitution per punctuation mark."""
    line = "".join([c for c in unicodedata.normalize("NFD", line.strip().lower()) if unicodedata.category(c) != "Mn"])
    line = "".join(["0" if c.isdecimal() else c for c in line])
    for mark, plain in REPLACED_MARKS.items():
        line = line.replace(mark, plain)
    return "".join([c for c in line if not unicodedata.category(c).startswith("Cc")])


def median_rates(methods: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Return the median rate of each method over alternating rounds: the units that it returns, per CPU second."""
    seconds, units = alternate(methods, ROUNDS)
    return {name: units[name] / statistics.median(seconds[name]) for name in methods}


def measure_scoring(pages: list[str], pieces: str, model: str) -> str:
    """Return a table of tokens and pages per CPU second, for CCNet's method and for ours.

    Args:
        pages: The texts to score.
        pieces: The path of the SentencePiece model.
        model: The path of the language model.
    """
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

    rates = median_rates(
        {
            "as CCNet: line by line": ccnet,
            "ours, word cache empty": lambda: ours(PageScorer(pieces, model)),
            "ours, word cache warm": lambda: ours(warm),
        }
    )
    base = rates["as CCNet: line by line"]
    rows = [
        [name, f"{rate / 1e6:.2f} M", f"{rate * len(pages) / tokens:,.0f}", f"{rate / base:.1f}"]
        for name, rate in rates.items()
    ]
    return table(["scoring", "tokens per CPU second", "pages per CPU second", "ratio"], rows)


def measure_estimation(sentences: list[bytes], folder: Path) -> str:
    """Return a table of tokens per CPU second from sentences to an ARPA file, for our code and lmplz if it is built.

    Args:
        sentences: The training text, as lines of pieces.
        folder: A folder for files. The function writes the model ours.arpa to it.
    """
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
    rates = median_rates({"ours": ours, **({"lmplz": lmplz} if built else {})})
    rows = [[name, f"{rate / 1e6:.2f} M"] for name, rate in rates.items()] + ([] if built else [["lmplz", "not built"]])
    return table([f"estimation from {tokens:,} tokens to ARPA, order {ORDER}", "tokens per CPU second"], rows)


def measure_normal_forms(pages: list[str]) -> str:
    """Return a table of MB of text per CPU second for each normal form of lines."""
    size = sum(len(page.encode()) for page in pages)

    def through(form: Callable[[str], object]) -> int:
        for page in pages:
            form(page)
        return size

    rates = median_rates(
        {"line hashes": lambda: through(line_hashes), "lines for the model": lambda: through(lm_lines)}
    )
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
        estimation = measure_estimation(sentences, folder)
        model = folder / "ours.arpa"
        if (PROGRAMS / "build_binary").exists():
            binary = folder / "ours.arpa.bin"
            subprocess.run([PROGRAMS / "build_binary", "probing", model, binary], check=True, capture_output=True)
            model = binary
        return "\n\n".join([measure_scoring(pages, str(pieces), str(model)), estimation, measure_normal_forms(pages)])
