"""references: train a linear classifier of pages that Wikipedia cites (LLaMA section 2.1).

The negative examples are other pages of the same crawl. There are four steps:

- `urls` collects hashes of the URLs that Wikipedia dumps cite.
- `positives` reads archives of cited pages.
- `sample` selects the cited pages of each split, and candidates for negatives by keyed hash.
- `train` selects negatives of the same lengths as the positives, trains, and measures on held-out domains.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.errors import UserError
from filters.formats.stored import open_stored
from filters.formats.stream import Damage
from filters.models import evaluation
from filters.quality import references, urls
from filters.quality.references import References
from filters.reasons import Reason
from filters.rule import Found, page_of
from filters.rule_list import apply_rules
from filters.wikitext.citations import find_cited_urls
from manifests.document import order_key
from manifests.files import canonical_json, write_atomic
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.step import Awaited, Keyed, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import table_writer
from pipeline.sources import common_crawl
from pipeline.sources.inputs import Input
from pipeline.stages.filter import COMPARING, SourceRules, Verdicts, filter_pages, rule_classes, units_for
from pipeline.stages.models import trained_references
from pipeline.stages.perplexity import read_articles

STAGE = "references"
URLS, POSITIVES, SAMPLE, TRAIN = (f"{STAGE}/{step}" for step in ("urls", "positives", "sample", "train"))

# Candidates for negatives per wanted positive. There are more candidates than positives, so that there is a negative of
# similar length for each positive.
CANDIDATES = 4
# Domains per class. If a class has fewer, single pages are held out instead of whole domains (`held_out_by` on the
# card).
MIN_DOMAINS = 20
CARD_PAGES = 20_000  # Pages of the crawl on which the card measures the share that a threshold keeps.
THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)  # Thresholds for which the card has figures.
SAMPLE_SCHEMA = pa.schema(
    [
        ("cited", pa.bool_()),
        ("key", pa.uint64()),  # Keyed hash. Pages are drawn in the order of their keys.
        ("page", pa.uint64()),  # Hash of the normalised URL; 0 if there is none.
        ("domain", pa.string()),
        ("text", pa.large_string()),
    ]
)


def url_step(dumps: Mapping[str, list[Input]]) -> Step:
    """Return the step that collects cited URLs, with a unit per Wikipedia dump.

    Args:
        dumps: Training files by `SOURCE/USE`. Only files of the use `wiki` are read.
    """
    units = [
        Unit(f"{source_of(use)}/{dump.name}", {"path": Keyed(dump.path, dump.key, (dump.version,))}, (), dump.size)
        for use, found in sorted(dumps.items())
        if use.endswith("/wiki")
        for dump in found
    ]
    return Step(URLS, collect_urls, units)


def positives_step(
    recipe: Recipe,
    archives: Mapping[str, list[Input]],
    reading: Mapping[str, Mapping[str, Any]],
    by_source: Mapping[str, Mapping[str, Any]],
) -> Step:
    """Return the step that reads archives of cited pages, with a unit per archive.

    Args:
        recipe: Recipe of the run.
        archives: Training files by `SOURCE/USE`. Only files of the use `positives` are read.
        reading: Arguments of each source for `extract`.
        by_source: Arguments of each source from `rule_arguments`, with the rules before the rule that needs this stage.
    """
    units, arguments = [], {}
    for use, found in sorted(archives.items()):
        if not use.endswith("/positives"):
            continue
        source = source_of(use)
        least, applied = rule_of(recipe, source).min_characters, by_source[source]["applied"]
        # Rules that compare the documents of the crawl with each other have no verdicts about pages of archives.
        rules = [rule for rule in applied.value.rules if rule.needs not in COMPARING]
        applied = Keyed(replace(applied.value, rules=rules), applied.key)
        arguments[source] = {**reading[source], "applied": applied, "min_characters": least}
        calls = rule_classes([*recipe.sources[source].rules_at("extract"), *rules])
        for archive in found:
            path = Keyed(archive.path, archive.key, (archive.version,))
            units.append(Unit(f"{source}/{archive.name}", {"path": path}, (), archive.size, source, calls))
    return Step(POSITIVES, read_positives, units, {"seed": recipe.seed}, arguments)


def sample_step(
    cited: Receipts,
    given: Receipts,
    recipe: Recipe,
    extracted: Receipts,
    by_source: Mapping[str, Mapping[str, Any]],
    verdicts: Verdicts,
) -> Step:
    """Return the step that samples pages, with a unit per split of the sources that train a classifier.

    Args:
        cited: Receipts of `urls`.
        given: Receipts of `positives`.
        recipe: Recipe of the run.
        extracted: Receipts of `extract`, by split.
        by_source: Arguments of each source from `rule_arguments`, with the rules before the rule that needs this stage.
        verdicts: Receipts of the stages that these rules need.
    """
    arguments = {
        source: {
            **by_source[source],
            "dumps": _name_results(cited, source),
            "archives": _name_results(given, source),
            "share": share,
            "least": rule_of(recipe, source).min_characters,
        }
        for source, share in candidate_shares(recipe, extracted).items()
    }
    units = units_for(recipe, STAGE, extracted, verdicts)
    return Step(SAMPLE, sample_pages, units, {"seed": recipe.seed}, arguments)


def train_step(recipe: Recipe, sample: Step, given: Receipts) -> Step:
    """Return the step that trains classifiers, with a unit per source whose pages are sampled.

    `given` has the receipts of `positives`.
    """
    units = []
    for source, splits in sample.names_by_source().items():
        rules, archives = rule_of(recipe, source), _select_source(given, source)
        arguments = {
            "rules": Keyed(rules, rules.key()),
            "splits": splits,
            "archives": list(archives),
            "unread": sum((Counter(receipt.facts["dropped"]) for receipt in archives.values()), Counter[str]()),
            "share": sample.by_source[source]["share"],
        }
        awaits = tuple(Awaited(SAMPLE, split) for split in splits)
        units.append(Unit(source, arguments, list(archives.values()), awaits=awaits))
    return Step(TRAIN, train_classifier, units, {"seed": recipe.seed}, owns=("models/references",))


def candidate_shares(recipe: Recipe, extracted: Receipts) -> dict[str, float]:
    """Return a dict from source to the share of its pages that are candidates, for sources that train a classifier."""
    records = Counter[str]()
    for split, receipt in extracted.items():
        records[source_of(split)] += receipt.output_counts(source_of(split))["records"]
    return {
        name: min(1.0, CANDIDATES * rule_of(recipe, name).max_pages / max(records[name], 1))
        for name, source in sorted(recipe.sources.items())
        if source.rule_for(STAGE)[1] is not None
    }


def rule_of(recipe: Recipe, source: str) -> References:
    """Return the rule of a source that needs this stage."""
    _, rule = recipe.sources[source].rule_for(STAGE)
    assert isinstance(rule, References), "only such sources have units here"
    return rule


def _select_source(receipts: Receipts, source: str) -> Receipts:
    return {name: receipt for name, receipt in sorted(receipts.items()) if source_of(name) == source}


def _name_results(receipts: Receipts, source: str) -> Keyed:
    """Return the names of a source's tasks as an argument. The cache key covers the receipts of the tasks."""
    found = _select_source(receipts, source)
    return Keyed(list(found), list(found.items()))


