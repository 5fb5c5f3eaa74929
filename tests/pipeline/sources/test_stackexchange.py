"""Stack Exchange: rows by site and question, documents by the rules, every form of a dump, and the real ones."""

import bz2
import gzip
import html
import html.parser
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import py7zr
import pytest

from filters.errors import UserError
from filters.formats.posts_xml import Post
from filters.reasons import Reason
from filters.rule_list import parse_rules
from manifests.document import Document, Locator
from manifests.source import Limits, Source, StackExchange
from pipeline.sources import stackexchange
from pipeline.sources.base import Outcome, Row

SHARED = Path(__file__).parents[4] / "shared/data"
SAMPLES = sorted((SHARED / "stackexchange").glob("*.xml.gz"))
REDPAJAMA = SHARED / "c4_redpajama/redpajama-sample_stackexchange1.jsonl.gz"
NAME = "a.example/Posts.xml"
HEAD, TAIL = b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\n<posts>\n', b"</posts>\n"


def row(identifier: int, kind: int = 1, **attributes: object) -> bytes:
    given = {
        "Id": identifier,
        "PostTypeId": kind,
        "CreationDate": "2015-01-27T20:09:32.720",
        "Score": 0,
        "Body": "<p>x</p>",
    }
    given |= attributes
    escaped = {name: html.escape(str(value)).replace("&#x27;", "'") for name, value in given.items()}
    written = " ".join(f'{name}="{value}"' for name, value in escaped.items()).replace("\n", "&#xA;")
    return f"  <row {written} />\n".encode()


def source(**options: Any) -> Source:
    limits = options.pop("limits", Limits())
    filters = parse_rules([{"min_characters": options.pop("least", 1)}])
    rules = StackExchange(**options)
    return Source(weight=1.0, kind="stackexchange", limits=limits, filters=filters, stackexchange=rules)


