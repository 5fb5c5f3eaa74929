"""arXiv as a source: every byte of a monthly tar in the ledger, locators that lead back, recipes, the real files."""

import bz2
import gzip
import itertools
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import tar, zipped

from filters.formats.tar import read_entries
from filters.reasons import Reason
from filters.rule_list import parse_rules
from manifests.document import Document, Locator
from manifests.source import ArXiv, Limits, Source
from pipeline.sources import arxiv
from pipeline.sources.base import Outcome

SHARED = Path(__file__).parents[4] / "shared/data/arxiv"
HERE = pytest.mark.skipif(not SHARED.exists(), reason="the real sample data (../shared/data) is not here")


def paper(body: str, title: str = "T") -> bytes:
    head = f"\\documentclass{{article}}\n\\title{{{title}}}\n\\begin{{document}}\n\\maketitle\n"
    return f"{head}{body}\n\\end{{document}}\n".encode()


def source(**options: Any) -> Source:
    limits, filters = options.pop("limits", Limits()), parse_rules([{"min_characters": options.pop("least", 1)}])
    return Source(weight=1.0, kind="arxiv", limits=limits, filters=filters, licence="L", arxiv=ArXiv(**options))


def outcomes(
    stored: bytes, name: str = "2003/arXiv_src_2003_001.tar", split_bytes: int = 1 << 30, **options: Any
) -> list[Outcome]:
    """What becomes of a file, read in pieces; every byte of it is accounted for, and every document found again."""
    recipe = source(**options)
    cuts = arxiv.find_pieces(stored, recipe, split_bytes)
    assert cuts[0][0] == 0 and cuts[-1][1] == len(stored)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(cuts))
    found: list[Outcome] = []
    for start, end, state in cuts:
        piece = list(arxiv.read(stored, name, "arxiv", recipe, start, end, state))
        assert sum(item.stored for item in piece) == end - start
        found += piece
    for outcome in found:
        if outcome.document is not None:
            assert arxiv.reread(stored, outcome.locator, "arxiv", recipe).document == outcome.document
    return found


def documents(found: list[Outcome]) -> list[Document]:
    return [outcome.document for outcome in found if outcome.document is not None]


def reasons(found: list[Outcome]) -> Counter[str]:
    return Counter(item.reason.value for item in found if item.reason is not None)


PROJECT = {"main.tex": paper("\\section{A} \\input{b}", "One"), "b.tex": b"B % c", "f.eps": bytes(9000)}
MONTH = tar(
    {
        "2003/": b"",
        "2003/2003.00001.gz": zipped(tar(PROJECT)),
        "2003/2003.00002.gz": zipped(paper("\\section{A} Two."), "two.tex"),
        "2003/2003.00003.pdf": b"%PDF-1.5",
        "2003/2003.00004.gz": zipped(b"\x15\x80", "x.tex.cry"),
        "2003/2003.00005.gz": zipped(paper("This paper has been withdrawn.")),
        "2003/math0303001.gz": zipped(paper("\\section{Old} One.")),
        "2003/link.gz": (tarfile.SYMTYPE, "/etc/passwd"),
        "2003/pipe": (tarfile.FIFOTYPE, ""),
        "2003/2003.00006.gz": zipped(tar({"../x.tex": b"\\x", "main.tex": paper("\\section{Six} Six.")})),
        "2003/2003.00007.gz": zipped(paper("\\section{A} x"))[:40],
        "2003/2003.00008.tex": paper("\\section{Bare} TeX."),
    }
)  # fmt: skip


