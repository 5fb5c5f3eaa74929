"""Stack Exchange: questions with their answers, from each site's Posts.xml (LLaMA section 2.1).

A site's table is `SITE/Posts.xml`, `SITE-Posts.xml`, either of them gzipped or by bzip2, or in `SITE.7z` or
`SITE-Posts.7z` as archive.org has them: its name is the archive's, the file's or the folder's. Only plain tables
are cut into pieces. Locators of compressed ones name all stored bytes, and the row inside the decoded ones (in UTF-8,
where the table is in another encoding); the stored bytes are shared out among rows by their decoded ones.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from filters.errors import UserError
from filters.formats.compression import OPENING
from filters.formats.posts_xml import (
    ANSWER,
    HOPELESS,
    QUESTION,
    TABLE,
    Post,
    RawRow,
    find_row,
    is_plain,
    parse_keys,
    parse_post,
    read_ranges,
    read_tables,
    scan_rows,
)
from filters.formats.stream import Damage, Stored, slice_stored
from filters.posts.html import join_thread, render_post
from filters.reasons import Reason
from manifests.document import Document, Locator, Part
from manifests.source import Source
from pipeline.sources.base import Outcome, Row, Survey

ROUNDS = 1
SHARE_ALIKE = (("2018-05-02", "CC BY-SA 4.0"), ("2011-04-08", "CC BY-SA 3.0"), ("", "CC BY-SA 2.5"))
"""licences of posts by the date they begin with (https://stackoverflow.com/help/licensing), newest first"""

_ENDINGS = re.compile(
    r"(?:(?:^|[-_.])(?:posts|badges|comments|posthistory|postlinks|tags|users|votes))?(?:\.xml)?(?:\.(?:7z|gz|bz2))?\Z",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,7})?\Z", re.ASCII)
_COUNTED = (b'PostTypeId="1"', b'PostTypeId="2"')
_TAGS = re.compile(r"[<>|]+")


def site_of(name: str) -> str:
    """The site that a file is of, by its name or its folder's; empty if neither tells."""
    path = PurePosixPath(name)
    return (_ENDINGS.sub("", path.name) or path.parent.name).lower()


