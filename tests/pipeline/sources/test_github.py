"""GitHub from repositories: every form, licences by folder and header, hostile archives; every byte accounted for."""

import bz2
import gzip
import io
import itertools
import json
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from licence_texts import APACHE, BSD_3, GPL_HEADER, MIT, commented

from filters.code.languages import detect_language
from filters.code.licences import is_allowed
from filters.formats import zip
from filters.formats.tar import read_members
from filters.reasons import Reason
from filters.rule_list import parse_rules
from manifests.document import Document
from manifests.source import GitHub, Limits, Source
from pipeline.sources import github
from pipeline.sources.base import Dropped, Outcome, Row
from pipeline.sources.github import check_path, read_code

REDPAJAMA = Path(__file__).parents[4] / "shared/data/c4_redpajama/redpajama-sample_github1.jsonl.gz"
CODE = "def area(width, height):\n    return width * height\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "LICENSE": MIT, "README.md": "# Areas\n\nHow to compute areas, and nothing else.\n", "src/area.py": CODE,
    "src/gpl.py": commented(GPL_HEADER, "#") + CODE,
    "src/spdx.c": "// SPDX-License-Identifier: BSD-3-Clause\nint main(void);\n",
    "third_party/z.c": "int zero(void) { return 0; }\n", "free/COPYING": GPL_HEADER, "free/own.py": "import area\n",
    "logo.png": "not text\0", "data.bin.py": "a\0b", "docs/LICENSE-APACHE": APACHE,
    "docs/a.rst": "Title\n=====\n\nSome words more.\n",
    "empty.py": "", "src/area_pb2.py": CODE, "web/a.min.js": "var words = 1;\n",
}  # fmt: skip
KEPT = {"README.md": "MIT", "src/area.py": "MIT", "src/spdx.c": "BSD-3-Clause", "docs/a.rst": "Apache-2.0"}
ENDED = {
    "licence-file": 3, "no-licence": 2, "vendored-file": 1, "file-type": 1, "not-plain-text": 1, "no-text": 1,
    "generated-file": 1, "minified-file": 1,
}  # fmt: skip


def source(limits: Limits | None = None, least: int = 1, code: dict[str, Any] | None = None, **rules: Any) -> Source:
    filters = parse_rules([{"code": code}, {"min_characters": least}])
    return Source(weight=1.0, kind="github", limits=limits or Limits(), filters=filters, github=GitHub(**rules))


def outcomes(inputs: dict[str, bytes], recipe: Source | None = None) -> list[Outcome]:
    """What becomes of every file of the inputs, whose bytes must be accounted for and whose documents found again."""
    recipe = recipe or source()
    surveys = {name: github.survey(stored, name, recipe, 1 << 30) for name, stored in inputs.items()}
    shared = github.collect_shared("github", recipe, {name: found.counts for name, found in surveys.items()})
    items = list[Row | Outcome]()
    for name, stored in inputs.items():
        ((start, end, state),) = surveys[name].pieces
        found = list(github.read_rows(stored, name, recipe, shared, start, end, state))
        assert sum(item.stored for item in found) == len(stored), name
        assert all(item.stored >= 0 for item in found) and surveys[name].rows >= 0
        items += found
    done = [item for item in items if isinstance(item, Outcome)]
    waiting = sorted((item for item in items if isinstance(item, Row)), key=lambda item: (item.group, item.place))
    for _, group in itertools.groupby(waiting, key=lambda item: item.group):
        rows = list(group)
        found = list(github.combine(rows, "github", recipe, 0))
        assert len(found) == len(rows) and sum(item.stored for item in found) == sum(item.stored for item in rows)
        done += found
    for outcome in done:
        if outcome.document is not None:
            files = {place.file: inputs[place.file] for place in (outcome.locator, *outcome.locator.parts)}
            again = github.reread(files, outcome.document.locator, "github", recipe)
            assert again.document == outcome.document
    return done


def documents(found: list[Outcome]) -> dict[str, Document]:
    made = [outcome.document for outcome in found if outcome.document is not None]
    return {document.metadata["path"]: document for document in made}


def reasons(found: list[Outcome]) -> Counter[str]:
    return Counter(item.reason.value for item in found if item.reason is not None)