def test_a_month() -> None:
    found = outcomes(MONTH)
    first, two, old, six, bare = documents(found)
    assert first.text == "\\section{A} B" and first.metadata == {"id": "2003.00001", "title": "One", "included": 1}
    assert first.url == "https://arxiv.org/abs/2003.00001" and first.timestamp == "2020-03" and first.licence == "L"
    assert first.locator.member == "2003/2003.00001.gz!main.tex" and first.locator.inner_length == 20_480
    assert two.locator.member == "2003/2003.00002.gz" and two.locator.inner_length == len(paper("\\section{A} Two."))
    assert MONTH[two.locator.offset :][: two.locator.length] == zipped(paper("\\section{A} Two."), "two.tex")
    assert (old.url, old.timestamp) == ("https://arxiv.org/abs/math/0303001", "2003-03")
    assert six.text == "\\section{Six} Six." and bare.text == "\\section{Bare} TeX."
    assert reasons(found) == {
        "archive-metadata": 2, "no-tex": 1, "encrypted": 1, "no-body-text": 1, "unsafe-path": 2,
        "unsupported-format": 1, "truncated-record": 1,
    }  # fmt: skip
    (inner,) = [item for item in found if item.reason is Reason.UNSAFE_PATH and item.stored == 0]
    assert inner.detail == "1 members left out: '../x.tex'" and inner.locator.member == "2003/2003.00006.gz"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_compressed_month(pack: Callable[[bytes], bytes]) -> None:
    found, plain = outcomes(pack(MONTH)), outcomes(MONTH)
    assert [(item.text, item.url, item.locator.member) for item in documents(found)] == [
        (item.text, item.url, item.locator.member) for item in documents(plain)
    ]
    place = documents(found)[1].locator
    assert MONTH[place.inner_offset :][: place.inner_length] == zipped(paper("\\section{A} Two."), "two.tex")
    told = reasons(plain) - Counter({"archive-metadata": 1})  # the zeros at the end are no record here
    assert reasons(found) == told - Counter({"unsupported-format": 1}) + Counter({"unsafe-path": 1}), "a pipe"


