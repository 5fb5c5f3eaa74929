"""Compute the features of each block of a page: the inputs of the first network of filters.html.model.

The features describe

- the block itself: its length, its links, how it begins and ends;
- its containers: how much prose and how many links they contain, how often containers with the same tag and names are
  repeated side by side, whether their names suggest comments;
- its neighbours: their lengths and links, and repeated lines with a date or time;
- its position relative to the container with the most prose, to the title, to headings, to the element that the page
  marks as its article, and to a line that announces comments or other articles.

The features do not depend on the language, except for the labels of names.tsv.
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

# Texts that begin with this character or a later one are taken for Chinese, Japanese or Korean.
FIRST_WIDE = "\u2e80"
WIDE_WEIGHT = 3  # Letters that one character of a text in these scripts counts for: the ratio of the UTF-8 lengths.
PROSE_LENGTH = 80  # Letters. A block that is at least this long, with less than half of it in links, is prose.
LABEL_LENGTH = 60  # Characters. A longer line that contains a label is taken for a sentence.
ARTICLE_LENGTH = 300  # Letters. A shorter `article` element is taken for a teaser.
# The smallest share of the page's text in the container that is taken for the article. Teasers are marked as articles
# too.
ARTICLE_SHARE = 0.4
# In letters, the score of a block in `_describe_runs`: the cost of a letter in a link, the cost of a block, the highest
# score of a block, and the number that is added for a heading.
LINKED_COST, BLOCK_COST, MAX_SCORE, HEADING = 4.0, 12.0, 400.0, 36.0
MIN_PROSE_BEFORE_LABEL = 0.1  # Labels of comments or other articles count only after this share of the page's prose.
# Letters. The names of a container that is not longer than this are never ignored, because it is too short for the main
# text.
SMALL_LENGTH = 100
# A container with a larger share of the page's letters, or with more letters, is a wrapper of the main text. Names such
# as "sidebar" are ignored on it.
WRAPPER_SHARE = 0.3
WRAPPER_LENGTH = 3_000  # Letters.
# The name "comments" is ignored on a container with a larger share of the page's letters. The limit is higher than
# WRAPPER_SHARE, because comments can be longer than the article.
DISCUSSION_SHARE = 0.8
MAX_ANCESTOR_DISTANCE = 12  # Levels. The distance to a common ancestor is at most this.
DIGITS_IN = 200  # Characters. Digits are counted in this many characters at the beginning of a block.
STAMP_LENGTH = 120  # Characters. A longer line with a date or time is taken for a sentence.
# From this number, lines with a date or time in containers of the same look are repeated, like the lines of comments.
MIN_STAMPS = 3
MAX_STAMP_DISTANCE = 64  # Blocks. The distance to a repeated line with a date or time is at most this.
REACH = 8  # Blocks. The links of this many blocks on each side are a feature.
# A container whose names suggest comments begins the comments only after this share of the page's prose.
MIN_PROSE_BEFORE_COMMENTS = 0.08
MIN_REPEATS = 3  # From this number, siblings with the same tag and names are repeated.
SENTENCE_ENDS = frozenset('.!?…。！？:;"”»')

# Groups of names for boilerplate ("junk").
_JUNK = sum(
    BITS[name]
    for name in (
        "word_comments word_related word_menu word_footer word_sidebar word_meta word_author word_promotion "
        "word_social word_notice word_tags word_hidden element_nav element_aside element_footer element_dialog "
        "element_form schema_apart schema_comment"
    ).split()
)
# The groups of _JUNK that come from words in class names and ids, except "comments". See WRAPPER_SHARE.
_WORDS = sum(bit for name, bit in BITS.items() if name.startswith("word_") and bit & _JUNK and name != "word_comments")
# Marks of a page's article, most reliable first: HTML and schema.org, widely used themes, landmarks, common names.
_ARTICLES = (
    BITS["element_article"] | BITS["name_post"] | BITS["schema_article"],
    BITS["name_body"] | BITS["schema_body"],
    BITS["element_main"] | BITS["name_main"] | BITS["schema_main"],
    BITS["name_content"],
)
COMMENTS = BITS["word_comments"] | BITS["schema_comment"]
_ANY_ARTICLE = _ARTICLES[0] | _ARTICLES[1] | _ARTICLES[2] | _ARTICLES[3]
_WORD = re.compile(r"\w+")
_STAMP = re.compile(r"\d{1,2}:\d\d|\d{1,4}[./-]\d{1,2}[./-]\d{2,4}|\b(?:19|20)\d\d\b")  # A time, a date, or a year.
_DIGIT, _NO_DIGITS = re.compile(r"\d"), re.compile(r"[^\d\0]+")
_ASCII = bytes(range(128))
_REPEATED = frozenset("div article section aside li tr table ul dl td".split())  # Elements whose copies are counted.
_LEVELS = {f"h{level}": level for level in range(1, 7)}


class Features(NamedTuple):
    """The features of the blocks of a page.

    Attributes:
        columns: A dict from feature name to an array with a number for each block, of shape (blocks,).
        inside: For each block, the groups (bits of filters.html.names) of all its containers.
        nearest: For each block, the groups of the innermost container and its parent.
    """

    columns: dict[str, Column]
    inside: list[int]
    nearest: list[int]


class _Measures(NamedTuple):
    """Measurements of a page, from which features are computed.

    A "letter" is a character. A character of a block in Chinese, Japanese or Korean counts as WIDE_WEIGHT letters.

    Attributes:
        order: The index of each block.
        place: The innermost container of each block.
        parent: The parent of each container. The parent of the root is the root.
        starts: The first block of each container.
        ends: The block after the last one of each container.
        size: The number of characters of each block.
        length: The number of letters of each block.
        linked: The number of letters in links of each block.
        linked_share: `linked` divided by `length`.
        prose: The number of letters outside links of each block that is prose (see PROSE_LENGTH), else 0.
        logarithms: log2(1 + length) and log2(1 + prose), of shape (2, blocks).
        level: The heading level of each block, 0 if it is not a heading.
        sums: The cumulative sums of length, linked and prose, of shape (3, blocks + 1).
        within: The sums of length, linked and prose in each container, of shape (3, containers).
        totals: The sums of length, linked and prose in the page, each at least 1.
    """

    order: Indexes
    place: Indexes
    parent: Indexes
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    size: Column
    length: Column
    linked: Column
    linked_share: Column
    prose: Column
    logarithms: Column
    level: Indexes
    sums: Column
    within: Column
    totals: tuple[float, float, float]


class _Names(NamedTuple):
    """Properties of the containers of a page that follow from their names.

    Attributes:
        own: The groups (bits of filters.html.names) of each container.
        inherited: The groups of each container and its ancestors, without words for boilerplate on large containers.
        marked: The containers with a mark of an article.
        repeats: The number of siblings with the same tag and names, including the container itself: the largest number
            for the container and its ancestors.
        repeated: The container or ancestor with that number of siblings.
        letters: The number of letters of each container and its siblings with the same tag and names, together.
        discussions: The containers whose names suggest comments.
    """

    own: Indexes
    inherited: Indexes
    marked: list[int]
    repeats: list[int]
    repeated: list[int]
    letters: Column
    discussions: list[int]


def describe_blocks(page: Page, title: str) -> Features:
    """Return the features of the blocks of a page with at least one block."""
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
    """Measure the blocks and containers of a page."""
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
    """Return the properties of the containers that follow from their names."""
    parents, letters, own = measures.parent.tolist(), measures.within[0], np.array(page.names, dtype=np.int64)
    kind = number_distinct(zip(page.parents, page.tags, page.names, strict=True))
    wrapper = max(SMALL_LENGTH, min(WRAPPER_SHARE * measures.totals[0], WRAPPER_LENGTH))
    discussion = max(SMALL_LENGTH, DISCUSSION_SHARE * measures.totals[0])
    counted = np.where(letters > wrapper, own & ~_WORDS, own)
    counted = np.where(letters > max(wrapper, discussion), counted & ~BITS["word_comments"], counted).tolist()
    inherited, repeats, repeated = [0] * len(own), [1] * len(own), [0] * len(own)
    siblings = np.bincount(kind)[kind].tolist()
    for place, (up, names, copies, tag) in enumerate(zip(parents, counted, siblings, page.tags, strict=True)):
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
    """Return features of the size of each block: length, links, prose, commas, equal blocks."""
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
    """Return features of punctuation, case, digits and headings, in which comments and teasers differ from articles."""
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
    """Return features of lines with a date or time ("stamps").

    In comments and lists of articles such lines are repeated in containers with the same names.
    """
    count, order, short = len(texts), measures.order, measures.size <= STAMP_LENGTH
    dated = [index for index in np.flatnonzero(short & (digits > 0)).tolist() if _STAMP.search(texts[index])]
    place = measures.place[dated]
    looks = [*zip(names.own[place].tolist(), names.own[measures.parent[place]].tolist(), strict=True)]
    alike, copies = Counter(looks), np.zeros(count)
    copies[dated] = [alike[look] for look in looks]
    repeated = copies >= MIN_STAMPS
    since = order - np.maximum.accumulate(np.where(repeated, order, -MAX_STAMP_DISTANCE))
    until = np.minimum.accumulate(np.where(repeated, order, count + MAX_STAMP_DISTANCE)[::-1])[::-1] - order
    distances = np.minimum(since, MAX_STAMP_DISTANCE), np.minimum(until, MAX_STAMP_DISTANCE)
    logarithms = np.log2(1 + np.array([copies, *distances]))
    return {
        "stamp": (copies > 0).astype(float),
        "stamps_alike": logarithms[0],
        "since_stamp": logarithms[1],
        "until_stamp": logarithms[2],
        "stamps": np.full(count, np.log2(1 + np.count_nonzero(repeated))),
    }


def _describe_comments(names: _Names, measures: _Measures) -> dict[str, Column]:
    """Return which blocks are in a container whose names suggest comments, or after the first of such containers."""
    if not names.discussions:
        return dict.fromkeys(("in_comments", "discussions", "after_comments"), np.zeros(len(measures.order)))
    letters, prose = measures.sums[0], measures.sums[2]
    starts = measures.starts[names.discussions]
    starts = starts[prose[starts] > MIN_PROSE_BEFORE_COMMENTS * measures.totals[2]]
    first = int(starts.min()) if len(starts) else len(measures.order)
    after = np.log2(1 + np.maximum(letters[:-1] - letters[first], 0))
    return {
        "in_comments": _find_depths(names.discussions, measures.parent)[measures.place],
        "discussions": np.full(len(measures.order), np.log2(1 + len(names.discussions))),
        "after_comments": np.where(measures.order >= first, 1 + after, 0),
    }


def _find_depths(discussions: Sequence[int], parents: Indexes) -> Column:
    """Return, for each container, 1 / (1 + its distance in levels to the nearest ancestor with comments), else 0.

    The distance is 0 for the containers in `discussions`.
    """
    depths = [0.0] * len(parents)
    for place in discussions:
        depths[place] = 1.0
    for place, up in enumerate(parents.tolist()):
        if depths[up] and not depths[place]:
            depths[place] = 1 / (1 + 1 / depths[up])
    return np.array(depths)


def _describe_containers(measures: _Measures, names: _Names) -> dict[str, Column]:
    """Return the prose and links of each block's innermost containers, and the repetition of these containers."""
    letters, in_links, in_prose = measures.within
    linked, prose = in_links / np.maximum(letters, 1), in_prose / np.maximum(letters, 1)
    around = [measures.place]
    for _ in range(3):
        around.append(measures.parent[around[-1]])
    repeats, repeated = np.array(names.repeats)[measures.place], np.array(names.repeated)[measures.place]
    together = np.where(repeats >= MIN_REPEATS, names.letters[repeated], 0)
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
    """Return the lengths, links and prose of the blocks before and after each block."""
    count, index = len(measures.order), measures.order
    own = np.zeros((2, count + 2))  # Zeros are the neighbours of the first and last blocks.
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
    """Return the position of each block among the letters, the prose and the headings of the page."""
    letters, in_links, in_prose = measures.totals
    return {
        "position": measures.sums[0][:-1] / letters,
        "prose_before": measures.sums[2][:-1] / in_prose,
        "prose_after": 1 - measures.sums[2][1:] / in_prose,
        "page_linked": np.full(len(measures.order), in_links / letters),
        "headings": np.minimum(np.cumsum((measures.level > 0) & (measures.level <= 3)), 12).astype(float),
    }


