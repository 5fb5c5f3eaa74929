"""Submissions: tar headers of every kind, what is taken from an archive, the root file, what it includes."""

import itertools
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import tar, zipped

from filters.formats.tar import StoredReader, TarEntry, parse_header, read_entries, resolve_path, stream_entries
from filters.reasons import Reason
from filters.tex.source import restore_literals
from filters.tex.submission import MAX_INCLUSIONS, Submission, assemble, is_hidden, read_gzip_name, read_submission

PAPER = b"\\documentclass{article}\n\\begin{document}\nText.\n\\end{document}\n"
LIMIT = 1 << 20


def held(stored: bytes, text_bytes: int = LIMIT, archive_bytes: int = 1 << 24) -> Submission:
    return read_submission(stored, text_bytes, archive_bytes)


def text(files: dict[str, bytes], depth: int = 16, characters: int = LIMIT) -> str:
    found = assemble(files, depth, characters)
    assert found.problem is None
    whole = restore_literals(found.text, found.literals, characters)
    assert whole is not None
    return whole


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_form_of_tar(kind: int) -> None:
    long = "x" * 60 + "/" + "y" * (90 if kind == tarfile.USTAR_FORMAT else 190) + ".tex"
    files = {"a.tex": b"a" * 700, "d/": b"", long: b"b", "empty": b"", "l": (tarfile.SYMTYPE, "a.tex")}
    stored = tar(files, kind)
    found = list(read_entries(stored))
    assert [(item.name.rstrip("/"), item.kind, item.size) for item in found] == [
        ("a.tex", "file", 700), ("d", "directory", 0), (long, "file", 1), ("empty", "file", 0), ("l", "link", 0),
        ("", "end", 0),
    ]  # fmt: skip
    assert [stored[item.data : item.data + item.size][:1] for item in found[:3:2]] == [b"a", b"b"]
    assert [item.offset for item in found[1:]] + [len(stored)] == [item.stop for item in found], (
        "every byte has a place"
    )
    assert list(stream_entries(StoredReader(stored))) == found
    cuts = [item.offset for item in found] + [len(stored)]
    again = [item for start, end in itertools.pairwise(cuts) for item in read_entries(stored, start, end)]
    assert again == found, "a piece that is cut at headers gives what the whole does"


def test_a_unix_v7_header_and_a_size_in_base_256() -> None:
    block = bytearray(tar({"a": b"x" * 10})[:512])
    block[124:136] = b"\x80" + bytes(10) + b"\x0a"
    block[257:345] = bytes(88)  # no magic, no owner's name
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    found = parse_header(bytes(block))
    assert found is not None and (found.name, found.size, found.kind) == ("a", 10, "file")
    assert parse_header(bytes(511)) is None and parse_header(b"x" * 512) is None
    block[124:136] = b"99999999999\0"
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    assert parse_header(bytes(block)) is None, "no octal number"


def test_damage_is_passed_over() -> None:
    stored = tar({name: name.encode() * 600 for name in "abc"})
    hurt = bytearray(stored)
    hurt[1536] ^= 0xFF  # b's header
    found = list(read_entries(bytes(hurt)))
    assert [(item.name, item.kind, item.problem) for item in found] == [
        ("a", "file", None), ("", "damage", Reason.CORRUPT_RECORD), ("c", "file", None), ("", "end", None)
    ]  # fmt: skip
    assert sum(item.stop - item.offset for item in found) == len(hurt)
    lying = bytearray(stored)
    lying[1536 + 124 : 1536 + 136] = b"77777777777\0"
    lying[1536 + 148 : 1536 + 156] = b"%06o\0 " % (sum(lying[1536:2048]) - sum(lying[1536 + 148 : 1536 + 156]) + 256)
    assert [item.problem for item in read_entries(bytes(lying))] == [None, Reason.TRUNCATED_RECORD, None, None]


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 1111, 1536])
def test_truncated_tars(cut: int) -> None:
    stored = tar({"a": b"x" * 600, "b": b"y" * 600})[:cut]
    found = list(read_entries(stored))
    assert sum(item.stop - item.offset for item in found) == len(stored)
    assert [item.kind for item in found] == (["file"] if cut >= 1112 else ["damage"])
    inner = list(stream_entries(StoredReader(stored)))
    assert inner[-1].kind == ("file" if cut >= 1112 else "damage")