def test_a_compressed_month_that_is_damaged() -> None:
    packed = gzip.compress(MONTH)
    for place in (60, len(packed) // 2, len(packed) - 9):
        hurt = outcomes(packed[:place])
        assert reasons(hurt)["truncated-record"] >= 1
        assert {item.text for item in documents(hurt)} <= {item.text for item in documents(outcomes(MONTH))}
    for document in documents(outcomes(packed)):
        with pytest.raises(LookupError):
            arxiv.reread(gzip.compress(MONTH[512:]), document.locator, "arxiv", source())


def test_a_compressed_submission_with_a_file_named_like_a_paper_is_no_month() -> None:
    files = {"2003.00001.tex": paper("\\section{A} \\input{b}"), "b.tex": b"B", "2003.00001.pdf": b"%PDF-1.5"}
    (document,) = documents(outcomes(zipped(tar(files)), "p.gz"))
    assert document.text == "\\section{A} B"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_sources_in_utf_16(encoding: str) -> None:
    data = paper("\\section{A} Müller \\input{b}").decode().encode(encoding)
    for stored in (
        tar({"a.tex": data, "b.tex": b"B"}),
        tar({"a.tex": paper("\\section{A} Müller \\input{b}"), "b.tex": "\\relax B".encode(encoding)}),
    ):
        (document,) = documents(outcomes(zipped(stored), "p.gz"))
        assert document.text.replace("\\relax ", "") == "\\section{A} Müller B"
    assert documents(outcomes(zipped(data), "p.gz"))[0].text == "\\section{A} Müller \\input{b}"


@pytest.mark.parametrize("split_bytes", [1, 600, 3_000, 20_000])
def test_pieces_leave_no_trace(split_bytes: int) -> None:
    assert outcomes(MONTH, split_bytes=split_bytes) == outcomes(MONTH)
    assert len(arxiv.find_pieces(MONTH, source(), 1)) == len(list(read_entries(MONTH)))


def test_pieces_read_no_data() -> None:
    class Watched(bytes):
        seen = 0

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            Watched.seen += len(found)
            return found

    stored = tar({f"2003/2003.0000{n}.gz": bytes(4 << 20) for n in range(5)})
    assert len(arxiv.find_pieces(Watched(stored), source(), 1 << 20)) == 6
    assert Watched.seen < 3 << 20, "headers, and the zeros at the end"


@pytest.mark.parametrize(
    ("name", "identifier", "month"),
    [
        ("1403/1403.0035.gz", "1403.0035", "2014-03"),
        ("2004.14974.gz", "2004.14974", "2020-04"),
        ("2004.14974v2.tar.gz", "2004.14974", "2020-04"),
        ("x/1801.03879-1.tar.gz", "1801.03879", "2018-01"),
        ("0303/math0303005.gz", "math/0303005", "2003-03"),
        ("9901/hep-th9901001.gz", "hep-th/9901001", "1999-01"),
        ("math.AG_0303005v1.gz", "math/0303005", "2003-03"),
        ("upload6.tgz", "", ""),
        ("9913.0001.gz", "", ""),
        ("0303.tar", "", ""),
        ("main-20030100.tex", "", ""),
    ],
)
def test_identifiers(name: str, identifier: str, month: str) -> None:
    (document,) = documents(outcomes(zipped(paper("\\section{A} B")), name))
    assert document.metadata.get("id", "") == identifier and document.timestamp == month
    assert document.url == (f"https://arxiv.org/abs/{identifier}" if identifier else "")


def test_single_submissions_in_every_wrapping() -> None:
    files = {"sub/main.tex": paper("\\section{A} \\input{b}"), "sub/b.tex": b"B"}
    for stored in (tar(files), zipped(tar(files))):
        (document,) = documents(outcomes(stored, "paper.tar"))
        assert document.text == "\\section{A} B"
        assert document.locator == Locator("paper.tar", 0, len(stored), "sub/main.tex", 0, len(tar(files)))
    plain = paper("\\section{A} B")
    for stored in (plain, zipped(plain)):
        (document,) = documents(outcomes(stored, "p.tex"))
        assert document.locator == Locator("p.tex", 0, len(stored), "", 0, len(plain))


def test_options_and_limits() -> None:
    stored = zipped(paper("\\def\\a{\\b\\b}\\def\\b{bb}\\section{A} Erd\\H{o}s \\a \\appendix \\section{B} C"))
    (default,) = documents(outcomes(stored))
    assert default.text == "\\section{A} Erd\\H{o}s bbbb \\appendix \\section{B} C"
    (other,) = documents(outcomes(stored, appendix="drop", accents="unicode", macro_depth=1))
    assert other.text == "\\section{A} Erdős \\b\\b"
    assert reasons(outcomes(stored, macro_characters=20)) == {"too-large": 1}
    assert reasons(outcomes(stored, least=1_000)) == {"too-short": 1}
    assert reasons(outcomes(stored, limits=Limits(text_characters=50))) == {"too-large": 1}
    assert reasons(outcomes(stored, limits=Limits(record_bytes=50))) == {"too-large": 1}
    assert reasons(outcomes(stored, archive_bytes=50)) == {"too-large": 1}
    literal = "\\newcommand{\\x}[1]{#1#1}\\section{A} \\x{\\x{\\x{\\begin{verbatim}" + "y" * 900 + "\\end{verbatim}}}}"
    assert reasons(outcomes(zipped(paper(literal)), limits=Limits(text_characters=5_000))) == {"too-large": 1}


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"a.tex": paper("x\n%\\section{old}\npreamble\n\\section{A} B")}, "\\section{A} B"),
        ({"a.tex": paper("\\section{A} word% note\nB")}, "\\section{A} wordB"),
        ({"a.tex": paper("\\section{A} B\\\\% note\nC")}, "\\section{A} B\\\\C"),
        ({"a.tex": paper("x \\paragraph{P} text only")}, "x \\paragraph{P} text only"),
        ({"a.tex": paper("\\section{A} Müller").decode().encode("latin-1")}, "\\section{A} Müller"),
        ({"a.tex": paper("\\begin{abstract}x\\end{abstract} A letter.")}, "A letter."),
        (
            {
                "a.tex": b"\\section{Z} last",
                "b.tex": b"draft \\section{D} x",
                "m.tex": paper("\\section{M} m \\input{a}"),
            },
            "\\section{M} m \\section{Z} last",
        ),
        (
            {
                "a.tex": paper(
                    "\\newcommand{\\s}[1]{\\section{#1}}\\renewcommand{\\vec}[1]{\\mathbf{#1}}x \\s{A} $\\vec x$"
                )
            },
            "\\section{A} $\\mathbf{x}$",
        ),
        ({"a.tex": paper("\\section{A} B"), "._a.tex": b"\0\5\x16\7\xff"}, "\\section{A} B"),
        ({"Final.ii": paper("\\section{A} B")}, "\\section{A} B"),
    ],
)
def test_what_redpajama_gets_wrong(files: dict[str, bytes], text: str) -> None:
    (document,) = documents(outcomes(zipped(tar(files)), "p.gz"))
    assert document.text == text


