"""The C4 source: rows of every form, damaged and hostile ones, and the real sample's."""

import bz2
import gzip
import io
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear

from filters.formats.stream import Damage
from filters.formats.tables import (
    MAX_NESTING,
    clean_text,
    cut_lines,
    format_time,
    get_column,
    parse_row,
    read_compressed_lines,
    read_lines,
)
from filters.reasons import DEAD_LETTERS, Reason
from filters.rule_list import parse_rules
from manifests.document import Locator
from manifests.source import Columns, Limits, Source
from pipeline.sources import c4
from pipeline.sources.base import Outcome

SAMPLES = Path(__file__).parents[4] / "shared/data/c4_redpajama"
NAME = "c4-train.00000-of-01024.json.gz"
ROWS = [
    {"text": f"Page {n} says é.\nTwo lines.", "timestamp": "2019-04-25T12:57:54Z", "url": f"https://a.example/{n}"}
    for n in range(50)
]


def source(**options: Any) -> Source:
    limits = Limits(**{name: options.pop(name) for name in list(options) if name in Limits.model_fields})
    return Source(weight=1.0, kind="c4", licence="ODC-BY", limits=limits, **options)


def jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(rows: list[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **{"row_group_size": 20, **options})
    return out.getvalue()


def outcomes(stored: bytes, recipe: Source | None = None, split_bytes: int = 1 << 30) -> list[Outcome]:
    """Every outcome of a file, read piece by piece; what must hold for any file is checked."""
    recipe = recipe or source()
    pieces = c4.find_pieces(stored, recipe, split_bytes)
    assert [start for start, _, _ in pieces] == [0, *(end for _, end, _ in pieces[:-1])] and pieces[-1][1] == len(
        stored
    )
    found = []
    for start, end, state in pieces:
        part = list(c4.read(stored, NAME, "c4", recipe, start, end, state))
        assert sum(outcome.stored for outcome in part) == end - start and all(outcome.stored >= 0 for outcome in part)
        found += part
    for outcome in found[:60]:
        assert (outcome.document is None) != (outcome.reason is None)
        if outcome.document is not None:
            assert c4.reread(stored, outcome.locator, "c4", recipe).document == outcome.document
    places = [outcome.locator for outcome in found]
    assert len(set(places)) == len(places)
    return found


def texts(found: list[Outcome]) -> list[str]:
    return [outcome.document.text for outcome in found if outcome.document]


def reasons(found: list[Outcome]) -> Counter[str]:
    return Counter(outcome.reason.value for outcome in found if outcome.reason)


FORMS = {
    "plain": jsonl(ROWS),
    "without a last newline": jsonl(ROWS)[:-1],
    "CRLF": jsonl(ROWS).replace(b"\n", b"\r\n"),
    "BOM": b"\xef\xbb\xbf" + jsonl(ROWS),
    "gzip": gzip.compress(jsonl(ROWS)),
    "members": gzip.compress(jsonl(ROWS)[:777]) + gzip.compress(jsonl(ROWS)[777:]),
    "padded": gzip.compress(jsonl(ROWS)) + b"\0" * 99,
    "bzip2": bz2.compress(jsonl(ROWS)),
    "parquet": parquet(ROWS),
    "parquet of one group": parquet(ROWS, row_group_size=1000, compression="zstd"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split_bytes", [1 << 30, 500])
def test_every_form_gives_the_same_documents(form: str, split_bytes: int) -> None:
    found = outcomes(FORMS[form], split_bytes=split_bytes)
    documents = [outcome.document for outcome in found if outcome.document]
    assert [(d.text, d.url, d.timestamp) for d in documents] == [(r["text"], r["url"], r["timestamp"]) for r in ROWS]
    assert {d.licence for d in documents} == {"ODC-BY"} and not reasons(found)


def test_locators_are_as_documented() -> None:
    stored = FORMS["plain"]
    first, second = [outcome.locator for outcome in outcomes(stored)[:2]]
    length = stored.index(b"\n") + 1
    assert first == Locator(NAME, 0, length, "", 0, length) and second.offset == length
    packed = FORMS["gzip"]
    assert outcomes(packed)[1].locator == Locator(NAME, 0, len(packed), "", length, second.length)
    group = outcomes(FORMS["parquet"])[25].locator
    assert (group.member, group.inner_offset, group.inner_length) == ("row-group-1", 5, 1) and group.offset > 4


def test_stored_bytes_of_compressed_rows_follow_their_decoded_ones() -> None:
    rows = [{"text": bytes((n * i * 7919) % 251 for i in range(3000)).hex()} for n in range(2_000)]
    stored = gzip.compress(jsonl(rows))
    shares = [outcome.stored for outcome in outcomes(stored)]
    assert sum(shares[:1000]) == pytest.approx(len(stored) / 2, rel=0.1)


def test_columns_are_what_the_recipe_says() -> None:
    row = {
        "body": "Text.",
        "meta": {"url": "u", "timestamp": "20230320", "more": {"a": "deep"}},
        "meta.url": "exact",
        "n": 1,
    }
    columns = Columns(text="body", url="meta.url", timestamp="meta.timestamp", metadata=["meta.more.a", "n", "gone"])
    for stored in (jsonl([row]), parquet([row])):
        (outcome,) = outcomes(stored, source(columns=columns))
        document = outcome.document
        assert document and (document.text, document.url, document.timestamp) == (
            "Text.",
            "exact",
            "2023-03-20T00:00:00Z",
        )
        assert document.metadata == {"meta.more.a": "deep"}
    (outcome,) = outcomes(jsonl([row]), source(columns=Columns(text="body", url="")))
    assert outcome.document and (outcome.document.url, outcome.document.timestamp) == ("", "")
    assert (
        get_column({"a": {"b": 1}}, "a.b") == 1 and get_column({"a": 3}, "a.b") is None and get_column({}, "") is None
    )


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2019-04-25T12:57:54Z", "2019-04-25T12:57:54Z"), ("2019-04-25 12:57:54", "2019-04-25T12:57:54Z"),
        ("2019-04-25T14:57:54+02:00", "2019-04-25T12:57:54Z"), ("2023-03-29", "2023-03-29T00:00:00Z"),
        ("soon", ""), (1556197074, ""), (None, ""), ("9" * 50, ""), ("0001-01-01T00:00:00+05:00", ""),
    ],
)  # fmt: skip
def test_times(value: Any, time: str) -> None:
    assert format_time(value) == time


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("kind", "value", "time"),
    [
        (pa.timestamp("s"), 3, "1970-01-01T00:00:03Z"), (pa.timestamp("s"), 1 << 40, ""),
        (pa.timestamp("us"), -(1 << 62), ""), (pa.timestamp("us", "Nowhere/Town"), 3, "1970-01-01T00:00:00.000003Z"),
        (pa.timestamp("ms", "+05:30"), 4, "1970-01-01T00:00:00.004000Z"),
        (pa.timestamp("ns"), 1556197074_000000_123, "2019-04-25T12:57:54Z"), (pa.timestamp("ns", "UTC"), None, ""),
        (pa.date32(), 1, "1970-01-02T00:00:00Z"), (pa.date64(), 1 << 55, ""), (pa.time64("ns"), 1001, ""),
        (pa.duration("ns"), 1001, ""), (pa.int64(), 20190425, ""),
    ],
)  # fmt: skip
def test_times_of_parquet(kind: pa.DataType, value: int | None, time: str, nested: bool) -> None:
    """Of any unit, zone and range, whether pandas is installed or not; a time is no text."""
    times = pa.array([value, None], kind)
    named = {"at": pa.StructArray.from_arrays([times, times], ["time", "other"])} if nested else {"time": times}
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"], "url": ["u", "u"], **named}), out)
    column = "at.time" if nested else "time"
    found = outcomes(out.getvalue(), source(columns=Columns(timestamp=column, metadata=[column])))
    assert [outcome.document and outcome.document.timestamp for outcome in found] == [time, ""]
    assert all(outcome.document and outcome.document.metadata == {} for outcome in found)
    found = outcomes(out.getvalue(), source(columns=Columns(text=column, timestamp="")))
    assert not any(outcome.document for outcome in found)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', Reason.CORRUPT_RECORD),
        (b'{"text": 12}', Reason.CORRUPT_RECORD),
        (b'{"text": ["a"]}', Reason.CORRUPT_RECORD),
        (b'["text"]', Reason.CORRUPT_RECORD),
        (b"7", Reason.CORRUPT_RECORD),
        (b'{"text": "a"} {"text": "b"}', Reason.CORRUPT_RECORD),
        (b'{"text": ' + b"9" * 9_000 + b"}", Reason.CORRUPT_RECORD),
        (b'{"text": "a", "deep": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", Reason.CORRUPT_RECORD),
        (b'{"a":' * 100_000, Reason.CORRUPT_RECORD),
        (b'{"text": "\xff\xfe"}', Reason.UNDECODABLE_TEXT),
        (b'{"text": null}', Reason.NO_TEXT),
        (b'{"url": "u"}', Reason.NO_TEXT),
        (b'{"text": " \\n "}', Reason.NO_TEXT),
        (b"{}", Reason.NO_TEXT),
        (b"", Reason.NO_TEXT),
        (b" \t", Reason.NO_TEXT),
        (b'{"text": "' + b"x" * 2_000_000 + b'"}', Reason.TOO_LARGE),
    ],
)
def test_a_bad_line_costs_itself_alone(line: bytes, reason: Reason) -> None:
    for stored in (jsonl(ROWS[:2]) + line + b"\n" + jsonl(ROWS[2:4]), line + b"\n" + jsonl(ROWS[:4])):
        for packed in (stored, gzip.compress(stored)):
            found = outcomes(packed, source(record_bytes=1_000_000))
            assert reasons(found) == {reason.value: 1}
            assert texts(found) == [row["text"] for row in ROWS[:4]]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (rb'{"text": "a\ud800b"}', "a\ufffdb"),
        (rb'{"text": "\ud83d\ude00"}', "\U0001f600"),
        (rb'{"text": "a\u0000b"}', "a\ufffdb"),
        (b'{"text": "first", "text": "last"}', "last"),
        (rb'{"te\u0078t": "escaped name"}', "escaped name"),
        (b'{"text": "a", "n": NaN}', "a"),
        (b'{"text": "a", "url": 7, "timestamp": {}}', "a"),
        (rb'{"text": "a", "url": "\udfff"}', "a"),
    ],
)
def test_odd_rows_are_read(line: bytes, text: str) -> None:
    (found,) = outcomes(line + b"\n")
    assert found.document and found.document.text == text
    found.document.text.encode(), found.document.url.encode()


