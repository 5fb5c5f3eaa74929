"""filter: documents -> those that pass their source's filters, with signals, and signatures for `neardup`.

Duplicate lines go first, since boilerplate misleads every model after them (CCNet, section 3.1); then language, the
page rules of C4, perplexity and likeness to Wikipedia's references, each on the text that would stay. Where a source
compares the lines that C4's page rules leave, these come first, and sentences are counted again after duplicate lines;
bad words come after language, as in C4's builder.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.dedup.minhash import MinHash
from filters.dedup.paragraphs import remove_lines
from filters.errors import UserError
from filters.quality import language, perplexity, references
from filters.quality.c4 import Removed, clean, has_bad_word, has_enough_sentences, read_bad_words
from filters.quality.perplexity import Perplexity
from filters.reasons import Reason
from manifests.document import CLEAN_SCHEMA, DOCUMENT_SCHEMA, content_hash
from manifests.ledger import Tally
from manifests.recipe import Recipe
from manifests.source import PATHS, Source
from pipeline.beam.tables import read_ipc, read_rows, table_writer
from pipeline.beam.task import Keyed, Receipt, Receipts, Result, Step, Unit, source_of
from pipeline.stages.line_dedup import page_rules, read_masks
from pipeline.stages.neardup import SignatureRows, signature_path, signed_by

STEP = "filter"
OWNED = ("clean", "dropped", "blocks/signatures")
DROPPED_SCHEMA = pa.schema([("reason", pa.string()), *DOCUMENT_SCHEMA])
SIGNALS = ("language", "language_score", "perplexity", "bucket", "reference_score")
PIECES, NGRAMS = ("sp.model",), ("arpa.bin", "arpa")  # endings of a language model's two files, as CCNet names them

Cuts = tuple[float, float]  # perplexities below which head ends and from which tail begins


@dataclass(frozen=True)
class Models:
    """The places of a source's models, given or trained.

    Attributes:
        language: path of the language identification model.
        perplexity: by language, the paths of pieces and n-grams.
        cuts: by language; None while buckets are not known.
        references: path of the reference classifier.
    """

    language: str = ""
    perplexity: dict[str, tuple[str, str]] = field(default_factory=dict)
    cuts: dict[str, Cuts] | None = None
    references: str = ""


@dataclass(frozen=True, slots=True)
class FilterResult:
    """A document after the filters.

    Attributes:
        text: what stays of it, empty if it was dropped.
        reason: why it was dropped.
        signals: as far as they were taken.
        removed: what was taken out of the text, by reason.
    """

    text: str
    reason: Reason | None = None
    signals: dict[str, Any] = field(default_factory=dict)
    removed: dict[Reason, Removed] = field(default_factory=dict)


def filter_step(
    recipe: Recipe,
    extracted: Receipts,
    by_source: Mapping[str, Mapping[str, Any]],
    verdicts: "Verdicts",
    keep_dropped: int,
) -> Step:
    """Return the step with a unit per split of `extract`.

    Args:
        recipe: the run's.
        extracted: receipts of documents by split.
        by_source: from `rules_by_source`.
        verdicts: receipts of verdicts and scores by split.
        keep_dropped: documents per reason and split that are kept for people to look at.
    """
    units = [
        Unit(split, {}, [receipt, *verdicts.of(split)], receipt.bytes, source_of(split))
        for split, receipt in extracted.items()
    ]
    arguments = {name: {**rules, "minhash": signed_by(recipe, name)} for name, rules in by_source.items()}
    return Step(STEP, filter_documents, units, {"keep_dropped": keep_dropped}, arguments, OWNED)


@dataclass(frozen=True)
class Verdicts:
    """The receipts of verdicts and scores that the filters read beside the documents, by split."""

    older: Receipts = field(default_factory=dict)
    lines: Receipts = field(default_factory=dict)
    scores: Receipts = field(default_factory=dict)

    def of(self, split: str) -> list[Receipt]:
        """Return the receipts of one split."""
        return [found[split] for found in (self.older, self.lines, self.scores) if split in found]


def rules_by_source(
    recipe: Recipe, models: Mapping[str, Models], given: Mapping[str, str], trained: Mapping[str, list[Receipt]]
) -> dict[str, dict[str, Any]]:
    """Return, by source, the arguments of all functions that apply its filters: name, rules and models.

    Args:
        recipe: the run's.
        models: by source.
        given: hashes of the models and lists that the recipe gives by path, by source and use.
        trained: receipts of what the run has trained, by source.
    """
    found = {}
    for name, source in recipe.sources.items():
        key = [rules_of(source), {use: sha for use, sha in given.items() if use.startswith(f"{name}.")}]
        found[name] = {
            "name": name,
            "source": Keyed(source, [*key, trained.get(name, [])]),
            "models": Keyed(models[name]),
        }
    return found


def rules_of(source: Source) -> dict[str, Any]:
    """Return the part of a source's recipe that its filters depend on, without paths: those files count by hash."""
    plain = source.model_dump(include={"lines", "language", "c4", "perplexity", "references", "newest_per_url"})
    for part, keys in PATHS.items():
        for key in keys if plain[part] is not None else ():
            del plain[part][key]
    if plain["perplexity"] is not None:
        del plain["perplexity"]["train"]  # what was trained counts by its hash
    return plain