def collect_urls(corpus: Path, unit: str, *, path: str) -> Result:
    """Write the sorted, distinct hashes (uint64) of the URLs that the articles of a Wikipedia dump cite."""
    cited: set[int] = set()
    facts = {"articles": 0, "references": 0, "damaged": 0}
    for page in read_articles(Path(path)):
        if isinstance(page, Damage):
            facts["damaged"] += 1
            continue
        found = [urls.url_hash(url) for url in find_cited_urls(page.wikitext) if urls.normalise(url)]
        facts["articles"] += 1
        facts["references"] += len(found)
        cited.update(found)
    output = f"blocks/{URLS}/{unit}"
    write_atomic(corpus / output, np.sort(np.fromiter(cited, np.uint64, len(cited))).tobytes())
    return Result([output], {}, facts)


def read_positives(
    corpus: Path,
    unit: str,
    *,
    name: str,
    source: Source,
    applied: SourceRules,
    path: str,
    min_characters: int,
    seed: int,
) -> Result:
    """Write the pages of an archive as cited pages, and count the records that cannot be used, by reason.

    The pages are extracted and filtered like the pages of the crawl. `applied` must not contain rules that compare the
    documents of the crawl with each other.
    """
    found = [Found(None, applied.models.get(rule.needs)) for rule in applied.rules]
    if source.extractor == "wet":  # WET files contain all visible text, so all visible text of the page is extracted.
        source = source.model_copy(update={"extractor": "all"})
    dropped, pages = Counter[str](), 0
    output = f"blocks/{POSITIVES}/{unit}.parquet"
    with open_stored(Path(path)) as stored, table_writer(corpus / output, SAMPLE_SCHEMA) as writer:
        for outcome in common_crawl.read(stored, unit, name, source):
            document = outcome.document
            page = urls.url_hash(document.url) if document else 0
            if document is None or not page:
                dropped[str(outcome.reason or Reason.NOT_HTTP)] += 1
                continue
            filtered = apply_rules(page_of(document.as_row(), applied.language_known), applied.rules, found)
            if filtered.reason is not None or len(filtered.text) < min_characters:
                dropped[str(filtered.reason or Reason.TOO_SHORT)] += 1
                continue
            key = order_key(seed, "references/positives", page.to_bytes(8, "big") + filtered.text.encode("utf-8"))
            domain = urls.domain(document.url)
            writer.append({"cited": True, "key": key, "page": page, "domain": domain, "text": filtered.text})
            pages += 1
    return Result([output], {}, {"pages": pages, "dropped": dict(sorted(dropped.items()))})


