"""Read Stack Exchange questions with their answers from the Posts.xml of each site (LLaMA section 2.1).

The table of a site is `SITE/Posts.xml` or `SITE-Posts.xml`, plain or compressed by gzip or bzip2, or a member of
`SITE.7z` or `SITE-Posts.7z`, as on archive.org. The name of the archive, file or folder is the name of the site.

Only plain tables are cut into pieces. The locator of a row in a compressed table contains all stored bytes of the file,
and the range of the row in the decoded bytes (converted to UTF-8). The stored bytes are divided among rows in
proportion to their decoded bytes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from filters.errors import UserError
from filters.formats.characters import normalise_text
from filters.formats.posts_xml import (
    ANSWER,
    MAX_GAP,
    QUESTION,
    TABLE,
    Post,
    RawRow,
    find_row,
    is_plain,
    parse_keys,
    parse_post,
    read_tables,
    scan_rows,
)
from filters.formats.stored import Stored, slice_stored
from filters.formats.stream import OPENING, Damage, read_ranges
from filters.posts.html import join_thread, render_post
from filters.reasons import Reason
from manifests.document import Document, Locator, Part
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources.base import Dropped, Outcome, Row, Survey, apportion, byte_range, check_length, cut_pieces

ROUNDS = 1
# Licences of posts by the date from which they apply, newest first (https://stackoverflow.com/help/licensing).
SHARE_ALIKE = (("2018-05-02", "CC BY-SA 4.0"), ("2011-04-08", "CC BY-SA 3.0"), ("", "CC BY-SA 2.5"))

_ENDINGS = re.compile(
    r"(?:(?:^|[-_.])(?:posts|badges|comments|posthistory|postlinks|tags|users|votes))?(?:\.xml)?(?:\.(?:7z|gz|bz2))?\Z",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,7})?\Z", re.ASCII)
_COUNTED = (b'PostTypeId="1"', b'PostTypeId="2"')
_TAGS = re.compile(r"[<>|]+")


def site_of(name: str) -> str:
    """Return the site of a file, from its name or its folder's name, or "" if neither names a site."""
    path = PurePosixPath(name)
    return (_ENDINGS.sub("", path.name) or path.parent.name).lower()


def is_meta(site: str) -> bool:
    """Return True for a site about another site: meta.stackexchange.com, meta.cooking.stackexchange.com."""
    return "meta" in site.split(".")


