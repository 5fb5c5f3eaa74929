"""references: a linear model of pages that Wikipedia cites (LLaMA section 2.1), trained on this very crawl.

Three steps: `urls` collects what the dumps cite as hashes of normalised URLs; `sample` takes the cited pages of each
split and candidates for the others, drawn by keyed hash; `train` matches lengths, trains, and measures on domains held
out.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.errors import UserError
from filters.formats.stream import Damage
from filters.models import evaluation
from filters.quality import references, urls
from filters.quality.references import References
from filters.quality.references import train as train_fasttext
from filters.wikitext.citations import find_cited_urls
from manifests.document import order_key
from manifests.files import atomic_path, canonical_json, sha256_json, write_atomic
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.fingerprint import code_version
from pipeline.beam.tables import read_rows, table_writer
from pipeline.beam.task import Receipt, Result, Task
from pipeline.sources.inputs import Input
from pipeline.stages import line_dedup as lines
from pipeline.stages import perplexity
from pipeline.stages.judge import Models, judge
from pipeline.stages.models import trained_references
from pipeline.stages.texts import articles

STAGE = "references"
URLS, SAMPLE, TRAIN = (f"{STAGE}/{step}" for step in ("urls", "sample", "train"))
OWNED = {URLS: (f"blocks/{URLS}",), SAMPLE: (f"blocks/{SAMPLE}",), TRAIN: ("models/references",)}

CANDIDATES = 4
"""candidate negatives a positive that is wanted at most, so that every length finds its match"""
MIN_DOMAINS = 20
"""of each class, to hold out whole domains; where there are fewer, pages are held out singly, and the card says so"""
CARD_PAGES = 20_000
"""drawn from the crawl, to measure how much a threshold keeps"""
THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""of the card's sweep"""
SAMPLE_SCHEMA = pa.schema(
    [("cited", pa.bool_()), ("key", pa.uint64()), ("domain", pa.string()), ("text", pa.large_string())]
)


def url_tasks(recipe: Recipe, dumps: dict[str, list[Input]]) -> list[Task]:
    """One task a dump. `dumps`: by source."""
    code = code_version(__name__)
    return [
        Task(URLS, f"{source}/{dump.name}", sha256_json([code, dump.sha256]), dump.size, {"path": dump.path})
        for source, found in sorted(dumps.items())
        for dump in found
    ]


