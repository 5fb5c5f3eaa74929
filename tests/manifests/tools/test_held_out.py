"""Test held-out text: it excludes documents whose id or text is in the training data of a compared corpus."""

import json
import random
from pathlib import Path

import pytest
from trainer_corpus import write_texts

from filters.errors import UserError
from manifests.__main__ import main
from manifests.manifest import load_manifest
from manifests.tools.held_out import freeze_held_out

WORDS = [a + b for a in "ba be bi bo bu da de di do du".split() for b in "la le li lo lu ma me mi mo mu".split()]


def text(seed: int, words: int = 120) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


HELD = [(number, text(number)) for number in range(10)]
FIRST, SECOND, THIRD, FOURTH = (held for _, held in HELD[:4])
OTHERS = [(number, text(number)) for number in range(100, 120)]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return three corpora.

    The first is the reference. The second has another tokenizer, and trains on some of the held-out text of the
    reference. The third does not train on this text.
    """
    folder = tmp_path_factory.mktemp("held-out")
    reference = write_texts(folder / "reference", OTHERS, [*HELD, (50, "too short to say much")], 320)
    leaked = [
        (200, f"Menu | {FIRST.upper()} | footer"),  # A copy with another id and additional words.
        (201, " ".join(SECOND.split()[:80])),  # More than half of a document.
        (202, " ".join(THIRD.split()[:40])),  # A third of a document, which is below the limit.
        (
            203,
            " ".join(FOURTH.split()[:50]),
        ),  # This document and the next together have most words of another document.
        (204, " ".join(FOURTH.split()[60:])),
        (5, text(999)),  # A document with the same id, whose text differs because of other filters.
    ]
    arm = write_texts(folder / "arm", [*OTHERS, *leaked], [(300, text(300))], vocabulary=330)
    return reference, arm, write_texts(folder / "clean", OTHERS, HELD, 320)


def test_what_an_arm_trains_on_is_left_out_by_id_and_by_text(corpora: tuple[Path, Path, Path], tmp_path: Path) -> None:
    reference, arm, clean = corpora
    found = freeze_held_out(reference, [clean, arm], tmp_path / "held.jsonl")
    head, *rows = [json.loads(line) for line in (tmp_path / "held.jsonl").read_text("utf-8").splitlines()]
    assert head == {
        "reference": load_manifest(reference).manifest_sha,
        "compared": sorted(load_manifest(corpus).manifest_sha for corpus in (arm, clean)),
    }
    assert [row["text"] for row in rows] == [held for number, held in HELD if number in {2, 4, 6, 7, 8, 9}]
    counts = found.sources["docs"]
    assert (counts.documents, counts.short, counts.trained, counts.shared) == (6, 1, 1, 3)
    assert counts.bytes == sum(len(row["text"]) for row in rows)
    assert len(freeze_held_out(reference, [clean], tmp_path / "all.jsonl").sha256) == 64
    assert len((tmp_path / "all.jsonl").read_text("utf-8").splitlines()) == 1 + 10


def test_words_are_those_of_the_n_grams(tmp_path: Path) -> None:
    chinese = "".join(chr(0x4E00 + random.Random(1).randrange(2_000)) for _ in range(40)) + "一二三四五六七八九十"
    texts = [(1, chinese), (2, "— " * 60)]  # Words without spaces between them, and spaces without words.
    reference = write_texts(tmp_path / "reference", OTHERS, texts, 420)
    found = freeze_held_out(reference, [reference], tmp_path / "held.jsonl").sources["docs"]
    assert (found.documents, found.short, found.trained) == (1, 1, 0)
    assert json.loads((tmp_path / "held.jsonl").read_text("utf-8").splitlines()[1])["text"] == chinese


def test_the_file_depends_on_nothing_but_the_corpora(corpora: tuple[Path, Path, Path], tmp_path: Path) -> None:
    reference, arm, clean = corpora
    one, other = (freeze_held_out(reference, order, tmp_path / "x") for order in ([arm, clean], [clean, arm]))
    assert one == other


def test_at_most_the_documents_asked_for(
    corpora: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "freeze",
        *(corpus.as_uri() for corpus in corpora),
        "--output",
        str(tmp_path / "held.jsonl"),
        "--documents",
        "3",
    ]
    assert main(words) == 0
    assert "docs" in capsys.readouterr().out
    assert len((tmp_path / "held.jsonl").read_text("utf-8").splitlines()) == 1 + 3


def test_nothing_left_is_said_in_a_sentence(corpora: tuple[Path, Path, Path], tmp_path: Path) -> None:
    swapped = write_texts(tmp_path / "swapped", HELD, OTHERS, 320)
    with pytest.raises(UserError, match=r"no document of the validation side .* same seed and inputs"):
        freeze_held_out(corpora[0], [swapped], tmp_path / "held.jsonl")
    assert not (tmp_path / "held.jsonl").exists()
