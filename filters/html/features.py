"""Describe each block of a page by numbers: the evidence by which the model tells main text from the rest.

Evidence is of the block itself (its length, its links, how it begins and ends), of its containers (how much prose and
how many links they hold, how often they are repeated side by side, whether they are named after comments), of its
neighbours (dates and times that repeat one look among them), and of its place: relative to the container with the most
prose, to the title, to headings, to the element that the page marks as its article, and to a line that announces
comments or other articles. All is independent of the language, but for the labels of names.tsv.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.html.blocks import Page
from filters.html.names import BITS, LABELS
from filters.html.runs import find_maximal_runs

Column = npt.NDArray[np.float64]
Indexes = npt.NDArray[np.int64]

FIRST_WIDE = "\u2e80"  # the first character of the writing systems (Chinese, Japanese, Korean) that weigh WIDE_WEIGHT
WIDE_WEIGHT = 3  # letters that one such character is worth, the ratio of their UTF-8 lengths
PROSE_LENGTH = 80  # letters: a block at least this long, and mostly outside links, is prose
LABEL_LENGTH = 60  # characters: a longer line that holds a label is a sentence
ARTICLE_LENGTH = 300  # letters: shorter articles are teasers
ARTICLE_SHARE = 0.4  # the least share of the page's text that its article has, since teasers are articles too
LINKED_COST, BLOCK_COST, MOST, HEADING = 4.0, 12.0, 400.0, 36.0  # letters: the score of a block in a run
LABELS_FROM = 0.1  # the share of a page's prose that comes before any label of comments or other articles
SMALL_LENGTH = 100  # letters: a container this short is never the text
WRAPPER_SHARE = 0.3  # a container with a larger share of the page's letters is a wrapper with an unlucky name
WRAPPER_LENGTH = 3_000  # letters: so is a container with more, except comments
DISCUSSION_SHARE = 0.8  # the share of a page's letters that comments may have, which can be longer than their subject
DISTANT = 12  # levels: a common ancestor is counted up to here
DIGITS_IN = 200  # characters: the beginning of a block, in which digits are counted
STAMP_LENGTH = 120  # characters: a longer line with a date or time is a sentence
STAMPS = 3  # lines with a date or time that look alike are repeated from here on, as those of comments
FAR = 64  # blocks: the largest distance to such a line
REACH = 8  # blocks before and after one whose links are evidence
COMMENTS_FROM = 0.08  # the share of a page's prose before the first container named after comments, if it holds some
REPEATED_FROM = 3  # siblings that look alike are repeated from here on
SENTENCE_ENDS = frozenset('.!?…。！？:;"”»')

_JUNK = sum(
    BITS[name]
    for name in (
        "word_comments word_related word_menu word_footer word_sidebar word_meta word_author word_promotion "
        "word_social word_notice word_tags word_hidden element_nav element_aside element_footer element_dialog "
        "element_form schema_apart schema_comment"
    ).split()
)
_WORDS = sum(bit for name, bit in BITS.items() if name.startswith("word_") and bit & _JUNK and name != "word_comments")
_ARTICLES = (  # marks of a page's article, by falling trust: HTML and schema.org, themes in wide use, landmarks, habit
    BITS["element_article"] | BITS["name_post"] | BITS["schema_article"],
    BITS["name_body"] | BITS["schema_body"],
    BITS["element_main"] | BITS["name_main"] | BITS["schema_main"],
    BITS["name_content"],
)
COMMENTS = BITS["word_comments"] | BITS["schema_comment"]
_ANY_ARTICLE = _ARTICLES[0] | _ARTICLES[1] | _ARTICLES[2] | _ARTICLES[3]
_WORD = re.compile(r"\w+")
_STAMP = re.compile(r"\d{1,2}:\d\d|\d{1,4}[./-]\d{1,2}[./-]\d{2,4}|\b(?:19|20)\d\d\b")
_DIGIT, _NO_DIGITS = re.compile(r"\d"), re.compile(r"[^\d\0]+")
_ASCII = bytes(range(128))
_REPEATED = frozenset("div article section aside li tr table ul dl td".split())
_LEVELS = {f"h{level}": level for level in range(1, 7)}


class Features(NamedTuple):
    """The evidence on the blocks of a page."""

    columns: dict[str, Column]  # by feature, a number for each block
    inside: list[int]  # for each block, the names of all its containers, as bits
    nearest: list[int]  # those of the innermost container and its parent


class _Measures(NamedTuple):
    """Measurements of a page for its features. Letters of wide writing systems count WIDE_WEIGHT times."""

    order: Indexes  # the index of each block
    place: Indexes  # the innermost container of each block
    parent: Indexes  # of each container; the root's is itself
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    size: Column  # characters of each block
    length: Column  # letters
    linked: Column  # those in links
    linked_share: Column  # of the letters
    prose: Column  # those outside links in blocks that are long and mostly outside links
    logarithms: Column  # of length and prose, each plus one
    level: Indexes  # of a heading, else 0
    sums: Column  # of these three columns, up to each block
    within: Column  # of these three columns, in each container
    totals: tuple[float, float, float]  # of the page, at least 1


class _Names(NamedTuple):
    """Lists of names of containers, by their meaning."""

    own: Indexes  # bits
    inherited: Indexes  # with those of all containers around; words for boilerplate do not count on large ones
    marked: list[int]  # the containers with a mark of an article
    repeats: list[int]  # how many siblings of a container, or of one around it, look the same
    repeated: list[int]  # the container of which there are as many
    letters: Column  # of each container and its siblings that look the same, together
    discussions: list[int]  # the containers named after comments


def describe_blocks(page: Page, title: str) -> Features:
    """Return the features of a page's blocks, of which there must be some."""
    measures = _measure(page)
    names = _read_names(page, measures)
    inside = names.inherited[measures.place]
    junk = np.bitwise_count(inside & _JUNK).astype(float)
    plain = np.append(0.0, np.cumsum(np.where(junk > 0, 0, measures.length)))
    article = _find_article(names, measures, plain)
    digits = np.array(_count_digits(page.texts))
    utf8 = _join(page.texts)
    columns = (
        _describe_text(page.texts, utf8, measures)
        | _describe_writing(page.texts, utf8, digits, measures)
        | _describe_containers(measures, names)
        | _describe_stamps(page.texts, digits, names, measures)
        | _describe_comments(names, measures)
        | _describe_neighbours(measures)
        | _describe_position(measures)
        | _describe_main(page.parents, measures)
        | _describe_title(page.texts, title, measures)
        | _describe_article(page.tags, measures, junk, plain, article)
        | _describe_runs(measures, junk, article)
        | _describe_labels(page.texts, measures)
    )
    nearest = names.own | names.own[measures.parent]
    return Features(columns, inside.tolist(), nearest[measures.place].tolist())