def collect(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """The hashes of all URLs that a dump's articles cite, sorted, each once."""
    cited: set[int] = set()
    facts = {"articles": 0, "references": 0, "damaged": 0}
    for page in articles(Path(task.arguments["path"])):
        if isinstance(page, Damage):
            facts["damaged"] += 1
            continue
        found = [urls.url_hash(url) for url in find_cited_urls(page.wikitext) if urls.normalise(url)]
        facts["articles"] += 1
        facts["references"] += len(found)
        cited.update(found)
    path = f"blocks/{URLS}/{task.name}"
    with atomic_path(corpus / path) as temporary:
        temporary.write_bytes(np.sort(np.fromiter(cited, np.uint64, len(cited))).tobytes())
    return Result([path], {}, facts)


def sample_tasks(
    recipe: Recipe, extracted: dict[str, Receipt], cited: dict[str, Receipt], judged: dict[str, str]
) -> list[Task]:
    """One task a split of the sources that train. `judged`: by split, what its documents' texts depend on."""
    code, made = code_version(__name__), []
    records: dict[str, int] = {}
    for split, receipt in extracted.items():
        source = split.partition("/")[0]
        records[source] = records.get(source, 0) + receipt.tallies[source].out["records"]
    for split, receipt in sorted(extracted.items()):
        source = split.partition("/")[0]
        rules = recipe.sources[source].references
        if rules is None or not rules.wiki:
            continue
        share = min(1.0, CANDIDATES * rules.max_pages / max(records[source], 1))
        dumps = [name for name in sorted(cited) if name.startswith(f"{source}/")]
        arguments = {"source": source, "share": share, "dumps": dumps}
        shas = [cited[name].sha() for name in dumps]
        fingerprint = sha256_json([code, recipe.seed, arguments, shas, judged[split], receipt.sha()])
        size = sum(output.bytes for output in receipt.outputs)
        made.append(Task(SAMPLE, split, fingerprint, size, arguments))
    return made


def sample(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """A split's cited pages and candidate negatives, as the filters before this one leave them. `settings`: `seed`,
    `sources`, and `models` by source."""
    name, limit = task.arguments["source"], int(task.arguments["share"] * 2**64)
    source = Source.model_validate(settings["sources"][name])
    assert source.references is not None
    before: Models = settings["models"][name]
    cited = [np.fromfile(corpus / f"blocks/{URLS}/{dump}", np.uint64) for dump in task.arguments["dumps"]]
    path, counts = f"blocks/{SAMPLE}/{task.name}.parquet", {"cited": 0, "others": 0}
    unjudged = source.model_copy(update={"references": None})
    rows = read_rows(corpus / f"documents/{task.name}.parquet", ["id", "url", "text"])
    masks, scores = lines.masks(corpus, task.name, source), perplexity.scores(corpus, task.name, source)
    with table_writer(corpus / path, SAMPLE_SCHEMA) as writer:
        for row, mask, score in zip(rows, masks, scores, strict=False):
            key = order_key(settings["seed"], SAMPLE, row["id"])
            is_cited = bool(urls.normalise(row["url"])) and _among(urls.url_hash(row["url"]), cited)
            if not is_cited and key >= limit:
                continue
            judged = judge(row["text"], unjudged, before, mask, score)
            if judged.reason is not None or (is_cited and len(judged.text) < source.references.min_characters):
                continue
            counts["cited" if is_cited else "others"] += 1
            writer.append({"cited": is_cited, "key": key, "domain": urls.domain(row["url"]), "text": judged.text})
    return Result([path], {}, counts)


def train_tasks(recipe: Recipe, samples: list[Task], sampled: dict[str, Receipt]) -> list[Task]:
    """One task a source."""
    made = []
    shares = {task.arguments["source"]: task.arguments["share"] for task in samples}
    for source in sorted({split.partition("/")[0] for split in sampled}):
        splits = [split for split in sorted(sampled) if split.startswith(f"{source}/")]
        rules = recipe.sources[source].references
        assert rules is not None
        settings = rules.model_dump(exclude={"wiki", "model"})
        shas = [(split, sampled[split].sha()) for split in splits]
        fingerprint = sha256_json([code_version(__name__), recipe.seed, settings, shas])
        made.append(Task(TRAIN, source, fingerprint, 0, {"splits": splits, "share": shares[source]}))
    return made


def train(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Train a source's classifier and write its card. Raises UserError where too few pages of the crawl are cited."""
    rules = Source.model_validate(settings["sources"][task.name]).references
    assert rules is not None
    table = pa.concat_tables(
        [SAMPLE_SCHEMA.empty_table()]
        + [pq.read_table(corpus / f"blocks/{SAMPLE}/{split}.parquet") for split in task.arguments["splits"]]
    ).sort_by([("key", "ascending"), ("text", "ascending")])
    positives, negatives, matched = _chosen(table, rules, task.name)
    model_path, card_path = trained_references(task.name), f"models/references/{task.name}.card.json"
    seed = settings["seed"]
    fewest = min(len(set(part.column("domain").to_pylist())) for part in (positives, negatives))
    unit = "domain" if fewest >= MIN_DOMAINS else "page"
    held = [_held_out(part, unit, seed, rules.held_out) for part in (positives, negatives)]
    texts = [part.column("text").to_pylist() for part in (positives, negatives)]
    trained = [[text for text, out in zip(t, h, strict=True) if not out] for t, h in zip(texts, held, strict=True)]
    tested = [[text for text, out in zip(t, h, strict=True) if out] for t, h in zip(texts, held, strict=True)]
    if not trained[0] or not trained[1] or not tested[0] or not tested[1]:
        raise UserError(
            f"source {task.name}: too few pages to train on some and measure on others: "
            "change references.held_out or give more of the crawl"
        )
    made = train_fasttext(trained[0], trained[1], rules.dimension, rules.epochs, rules.learning_rate, seed)
    write_atomic(corpus / model_path, made)
    model = references.load(str(corpus / model_path))
    scores = np.array([model.score(text) for part in tested for text in part])
    labels = np.r_[np.ones(len(tested[0]), bool), np.zeros(len(tested[1]), bool)]
    crawl = _plain_sample(table, task.arguments["share"])
    crawl_scores = np.array([model.score(text) for text in crawl])
    crawl_sizes = np.array([len(text) for text in crawl], np.int64)
    thresholds = sorted({*THRESHOLDS, rules.threshold})
    counts = {"positives": len(trained[0]), "negatives": len(trained[1])}
    plain = rules.model_dump(exclude={"wiki", "model"})
    facts = {
        **evaluation.card(labels, scores, crawl_scores, crawl_sizes, thresholds, counts, plain),
        "held_out_by": unit,
        "negatives": {"wanted": matched.wanted, "length_bins": matched.bins, "short_bins": matched.short_bins},
    }
    write_atomic(corpus / card_path, canonical_json(facts))
    return Result([model_path, card_path], {}, facts)


def _plain_sample(table: pa.Table, share: float) -> list[str]:
    """Texts drawn from the crawl by their keys alone, cited or not: what the classifier will meet."""
    keys = table.column("key").to_numpy()
    drawn = table.filter(pa.array(keys < np.uint64(min(int(share * 2**64), 2**64 - 1))))
    texts: list[str] = drawn.slice(0, CARD_PAGES).column("text").to_pylist()
    return texts


def _chosen(table: pa.Table, rules: References, source: str) -> tuple[pa.Table, pa.Table, evaluation.Matched]:
    """The positives, as many negatives of the same lengths as there are, and how many were wanted."""
    cited = table.column("cited").to_numpy()
    positives, others = table.filter(pa.array(cited)), table.filter(pa.array(~cited))
    if len(positives) < rules.min_positives:
        raise UserError(
            f"source {source}: {len(positives)} pages of the crawl are cited by the given dumps, "
            f"references.min_positives asks for {rules.min_positives}: give more of the crawl, more dumps, or lower it"
        )
    positives = positives.slice(0, rules.max_pages)
    lengths = [np.array([len(text) for text in part.column("text").to_pylist()], np.int64)
               for part in (positives, others)]  # fmt: skip
    matched = evaluation.length_matched(lengths[0], lengths[1], others.column("key").to_numpy())
    return positives, others.take(pa.array(matched.places)), matched


def _among(value: int, cited: list[npt.NDArray[np.uint64]]) -> bool:
    """Whether a hash is in one of the sorted arrays."""
    wanted = np.uint64(value)
    for hashes in cited:
        place = int(np.searchsorted(hashes, wanted))
        if place < len(hashes) and hashes[place] == wanted:
            return True
    return False


def _held_out(part: pa.Table, unit: str, seed: int, share: float) -> list[bool]:
    """Which pages are for measuring: by domain, so that a site lies wholly on one side, or page by page."""
    limit = int(share * 2**64)
    if unit == "page":
        return [order_key(seed, TRAIN, key.to_bytes(8, "big")) < limit for key in part.column("key").to_pylist()]
    return [order_key(seed, TRAIN, domain.encode("utf-8")) < limit for domain in part.column("domain").to_pylist()]