def test_limits_and_minimum() -> None:
    rows = jsonl([{"text": "x" * 100}, {"text": "y" * 10}])
    assert reasons(outcomes(rows, source(text_characters=50))) == {"too-large": 1}
    assert reasons(outcomes(rows, source(filters=parse_rules([{"min_characters": 50}])))) == {"too-short": 1}


@pytest.mark.parametrize("cut", [1, 10, 300, -9, -1])
@pytest.mark.parametrize("form", ["gzip", "members", "bzip2"])
def test_cut_files_give_what_they_hold_and_say_so(form: str, cut: int) -> None:
    found = outcomes(FORMS[form][:cut])
    assert texts(found) == [row["text"] for row in ROWS[: len(texts(found))]]
    assert sum(reasons(found).values()) == 1
    assert found[-1].reason in DEAD_LETTERS


def test_damage_behind_whole_rows_is_told() -> None:
    found = outcomes(gzip.compress(jsonl(ROWS)) + b"garbage behind")
    assert len(texts(found)) == 50 and reasons(found) == {"corrupt-gzip": 1}


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
@pytest.mark.parametrize("zeros", [1, 4096, 5000, 3 << 20])
def test_zeros_are_padding_at_the_end_and_damage_before_other_bytes(pack: Callable[[bytes], bytes], zeros: int) -> None:
    packed, hole = pack(b'{"text": "a"}\n'), bytes(zeros)
    for stored, damaged in ((packed + hole, 0), (packed + hole + packed, 1), (packed + hole + b"x", 1)):
        lines = list(read_compressed_lines(stored, 100))
        assert [line.problem is not None for line in lines] == [False] + [True] * damaged
        assert sum(line.stored for line in lines) == len(stored)