def _measure(page: Page) -> _Measures:
    texts, tags, parents = page.texts, page.tags, page.parents
    weight = np.where([*map(FIRST_WIDE.__le__, texts)], WIDE_WEIGHT, 1)
    size = np.array([*map(len, texts)], dtype=float)
    length = size * weight
    linked = np.array(page.linked, dtype=float) * weight
    prose = np.where((length >= PROSE_LENGTH) & (linked < 0.5 * length), length - linked, 0.0)
    sums = np.zeros((3, len(texts) + 1))
    np.cumsum([length, linked, prose], axis=1, out=sums[:, 1:])
    starts, ends, parent, place = (
        np.array(column, dtype=np.int64) for column in (page.starts, page.ends, parents, page.places)
    )
    parent[0] = 0
    levels = np.array([*map(_LEVELS.get, tags, itertools.repeat(0))])
    level = np.where(levels[place] > 0, levels[place], levels[parent[place]])
    letters, in_links, in_prose = (max(float(total), 1.0) for total in sums[:, -1])
    return _Measures(
        np.arange(len(texts)), place, parent, starts, ends, size, length, linked, linked / length, prose,
        np.log2(1 + np.array([length, prose])), level, sums, sums[:, ends] - sums[:, starts],
        (letters, in_links, in_prose),
    )  # fmt: skip