def outcomes(stored: bytes, name: str = NAME, split_bytes: int = 1 << 30, **options: Any) -> list[Outcome]:
    """Return the outcome of every row of a file, joined; some sixty documents are read again at their places."""
    recipe = source(**options)
    survey = stackexchange.survey(stored, name, recipe, split_bytes)
    shared = stackexchange.collect_shared("stackexchange", recipe, {name: survey.counts})
    items = [
        item
        for start, end, state in survey.pieces
        for item in stackexchange.read_rows(stored, name, recipe, shared, start, end, state)
    ]
    assert sum(item.stored for item in items) == len(stored)
    done = [item for item in items if isinstance(item, Outcome)]
    waiting = sorted((item for item in items if isinstance(item, Row)), key=lambda item: item.group)
    for _, group in itertools.groupby(waiting, key=lambda item: item.group):
        rows = list(group)
        found = list(stackexchange.combine(rows, "stackexchange", recipe, 0))
        assert len(found) == len(rows), "one outcome a row"
        assert sum(item.stored for item in found) == sum(item.stored for item in rows)
        done += found
    made = documents(done)
    for document in made[:: 1 + len(made) // 60]:
        again = stackexchange.reread({name: stored}, document.locator, "stackexchange", recipe)
        assert again.document == document
    return done


def documents(found: list[Outcome]) -> list[Document]:
    return [outcome.document for outcome in found if outcome.document is not None]


def reasons(found: list[Outcome]) -> Counter[str]:
    return Counter(item.reason.value for item in found if item.reason not in (None, Reason.ARCHIVE_METADATA))


def test_a_question_with_its_answers() -> None:
    table = (
        row(1, Title="How?  Why?", Body="<p>I ask.</p>", Score=5, Tags="<a><b-c>", AcceptedAnswerId=3, OwnerUserId=7)
        + row(2, 2, ParentId=1, Body="<p>Nine.</p>", Score=9, OwnerDisplayName="someone")
        + row(
            3, 2, ParentId=1, Body="<pre><code>  ten\n</code></pre>", Score=105, CreationDate="2019-01-01T00:00:00.000"
        )
    )
    (document,) = documents(found := outcomes(HEAD + table + TAIL))
    assert document.text == "Q: How? Why?\n\nI ask.\n\nA:   ten\n\nA: Nine."
    assert document.url == "https://a.example/questions/1" and document.timestamp == "2015-01-27T20:09:32.720Z"
    assert document.licence == "CC BY-SA 3.0 and CC BY-SA 4.0"
    assert document.metadata == {
        "id": 1, "score": 5, "author": "7", "licence": "CC BY-SA 3.0", "site": "a.example", "tags": ["a", "b-c"],
        "answers": [
            {"id": 3, "score": 105, "licence": "CC BY-SA 4.0", "accepted": True},
            {"id": 2, "score": 9, "author": "someone", "licence": "CC BY-SA 3.0", "accepted": False},
        ],
    }  # fmt: skip
    assert reasons(found) == {"joined": 2}
    (plain,) = documents(outcomes(HEAD + table + TAIL, layout="plain"))
    assert plain.text == "How? Why?\n\nI ask.\n\n  ten\n\nNine."


def test_answers_are_sorted_by_score_as_numbers_and_ties_by_id() -> None:
    """RedPajama's sort compares strings: 9, 7, 105, 10, -3."""
    scores = {2: 9, 3: 105, 4: 10, 5: -3, 6: 10, 7: 7}
    rows = [row(n, 2, ParentId=1, Body=f"<p>{n}</p>", Score=score) for n, score in scores.items()]
    for order in (rows, rows[::-1]):
        (document,) = documents(outcomes(HEAD + row(1, Title="T") + b"".join(order) + TAIL))
        assert [answer["id"] for answer in document.metadata["answers"]] == [3, 4, 6, 2, 7, 5]
        assert document.text == "Q: T\n\nx\n\nA: 3\n\nA: 4\n\nA: 6\n\nA: 2\n\nA: 7\n\nA: 5"


def test_answers_find_their_question_wherever_it_stands() -> None:
    table = row(9, 2, ParentId=4) + row(4, Title="T") + row(8, 2, ParentId=5) + row(5, Title="U")
    found = documents(outcomes(HEAD + table + TAIL))
    assert [[part["id"] for part in item.metadata["answers"]] for item in found] == [[9], [8]]
    assert documents(outcomes(HEAD + table + TAIL, split_bytes=50)) == found, "pieces leave no trace"


def test_what_becomes_of_other_rows() -> None:
    table = (
        row(1, Title="T")
        + row(2, 2, ParentId=99)
        + row(3, 2)
        + row(4, 5)
        + row(5, 4)
        + row(6, 2, ParentId=1, Body="<p></p>")
    )
    found = outcomes(
        HEAD + table + row(7, 2, ParentId=1, Body="&nope;").replace(b"&amp;", b"&") + row(8, Body=" ") + TAIL
    )
    assert reasons(found) == {"orphan": 2, "other-post": 2, "no-text": 2, "entity-expansion": 1}
    assert [item.url for item in documents(found)] == ["https://a.example/questions/1"]


def test_answers_of_a_damaged_question_are_orphans() -> None:
    found = outcomes(HEAD + row(1, Score="many") + row(2, 2, ParentId=1) + row(3, Title="T") + TAIL)
    assert reasons(found) == {"corrupt-record": 1, "orphan": 1} and len(documents(found)) == 1


def test_a_post_given_twice_counts_once() -> None:
    table = row(1, Title="T") + row(2, 2, ParentId=1)
    found = outcomes(HEAD + table + table + TAIL)
    assert reasons(found) == {"joined": 1, "older-copy": 2} and documents(found)[0].text == "Q: T\n\nx\n\nA: x"


def test_questions_without_answers_by_recipe() -> None:
    table = HEAD + row(1, Title="T") + row(2, Title="U") + row(3, 2, ParentId=2) + TAIL
    assert len(documents(outcomes(table))) == 2
    found = outcomes(table, unanswered=False)
    assert reasons(found) == {"no-answers": 1, "joined": 1} and len(documents(found)) == 1


def test_limits_and_minimum_take_a_question_with_its_answers() -> None:
    table = HEAD + row(1, Title="T") + row(2, 2, ParentId=1, Body="<p>" + "y" * 100 + "</p>") + TAIL
    assert reasons(outcomes(table, limits=Limits(text_characters=50))) == {"too-large": 2}
    assert reasons(outcomes(table, least=1000)) == {"too-short": 2}
    assert reasons(outcomes(table, limits=Limits(record_bytes=200))) == {"too-large": 1}


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("beer.stackexchange.com-Posts.xml.gz", "beer.stackexchange.com"),
        ("dump/stackoverflow.com-Posts.7z", "stackoverflow.com"),
        ("stackexchange/Beer.StackExchange.com.7z", "beer.stackexchange.com"),
        ("beer.stackexchange.com/Posts.xml", "beer.stackexchange.com"),
        ("2017/beer.stackexchange.com/posts.xml.bz2", "beer.stackexchange.com"),
        ("askubuntu.com.xml", "askubuntu.com"),
        ("Posts.xml", ""),
    ],
)
def test_a_file_s_site(name: str, site: str) -> None:
    assert stackexchange.site_of(name) == site