@given(st.binary(max_size=2_000), st.integers(0, 3_000))
@settings(max_examples=100)
def test_any_bytes_are_accounted_for(junk: bytes, place: int) -> None:
    stored = bytearray(tar({"a": b"x" * 600, "b": b"y"}))
    stored[place:place] = junk
    found = list(read_entries(bytes(stored)))
    assert sum(item.stop - item.offset for item in found) == len(stored)
    held(bytes(stored))
    held(zipped(bytes(stored))[: place + 20])


def test_what_is_taken_from_a_submission() -> None:
    files = {
        "main.tex": PAPER,
        "./sub/part.tex": b"p",
        "fig.eps": b"%!PS",
        "a.sty": b"\\x",
        "main.bbl": b"b",
        "notes": b"n",
        "._main.tex": b"\0\5",
        "__MACOSX/x.tex": b"x",
        ".hidden.tex": b"h",
        "Final.ii": b"\\x",
        "binary": b"a\0b",
        "d/": b"",
        "scan.tex": b"%PDF-1.4",
    }
    found = held(zipped(tar(files)))
    assert found.files == {"main.tex": PAPER, "sub/part.tex": b"p", "notes": b"n", "Final.ii": b"\\x"}
    assert found.decoded == len(tar(files)) and found.problem is None and found.unsafe == ()
    assert held(tar(files)).files == found.files
    assert held(zipped(PAPER)).files == held(PAPER).files == {"": PAPER}


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"%PDF-1.4 x", Reason.NO_TEX),
        (zipped(b"%PDF-1.4 x"), Reason.NO_TEX),
        (zipped(b"%!PS-Adobe x"), Reason.NO_TEX),
        (b"<html>\\x", Reason.NO_TEX),
        (b"plain words", Reason.NO_TEX),
        (b"", Reason.NO_TEX),
        (zipped(b""), Reason.NO_TEX),
        (zipped(tar({"a.eps": b"%!PS", "b.pdf": b"%PDF"})), Reason.NO_TEX),
        (zipped(b"\x15\x80\xea", "paper.tex.cry"), Reason.ENCRYPTED),
        (zipped(tar({"paper.tex.cry": b"\x15"})), Reason.ENCRYPTED),
        (b"PK\x03\x04 docx", Reason.UNSUPPORTED_FORMAT),
        (b"\x1f\x9d\x90", Reason.UNSUPPORTED_FORMAT),
        (zipped(PAPER)[:-9], Reason.TRUNCATED_RECORD),
        (zipped(PAPER)[:10] + b"\xff" * 99, Reason.CORRUPT_GZIP),
        (zipped(PAPER)[:-8] + b"\xff" * 8, Reason.CORRUPT_GZIP),
        (zipped(tar({"a.tex": PAPER})[:550]), Reason.TRUNCATED_RECORD),
        (zipped(tar({"a.tex": PAPER})[:1024] + b"x" * 512), Reason.CORRUPT_RECORD),
        (zipped(tar({"a.tex": PAPER})[:1024] + b"x"), Reason.TRUNCATED_RECORD),
        (zipped(b"\\x" * LIMIT), Reason.TOO_LARGE),
        (zipped(tar({"a.tex": b"\\x" * LIMIT})), Reason.TOO_LARGE),
        (zipped(tar({f"{n}.tex": b"\\x" * (LIMIT // 8) for n in range(5)})), Reason.TOO_LARGE),
        (zipped(tar({"a.eps": bytes(1 << 25), "b.tex": PAPER})), Reason.TOO_LARGE),
        (zipped(PAPER + b"\\x" * 5_000 + bytes(1 << 25)), Reason.TOO_LARGE),
    ],
)
def test_submissions_that_are_none(stored: bytes, reason: Reason) -> None:
    found = held(stored)
    assert found.problem is reason and found.files == {}


def test_too_many_members() -> None:
    one = tar({"a.eps": b""})[:512]
    assert held(zipped(one * 20_001 + bytes(1024))).problem is Reason.TOO_LARGE
    assert held(zipped(one * 500 + bytes(1024))).problem is Reason.NO_TEX


def test_members_that_lead_outside_are_left_out_and_told() -> None:
    files = {
        "../../etc/x.tex": PAPER, "/abs.tex": PAPER, "a/../../b.tex": PAPER, "C:\\x.tex": PAPER, "main.tex": PAPER,
        "link.tex": (tarfile.SYMTYPE, "/etc/passwd"), "hard.tex": (tarfile.LNKTYPE, "main.tex"), "a/../ok.tex": b"\\x",
    }  # fmt: skip
    found = held(zipped(tar(files)))
    assert set(found.files) == {"main.tex", "ok.tex"}
    assert len(found.unsafe) == 6 and "../../etc/x.tex" in found.unsafe
    assert held(zipped(tar({"../a.tex": PAPER}))).problem is Reason.NO_TEX


def test_names() -> None:
    assert [resolve_path(name) for name in ("./a", "a//b", ".", "", "a\\b", "..", "x\0y")] == [
        "a",
        "a/b",
        "",
        "",
        "a/b",
        None,
        None,
    ]
    assert [is_hidden(path) for path in ("._a", "a/.b/c", "__MACOSX/a", "a/b.tex")] == [True, True, True, False]
    assert read_gzip_name(zipped(b"", "a.tex")) == "a.tex" and read_gzip_name(zipped(b"")) == "" == read_gzip_name(
        b"\x1f\x8b"
    )
    assert read_gzip_name(b"\x1f\x8b\x08\x0c" + bytes(6) + b"\3\0abcname\0rest") == "name"


def doc(inner: str, more: str = "") -> bytes:
    return f"\\documentclass{{article}}{more}\\begin{{document}}{inner}\\end{{document}}".encode()


@pytest.mark.parametrize(
    ("files", "root"),
    [
        ({"": b"\\x"}, ""),
        ({"a.tex": b"\\x", "b.tex": PAPER}, "b.tex"),
        ({"Final.ii": PAPER, "a.tex": b"\\x"}, "Final.ii"),
        ({"a.tex": b"% \\documentclass\n\\x" * 99, "b.tex": b"\\documentstyle{x}"}, "b.tex"),
        ({"a.tex": b"long text " * 99, "b.tex": b"text\\bye"}, "b.tex"),
        ({"a.tex": b"\\input amstex x", "b.tex": b"\\end{document}"}, "a.tex"),
        ({"a.tex": b"x", "b.tex": b"xyz", "c": b"longest"}, "b.tex"),
        ({"paper.tex": doc("x\\input{body}"), "old.tex": doc("y" * 20), "body.tex": b"z" * 99}, "paper.tex"),
        ({"a.tex": doc("x\\subfile{b}"), "b.tex": doc("y" * 50)}, "a.tex"),
        ({"a.tex": b"\\documentclass[tikz]{standalone}" + b"x" * 99, "b.tex": doc("y")}, "b.tex"),
        ({"z.tex": doc("x"), "a/b.tex": doc("y")}, "z.tex"),
        ({"b.tex": doc("x"), "a.tex": doc("y")}, "a.tex"),
        ({"a.tex": doc("x" * 99), "b.tex": doc("y"), "00README.XXX": b"b.tex toplevelfile\n"}, "b.tex"),
        ({"a.tex": doc("x" * 99), "b.tex": doc("y"), "00README.XXX": b"a.tex ignore\nmain nostamp\nnostamp"}, "b.tex"),
        (
            {
                "a.tex": doc("x" * 99),
                "b.tex": doc("y"),
                "00README.yaml": b"sources:\n- filename: b.tex\n  usage: toplevel\n- usage: ignore\n  filename: c.tex",
            },
            "b.tex",
        ),
        (
            {
                "a.tex": doc("x" * 99),
                "b.tex": doc("y"),
                "00README.json": b'{"sources": [{"filename": "a.tex", "usage": "ignore"}]}',
            },
            "b.tex",
        ),
        ({"a.tex": doc("x" * 99), "00README.json": b"[" * 100_000, "00README.yaml": b"{"}, "a.tex"),
        ({"a.tex": b"%auto-ignore\n" + doc("x" * 99), "b.tex": doc("y")}, "b.tex"),
    ],
)
def test_the_root_file(files: dict[str, bytes], root: str) -> None:
    assert assemble(files, 16, LIMIT).root == root


def test_other_roots_are_counted() -> None:
    found = assemble({"a.tex": doc("x\\subfile{b}"), "b.tex": doc("y"), "c.tex": doc("z")}, 16, LIMIT)
    assert found.others == 1 and found.included == 1


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a": b"x"}, Reason.NO_TEX),
        ({}, Reason.NO_TEX),
        ({"00README.XXX": b"x"}, Reason.NO_TEX),
        ({"": b" %auto-ignore\nThis paper has been withdrawn."}, Reason.NO_BODY_TEXT),
    ],
)
def test_no_root(files: dict[str, bytes], reason: Reason) -> None:
    assert assemble(files, 16, LIMIT).problem is reason


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("\\input{b}", "B"),
        ("\\input{b.tex}", "B"),
        ("\\input b ", "B "),
        ("\\input b\n", "B\n"),
        ("\\input{./b}", "B"),
        ('\\input "b"', "B"),
        ("\\include{b}", "B"),
        ("\\include b", "\\include b"),
        ("\\input{ b }", "B"),
        ('\\input{"b"}', "B"),
        ("\\input{s/c}", "CB"),
        ("\\subfile{s/c}", "CB"),
        ("\\import{s/}{c}", "CB"),
        ("\\subimport{s}{c.tex}", "CB"),
        ("\\import{s}", "\\import{s}"),
        ("\\input{fig.pstex_t}", "F"),
        ("\\@input{b}", "B"),
        ("\\InputIfFileExists{b}{yes}{no}", "B"),
        ("\\InputIfFileExists{q}{yes}{no}", "no"),
        ("\\InputIfFileExists{b}", "\\InputIfFileExists{b}"),
        ("\\input{q}", "\\input{q}"),
        ("\\input{main.bbl}", ""),
        ("\\\\input{b}", "\\\\input{b}"),
        ("\\inputx{b}", "\\inputx{b}"),
        ("% \\input{b}\nx", "x"),
        ("\\verb|\\input{b}|", "\\verb|\\input{b}|"),
        ("\\input{../b}", "\\input{../b}"),
        ("\\input{/b}", "\\input{/b}"),
        ("\\input{e}after", "Eafter"),
        ("\\endinput\nx", ""),
        ("x\\input{main}y", "xy"),
        ("\\input{loop}", "LM"),
        ("\\input{standalone}", "S"),
        ("\\input{b}\\input{b}", "BB"),
    ],
)
def test_what_a_root_includes(typed: str, read: str) -> None:
    files = {
        "main.tex": b"\\documentclass{x}" + typed.encode(),
        "b.tex": b"B",
        "s/c.tex": b"C\\input{b}",
        "fig.pstex_t": b"F",
        "e.tex": b"E\\endinput\nnot this",
        "loop.tex": b"L\\input{mool}",
        "mool.tex": b"M\\input{loop}",
        "draft.tex": b"never",
        "standalone.tex": b"\\documentclass{standalone}x\\begin{document}S\\end{document}y",
    }
    assert text(files) == "\\documentclass{x}" + read