def _read_names(page: Page, measures: _Measures) -> _Names:
    parents, letters, own = measures.parent.tolist(), measures.within[0], np.array(page.names, dtype=np.int64)
    kind = number_distinct(zip(page.parents, page.tags, page.names, strict=True))
    wrapper = max(SMALL_LENGTH, min(WRAPPER_SHARE * measures.totals[0], WRAPPER_LENGTH))
    discussion = max(SMALL_LENGTH, DISCUSSION_SHARE * measures.totals[0])
    telling = np.where(letters > wrapper, own & ~_WORDS, own)
    telling = np.where(letters > max(wrapper, discussion), telling & ~BITS["word_comments"], telling).tolist()
    inherited, repeats, repeated = [0] * len(own), [1] * len(own), [0] * len(own)
    siblings = np.bincount(kind)[kind].tolist()
    for place, (up, names, copies, tag) in enumerate(zip(parents, telling, siblings, page.tags, strict=True)):
        inherited[place] = names | inherited[up]
        if copies > 1 and tag not in _REPEATED:
            copies = 1
        same = copies >= repeats[up]
        repeats[place], repeated[place] = (copies, place) if same else (repeats[up], repeated[up])
    together = np.bincount(kind, letters)[kind].astype(np.float64)
    marked, discussions = (
        np.flatnonzero((own & bits != 0) & (letters > 0)).tolist() for bits in (_ANY_ARTICLE, COMMENTS)
    )
    return _Names(own, np.array(inherited), marked, repeats, repeated, together, discussions)


def _describe_text(texts: Sequence[str], utf8: bytes, measures: _Measures) -> dict[str, Column]:
    copies, commas = Counter(texts), _count(b",", utf8)
    for index in np.flatnonzero(measures.length > measures.size).tolist():
        commas[index] += texts[index].count("，") + texts[index].count("、")
    return {
        "length": measures.logarithms[0],
        "linked": measures.linked_share,
        "prose": measures.logarithms[1],
        "commas": np.log2(1 + np.array(commas)),
        "copies": np.minimum([*map(copies.__getitem__, texts)], 4.0),
    }


def _describe_writing(texts: Sequence[str], utf8: bytes, digits: Indexes, measures: _Measures) -> dict[str, Column]:
    """Describe the signs by which comments, teasers and forms are written unlike articles."""
    level, order, letters = measures.level, measures.order, measures.sums[0][:-1]
    heading = np.maximum.accumulate(np.where(level > 0, order, -1))
    ends = np.array([text[-1] in SENTENCE_ENDS for text in texts], dtype=float)
    first = [text[0] for text in texts]
    return {
        "ends_sentence": ends,
        "previous_ends_sentence": np.append(0.0, ends[:-1]),
        "starts_upper": np.array([*map(str.isupper, first)], dtype=float),
        "starts_lower": np.array([*map(str.islower, first)], dtype=float),
        "exclaims": np.minimum(_count(b"!?", utf8), 5.0),
        "digits": digits / np.minimum(measures.size, DIGITS_IN),
        "level": level.astype(float),
        "heading_level": np.where(heading >= 0, level[heading], 0).astype(float),
        "after_heading": np.where(heading >= 0, np.log2(1 + letters - letters[np.maximum(heading, 0)]), 16.0),
    }


def _describe_stamps(texts: Sequence[str], digits: Indexes, names: _Names, measures: _Measures) -> dict[str, Column]:
    """Describe lines with a date or time; comments and lists of articles repeat lines of one look."""
    count, order, short = len(texts), measures.order, measures.size <= STAMP_LENGTH
    dated = [index for index in np.flatnonzero(short & (digits > 0)).tolist() if _STAMP.search(texts[index])]
    place = measures.place[dated]
    looks = [*zip(names.own[place].tolist(), names.own[measures.parent[place]].tolist(), strict=True)]
    alike, copies = Counter(looks), np.zeros(count)
    copies[dated] = [alike[look] for look in looks]
    repeated = copies >= STAMPS
    since = order - np.maximum.accumulate(np.where(repeated, order, -FAR))
    until = np.minimum.accumulate(np.where(repeated, order, count + FAR)[::-1])[::-1] - order
    logarithms = np.log2(1 + np.array([copies, np.minimum(since, FAR), np.minimum(until, FAR)]))
    return {
        "stamp": (copies > 0).astype(float),
        "stamps_alike": logarithms[0],
        "since_stamp": logarithms[1],
        "until_stamp": logarithms[2],
        "stamps": np.full(count, np.log2(1 + np.count_nonzero(repeated))),
    }