def test_the_largest_sites_are_kept_and_meta_sites_never() -> None:
    counts = {
        "a.com/Posts.xml": {"posts": 5}, "b.com-Posts.7z": {"posts": 9}, "c.com/Posts.xml": {"posts": 5},
        "meta.b.com.7z": {"posts": 99}, "b.meta.stackexchange.com/Posts.xml": {"posts": 99},
        "b.com-Users.7z": {"posts": 0},
    }  # fmt: skip
    assert stackexchange.collect_shared("s", source(largest=2), counts) == {"sites": ["a.com", "b.com"]}
    assert stackexchange.collect_shared("s", source(largest=0), counts) == {"sites": ["a.com", "b.com", "c.com"]}
    assert source().stackexchange.largest == 28
    with pytest.raises(UserError, match="glob above the site's folder"):
        stackexchange.collect_shared("s", source(), {"Posts.xml": {"posts": 1}})


def test_rows_of_other_sites_are_counted() -> None:
    table = HEAD + row(1) + row(2, 2, ParentId=1) + TAIL
    assert reasons(outcomes(table, "meta.a.example/Posts.xml")) == {"meta-site": 2}
    assert reasons(outcomes(table, "cooking.meta.stackexchange.com-Posts.xml")) == {"meta-site": 2}
    assert not stackexchange.is_meta("metaphysics.example") and stackexchange.is_meta("es.meta.stackoverflow.com")


@pytest.mark.parametrize(
    ("created", "licence"),
    [
        ("2009-05-01T00:00:00.000", "CC BY-SA 2.5"),
        ("2011-04-07T23:59:59.999", "CC BY-SA 2.5"),
        ("2011-04-08T00:00:00.000", "CC BY-SA 3.0"),
        ("2018-05-01T23:59:59.999", "CC BY-SA 3.0"),
        ("2018-05-02T00:00:00.000", "CC BY-SA 4.0"),
        ("soon", ""),
    ],
)
def test_licence_by_date(created: str, licence: str) -> None:
    item = Post(1, 1, 1, 0, "", "", "", created, 0, "", "")
    assert stackexchange.licence_of(item) == licence
    assert stackexchange.licence_of(item._replace(licence="CC BY-SA 4.0")) == "CC BY-SA 4.0"


def test_a_post_without_a_date_adds_no_licence() -> None:
    answers = [row(2, 2, ParentId=1, Body="<p>a</p>", CreationDate=date) for date in ("", "yesterday")]
    for answer in answers:
        (document,) = documents(outcomes(HEAD + row(1, Title="T", Body="<p>b</p>") + answer + TAIL))
        assert document.licence == "CC BY-SA 3.0" and "licence" not in document.metadata["answers"][0]


def forms(table: bytes, folder: Path) -> dict[str, bytes]:
    with py7zr.SevenZipFile(folder / "a.7z", "w", filters=[{"id": py7zr.FILTER_LZMA2}]) as archive:
        for name, data in {"Badges.xml": b"<badges />" * 1000, "Posts.xml": table, "Votes.xml": b"<votes />"}.items():
            archive.writestr(data, name)
    text = table.decode("utf-8-sig").replace("utf-8", "utf-16")
    return {
        "plain": table, "gzip": gzip.compress(table),
        "gzip members": gzip.compress(table[:99]) + gzip.compress(table[99:]),
        "bzip2": bz2.compress(table), "7z": (folder / "a.7z").read_bytes(), "utf-16": text.encode("utf-16"),
    }  # fmt: skip


def test_every_form_gives_the_same_documents(tmp_path: Path) -> None:
    table = HEAD + b"".join(
        row(n, 1 + (n % 3 > 0), ParentId=n - n % 3, Title=f"é {n}", Body=f"<p>{n * 37}</p>") for n in range(3, 150)
    )
    texts = {}
    for form, stored in forms(table + TAIL, tmp_path).items():
        found = outcomes(stored)
        texts[form] = sorted(item.text for item in documents(found))
        others = {"unused-row": 2} if form == "7z" else {}
        assert reasons(found) == {"joined": 98, **others}, form
    assert len(texts["plain"]) == 49 and all(texts[form] == texts["plain"] for form in texts)