def filter_documents(
    corpus: Path,
    split: str,
    *,
    name: str,
    source: Source,
    models: Models,
    minhash: MinHash | None,
    keep_dropped: int,
) -> Result:
    """Filter one split."""
    kept, dropped = f"clean/{split}.parquet", f"dropped/{split}.parquet"
    tally, signatures = Tally(), SignatureRows(minhash)
    samples: list[dict[str, Any]] = []  # the first dropped documents of each reason
    counts = Counter[Reason]()
    with table_writer(corpus / kept, CLEAN_SCHEMA) as writer:
        for row, lines, score in read_with_verdicts(corpus, split, source):
            found = apply_filters(row["text"], source, models, lines, score)
            tally.enter(records=1, characters=len(row["text"]))
            if found.reason is not None:
                tally.drop(found.reason, records=1, characters=len(row["text"]))
                counts[found.reason] += 1
                if counts[found.reason] <= keep_dropped:
                    samples.append({"reason": found.reason.value, **row})
                continue
            tally.keep(records=1, characters=len(found.text))
            for reason, removed in found.removed.items():
                tally.remove(reason, lines=removed.lines, characters=removed.characters)
            digest = content_hash(found.text)
            signals = dict(zip(SIGNALS, map(found.signals.get, SIGNALS), strict=True))
            writer.append({**row, "text": found.text, "content_hash": digest, **signals})
            signatures.append(row["id"], digest, found.text, row["timestamp"], found.signals.get("reference_score"))
    signatures.write(corpus / signature_path(split))
    paths = [kept, signature_path(split)]
    if samples:
        with table_writer(corpus / dropped, DROPPED_SCHEMA) as writer:
            for sample in samples:
                writer.append(sample)
        paths.append(dropped)
    return Result(paths, {name: tally})


def read_with_verdicts(
    corpus: Path, split: str, source: Source, columns: list[str] | None = None, scored: bool = True
) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.bool_] | None, float | None]]:
    """Yield each document of a split with the mask of its removed lines and its perplexity, for `apply_filters`.

    Args:
        corpus: the corpus.
        split: of `extract`.
        source: its rules.
        columns: of the documents; all by default.
        scored: False while perplexities are still to be taken.
    """
    scores: Iterator[float | None] = itertools.repeat(None)
    if scored and source.perplexity is not None and source.perplexity.cutoffs is None:
        scores = iter(read_ipc(corpus / score_path(split)).column("perplexity").to_pylist())
    rows = read_rows(corpus / f"documents/{split}.parquet", columns)
    return zip(rows, read_masks(corpus, split, source), scores, strict=False)


def score_path(split: str) -> str:
    """Return the path of a split's perplexities, below the corpus."""
    return f"blocks/perplexity/score/{split}.arrow"


def apply_filters(
    text: str, source: Source, models: Models, lines: npt.NDArray[np.bool_] | None = None, score: float | None = None
) -> FilterResult:
    """Pass one text through its source's filters.

    Args:
        text: as extracted.
        source: its rules.
        models: of the source.
        lines: which of its lines (of `lines_text`) are removed; of no length for an older copy.
        score: its perplexity, where it is known already.
    """
    removed: dict[Reason, Removed] = {}
    signals: dict[str, Any] = {}
    if lines is not None and not len(lines):
        return FilterResult("", Reason.OLDER_COPY)
    pages_first = page_rules(source)
    if pages_first is not None:
        cleaned = clean(text, pages_first)
        if cleaned.reason is not None:
            return FilterResult("", cleaned.reason)
        text = cleaned.text
        removed |= cleaned.removed
    if lines is not None and lines.any():
        left = remove_lines(text, lines)
        removed[Reason.DUPLICATE_LINE] = Removed(int(lines.sum()), len(text) - len(left))
        text = left
        if not text:
            return FilterResult("", Reason.ONLY_DUPLICATE_LINES)
        if pages_first is not None and not has_enough_sentences(text.split("\n"), pages_first):
            return FilterResult("", Reason.C4_TOO_FEW_SENTENCES)
    if source.language is not None:
        name, probability = language.load(models.language).top(text, source.language.characters)
        signals = {"language": name, "language_score": probability}
        if name not in source.language.keep:
            return FilterResult("", Reason.LANGUAGE, signals)
        if probability < source.language.threshold:
            return FilterResult("", Reason.LANGUAGE_UNSURE, signals)
    if source.c4 is not None and pages_first is not None:
        if has_bad_word(text, read_bad_words(source.c4.bad_words)):
            return FilterResult("", Reason.C4_BAD_WORD, signals)
    elif source.c4 is not None:
        cleaned = clean(text, source.c4, read_bad_words(source.c4.bad_words))
        if cleaned.reason is not None:
            return FilterResult("", cleaned.reason, signals)
        text = cleaned.text
        removed |= cleaned.removed
    if source.perplexity is not None:
        signals |= _perplexity(text, signals.get("language", ""), source.perplexity, models, score)
        if models.cuts is not None and signals["bucket"] not in source.perplexity.keep:
            return FilterResult("", Reason.PERPLEXITY, signals)
    if source.references is not None:
        signals["reference_score"] = references.load(models.references).score(text)
        if signals["reference_score"] < source.references.threshold:
            return FilterResult("", Reason.NOT_REFERENCE_LIKE, signals)
    return FilterResult(text, None, signals, removed)