def tar(files: dict[str, Any], folder: str = "", kind: int = tarfile.GNU_FORMAT, commit: str = "") -> bytes:
    """A tar; values that are no text or bytes are TarInfo attributes."""
    out = io.BytesIO()
    headers = {"comment": commit} if commit else {}
    with tarfile.open(fileobj=out, mode="w", format=kind, pax_headers=headers) as archive:
        if folder:
            entry = tarfile.TarInfo(folder.rstrip("/"))
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(folder + name)
            data = content.encode() if isinstance(content, str) else content if isinstance(content, bytes) else b""
            if isinstance(content, dict):
                for key, value in content.items():
                    setattr(entry, key, value)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def zipped(files: dict[str, str], folder: str = "", comment: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = comment.encode()
        for name, content in files.items():
            archive.writestr(folder + name, content)
    return out.getvalue()


PLAIN = tar(FILES, "areas-main/")
FORMS = {
    "tar": {"areas.tar": PLAIN},
    "without a folder": {"areas.tar": tar(FILES)},
    "dot folder": {"areas.tar": tar({f"./{name}": text for name, text in FILES.items()})},
    "pax": {"areas.tar": tar(FILES, "areas-main/", tarfile.PAX_FORMAT, COMMIT)},
    "ustar": {"areas.tar": tar(FILES, "areas-main/", tarfile.USTAR_FORMAT)},
    "gzip": {"areas.tar.gz": gzip.compress(PLAIN)},
    "bzip2": {"areas.tbz2": bz2.compress(PLAIN)},
    "zip": {"areas.zip": zipped(FILES, "areas-main/")},
    "checked out": {f"areas/{name}": text.encode() for name, text in FILES.items()},
    "checked out, itself the glob": {name: text.encode() for name, text in FILES.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_repository_gives_the_same_documents(form: str) -> None:
    found = outcomes(FORMS[form])
    made = documents(found)
    assert {path: document.licence for path, document in made.items()} == KEPT
    assert reasons(found) == ENDED
    assert made["src/area.py"].text == CODE and made["src/spdx.c"].text == "int main(void);\n"
    assert {path: document.metadata["language"] for path, document in made.items()} == {
        "README.md": "Markdown", "src/area.py": "Python", "src/spdx.c": "C", "docs/a.rst": "reStructuredText",
    }  # fmt: skip
    (part,) = made["docs/a.rst"].locator.parts
    assert part.member.endswith("docs/LICENSE-APACHE") and made["src/spdx.c"].locator.parts == ()
    if form == "tar":
        place = made["src/area.py"].locator
        assert FORMS[form]["areas.tar"][place.offset : place.offset + place.length].decode() == CODE


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_two_licences_in_any_order_in_the_archive_are_found_again(form: str) -> None:
    files = {"LICENSE-MIT": MIT, "a.py": CODE, "LICENSE-APACHE": APACHE}
    archive = zipped(files) if form == "zip" else tar(files)
    made = documents(outcomes({f"a.{form}": gzip.compress(archive) if form == "tar.gz" else archive}))["a.py"]
    assert made.licence == "Apache-2.0 AND MIT" and len(made.locator.parts) == 2


def test_names_refs_and_urls() -> None:
    archive = tar(FILES, "areas-main/", tarfile.PAX_FORMAT, COMMIT)
    for name, repository, ref, url in (
        ("someone/areas.tar", "someone/areas", COMMIT, f"https://github.com/someone/areas/blob/{COMMIT}/src/area.py"),
        ("areas.tar", "areas", COMMIT, ""), ("a b/areas.tar", "a b/areas", COMMIT, ""),
    ):  # fmt: skip
        made = documents(outcomes({name: archive}))["src/area.py"]
        assert (made.metadata["repository"], made.metadata["ref"], made.url) == (repository, ref, url)
    made = documents(outcomes({"someone/areas/v1.2.tar": tar(FILES)}))["src/area.py"]
    assert made.url == "https://github.com/someone/areas/blob/v1.2/src/area.py" and made.metadata["ref"] == "v1.2"
    made = documents(outcomes({f"someone/areas/{name}": text.encode() for name, text in FILES.items()}))["src/area.py"]
    assert made.url == "https://github.com/someone/areas/blob/HEAD/src/area.py"
    assert documents(outcomes({"a.zip": zipped(FILES, "x/", COMMIT)}))["src/area.py"].metadata["ref"] == COMMIT
    odd = documents(outcomes({"someone/areas.tar": tar({"LICENSE": MIT, "a #?é.py": CODE})}))
    assert odd["a #?é.py"].url == "https://github.com/someone/areas/blob/HEAD/a%20%23%3F%C3%A9.py"


def test_repositories_side_by_side_do_not_share_licences() -> None:
    inputs = {f"one/{name}": text.encode() for name, text in {"LICENSE": MIT, "a.py": CODE}.items()}
    inputs |= {"two/a.py": CODE.encode(), "two/.git/config": b"[core]\n", "three/COPYING": GPL_HEADER.encode()}
    inputs |= {"three/b.py": b"import area\n", "loose.py": CODE.encode(), "one/sub/LICENSE": BSD_3.encode()}
    inputs |= {"one/sub/c.py": b"import area\n", "one/test.tar.gz": b"\x1f\x8b"}
    found = outcomes(inputs)
    assert {path: document.licence for path, document in documents(found).items()} == {
        "a.py": "MIT",
        "sub/c.py": "BSD-3-Clause",
    }
    assert reasons(found) == {"licence-file": 3, "no-licence": 3, "file-type": 2}


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"LICENSE": MIT}, "MIT"), ({"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}, "Apache-2.0 AND MIT"),
        ({"LICENSE": "See LICENSE.MIT or\nLICENSE.APACHE.", "LICENSE.MIT": MIT}, "MIT"),
        ({"LICENSE": MIT, "COPYING": GPL_HEADER}, ""), ({"LICENSE": "My own terms."}, ""), ({}, ""),
        ({"copying.md": "Dual licensed under the MIT license and the GPL license."}, "GPL OR MIT"),
    ],
)  # fmt: skip
def test_licences_of_a_repository(files: dict[str, str], licence: str) -> None:
    made = documents(outcomes({"a.tar": tar({**files, "a.py": CODE})}))
    assert [document.licence for document in made.values()] == ([licence] if licence else [])


def test_the_recipes_licences_extensions_and_thresholds() -> None:
    archive = {"a.tar": tar({"LICENSE": GPL_HEADER, "a.py": CODE, "b.toml": "name = 'area'\n"})}
    assert set(documents(outcomes(archive, source(licences=["GPL"])))) == {"a.py"}
    assert set(documents(outcomes(archive, source(licences=["GPL"], extensions=[".toml"])))) == {"b.toml"}
    assert reasons(outcomes(archive, source(licences=["GPL"], code={"longest_line": 20})))["code-long-line"] == 1
    assert reasons(outcomes(archive, source(least=1000)))["too-short"] == 1


def test_notebooks_become_text_and_broken_ones_dead_letters() -> None:
    whole = '{"cells": [{"cell_type": "code", "source": "import area\\nprint(area.of(1, 2))"}], "metadata": {}}'
    found = outcomes({"a.tar": tar({"LICENSE": MIT, "a.ipynb": whole, "b.ipynb": whole[:-9]})})
    assert documents(found)["a.ipynb"].text == "```python\nimport area\nprint(area.of(1, 2))\n```\n"
    assert reasons(found) == {"licence-file": 1, "corrupt-record": 1}


def test_texts_that_differ_in_their_header_alone_have_one_hash() -> None:
    from manifests.document import content_hash

    found = outcomes({"a.tar": tar({"LICENSE": MIT, "a.py": CODE, "b.py": commented(MIT, "#") + "\n" + CODE})})
    assert (
        len({content_hash(document.text) for document in documents(found).values()}) == 1 and len(documents(found)) == 2
    )


def test_members_that_lead_outside_are_dead_letters() -> None:
    hostile = {
        "LICENSE": MIT, "../up.py": CODE, "/etc/passwd.py": CODE, "a/../../b.py": CODE,
        "C:\\x.py": CODE, "..\\y.py": CODE,
        "link.py": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        "hard.py": {"type": tarfile.LNKTYPE, "linkname": "LICENSE"},
        "pipe": {"type": tarfile.FIFOTYPE}, "device": {"type": tarfile.CHRTYPE}, "d/" * 1990 + "deep.py": CODE,
        "n" * 5000 + ".py": CODE, "a.py": CODE,
    }  # fmt: skip
    found = outcomes({"a.tar": tar(hostile)})
    assert reasons(found) == {"licence-file": 1, "unsafe-path": 10}
    assert all(item.locator.length > 0 for item in found if item.reason is Reason.UNSAFE_PATH)
    assert set(documents(found)) == {"a.py", "d/" * 1990 + "deep.py"}
    links = zipfile.ZipInfo("link.py")
    links.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(links, "/etc/passwd")
        archive.writestr("../up.py", CODE)
        archive.writestr("LICENSE", MIT)
    assert reasons(outcomes({"a.zip": out.getvalue()})) == {"licence-file": 1, "unsafe-path": 2}


def test_names_that_are_no_utf8() -> None:
    archive = tar({"LICENSE": MIT, "caf_.py": CODE}).replace(b"caf_.py", b"caf\xe9.py")
    head = archive.index(b"caf\xe9.py")
    block = bytearray(archive[head : head + 512])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    archive = archive[:head] + bytes(block) + archive[head + 512 :]
    assert set(documents(outcomes({"a.tar": archive}))) == {"caf\\xe9.py"}


def test_bombs_and_large_members_are_too_large() -> None:
    big = tar({"LICENSE": MIT, "a.py": CODE, "zeros.py": bytes(5_000_000), "b.py": "import area\n"})
    found = outcomes({"a.tar.gz": gzip.compress(big)}, source(Limits(record_bytes=100_000)))
    assert reasons(found) == {"licence-file": 1, "too-large": 1} and set(documents(found)) == {"a.py", "b.py"}
    found = outcomes({"a.tar.gz": gzip.compress(big)}, source(archive_bytes=1_000_000))
    assert reasons(found) == {"licence-file": 1, "too-large": 1} and set(documents(found)) == {"a.py"}
    found = outcomes(
        {"a.zip": zipped({"LICENSE": MIT, "a.py": CODE, "z.py": "0" * 5_000_000})}, source(archive_bytes=1_000_000)
    )
    assert reasons(found) == {"licence-file": 1, "too-large": 1} and set(documents(found)) == {"a.py"}
    found = outcomes({"a/LICENSE": MIT.encode(), "a/b.py": bytes(200_000)}, source(Limits(record_bytes=100_000)))
    assert reasons(found) == {"licence-file": 1, "too-large": 1}


@pytest.mark.parametrize("form", ["tar", "gzip", "bzip2", "zip", "pax"])
def test_truncated_and_hurt_archives_give_what_they_hold_and_say_so(form: str) -> None:
    ((name, stored),) = FORMS[form].items()
    for cut in (1, 100, len(stored) // 2, len(stored) * 3 // 4):
        told = reasons(outcomes({name: stored[:cut]}))
        assert (
            sum(told[reason.value] for reason in (Reason.TRUNCATED_RECORD, Reason.CORRUPT_RECORD, Reason.CORRUPT_GZIP))
            >= 1
        )
    assert outcomes({name: b""}) == []


def test_what_is_no_archive() -> None:
    assert reasons(outcomes({"a.tar.gz": b"<html>" * 200})) == {"corrupt-record": 1}
    assert reasons(outcomes({"a.tar": bytes(1024)})) == {"unsupported-format": 1}
    assert reasons(outcomes({"a.zip": b"PK\3\4" + bytes(99)})) == {"corrupt-record": 1}
    encrypted = bytearray(zipped({"a.py": CODE}))
    central = encrypted.index(b"PK\1\2")
    encrypted[6] |= 1
    encrypted[central + 8] |= 1
    assert reasons(outcomes({"a.zip": bytes(encrypted)})) == {"encrypted": 1}


@settings(max_examples=60)
@given(
    st.sampled_from(["tar", "gzip", "zip", "pax"]),
    st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_damage_ends_in_reasons(form: str, changes: list[tuple[int, int]]) -> None:
    ((name, stored),) = FORMS[form].items()
    hurt = bytearray(stored)
    for place, value in changes:
        hurt[place % len(hurt)] = value
    outcomes({name: bytes(hurt)})


def test_a_zip_member_without_a_name_is_dropped_by_name() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.py", CODE)
        archive.writestr("b.py", CODE)
    stored = out.getvalue().replace(b"a.py", b"\0.py")
    found = zip.read_members(stored, 1 << 20, 1 << 30, lambda _: True)
    assert [(member.name, member.problem) for member in found] == [("", Reason.UNSAFE_PATH), ("b.py", None)]


def test_tars_as_python_reads_them() -> None:
    """Long names, numbers in binary, sparse members: the same names and bytes as tarfile's."""
    files = {"x" * 150 + "/" + "y" * 150 + ".py": CODE, "é.py": CODE, "b": "x" * 512, "c": "x" * 513, "d": ""}
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stored = tar(files, kind=kind)
        ours = [
            (member.name, member.data)
            for member in read_members([stored[:700], stored[700:]], 1 << 20, 1 << 30, lambda _: True)
        ]
        with tarfile.open(fileobj=io.BytesIO(stored)) as archive:
            theirs = [(entry.name, archive.extractfile(entry).read()) for entry in archive]  # type: ignore[union-attr]
        assert ours == theirs


@given(st.integers(0, 4), st.integers(0, 511), st.integers(1, 255), st.integers(1, 3000))
def test_members_after_a_damaged_header_and_after_an_archives_end_are_read(
    number: int, at: int, change: int, chunk: int
) -> None:
    files = {f"{name}.py": bytes([65 + place]) * 700 for place, name in enumerate("abcde")}
    stored = bytearray(tar(files) + bytes(7 * 512) + tar({"z.py": b"z" * 700}))
    place = number * 3 * 512 + at
    stored[place] ^= change
    chunks = (bytes(stored[start : start + chunk]) for start in range(0, len(stored), chunk))
    found = list(read_members(chunks, 1 << 20, 1 << 30, lambda _: True))
    names = [member.name for member in found if member.problem is None]
    assert names == [name for name in [*files, "z.py"] if name != f"{'abcde'[number]}.py"]
    assert [member.problem for member in found if member.problem] == [Reason.CORRUPT_RECORD]


def test_a_member_that_nobody_wants_is_passed_over_in_little_memory() -> None:
    block = bytes(1 << 20)
    header = tar({"zeros.bin": {"size": 0}})[:512]
    size = 300 << 20
    head = bytearray(header)
    head[124:136] = b"%011o\0" % size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    chunks = itertools.chain([bytes(head)], itertools.repeat(block, 300))
    tracemalloc.start()
    (member,) = read_members(chunks, 1 << 30, 1 << 40, lambda _: False)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert member.stop - member.start == size and member.data == b""


@pytest.mark.skipif(not REDPAJAMA.exists(), reason="the real sample data (../shared/data) is not here")
def test_redpajamas_rows_under_our_rules() -> None:
    """docs/sources/github.md has the classes: their own text is what goes in, for the originals are not at hand."""
    recipe, classes = source(), Counter[str]()
    with gzip.open(REDPAJAMA, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        text, path, size = row["text"], row["meta"]["path"], int(row["meta"]["size"])
        code, reason = read_code(text.encode(), path, recipe), check_path(path, recipe)
        classes["bytes gone"] += len(text.encode()) < size
        if detect_language(path) == "Markdown":
            classes["Markdown"] += 1
            classes["Markdown, bytes gone"] += len(text.encode()) < size
            classes["Markdown, begins with a title"] += text.lstrip().startswith("#")
        if reason is not None or isinstance(code, Dropped):
            classes[str(reason or code.problem)] += 1
            continue
        assert not code.licence or is_allowed(code.licence, recipe.github.licences), path
        newlines = text.replace("\r\n", "\n").replace("\r", "\n")
        same = "same" if code.text == text else "line ends" if code.text == newlines else "header"
        classes["mark" if code.text == newlines.removeprefix("\ufeff") != newlines else same] += 1
    assert classes == {
        "same": 86, "mark": 4, "line ends": 2, "header": 4, "vendored-file": 1, "generated-file": 3, "bytes gone": 37,
        "Markdown": 13, "Markdown, bytes gone": 11, "Markdown, begins with a title": 0,
    }  # fmt: skip
