"""What a document must pass to stay: its source's filters in order, from the text as extracted to the text as kept.

Duplicate lines go first, since boilerplate misleads every model after them (CCNet, section 3.1); then language, the
page rules of C4, perplexity and likeness to Wikipedia's references, each on the text that would stay. Where a source
compares the lines that C4's page rules leave, these come first, and sentences are counted again after duplicate lines;
bad words come after language, as in C4's builder.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.dedup.paragraphs import remove_lines
from filters.quality import language, perplexity, references
from filters.quality.c4 import Removed, clean, has_bad_word, has_enough_sentences, read_bad_words
from filters.reasons import Reason
from manifests.source import Source
from pipeline.stages.line_hashes import page_rules

Cuts = tuple[float, float]


@dataclass(frozen=True)
class Models:
    """Where the models of a source lie, given or trained. `perplexity`: by language, the paths of pieces and n-grams;
    `cuts`: by language, below what head ends and from what tail begins, none where buckets are not known yet."""

    language: str = ""
    perplexity: dict[str, tuple[str, str]] = field(default_factory=dict)
    cuts: dict[str, Cuts] | None = None
    references: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A document after the filters: the text that stays, or the reason why none does; its signals as far as they were
    taken (None where not); and what was taken out of the text."""

    text: str
    reason: Reason | None = None
    signals: dict[str, Any] = field(default_factory=dict)
    removed: dict[Reason, Removed] = field(default_factory=dict)


def judge(
    text: str, source: Source, models: Models, lines: npt.NDArray[np.bool_] | None = None, score: float | None = None
) -> Judged:
    """Pass one text through its source's filters. `lines`: which of its lines (of the `lined` text) are
    duplicates, no line at all for an older copy; `score`: its perplexity, where it is known already."""
    removed: dict[Reason, Removed] = {}
    signals: dict[str, Any] = {}
    if lines is not None and not len(lines):
        return Judged("", Reason.OLDER_COPY)
    pages_first = page_rules(source)
    if pages_first is not None:
        cleaned = clean(text, pages_first)
        if cleaned.reason is not None:
            return Judged("", cleaned.reason)
        text = cleaned.text
        removed |= cleaned.removed
    if lines is not None and lines.any():
        left = remove_lines(text, lines)
        removed[Reason.DUPLICATE_LINE] = Removed(int(lines.sum()), len(text) - len(left))
        text = left
        if not text:
            return Judged("", Reason.ONLY_DUPLICATE_LINES)
        if pages_first is not None and not has_enough_sentences(text.split("\n"), pages_first):
            return Judged("", Reason.C4_TOO_FEW_SENTENCES)
    if source.language is not None:
        name, probability = language.load(models.language).top(text, source.language.characters)
        signals = {"language": name, "language_score": probability}
        if name not in source.language.keep:
            return Judged("", Reason.LANGUAGE, signals)
        if probability < source.language.threshold:
            return Judged("", Reason.LANGUAGE_UNSURE, signals)
    if source.c4 is not None and pages_first is not None:
        if has_bad_word(text, read_bad_words(source.c4.bad_words)):
            return Judged("", Reason.C4_BAD_WORD, signals)
    elif source.c4 is not None:
        cleaned = clean(text, source.c4, read_bad_words(source.c4.bad_words))
        if cleaned.reason is not None:
            return Judged("", cleaned.reason, signals)
        text = cleaned.text
        removed |= cleaned.removed
    if source.perplexity is not None:
        name = signals.get("language", "")
        signals |= _perplexity(text, name, source, models, score)
        if models.cuts is not None and signals["bucket"] not in source.perplexity.keep:
            return Judged("", Reason.PERPLEXITY, signals)
    if source.references is not None:
        signals["reference_score"] = references.load(models.references).score(text)
        if signals["reference_score"] < source.references.threshold:
            return Judged("", Reason.NOT_REFERENCE_LIKE, signals)
    return Judged(text, None, signals, removed)


def lined(text: str, source: Source) -> str:
    """The text that verdicts on lines are about: as extracted, or as C4's page rules leave it; empty where they drop
    it."""
    rules = page_rules(source)
    return text if rules is None else clean(text, rules).text


def _perplexity(text: str, name: str, source: Source, models: Models, score: float | None) -> dict[str, Any]:
    """A text's perplexity and bucket: "all" in a language that has no model."""
    assert source.perplexity is not None
    if name not in models.perplexity:
        return {"perplexity": None, "bucket": "all"}
    if score is None:
        score = perplexity.load_scorer(*models.perplexity[name], source.perplexity.unit).perplexity(text)
    if models.cuts is None:
        return {"perplexity": score, "bucket": None}
    if name not in models.cuts:
        return {"perplexity": score, "bucket": "all"}
    return {"perplexity": score, "bucket": perplexity.bucket(score, *models.cuts[name])}