def test_no_bytes_and_no_rows() -> None:
    assert outcomes(b"") == []
    for stored in (
        gzip.compress(b""),
        bz2.compress(b""),
        parquet([{"text": "a"}])[:0] or parquet(ROWS[:0] or [{"text": None}]),
    ):
        assert reasons(outcomes(stored)) == {"no-text": 1}


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_100_megabytes_takes_bounded_memory(packed: bool) -> None:
    class Long:
        """100 MB of one line, which nobody holds."""

        def __len__(self) -> int:
            return 100 << 20

        def __getitem__(self, part: slice) -> bytes:
            return b"x" * len(range(*part.indices(len(self))))

    stored = gzip.compress(b"x" * (100 << 20) + b"\n" + jsonl(ROWS[:1]), 1) if packed else Long()
    tracemalloc.start()
    limit = 1 << 20
    lines = read_compressed_lines(stored, limit) if packed else read_lines(stored, limit, 0, len(stored))  # type: ignore[arg-type]
    found = [(line.problem, line.stop - line.start) for line in lines]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0] == (Reason.TOO_LARGE, (100 << 20) + packed) and len(found) == 1 + packed
    assert peak < 12 << 20


def test_many_short_lines_take_linear_time() -> None:
    assert sum(1 for _ in read_lines(b"\n" * 1_000, 1 << 20, 0, 1_000)) == 1_000
    assert_linear(lambda lines: list(read_lines(lines, 1 << 20, 0, len(lines))), lambda size: b"\n" * size, 200_000)


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\x1f\x8b\x08", b"BZh9", b"PAR1", b"WARC/1.0\r\n"]),
    st.integers(1, 99),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_in_documents_and_reasons(data: bytes, opening: bytes, split_bytes: int) -> None:
    outcomes(opening + data, split_bytes=split_bytes)