@pytest.mark.parametrize("form", ["gzip", "bzip2", "7z"])
def test_a_truncated_or_hurt_file_gives_what_it_holds_and_says_so(form: str, tmp_path: Path) -> None:
    table = HEAD + b"".join(row(n, Title=f"T {n}", Body=f"<p>{n**9}</p>") for n in range(1, 400)) + TAIL
    stored = forms(table, tmp_path)[form]
    for cut in (10, len(stored) // 2, len(stored) - 30):
        found = outcomes(stored[:cut])
        assert sum(reasons(found)[name] for name in ("truncated-record", "corrupt-record", "corrupt-gzip")) >= 1
    hurt = bytearray(stored)
    hurt[len(stored) // 2] ^= 0xFF
    assert len(documents(outcomes(bytes(hurt)))) < 400


def test_archives_that_cannot_be_read(tmp_path: Path) -> None:
    with py7zr.SevenZipFile(tmp_path / "b.7z", "w", password="x") as archive:
        archive.writestr(HEAD + row(1) + TAIL, "Posts.xml")
    assert reasons(outcomes((tmp_path / "b.7z").read_bytes())) == {"encrypted": 1}
    with py7zr.SevenZipFile(tmp_path / "c.7z", "w") as archive:
        archive.writestr(b"<users />", "Users.xml")
    assert reasons(outcomes((tmp_path / "c.7z").read_bytes())) == {"unused-row": 1}
    assert reasons(outcomes(b"7z\xbc\xaf\x27\x1c" + bytes(40))) == {"corrupt-record": 1}
    assert reasons(outcomes(b"<html>")) == {"unsupported-format": 1}
    assert outcomes(b"") == []


def test_rereading_another_file_is_told() -> None:
    table = HEAD + row(1, Title="T") + row(2, 2, ParentId=1) + row(3, Title="U") + TAIL
    (first, second) = (item.locator for item in documents(outcomes(table)))
    for stored in (table.replace(b"T", b"T" * 99), table[:200], b""):
        with pytest.raises(LookupError):
            stackexchange.reread({NAME: stored}, first, "stackexchange", source())
    mixed = Locator(second.file, second.offset, second.length, "", 0, second.length, first.parts)
    with pytest.raises(LookupError):
        stackexchange.reread({NAME: table}, mixed, "stackexchange", source())


class _RedPajama(html.parser.HTMLParser):
    """The text that RedPajama makes of a body: list tags become "\\n*", then all tags go.

    Struck text goes first: RedPajama keeps it.
    """

    def __init__(self, body: str) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        body = re.sub(r"<(del|s|strike)>.*?</\1>", "", body, flags=re.DOTALL)
        for tag in ("<li>", "<ol>"):
            body = body.replace(tag, "\n*")
        self.feed(body.replace("</li>", "").replace("</ol>", ""))
        self.close()

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


@pytest.mark.skipif(not SAMPLES, reason="the real sample data (../shared/data) is not here")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_real_dumps_are_accounted_for_and_hold_the_words_of_redpajamas_text(path: Path) -> None:
    stored = path.read_bytes()
    found = outcomes(stored, path.name)
    made, told = documents(found), reasons(found)
    whole = gzip.decompress(stored)
    assert len(made) == whole.count(b'PostTypeId="1"') and told["joined"] == whole.count(b'PostTypeId="2"')
    assert set(told) == {"joined", "other-post"}
    assert sum(told.values()) + len(made) == whole.count(b"<row ")
    bodies = dict(re.findall(r'<row Id="(\d+)"[^<]* Body="([^"]*)"', whole.decode("utf-8-sig")))
    for document in made[:: 1 + len(made) // 60]:
        posts = [document.metadata, *document.metadata["answers"]]
        theirs = " ".join("".join(_RedPajama(html.unescape(bodies[str(item["id"])])).parts) for item in posts)
        ours = document.text.partition("\n\n")[2].replace("\n\nA: ", "\n\n")
        assert _letters(ours) == _letters(theirs), document.url


def _letters(text: str) -> Counter[str]:
    """The characters of a text, without blanks and those that marks are made of: "- ", "1. ", "> ", "^", "_", " | "."""
    return Counter(character for character in text if character not in "-*>^_|.0123456789" and not character.isspace())


@pytest.mark.skipif(not REDPAJAMA.exists(), reason="the real sample data (../shared/data) is not here")
def test_redpajamas_rows_differ_in_the_ways_the_docs_name() -> None:
    """Their dump is another site's, so no row can be compared: these are the classes that their own text shows."""
    with gzip.open(REDPAJAMA, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    assert len(texts) == 1000 and all(text.startswith("Q: ") for text in texts)
    titles = sum("?" in text.partition("\n")[0][:-2] for text in texts)
    assert titles > 500, "the title runs on into the body"
    assert sum("\n*" in text for text in texts) > 100, "items of both kinds of list have the same mark"
    assert sum("\n> " in text for text in texts) == 1, "quotations are not marked; this one is a shell's prompt"