def _describe_comments(names: _Names, measures: _Measures) -> dict[str, Column]:
    """Describe which blocks are in containers named after comments, or after the first of them."""
    if not names.discussions:
        return dict.fromkeys(("in_comments", "discussions", "after_comments"), np.zeros(len(measures.order)))
    letters, prose = measures.sums[0], measures.sums[2]
    starts = measures.starts[names.discussions]
    starts = starts[prose[starts] > COMMENTS_FROM * measures.totals[2]]
    first = int(starts.min()) if len(starts) else len(measures.order)
    after = np.log2(1 + np.maximum(letters[:-1] - letters[first], 0))
    return {
        "in_comments": _find_depths(names.discussions, measures.parent)[measures.place],
        "discussions": np.full(len(measures.order), np.log2(1 + len(names.discussions))),
        "after_comments": np.where(measures.order >= first, 1 + after, 0),
    }


def _find_depths(discussions: Sequence[int], parents: Indexes) -> Column:
    """Return 1 for each container named after comments, less the more levels below one, and 0 for all others."""
    depths = [0.0] * len(parents)
    for place in discussions:
        depths[place] = 1.0
    for place, up in enumerate(parents.tolist()):
        if depths[up] and not depths[place]:
            depths[place] = 1 / (1 + 1 / depths[up])
    return np.array(depths)


def _describe_containers(measures: _Measures, names: _Names) -> dict[str, Column]:
    letters, in_links, in_prose = measures.within
    linked, prose = in_links / np.maximum(letters, 1), in_prose / np.maximum(letters, 1)
    around = [measures.place]
    for _ in range(3):
        around.append(measures.parent[around[-1]])
    repeats, repeated = np.array(names.repeats)[measures.place], np.array(names.repeated)[measures.place]
    together = np.where(repeats >= REPEATED_FROM, names.letters[repeated], 0)
    return {
        **{f"container{step}_prose": prose[place] for step, place in enumerate(around)},
        **{f"container{step}_linked": linked[around[step]] for step in (0, 1)},
        **{f"container{step}_share": in_prose[around[step]] / measures.totals[2] for step in (1, 3)},
        "repeats": np.log2(repeats),
        "repeated_linked": linked[repeated],
        "repeated_share": together / measures.totals[0],
        "repeated_length": np.log2(1 + together / repeats),
    }


def _describe_neighbours(measures: _Measures) -> dict[str, Column]:
    count, index = len(measures.order), measures.order
    own = np.zeros((2, count + 2))  # nothing is before the first block and after the last
    own[:, 1:-1] = measures.logarithms[0], measures.linked_share
    sums = np.zeros((3, REACH + count + 1 + REACH))
    sums[:, REACH:-REACH] = measures.sums
    sums[:, -REACH:] = measures.sums[:, -1:]
    near, wide = (sums[:, REACH + reach + 1 :][:, :count] - sums[:, REACH - reach :][:, :count] for reach in (3, REACH))
    blocks = np.minimum(index + 4, count) - np.maximum(index - 3, 0)
    return {
        "next_length": own[0, 2:],
        "previous_length": own[0, :-2],
        "next_linked": own[1, 2:],
        "previous_linked": own[1, :-2],
        "near_prose": near[2] / near[0],
        "near_length": np.log2(1 + near[0] / blocks),
        "wide_linked": wide[1] / wide[0],
    }