def sample_pages(
    corpus: Path,
    split: str,
    *,
    applied: SourceRules,
    seed: int,
    dumps: list[str],
    archives: list[str],
    share: float,
    least: int,
) -> Result:
    """Write the cited pages of a split, and candidates for negatives, after the earlier rules have edited them.

    Args:
        corpus: Folder of the corpus.
        split: Name of the split.
        applied: Rules before the rule that needs this stage.
        seed: Seed of the keyed hash.
        dumps: Names of the units of `urls`.
        archives: Names of the units of `positives`.
        share: Share of the pages that are candidates.
        least: Minimum length of a cited page, in characters.
    """
    limit, counts = int(share * 2**64), {"cited": 0, "others": 0}
    cited = [np.fromfile(corpus / f"blocks/{URLS}/{dump}", np.uint64) for dump in dumps]
    cited.append(np.sort(_read_pages(corpus, POSITIVES, archives, ["page"]).column("page").to_numpy()))
    path = f"blocks/{SAMPLE}/{split}.parquet"
    with table_writer(corpus / path, SAMPLE_SCHEMA) as writer:
        for row, found in filter_pages(corpus, split, applied):
            if found.reason is not None:
                continue
            key = order_key(seed, "references/sample", row["id"])
            page = urls.url_hash(row["url"])
            is_cited = bool(page) and _is_among(page, cited)
            if (not is_cited and key >= limit) or (is_cited and len(found.text) < least):
                continue
            counts["cited" if is_cited else "others"] += 1
            domain = urls.domain(row["url"])
            writer.append({"cited": is_cited, "key": key, "page": page, "domain": domain, "text": found.text})
    return Result([path], {}, counts)


def train_classifier(
    corpus: Path,
    source: str,
    *,
    rules: References,
    splits: list[str],
    archives: list[str],
    unread: Mapping[str, int],
    share: float,
    seed: int,
) -> Result:
    """Train the classifier of a source, and write the model and its card.

    Args:
        corpus: Folder of the corpus.
        source: Name of the source.
        rules: Rule of the source, with the settings of the training.
        splits: Splits whose pages were sampled.
        archives: Names of the units of `positives`.
        unread: Number of records of the archives that could not be used, by reason.
        share: Share of the pages of the crawl that were candidates.
        seed: Seed of the training, and of the selection of held-out pages.

    Raises:
        UserError: There are too few cited pages.
    """
    table, archived = _read_pages(corpus, SAMPLE, splits), _read_pages(corpus, POSITIVES, archives)
    given, in_both = _drop_crawled(archived, table)
    found = {
        "found_in_crawl": pc.sum(table.column("cited"), min_count=0).as_py(),
        "given": len(given) + in_both,
        "in_both": in_both,
        "repeated": len(archived) - len(given) - in_both,
        "unread": dict(unread),
    }
    positives, negatives, matched = _choose_pages(_sort_pages(pa.concat_tables([table, given])), rules, source, found)
    fewest = min(len(set(part.column("domain").to_pylist())) for part in (positives, negatives))
    unit = "domain" if fewest >= MIN_DOMAINS else "page"
    trained, tested = zip(*(_divide(part, unit, seed, rules.held_out) for part in (positives, negatives)), strict=True)
    if not all([*trained, *tested]):
        raise UserError(
            f"source {source}: too few pages to train on one part and measure on another: "
            "change references.held_out or give more of the crawl"
        )
    model_path, card_path = trained_references(source), f"models/references/{source}.card.json"
    made = references.train(trained[0], trained[1], rules.dimension, rules.epochs, rules.learning_rate, seed)
    write_atomic(corpus / model_path, made)
    score = references.load(str(corpus / model_path)).score
    facts = {
        **_make_card(score, trained, tested, _draw_plain_sample(table, share), rules),
        "positives": found,
        "held_out_by": unit,
        "negatives": {"wanted": matched.wanted, "length_bins": matched.bins, "short_bins": matched.short_bins},
    }
    write_atomic(corpus / card_path, canonical_json(facts))
    return Result([model_path, card_path], {}, facts)