def test_a_line_of_forty_megabytes_is_too_large() -> None:
    line = b"\\documentclass{x}" + b"x" * 40_000_000
    for stored in (line, zipped(line), zipped(tar({"a.tex": line}))):
        assert reasons(outcomes(stored, "a.tex")) == {"too-large": 1}


def test_rereading_another_file_is_told() -> None:
    found = documents(outcomes(MONTH))
    for stored in (MONTH[512:], MONTH[:1200], b"", zipped(paper("\\section{A} B"))):
        for document in found:
            with pytest.raises(LookupError):
                arxiv.reread(stored, document.locator, "arxiv", source())


def test_a_month_with_a_damaged_beginning_is_still_one() -> None:
    found = outcomes(b"junk" + MONTH[4:])
    assert [item.text for item in documents(found)] == [item.text for item in documents(outcomes(MONTH))]
    assert reasons(found)["corrupt-record"] == 1


@given(st.integers(0, len(MONTH) - 1), st.binary(min_size=1, max_size=600))
@settings(max_examples=60, deadline=None)
def test_damage_anywhere_is_accounted_for(place: int, junk: bytes) -> None:
    hurt = MONTH[:place] + junk + MONTH[place + len(junk) :]
    outcomes(hurt, split_bytes=2_000)
    outcomes(MONTH[:place], split_bytes=2_000)


def real() -> list[str]:
    return sorted(path.relative_to(SHARED).as_posix() for path in SHARED.rglob("*") if path.is_file())


EXPECTED = {
    "bulk/0303.tar": (5, {"archive-metadata": 2, "encrypted": 3, "no-tex": 1}),
    "bulk/1403.tar": (4, {"archive-metadata": 2, "no-tex": 2}),
    "eprints/2004.14974.gz": (1, {}),
    "submissions/1801.03879-1.tar.gz": (1, {}),
    "submissions/upload2.tar.gz": (1, {}),
    "submissions/upload6.tgz": (1, {}),
    "submissions/with__MACOSX_hidden.tar.gz": (1, {}),
    "tex/1707.08043-main.tex.gz": (1, {}),
    "tex/1708.00137-main.tex.gz": (1, {}),
    "tex/polch.tex.gz": (1, {}),
}


@HERE
def test_every_real_file_is_accounted_for() -> None:
    assert set(real()) == set(EXPECTED)
    for name, (count, told) in EXPECTED.items():
        found = outcomes((SHARED / name).read_bytes(), name, split_bytes=100_000)
        assert len(documents(found)) == count and reasons(found) == told, name
        for document in documents(found):
            assert document.text.startswith(("\\section", "\\noindent As a generalization")), name
            assert "thebibliography" not in document.text and "\\newcommand" not in document.text, name


def one(name: str) -> Document:
    (document,) = documents(outcomes((SHARED / name).read_bytes(), name))
    return document


@HERE
def test_the_scifact_paper_reads_as_it_is_printed() -> None:
    """What a reader of arXiv:2004.14974v6 sees: sections in order, macros as words, no draft, appendices."""
    text = one("eprints/2004.14974.gz").text
    headings = [line.split("{", 1)[1].split("}")[0] for line in text.split("\n") if line.startswith("\\section")]
    assert headings[:2] == ["Introduction", "Background and task definition"] and len(headings) >= 8
    for sentence in (
        "The \\textsc{SciFact} dataset} \\label{sec:dataset}",
        "dataset consists of 1,409 scientific claims verified against a corpus of 5,183 abstracts.",
        "\\section{\\textsc{VeriSci}: Baseline model}",
        "labels each abstract as \\textsc{Supports}, \\textsc{Refutes}, or \\textsc{NoInfo} with respect to the claim.",
        "Slowing by 37\\%''",
    ):
        assert sentence in text
    for absent in (
        "\\ours",
        "\\numclaims",
        "\\xspace",
        "\\input{",
        "We focus on verifying claims against abstracts rather",
        "\\bibliography",
    ):
        assert absent not in text
    assert one("eprints/2004.14974.gz").metadata == {
        "id": "2004.14974", "title": "Fact or Fiction: Verifying Scientific Claims", "included": 27,
    }  # fmt: skip