def _describe_position(measures: _Measures) -> dict[str, Column]:
    letters, in_links, in_prose = measures.totals
    return {
        "position": measures.sums[0][:-1] / letters,
        "prose_before": measures.sums[2][:-1] / in_prose,
        "prose_after": 1 - measures.sums[2][1:] / in_prose,
        "page_linked": np.full(len(measures.order), in_links / letters),
        "headings": np.minimum(np.cumsum((measures.level > 0) & (measures.level <= 3)), 12).astype(float),
    }


def _describe_main(parents: Sequence[int], measures: _Measures) -> dict[str, Column]:
    """Describe where blocks are relative to the container with the most prose in it, or in its children."""
    count, in_prose = len(measures.order), measures.within[2]
    direct = np.bincount(measures.place, measures.prose, len(parents))
    direct = direct + np.bincount(measures.parent, direct, len(parents))
    main = int(direct.argmax())
    chain = [main]
    while chain[-1]:
        chain.append(parents[chain[-1]])
    common = np.full(count, DISTANT)
    for step in reversed(range(min(len(chain), DISTANT))):
        common[measures.starts[chain[step]] : measures.ends[chain[step]]] = step
    shares = in_prose[main] / np.maximum(in_prose[chain], 1)
    letters = measures.sums[0]
    return {
        "common_ancestor": common.astype(float),
        "common_share": shares[np.minimum(common, len(chain) - 1)],
        "after_main": np.log2(1 + np.maximum(letters[:-1] - letters[measures.ends[main]], 0)),
        "main_share": np.full(count, direct[main] / measures.totals[2]),
    }


def _describe_title(texts: Sequence[str], title: str, measures: _Measures) -> dict[str, Column]:
    at, similar = _find_title(texts, title, measures)
    letters = measures.sums[0]
    before = np.log2(1 + np.maximum(letters[at] - letters[1:], 0)) if at else np.zeros(len(texts))
    return {"title_words": similar, "before_title": before}


def _describe_article(
    tags: Sequence[str], measures: _Measures, junk: Column, plain: Column, article: slice | None
) -> dict[str, Column]:
    """Describe where blocks are relative to the article that the page marks, and which ones names speak against."""
    count, prose = len(junk), measures.logarithms[1]
    share, after, outside = np.zeros(count), np.zeros(count), np.zeros(count)
    if article:
        share += (plain[article.stop] - plain[article.start]) / max(plain[-1], 1)
        after = np.log2(1 + np.maximum(plain[:-1] - plain[article.stop], 0))
        outside = prose.copy()
        outside[article] = 0
    return {
        "articles": np.full(count, np.log2(1 + tags.count("article"))),
        "article_share": share,
        "after_article": after,
        "prose_outside_article": outside,
        "junk_names": np.minimum(junk, 5),
        "prose_in_junk": np.where(junk > 0, prose, 0),
    }


def _describe_runs(measures: _Measures, junk: Column, article: slice | None) -> dict[str, Column]:
    """Describe the runs of text among the blocks of the article that no name speaks against.

    A block scores by its text against its links. A run is a maximum scoring subsequence (Pasternack and Roth, WWW
    2009).
    """
    scores = np.minimum(measures.length - LINKED_COST * measures.linked - BLOCK_COST, MOST)
    scores = np.where(measures.level > 0, np.minimum(scores, 0) + HEADING, scores)
    eligible = junk == 0
    if article:
        eligible[: article.start] = eligible[article.stop :] = False
    chosen = np.flatnonzero(eligible)
    runs = find_maximal_runs(scores[chosen].tolist())
    best = max((score for *_, score in runs), default=1.0)
    share, size = np.zeros(len(junk)), np.zeros(len(junk))
    for start, end, score in runs:
        share[chosen[start:end]] = score / best
        size[chosen[start:end]] = np.log2(1 + score)
    return {"run_share": share, "run_score": size}