# The same examples in each run: pyarrow ends the interpreter on a few corrupt footers (docs/decisions.md).
@given(st.integers(0, 100_000), st.binary(min_size=1, max_size=6))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_hurt_files_end_in_documents_and_reasons(place: int, data: bytes) -> None:
    for form in ("plain", "gzip", "parquet", "parquet of one group"):
        stored = bytearray(FORMS[form])
        at = place % len(stored)
        stored[at : at + len(data)] = data
        outcomes(bytes(stored), split_bytes=700)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
@settings(max_examples=60, deadline=None)
def test_any_json_is_a_row_or_a_reason(value: Any) -> None:
    row = parse_row(json.dumps({"text": value}).encode())
    assert isinstance(row, dict)
    text = clean_text(get_column(row, "text"))
    assert text is None or isinstance(text, Damage) or text == value.replace("\0", "\ufffd")


def test_another_file_at_the_same_place_is_noticed() -> None:
    for form in ("plain", "gzip", "parquet"):
        place = outcomes(FORMS[form])[1].locator
        other = {"plain": b'{"text": "longer than the line was"}' * 3 + FORMS[form], "gzip": FORMS["gzip"] + b"\0"}
        with pytest.raises(LookupError):
            c4.reread(other.get(form, parquet(ROWS[:10])), place, "c4", source())
    with pytest.raises(LookupError):
        c4.reread(FORMS["plain"], Locator(NAME, 5, 100, "", 0, 100), "c4", source())


COLUMNS = Columns(url="meta.url", timestamp="meta.timestamp")


@pytest.mark.skipif(not SAMPLES.exists(), reason="the real sample data (../shared/data) is not here")
def test_every_real_file_is_accounted_for() -> None:
    counts = {}
    for path in sorted(SAMPLES.iterdir()):
        stored = path.read_bytes()
        found = outcomes(stored, source(columns=COLUMNS))
        plain = gzip.decompress(stored) if path.suffix == ".gz" else stored
        rows = [json.loads(line) for line in plain.splitlines()]
        assert texts(found) == [row["text"] for row in rows] and not reasons(found)
        counts[path.name] = len(rows)
        if "c4-rp1" in path.name:
            documents = [outcome.document for outcome in found if outcome.document]
            assert [(d.url, d.timestamp) for d in documents] == [
                (row["meta"]["url"], row["meta"]["timestamp"]) for row in rows
            ]
    assert len(counts) == 9 and counts["redpajama-sample_c4-rp1.jsonl.gz"] == 1_000


@pytest.mark.parametrize("level", ['{"a": 1, "b": %s}', "[%s, 2]"])
def test_how_deep_a_row_may_nest_does_not_depend_on_the_depth_of_the_caller(level: str) -> None:
    def parse(data: bytes, depth: int) -> object:
        return parse(data, depth - 1) if depth else parse_row(data)

    inner = "1"
    for levels in range(1, 700):  # with the row itself
        data = f'{{"text": "{"[" * MAX_NESTING}", "m": {inner}}}'.encode()
        wanted = json.loads(data) if levels <= MAX_NESTING else Damage(Reason.CORRUPT_RECORD, "nested too deeply")
        assert parse(data, 0) == parse(data, 500) == wanted
        inner = level % inner


class Searches(bytes):
    """Bytes that count how often they are searched."""

    count = 0

    def find(self, *arguments: Any) -> int:
        """Count a search, and return its result."""
        self.count += 1
        return super().find(*arguments)


@given(
    st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ") + b"\n"), max_size=9), st.integers(1, 9)
)
def test_each_byte_of_plain_lines_is_searched_once_for_cuts(lines: list[bytes], split_bytes: int) -> None:
    text = Searches(b"".join(lines)[:-1])
    starts = [start for start, before in enumerate(text, 1) if before == 10] if text else []
    firsts = {
        next((start for start in starts if start >= wanted), 0) for wanted in range(split_bytes, len(text), split_bytes)
    }
    assert cut_lines(text, split_bytes) == [0, *sorted(firsts - {0, len(text)}), len(text)]
    assert text.count <= len(lines) + 1