def survey(stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
    """Count the decoded bytes, the rows, and the questions and answers (`posts`) of a file, without parsing XML.

    The state of the only piece of a compressed file is the number of its decoded bytes, including all members of an
    archive.
    """
    decoded = others = marks = posts = 0
    for table in read_tables(stored, 0, len(stored)):
        tail, since = b"", 0
        others += table.size if table.chunks is None else 0
        for chunk in table.chunks or ():
            if since > MAX_GAP:
                break
            if isinstance(chunk, bytes):
                text = tail + chunk
                decoded += len(chunk)
                found = text.count(b"<row") - tail.count(b"<row")
                marks, since = marks + found, 0 if found else since + len(chunk)
                posts += sum(text.count(mark) - tail.count(mark) for mark in _COUNTED)
                tail = text[1 - len(_COUNTED[0]) :]
    pieces = [(0, len(stored), decoded + others)]
    if is_plain(stored):
        starts = (find_row(stored, wanted) for wanted in range(split_bytes, len(stored), split_bytes))
        pieces = cut_pieces(starts, len(stored))
    return Survey(pieces, decoded, marks, {"posts": posts})


def select_round(name: str, recipe: Source) -> int:
    """Return 0: all rows are grouped in one round."""
    return 0


def collect_shared(source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return the sites that are kept: the `largest` sites, ordered by number of questions and answers, then by name.

    Raises:
        UserError: A file does not name its site.
    """
    posts: dict[str, int] = {}
    for name, counted in sorted(counts.items()):
        site = site_of(name)
        if not site:
            raise UserError(
                f"source {source}: {name} does not name its site: give a glob above the site's folder, such as "
                f"'dumps/*/{TABLE}', or call the file SITE-{TABLE}"
            )
        if not is_meta(site):
            posts[site] = posts.get(site, 0) + counted.get("posts", 0)
    ordered = sorted(posts, key=lambda site: (-posts[site], site))
    return {"sites": sorted(ordered[: recipe.stackexchange.largest or None])}


def read_rows(
    stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
) -> Iterator[Row | Outcome]:
    """Yield the rows of questions and answers, and outcomes for other rows. The group of a row is (site, question id).

    The state of a compressed file is the number of its decoded bytes.
    """
    site = site_of(name)
    kept, limit = site in shared["sites"], recipe.limits.record_bytes
    if is_plain(stored):
        ends = end == len(stored) and b"<posts" in bytes(stored[:OPENING])
        for raw in scan_rows(slice_stored(stored, start, end), limit, start, ends):
            length = len(raw.data) or raw.stop - raw.start
            yield _make_row(raw, Locator(name, raw.start, length, "", 0, length), raw.stop - raw.start, site, kept)
    elif end:
        size = len(stored)
        empty = Outcome(Locator(name, 0, size), 0, reason=Reason.UNSUPPORTED_FORMAT, detail="holds no table")
        yield from apportion(_read_compressed(stored, name, site, kept, limit), size, state, empty)


def _read_compressed(
    stored: Stored, name: str, site: str, kept: bool, limit: int
) -> Iterator[tuple[int, Row | Outcome]]:
    """Yield (end in decoded bytes, row or outcome) for the rows of a compressed file."""
    position = 0
    for table in read_tables(stored, 0, len(stored)):
        for raw in scan_rows(table.chunks, limit) if table.chunks is not None else [RawRow(0, table.size)]:
            position += raw.stop - raw.start
            length = len(raw.data) or raw.stop - raw.start
            place = Locator(name, 0, len(stored), table.member, raw.start, length)
            if table.chunks is None:
                yield position, Outcome(place, 0, reason=Reason.UNUSED_ROW)
            else:
                yield position, _make_row(raw, place, 0, site, kept)


def _make_row(raw: RawRow, place: Locator, stored: int, site: str, kept: bool) -> Row | Outcome:
    """Return the row of a question or answer for the join, or the outcome of another row. `kept`: the site is kept."""
    if raw.problem is not None:
        return Outcome.drop(place, stored, raw)
    if not kept:
        return Outcome(place, stored, reason=Reason.META_SITE if is_meta(site) else Reason.SMALL_SITE)
    if is_quarantined(place):
        return Outcome(place, stored, reason=Reason.QUARANTINED)
    keys = parse_keys(raw.data)
    if isinstance(keys, Damage):
        return Outcome.drop(place, stored, keys)
    if keys.kind not in (QUESTION, ANSWER):
        return Outcome(place, stored, reason=Reason.OTHER_POST)
    return Row(f"{site}/{keys.question}".encode(), place, stored, raw.data)


def combine(rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Outcome]:
    """Yield the document of one question, and the outcomes of the group's other rows."""
    questions, answers = list[tuple[Row, Post]](), list[tuple[Row, Post]]()
    seen = set[tuple[int, int]]()
    for row in rows:
        post = parse_post(row.data)
        if isinstance(post, Damage):
            yield Outcome.drop(row.locator, row.stored, post)
        elif (post.kind, post.identifier) in seen:
            yield Outcome(row.locator, row.stored, reason=Reason.OLDER_COPY)
        else:
            seen.add((post.kind, post.identifier))
            (questions if post.kind == QUESTION else answers).append((row, post))
    if questions:
        yield from _join_question(questions[0], answers, source, recipe)
        return
    for row, _ in answers:
        yield Outcome(row.locator, row.stored, reason=Reason.ORPHAN, detail=f"no question {row.group.decode()}")


def _join_question(
    question: tuple[Row, Post], answers: list[tuple[Row, Post]], source: str, recipe: Source
) -> Iterator[Outcome]:
    """Yield the outcomes of a question and its answers.

    The answers are sorted by descending score, then by id. Answers without text are dropped.
    """
    row, asked = question
    kept = []
    for other, answer in sorted(answers, key=lambda pair: (-pair[1].score, pair[1].identifier)):
        text = render_post(answer.body)
        if text:
            kept.append((other, answer, text))
        else:
            yield Outcome(other.locator, other.stored, reason=Reason.NO_TEXT)
    body, title = render_post(asked.body), " ".join(normalise_text(asked.title).split())
    text = join_thread(title, body, [text for _, _, text in kept], recipe.stackexchange.layout)
    others = [other for other, _, _ in kept]
    if not (title or body):
        damage: Dropped | None = Dropped(Reason.NO_TEXT)
    elif not kept and not recipe.stackexchange.unanswered:
        damage = Dropped(Reason.NO_ANSWERS)
    else:
        damage = check_length(text, recipe)
    if damage is not None:
        yield from (Outcome.drop(part.locator, part.stored, damage) for part in (row, *others))
        return
    site = row.group.decode().rpartition("/")[0]
    metadata = {**_get_attribution(asked), "site": site, "tags": [tag for tag in _TAGS.split(asked.tags) if tag]}
    metadata["answers"] = [
        {**_get_attribution(answer), "accepted": answer.identifier == asked.accepted} for _, answer, _ in kept
    ]
    document = Document(
        source,
        replace(row.locator, parts=tuple(Part(*byte_range(other.locator)) for other in others)),
        text,
        f"https://{site}/questions/{asked.identifier}" if "." in site else "",
        f"{asked.created}Z" if _DATE.match(asked.created) else "",
        " and ".join(sorted({licence_of(post) for post in (asked, *(answer for _, answer, _ in kept))} - {""})),
        metadata,
    )
    yield Outcome(row.locator, row.stored + sum(other.stored for other in others), document)
    yield from (Outcome(other.locator, 0, reason=Reason.JOINED) for other in others)


def licence_of(post: Post) -> str:
    """Return the licence that a post states, or the licence that applies to its date, or "" if it has no date."""
    if post.licence:
        return post.licence
    if not _DATE.match(post.created):
        return ""
    return next(name for first_day, name in SHARE_ALIKE if post.created >= first_day)


def _get_attribution(post: Post) -> dict[str, Any]:
    """Return the id, score, author and licence of a post as metadata, without empty values."""
    about = {"id": post.identifier, "score": post.score, "author": post.author, "licence": licence_of(post)}
    return {name: value for name, value in about.items() if value != ""}


def reread(stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
    """Read the document at a locator again. Raises LookupError if the files do not contain this document."""
    site, rows = site_of(locator.file), list[Row]()
    places = [Part(*byte_range(locator)), *locator.parts]
    for file in sorted({place.file for place in places}):
        for place, data in _read_parts(stored[file], [place for place in places if place.file == file]):
            keys = parse_keys(data)
            if isinstance(keys, Damage) or keys.kind not in (QUESTION, ANSWER):
                raise LookupError(f"{file} holds no post at {place.inner_offset or place.offset}")
            rows.append(Row(f"{site}/{keys.question}".encode(), Locator(*byte_range(place)), 0, data))
    if len({row.group for row in rows}) == 1:
        for outcome in combine(rows, source, recipe, 0):
            named = outcome.document.locator if outcome.document else replace(outcome.locator, parts=locator.parts)
            if named == locator:
                return outcome
    raise LookupError(f"{locator.file} has changed since it was read: its rows make no such document")


def _read_parts(stored: Stored, places: list[Part]) -> Iterator[tuple[Part, bytes]]:
    """Yield (place, bytes) of the rows at the given places of a file. The file is decoded once."""
    if is_plain(stored):
        yield from ((place, bytes(stored[place.offset : place.offset + place.length])) for place in places)
        return
    for table in read_tables(stored, 0, len(stored)):
        mine = [place for place in places if place.member == table.member]
        ranges = [(place.inner_offset, place.inner_length) for place in mine]
        yield from ((mine[index], data) for index, data in read_ranges(table.chunks or (), ranges))