def _describe_main(parents: Sequence[int], measures: _Measures) -> dict[str, Column]:
    """Return the position of each block relative to the main container.

    The main container has the most prose in blocks that belong to it directly or to its child containers.
    """
    count, in_prose = len(measures.order), measures.within[2]
    direct = np.bincount(measures.place, measures.prose, len(parents))
    direct = direct + np.bincount(measures.parent, direct, len(parents))
    main = int(direct.argmax())
    chain = [main]
    while chain[-1]:
        chain.append(parents[chain[-1]])
    common = np.full(count, MAX_ANCESTOR_DISTANCE)
    for step in reversed(range(min(len(chain), MAX_ANCESTOR_DISTANCE))):
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
    """Return the similarity of each heading to the title, and the distance of each block before the title's block."""
    at, similar = _find_title(texts, title, measures)
    letters = measures.sums[0]
    before = np.log2(1 + np.maximum(letters[at] - letters[1:], 0)) if at else np.zeros(len(texts))
    return {"title_words": similar, "before_title": before}


def _describe_article(
    tags: Sequence[str], measures: _Measures, junk: Column, plain: Column, article: slice | None
) -> dict[str, Column]:
    """Return the position of each block relative to the marked article, and its number of names for boilerplate.

    Args:
        tags: The tags of all containers.
        measures: The measurements of the page.
        junk: For each block, the number of name groups for boilerplate (_JUNK) among its containers.
        plain: The cumulative number of letters in blocks with `junk` 0, of shape (blocks + 1,).
        article: The blocks of the article, None if no container is marked as the article.
    """
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
    """Return the scores of runs of text blocks in the article, without blocks whose containers suggest boilerplate.

    The score of a block is high for text outside links and low for links. A run is a maximum scoring subsequence
    (Pasternack and Roth, WWW 2009).
    """
    scores = np.minimum(measures.length - LINKED_COST * measures.linked - BLOCK_COST, MAX_SCORE)
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
    """Return which blocks come after a line that announces comments or other articles, and at what distance."""
    short = "\0".join([text if len(text) <= LABEL_LENGTH else "" for text in texts]).lower()
    letters = measures.sums[0][:-1]
    later = measures.sums[2][:-1] > MIN_PROSE_BEFORE_LABEL * measures.totals[2]
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
    """Find the block that repeats the title of the page.

    Returns:
        The index of the block, or of the first h1 heading, or 0; and for each block its similarity to the title, from 0
        to 1. The similarity depends on the number of words in common. It is 0 for blocks that are neither a heading nor
        a part of the title.
    """
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
    """Return the range of blocks of the article, None if there is no container with a mark, or only small ones.

    The marks are tried in the order of _ARTICLES. For each mark the largest container is examined. Its size is measured
    with `plain`, the cumulative number of letters in blocks without names for boilerplate.
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
    """Yield the indexes of the lines that contain a label. The lines are joined by NULs."""
    line, start = 0, 0
    at = lines.find(label)
    while at >= 0:
        line += lines.count("\0", start, at)
        yield line
        start = at
        at = lines.find(label, at + len(label))


def number_distinct(values: Iterable[Hashable]) -> Indexes:
    """Return a number for each value: equal values get equal numbers. Numbers count from 0 in order of appearance."""
    numbers: defaultdict[Hashable, int] = defaultdict(itertools.count().__next__)
    return np.array([*map(numbers.__getitem__, values)], dtype=np.int64)


def _join(texts: Sequence[str]) -> bytes:
    """Return texts as UTF-8, joined by NULs. The texts contain no NULs, because the parser removes them."""
    return "\0".join(texts).encode("utf-8", "surrogatepass")


def _count(wanted: bytes, utf8: bytes) -> list[int]:
    """Return, for each text joined by `_join`, how often any of the ASCII characters `wanted` occurs in it."""
    return [*map(len, utf8.translate(None, _other_bytes(wanted)).split(b"\0"))]


@cache
def _other_bytes(wanted: bytes) -> bytes:
    """Return all bytes except `wanted` and NUL."""
    return bytes(set(range(256)) - set(wanted + b"\0"))


def _count_digits(texts: Sequence[str]) -> list[int]:
    """Return the number of digits, of any script, in the first DIGITS_IN characters of each text."""
    beginnings = [text[:DIGITS_IN] for text in texts]
    utf8 = _join(beginnings)
    if _DIGIT.search(utf8.translate(None, _ASCII).decode("utf-8", "surrogatepass")):
        return [len(digits) for digits in _NO_DIGITS.sub("", "\0".join(beginnings)).split("\0")]
    return _count(b"0123456789", utf8)