@HERE
def test_every_word_of_the_scifact_paper_s_files_is_there_and_none_of_its_drafts() -> None:
    """By other means: the words of each file that the root names, comments dropped line by line, macros left out."""
    import io
    import re

    with tarfile.open(fileobj=io.BytesIO((SHARED / "eprints/2004.14974.gz").read_bytes())) as archive:
        files = {m.name.removeprefix("./"): archive.extractfile(m).read().decode() for m in archive
                 if m.isfile() and m.name.endswith(".tex") and "._" not in m.name}  # fmt: skip
    text = one("eprints/2004.14974.gz").text

    def words(tex: str) -> list[str]:
        lines = [re.split(r"(?<!\\)%", line)[0] for line in tex.split("\n")]
        return re.findall(r"(?<![\\a-zA-Z{])[a-zA-Z]{4,}(?![a-zA-Z}])", "\n".join(lines))

    ours = Counter(words(text))
    included = [name for name in files if re.match(r"0[1-8]-|09-appendices-arxiv", name)]
    assert len(included) == 9
    for name in included:
        missing = [word for word in words(files[name]) if ours[word] == 0]
        assert len(missing) <= 0.01 * len(words(files[name])), (name, missing)
    drafts = {name for name in files if "_old" in name or name in ("scratchpad.tex", "09-appendices.tex")}
    unique = {word for name in drafts for word in words(files[name])} - {
        word for name in files if name not in drafts for word in words(files[name])
    }
    assert len(unique) > 20 and not unique & set(ours)


def test_the_bundled_papers_end_as_their_list_says(tmp_path: Path) -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[3] / "samples"))
    try:
        import papers
    finally:
        sys.path.pop(0)
    planted = papers.make(tmp_path)
    ended: dict[tuple[str, str], str] = {}
    texts = {}
    for name in sorted({row["file"] for row in planted}):
        for item in outcomes((tmp_path / name.removeprefix("arxiv/")).read_bytes(), name):
            key = (name, item.locator.member.partition("!")[0])
            ended.setdefault(key, item.reason.value if item.reason else "kept")
            if item.document is not None:
                texts[key[1]] = item.document.text
    for row in planted:
        assert ended[row["file"], row["member"]] == row["expect"], row
    grid = texts["2401/2401.00001.gz"]
    assert grid.startswith("\\section{Introduction}\nA town is built on a grid.") and "railway" not in grid
    for sentence in (
        "there are $\\binom{2n}{n}$ ways to\nwork",
        "call the line of corners next to the river the \\emph{staircase} and",
        "the number $P_{n}(b)$ of ways",
        "a word in the letters \\mathsf{E}\\ and \\mathsf{N}, and let $\\operatorname{len}(w)$",
        "For all $n\\in\\mathbb{N}$",
        "https://grids.example/tables%20of%20paths",
        "# 100% of them",
        "\\appendix\n\\section{A table}",
    ):
        assert sentence in grid, sentence
    for absent in (
        "TODO",
        "An older proof",
        "no need for a proof",
        "thebibliography",
        "Nothing here",
        "abstract",
        "\\iffalse",
    ):
        assert absent not in grid
    assert "Bäcker" not in texts["2401/2401.00002.gz"] and "Müller's" in texts["2401/2401.00002.gz"]
    assert "\\textit{pain de ménage}" in texts["2401/2401.00002.gz"]
    pendulum = texts[""]
    assert "$E={1\\over 2} m g\\ell\\theta_{0}^2$" in pendulum and "\\frac{d E}{dt}" not in pendulum
    assert "$$\\frac{dE}{dt} = -{1\\over 2}\\,{E\\over\\ell}\\,\\frac{d\\ell}{dt} ,$$" in pendulum