def _describe_labels(texts: Sequence[str], measures: _Measures) -> dict[str, Column]:
    """Describe which blocks come after a line that announces comments, or other articles, and at what distance."""
    short = "\0".join([text if len(text) <= LABEL_LENGTH else "" for text in texts]).lower()
    letters = measures.sums[0][:-1]
    later = measures.sums[2][:-1] > LABELS_FROM * measures.totals[2]
    columns = {}
    for group, labels in LABELS.items():
        found = np.full(len(texts), -1)
        for label in labels:
            for line in _find_lines(short, label):
                found[line] = line
        last = np.maximum.accumulate(np.where(later, found, -1))
        distance = np.log2(1 + letters - letters[np.maximum(last, 0)])
        columns[f"any_label_{group}"] = (last >= 0).astype(float)
        columns[f"after_label_{group}"] = np.where(last >= 0, 1 + distance, 0)
    return columns


def _find_title(texts: Sequence[str], title: str, measures: _Measures) -> tuple[int, Column]:
    """Return the index of the title among the blocks, 0 without a title, and the share of each heading in its words."""
    similar = np.zeros(len(texts))
    wanted = set(_WORD.findall(title.lower()))
    best, at = 0.0, 0
    size, level = measures.size, measures.level
    headings, short = (level > 0) & (size <= ARTICLE_LENGTH), (size >= 12) & (size <= len(title))
    for index in np.flatnonzero(headings | short).tolist():
        text = texts[index]
        if headings[index] or text in title:
            words = set(_WORD.findall(text.lower()))
            both = len(words & wanted)
            if both:
                similar[index] = both / len(words) * min(1.0, 2 * both / len(wanted))
                rank = similar[index] + (0.3 if level[index] == 1 else 0.2 if level[index] else 0.0)
                if similar[index] >= 0.6 and rank > best:
                    best, at = rank, index
    return at or int((level == 1).argmax()), similar


def _find_article(names: _Names, measures: _Measures, plain: Column) -> slice | None:
    """Return the blocks of the largest container with the most trusted mark of an article, if it is large enough.

    Its letters are those of the sums `plain`, which no name speaks against.
    """
    if not names.marked:
        return None
    letters = (plain[measures.ends] - plain[measures.starts]).tolist()
    for mark in _ARTICLES:
        largest = max((c for c in names.marked if names.own[c] & mark), key=letters.__getitem__, default=0)
        if largest and letters[largest] >= max(ARTICLE_LENGTH, ARTICLE_SHARE * plain[-1]):
            return slice(int(measures.starts[largest]), int(measures.ends[largest]))
    return None


def _find_lines(lines: str, label: str) -> Iterator[int]:
    """Yield the indexes of the lines, joined by NULs, that hold a label."""
    line, start = 0, 0
    at = lines.find(label)
    while at >= 0:
        line += lines.count("\0", start, at)
        yield line
        start = at
        at = lines.find(label, at + len(label))


def number_distinct(values: Iterable[Hashable]) -> Indexes:
    """Return a number for each value, the same for equal values, from 0 in the order in which they first come."""
    numbers: defaultdict[Hashable, int] = defaultdict(itertools.count().__next__)
    return np.array([*map(numbers.__getitem__, values)], dtype=np.int64)


def _join(texts: Sequence[str]) -> bytes:
    """Return texts as UTF-8, with NULs between them: the parser leaves no NUL in any."""
    return "\0".join(texts).encode("utf-8", "surrogatepass")


def _count(wanted: bytes, utf8: bytes) -> list[int]:
    """Return how often characters of ASCII occur in each of the texts that `_join` joined."""
    return [*map(len, utf8.translate(None, _other_bytes(wanted)).split(b"\0"))]


@cache
def _other_bytes(wanted: bytes) -> bytes:
    return bytes(set(range(256)) - set(wanted + b"\0"))


def _count_digits(texts: Sequence[str]) -> list[int]:
    """Return the number of digits, of any writing system, in the beginning of each text."""
    beginnings = [text[:DIGITS_IN] for text in texts]
    utf8 = _join(beginnings)
    if _DIGIT.search(utf8.translate(None, _ASCII).decode("utf-8", "surrogatepass")):
        return [len(digits) for digits in _NO_DIGITS.sub("", "\0".join(beginnings)).split("\0")]
    return _count(b"0123456789", utf8)