def survey(stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
    """Decoded bytes, rows, and questions with answers (as `posts`), by counting marks. The state of the one piece that
    a compressed file is: its decoded bytes, those of an archive's other members, too."""
    decoded = others = marks = posts = 0
    for table in read_tables(stored, 0, len(stored)):
        tail, since = b"", 0
        others += table.size if table.chunks is None else 0
        for chunk in table.chunks or ():
            if since > HOPELESS:
                break
            if isinstance(chunk, bytes):
                text = tail + chunk
                decoded += len(chunk)
                found = text.count(b"<row") - tail.count(b"<row")
                marks, since = marks + found, 0 if found else since + len(chunk)
                posts += sum(text.count(mark) - tail.count(mark) for mark in _COUNTED)
                tail = text[1 - len(_COUNTED[0]) :]
    counts = {"posts": posts}
    if not is_plain(stored):
        return Survey([(0, len(stored), decoded + others)], decoded, marks, counts)
    cuts = [0]
    for wanted in range(split_bytes, len(stored), split_bytes):
        place = find_row(stored, wanted)
        if cuts[-1] < place < len(stored):
            cuts.append(place)
    pieces = [(start, end, 0) for start, end in zip(cuts, [*cuts[1:], len(stored)], strict=True)]
    return Survey(pieces, decoded, marks, counts)


def round_of(name: str, recipe: Source) -> int:
    """There is one."""
    return 0


def shared(source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The sites that are kept: `largest` by questions and answers, equal ones by name. Raises UserError for a file that
    names no site."""
    posts: dict[str, int] = {}
    for name, counted in sorted(counts.items()):
        site = site_of(name)
        if not site:
            raise UserError(
                f"source {source}: {name} does not name its site: give a glob above the site's folder, such as "
                f"'dumps/*/{TABLE}', or call the file SITE-{TABLE}"
            )
        if "meta" not in site.split("."):
            posts[site] = posts.get(site, 0) + counted.get("posts", 0)
    ordered = sorted(posts, key=lambda site: (-posts[site], site))
    return {"sites": sorted(ordered[: recipe.stackexchange.largest or None])}


def keyed(
    stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
) -> Iterator[Row | Outcome]:
    """Questions and answers by (site, question). Of a compressed file, `state` is the number of its decoded bytes."""
    site = site_of(name)
    kept, limit = site in shared["sites"], recipe.limits.record_bytes
    if is_plain(stored):
        ends = end == len(stored) and b"<posts" in bytes(stored[:OPENING])
        for raw in scan_rows(slice_stored(stored, start, end), limit, start, ends):
            length = len(raw.data) or raw.stop - raw.start
            yield _keyed(raw, Locator(name, raw.start, length, "", 0, length), raw.stop - raw.start, site, kept)
    elif end:
        yield from _settled(_compressed(stored, name, site, kept, limit, state), name, len(stored))


def _compressed(stored: Stored, name: str, site: str, kept: bool, limit: int, total: int) -> Iterator[Row | Outcome]:
    """As `keyed`, each with its share of the stored bytes: these are shared out by decoded ones, of which there are
    `total`."""
    size, position, accounted = len(stored), 0, 0
    for table in read_tables(stored, 0, size):
        raws = scan_rows(table.chunks, limit) if table.chunks is not None else [RawRow(0, table.size)]
        for raw in raws:
            position += raw.stop - raw.start
            share = size * min(position, total) // max(total, 1) - accounted
            accounted += share
            length = len(raw.data) or raw.stop - raw.start
            place = Locator(name, 0, size, table.member, raw.start, length)
            if table.chunks is None:
                yield Outcome(place, share, reason=Reason.UNUSED_ROW)
            else:
                yield _keyed(raw, place, share, site, kept)


def _settled(items: Iterator[Row | Outcome], name: str, size: int) -> Iterator[Row | Outcome]:
    """The same, the last with all stored bytes that are left."""
    held: Row | Outcome = Outcome(Locator(name, 0, size), 0, reason=Reason.UNSUPPORTED_FORMAT, detail="holds no table")
    for number, item in enumerate(items):
        if number:
            size -= held.stored
            yield held
        held = item
    yield replace(held, stored=size)


def _keyed(raw: RawRow, place: Locator, share: int, site: str, kept: bool) -> Row | Outcome:
    if raw.problem is not None:
        return Outcome(place, share, reason=raw.problem, detail=raw.detail)
    if not kept:
        return Outcome(place, share, reason=Reason.SMALL_SITE)
    found = parse_keys(raw.data)
    if isinstance(found, Damage):
        return Outcome(place, share, reason=found.problem, detail=found.detail)
    if found.kind not in (QUESTION, ANSWER):
        return Outcome(place, share, reason=Reason.OTHER_POST)
    return Row(f"{site}/{found.question}".encode(), place, share, raw.data)


def combine(rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Outcome]:
    """The document of one question, and what became of its rows."""
    questions, answers = list[tuple[Row, Post]](), list[tuple[Row, Post]]()
    seen = set[tuple[int, int]]()
    for row in rows:
        found = parse_post(row.data)
        if isinstance(found, Damage):
            yield Outcome(row.locator, row.stored, reason=found.problem, detail=found.detail)
        elif (found.kind, found.identifier) in seen:
            yield Outcome(row.locator, row.stored, reason=Reason.OLDER_COPY)
        else:
            seen.add((found.kind, found.identifier))
            (questions if found.kind == QUESTION else answers).append((row, found))
    if questions:
        yield from _document(questions[0], answers, source, recipe)
        return
    for row, _ in answers:
        yield Outcome(row.locator, row.stored, reason=Reason.ORPHAN, detail=f"no question {row.group.decode()}")


def _document(
    question: tuple[Row, Post], answers: list[tuple[Row, Post]], source: str, recipe: Source
) -> Iterator[Outcome]:
    """A question with its answers, highest score first, equal scores by id. Answers without text are left out."""
    rules = recipe.stackexchange
    row, asked = question
    given = []
    for other, answer in sorted(answers, key=lambda pair: (-pair[1].score, pair[1].identifier)):
        text = render_post(answer.body)
        if text:
            given.append((other, answer, text))
        else:
            yield Outcome(other.locator, other.stored, reason=Reason.NO_TEXT)
    body, title = render_post(asked.body), " ".join(asked.title.split())
    text = join_thread(title, body, [text for _, _, text in given], rules.layout)
    reason = _unwanted(text, bool(title or body), bool(given), recipe)
    if reason is not None:
        for gone in (row, *(other for other, _, _ in given)):
            yield Outcome(gone.locator, gone.stored, reason=reason)
        return
    site = row.group.decode().rpartition("/")[0]
    parts = tuple(_part(other.locator) for other, _, _ in given)
    posts = [asked, *(answer for _, answer, _ in given)]
    metadata = {**_about(asked), "site": site, "tags": [tag for tag in _TAGS.split(asked.tags) if tag]}
    metadata["answers"] = [
        {**_about(answer), "accepted": answer.identifier == asked.accepted} for _, answer, _ in given
    ]
    yield Outcome(
        row.locator,
        row.stored + sum(other.stored for other, _, _ in given),
        Document(
            source,
            replace(row.locator, parts=parts),
            text,
            f"https://{site}/questions/{asked.identifier}" if "." in site else "",
            f"{asked.created}Z" if _DATE.match(asked.created) else "",
            " and ".join(sorted({licence_of(item) for item in posts})),
            metadata,
        ),
    )
    for other, _, _ in given:
        yield Outcome(other.locator, 0, reason=Reason.JOINED)


def _unwanted(text: str, asked: bool, answered: bool, recipe: Source) -> Reason | None:
    if not asked:
        return Reason.NO_TEXT
    if not answered and not recipe.stackexchange.unanswered:
        return Reason.NO_ANSWERS
    if len(text) > recipe.limits.text_characters:
        return Reason.TOO_LARGE
    return Reason.TOO_SHORT if len(text) < recipe.min_characters else None


def licence_of(item: Post) -> str:
    """The licence that a post names, or that of its date; empty if it has no date."""
    if item.licence:
        return item.licence
    if not _DATE.match(item.created):
        return ""
    return next(name for begun, name in SHARE_ALIKE if item.created >= begun)


def _about(item: Post) -> dict[str, Any]:
    """What attribution needs to know of a post, and its score."""
    about = {"id": item.identifier, "score": item.score, "author": item.author, "licence": licence_of(item)}
    return {name: value for name, value in about.items() if value != ""}


def reread(stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
    """The document at a locator. Raises LookupError when the files hold no such document."""
    places = [_part(locator), *locator.parts]
    group = f"{site_of(locator.file)}/"
    found = list[Row]()
    for file in sorted({place.file for place in places}):
        for place, data in _read_parts(stored[file], [place for place in places if place.file == file]):
            fields = parse_keys(data)
            if isinstance(fields, Damage) or fields.kind not in (QUESTION, ANSWER):
                raise LookupError(f"{file} holds no post at {place.inner_offset or place.offset}")
            found.append(Row(f"{group}{fields.question}".encode(), _locator(place), 0, data))
    if len({row.group for row in found}) == 1:
        for outcome in combine(found, source, recipe, 0):
            named = outcome.document.locator if outcome.document else replace(outcome.locator, parts=locator.parts)
            if named == locator:
                return outcome
    raise LookupError(f"{locator.file} is not the file that was read: its rows make no such document")


def _read_parts(stored: Stored, places: list[Part]) -> Iterator[tuple[Part, bytes]]:
    """Yield the rows at places of a file, which is decoded once."""
    if is_plain(stored):
        yield from ((place, bytes(stored[place.offset : place.offset + place.length])) for place in places)
        return
    for table in read_tables(stored, 0, len(stored)):
        mine = [place for place in places if place.member == table.member]
        ranges = [(place.inner_offset, place.inner_length) for place in mine]
        yield from ((mine[index], data) for index, data in read_ranges(table.chunks or (), ranges))


def _part(place: Locator) -> Part:
    return Part(place.file, place.offset, place.length, place.member, place.inner_offset, place.inner_length)


def _locator(place: Part) -> Locator:
    return Locator(place.file, place.offset, place.length, place.member, place.inner_offset, place.inner_length)