def lines_text(text: str, source: Source) -> str:
    """Return the text whose lines are compared: as extracted, or what C4's page rules leave, empty if they drop it."""
    rules = page_rules(source)
    return text if rules is None else clean(text, rules).text


def _perplexity(text: str, name: str, rules: Perplexity, models: Models, score: float | None) -> dict[str, Any]:
    """Return a text's perplexity and bucket: "all" in a language that has no model."""
    if name not in models.perplexity:
        return {"perplexity": None, "bucket": "all"}
    if score is None:
        score = perplexity.load_scorer(*models.perplexity[name], rules.unit).perplexity(text)
    if models.cuts is None:
        return {"perplexity": score, "bucket": None}
    if name not in models.cuts:
        return {"perplexity": score, "bucket": "all"}
    return {"perplexity": score, "bucket": perplexity.bucket(score, *models.cuts[name])}


def models_of(name: str, source: Source, corpus: Path, cuts: dict[str, Cuts] | None) -> Models:
    """Return the places of a source's models. `cuts`: of this crawl, where the recipe gives none."""
    rules = source.perplexity
    trained: dict[str, tuple[str, str]] = {}
    if rules is not None and rules.models is not None:
        trained = given_language_models(name, source)
    elif rules is not None:
        trained = {code: trained_language_model(corpus, name, code) for code in sorted(rules.train)}
    if rules is not None and rules.cutoffs is not None:
        cuts = given_cuts(rules)
    classifier = ""
    if source.references is not None:
        classifier = source.references.model or str(corpus / trained_references(name))
    return Models(language_path(source) if source.language else "", trained, cuts, classifier)


def language_path(source: Source) -> str:
    """Return the path of the language identification model that a source names, or of the packaged one."""
    return (source.language and source.language.model) or str(language.bundled_model_path())


def trained_language_model(corpus: Path, source: str, code: str) -> tuple[str, str]:
    """Return the paths of pieces and n-grams of a language model that the run trains."""
    folder = corpus / "models/perplexity" / source
    return str(folder / f"{code}.sp.model"), str(folder / f"{code}.arpa")


def trained_references(source: str) -> str:
    """Return the path of the reference classifier that the run trains, below the corpus."""
    return f"models/references/{source}.bin"


def given_language_models(name: str, source: Source) -> dict[str, tuple[str, str]]:
    """Return, by language, the two files of each model in the folder that the recipe names.

    Raises:
        UserError: the folder has none for any language that the source keeps.
    """
    if source.perplexity is None or source.perplexity.models is None:
        return {}
    folder = Path(source.perplexity.models)
    wanted = source.language.keep if source.language else []
    found = {}
    for code in wanted:
        files = [
            [str(path) for end in ends if (path := folder / f"{code}.{end}").is_file()] for ends in (PIECES, NGRAMS)
        ]
        if all(files):
            found[code] = (files[0][0], files[1][0])
    if not found:
        raise UserError(
            f"source {name}: {folder} holds no language model for {' or '.join(wanted) or 'any kept language'}: "
            "it must hold LANGUAGE.sp.model and LANGUAGE.arpa.bin (or .arpa)"
        )
    return found


def given_cuts(rules: Perplexity) -> dict[str, Cuts]:
    """Return, by language, the recipe's two percentiles in the file of cut-offs that it names."""
    assert rules.cutoffs is not None
    return perplexity.load_cutoffs(Path(rules.cutoffs), rules.head, rules.tail)