def test_includeonly_and_names_beside_the_file_that_includes() -> None:
    files = {"m.tex": doc("\\include{b}\\include{c}\\input{b}", "\\includeonly{c, d}"), "b.tex": b"B", "c.tex": b"C"}
    assert text(files).endswith("\\begin{document}CB\\end{document}")
    below = {"p/m.tex": doc("\\input{q/a}"), "p/q/a.tex": b"A\\input{b}", "p/q/b.tex": b"B"}
    assert "{document}AB\\end" in text(below)


def test_the_root_s_encoding_is_that_of_all_its_files() -> None:
    files = {"m.tex": doc("\\input{b}", "\\usepackage[latin2]{inputenc}"), "b.tex": "ő".encode("iso8859-2")}
    assert "ő" in text(files)


def test_inclusions_that_blow_up() -> None:
    chain = {f"{n}.tex": f"\\input{{{n + 1}}}".encode() * 10 for n in range(12)} | {"12.tex": b""}
    found = assemble({"m.tex": doc("\\input{0}"), **chain}, 16, LIMIT)
    assert found.problem is Reason.TOO_LARGE and str(MAX_INCLUSIONS) in found.detail
    large = assemble({"m.tex": doc("\\input{b}" * 99), "b.tex": b"x" * 20_000}, 16, LIMIT)
    assert large.problem is Reason.TOO_LARGE
    deep = {f"{n}.tex": f"{n} \\input{{{n + 1}}}".encode() for n in range(40)} | {"40.tex": b"last"}
    whole = text({"m.tex": doc("\\input{0}"), **deep})
    assert "14 " in whole and "15 " not in whole and "last" not in whole


class _Counted(StoredReader):
    """Stored bytes that count what is read of them."""

    read = 0

    def take(self, count: int) -> bytes:
        self.read += count
        return super().take(count)


def test_only_headers_are_read_of_what_is_not_wanted() -> None:
    source = _Counted(tar({f"{n}": bytes(4 << 20) for n in range(4)}))
    found: list[TarEntry] = list(stream_entries(source))
    assert len(found) == 5 and source.read < 3 << 20