def _make_card(
    score: Callable[[str], float],
    trained: Sequence[list[str]],
    tested: Sequence[list[str]],
    crawl: list[str],
    rules: References,
) -> dict[str, Any]:
    """Measure a model on held-out positives and negatives (`tested`), and on a plain sample of the crawl."""
    return evaluation.card(
        np.repeat([True, False], [len(texts) for texts in tested]),
        np.array([score(text) for texts in tested for text in texts]),
        np.array([score(text) for text in crawl]),
        np.array([len(text) for text in crawl], np.int64),
        sorted({*THRESHOLDS, rules.threshold}),
        dict(zip(("positives", "negatives"), map(len, trained), strict=True)),
        rules.key(),
    )


def _read_pages(corpus: Path, step: str, units: list[str], columns: list[str] | None = None) -> pa.Table:
    """Read the pages that a step wrote for `units`, sorted by key; not sorted if only some columns are read."""
    tables = [pq.read_table(corpus / f"blocks/{step}/{unit}.parquet", columns=columns) for unit in units]
    empty = SAMPLE_SCHEMA.empty_table()
    table = pa.concat_tables([empty if columns is None else empty.select(columns), *tables])
    return _sort_pages(table) if columns is None else table


def _sort_pages(table: pa.Table) -> pa.Table:
    return table.sort_by([("key", "ascending"), ("text", "ascending")])


def _drop_crawled(given: pa.Table, crawl: pa.Table) -> tuple[pa.Table, int]:
    """Remove repeated pages from the archives, and pages that were also found in the crawl.

    Returns:
        The remaining pages of the archives, and the number of distinct pages that were also cited pages of the crawl.
    """
    pages, first = np.unique(given.column("page").to_numpy(), return_index=True)
    known = np.isin(pages, crawl.filter(crawl.column("cited")).column("page").to_numpy())
    return given.take(pa.array(np.sort(first[~known]))), int(known.sum())


def _draw_plain_sample(table: pa.Table, share: float) -> list[str]:
    """Return texts of the crawl that are selected by their keys alone, whether they are cited or not.

    So the proportion of cited pages is the same as in the crawl that the classifier will filter.
    """
    keys = table.column("key").to_numpy()
    drawn = table.filter(pa.array(keys < np.uint64(min(int(share * 2**64), 2**64 - 1))))
    texts: list[str] = drawn.slice(0, CARD_PAGES).column("text").to_pylist()
    return texts


def _choose_pages(
    table: pa.Table, rules: References, source: str, found: Mapping[str, Any]
) -> tuple[pa.Table, pa.Table, evaluation.Matched]:
    """Select positives, and negatives of the same lengths.

    Args:
        table: All sampled pages, sorted by key.
        rules: Settings of the training.
        source: Name of the source, for messages.
        found: Counts of cited pages, for messages.

    Returns:
        The positives, the negatives, and the result of matching the lengths.

    Raises:
        UserError: There are fewer cited pages than `rules.min_positives`.
    """
    cited = table.column("cited").to_numpy()
    positives, others = table.filter(pa.array(cited)), table.filter(pa.array(~cited))
    if len(positives) < rules.min_positives:
        raise UserError(
            f"source {source}: {len(positives)} cited pages ({found['found_in_crawl']} found in the crawl, "
            f"{found['given']} given), but references.min_positives is {rules.min_positives}: give more of the "
            "crawl, more dumps under wiki or more archives under positives, or lower references.min_positives"
        )
    positives = positives.slice(0, rules.max_pages)
    lengths = [np.array([len(text) for text in part.column("text").to_pylist()], np.int64)
               for part in (positives, others)]  # fmt: skip
    matched = evaluation.length_matched(lengths[0], lengths[1], others.column("key").to_numpy())
    return positives, others.take(pa.array(matched.places)), matched


def _is_among(value: int, cited: list[npt.NDArray[np.uint64]]) -> bool:
    """Return True if one of the sorted arrays contains a value."""
    wanted = np.uint64(value)
    return any(np.searchsorted(hashes, wanted) < np.searchsorted(hashes, wanted, "right") for hashes in cited)


def _divide(part: pa.Table, unit: str, seed: int, share: float) -> tuple[list[str], list[str]]:
    """Divide pages by keyed hash into texts to train on and texts to measure on.

    If `unit` is "domain", all pages of a domain are on the same side, so that the model is measured on sites that it
    was not trained on. If it is "page", each page is assigned separately. `share` is the share to measure on.
    """
    column = part.column("domain" if unit == "domain" else "key").to_pylist()
    names = [name.encode("utf-8") if isinstance(name, str) else name.to_bytes(8, "big") for name in column]
    sides: tuple[list[str], list[str]] = ([], [])
    for name, text in zip(names, part.column("text").to_pylist(), strict=True):
        sides[order_key(seed, "references/train", name) < int(share * 2**64)].append(text)
    return sides
