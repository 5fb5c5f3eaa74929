"""The stages of a run in order, each from the receipts of those before.

Every stage is finished before the next begins, its files are the resume points, and what is finished is not done again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests.manifest import Manifest, ModelEntry
from manifests.recipe import Recipe
from pipeline.beam.engines import Engine
from pipeline.beam.exchange import run_exchange
from pipeline.beam.job import run_step
from pipeline.beam.receipts import sweep
from pipeline.beam.step import Receipt, Receipts, Step, hash_key, source_of
from pipeline.dedup import clusters, containment, neardup, recall, survivors
from pipeline.dedup.signatures import Split, splits_of
from pipeline.preflight import RunInputs
from pipeline.stages import (
    corpus_index,
    extract,
    join,
    line_dedup,
    manifest,
    pages,
    perplexity,
    references,
    split_offsets,
    statistics,
    tokenize,
    tokenizer,
    url_dedup,
)
from pipeline.stages import filter as filters


class StopAfterStage(Exception):  # noqa: N818  # not an error: `--stage` asked for no more
    """The stage that was asked for is finished."""


class StageGraph:
    """One run: a method per stage, named as `manifests.stages` names it, and the receipts that they hand on."""

    def __init__(
        self,
        recipe: Recipe,
        corpus: Path,
        engine: Engine,
        inputs: RunInputs,
        keep_dropped: int = 0,
        last: str | None = None,
        generation: int = 0,
    ) -> None:
        """Take what `pipeline.run.run` takes; `last` is the stage to stop after."""
        self.recipe, self.corpus, self.engine, self.inputs = recipe, corpus, engine, inputs
        self.keep_dropped, self.last, self.generation = keep_dropped, last, generation
        self.names = {name: [item.name for item in inputs.dumps if item.source == name] for name in recipe.sources}
        self.ran = 0
        self.recall_report = ""
        self.code: dict[str, set[str]] = {}
        self.findings: dict[str, Any] = {}
        if lists := pages.count_lists(recipe):
            self.findings["lists"] = lists
        if reasons := pages.custom_reasons(recipe):
            self.findings["reasons"] = reasons
        if inputs.unreadable:
            self.findings["unreadable"] = {"files": len(inputs.unreadable), "names": sorted(inputs.unreadable)}

        self.offsets: Receipts = {}  # by input
        self.extracted: Receipts = {}  # by split, as all that name no other key
        self.dropped_rows: Receipts = {}  # of joined sources, by task
        self.verdicts: dict[str, Receipts] = {}  # by stage, then by split
        self.language_models: Receipts = {}  # by `SOURCE/LANGUAGE`
        self.cuts: Receipts = {}  # by source
        self.classifiers: Receipts = {}  # by source
        self.filtered: Receipts = {}
        self.splits: list[Split] = []
        self.edges: Receipts = {}  # by path below the corpus
        self.contained: Receipts = {}  # by source
        self.measured: Receipt | None = None
        self.shards: Receipts = {}  # by name
        self.tokenized: Receipts = {}
        self.index: Receipts = {}  # by file

    def build(self) -> Manifest:
        """Run the stages in order, then write the manifest and the statistics.

        Raises:
            StopAfterStage: the stage that was asked for is finished.
            UserError, StorageError, WorkerDiedError, RecallError, LedgerError: with a sentence for the user.
        """
        for stage in self.stages():
            stage()
            if stage.__name__ == self.last:
                raise StopAfterStage
        made = self.manifest()
        self.statistics(made.manifest_sha)
        return made

    def stages(self) -> tuple[Callable[[], None], ...]:
        """Return the stages of the run in order, but for the last, which describe the corpus."""
        return (
            self.split_offsets,
            self.extract,
            self.join,
            *(getattr(self, stage) for stage in pages.order_of_passes(self.recipe)),
            self.filter,
            self.neardup,
            self.containment,
            self.clusters,
            self.recall,
            self.tokenizer,
            self.tokenize,
            self.corpus_index,
        )

    def split_offsets(self) -> None:
        """Find where large dumps can be cut."""
        self.offsets = self.map(split_offsets.offset_step(self.recipe, self.inputs.dumps))

    def extract(self) -> None:
        """Read the documents of sources whose records stand for themselves."""
        self.extract_step = extract.extract_step(
            self.recipe, self.inputs.dumps, self.offsets, self.inputs.models, self.inputs.quarantine
        )
        self.extracted = self.map(self.extract_step)

    def join(self) -> None:
        """Join the documents of the other sources from rows, into files of the same kind and place."""
        joined, self.dropped_rows = join.join_sources(
            self.recipe, self.inputs.dumps, self.offsets, self.inputs.models, self.exchange, self.inputs.quarantine
        )
        self.extracted |= joined
        sweep(self.corpus, self.extract_step, self.extracted)

    def url_dedup(self) -> None:
        """Find older copies under one URL, of the sources whose rules ask for it."""
        collected = self.map(url_dedup.collect_step(*self.before(url_dedup.STAGE)))
        if collected:
            keys, duplicates = self.exchange(*url_dedup.find_duplicates(collected))
            self.findings[url_dedup.STAGE] = url_dedup.findings(duplicates)
            ordered = {split: collected[split] for split in keys}
            _, self.verdicts[url_dedup.STAGE] = self.exchange(*url_dedup.send_verdicts(ordered, duplicates))

    def line_dedup(self) -> None:
        """Find lines that occur elsewhere, of the sources whose rules ask for it."""
        collected = self.map(line_dedup.collect_step(*self.before(line_dedup.STAGE)))
        if collected:
            keys, duplicates = self.exchange(*line_dedup.find_duplicates(self.recipe, collected))
            self.findings[line_dedup.STAGE] = line_dedup.findings(duplicates)
            ordered = {split: collected[split] for split in keys}
            _, self.verdicts[line_dedup.STAGE] = self.exchange(*line_dedup.send_verdicts(ordered, duplicates))

    def perplexity(self) -> None:
        """Train language models, score documents and find cut-offs, of the sources whose rules ask for it."""
        training = self.inputs.training[perplexity.STAGE]
        self.language_models = self.map(perplexity.train_step(self.recipe, training))
        scores = self.map(perplexity.score_step(*self.before(perplexity.STAGE)))
        self.cuts = self.map(perplexity.cut_step(self.recipe, scores))
        self.verdicts[perplexity.STAGE] = scores

    def references(self) -> None:
        """Train classifiers on the pages that Wikipedia cites, of the sources whose rules ask for it."""
        training = self.inputs.training[references.STAGE]
        cited = self.map(references.url_step(training))
        recipe, extracted, by_source, verdicts = self.before(references.STAGE)
        given = self.map(references.positives_step(recipe, training, self.extract_step.by_source, by_source))
        sample = references.sample_step(cited, given, recipe, extracted, by_source, verdicts)
        self.classifiers = self.map(references.train_step(self.recipe, self.extracted, self.map(sample), given))

    def filter(self) -> None:
        """Filter the documents."""
        self.filtered = self.map(filters.filter_step(*self.before(""), self.keep_dropped))

    def neardup(self) -> None:
        """Find pairs of duplicates, in this corpus and with earlier ones."""
        here = splits_of(self.recipe, self.corpus, self.extracted, self.filtered)
        self.splits = [*here, *self.inputs.earlier]
        _, exact = self.exchange(*neardup.find_exact(self.splits))
        done: dict[str, Receipts] = {name: {} for name in neardup.SEARCH}
        searches = neardup.near_searches(self.splits)
        for search in searches:
            bands, candidates = self.exchange(*search.find_candidates())
            wanted, fetched = self.exchange(*search.fetch_evidence(candidates))
            evidence, edges = self.exchange(*search.verify_candidates(candidates, fetched))
            found = (bands, candidates, wanted, fetched, evidence, edges)
            for name, receipts in zip(neardup.SEARCH, found, strict=True):
                done[name] |= receipts
        neardup.sweep_searches(self.corpus, done)
        if searches:
            self.findings[neardup.STAGE] = neardup.findings(done[neardup.CANDIDATES], done[neardup.EDGES])
        near = done[neardup.EDGES].values()
        self.edges = {receipt.outputs[0].path: receipt for receipt in (*exact.values(), *near)}

    def containment(self) -> None:
        """Find documents that are almost whole in others, of the sources that ask for it."""
        if any(source.containment for source in self.recipe.sources.values()):
            sketched = self.map(containment.sketch_step(self.recipe, self.splits))
            self.contained = self.map(containment.compare_step(self.recipe, self.splits, sketched))

    def clusters(self) -> None:
        """Join duplicates to clusters and choose the document of each that stays."""
        labels = self.connect()
        self.survivors = self.map(
            survivors.survivor_step(self.recipe, self.splits, self.filtered, labels, self.contained)
        )["all"]
        self.findings[clusters.STAGE] = survivors.findings(self.survivors)
        self.map(survivors.table_step(self.filtered, self.survivors))

    def connect(self) -> Receipts:
        """Join duplicates to clusters, and return the receipts of their labels."""
        most = self.recipe.deduplication.one_worker
        labels, ran = clusters.connect(self.corpus, self.edges, self.engine, one_worker=most)
        self.ran += ran
        return labels

    def recall(self) -> None:
        """Measure the recall of near-duplicate detection on planted copies. Raises RecallError where it is too low."""
        sources = recall.sources_by_minhash(self.recipe, map(source_of, self.filtered))
        if sources and self.recipe.deduplication.canaries:
            drawn = self.map(recall.draw_step(self.recipe, self.filtered, self.survivors))
            self.measured = self.map(recall.measure_step(self.recipe, drawn))["all"]
            self.recall_report = recall.report(self.measured)

    def tokenizer(self) -> None:
        """Train the tokenizer on a sample, or take the given one."""
        samples = self.map(tokenizer.sample_step(self.recipe, self.filtered, self.survivors))
        self.trained = self.map(tokenizer.train_step(self.recipe, samples))["all"]

    def tokenize(self) -> None:
        """Write the token shards."""
        recipe_sha = self.recipe.sha(self.names)
        steps = tokenize.tokenize_steps(
            self.recipe, recipe_sha, self.filtered, self.survivors, self.trained, self.generation
        )
        self.tokenized, self.shards = self.exchange(*steps)

    def corpus_index(self) -> None:
        """Write the index of documents and URLs."""
        _, self.index = self.exchange(*corpus_index.index_steps(self.shards, self.generation))

    def manifest(self) -> Manifest:
        """Write the ledger and the manifest. Raises LedgerError."""
        ledger = {
            "extract": [*self.extracted.values(), *self.dropped_rows.values()],
            "filter": list(self.filtered.values()),
            "neardup": [self.survivors],
            "tokenize": list(self.tokenized.values()),
        }
        versions = {name: sorted(found) for name, found in sorted(self.code.items())}
        code = {name: found[0] if len(found) == 1 else hash_key(found) for name, found in versions.items()}
        index = corpus_index.index_entries(self.index)
        models = self.model_entries()
        return manifest.write_manifest_of(
            self.corpus, self.recipe, self.names, models, code, ledger, self.trained, self.shards, index, self.findings
        )

    def statistics(self, manifest_sha: str) -> None:
        """Write `statistics.json`, which nothing hashes."""
        splits = self.map(statistics.split_step(self.recipe, self.extracted, self.filtered, self.survivors))
        shards = self.map(statistics.shard_step(self.shards))
        self.map(statistics.merge_step(self.recipe, manifest_sha, splits, shards, self.survivors, self.measured))

    def before(self, stage: str) -> tuple[Recipe, Receipts, dict[str, dict[str, Any]], pages.Verdicts]:
        """Return what a stage needs that applies the rules before its own; all rules for an empty name."""
        trained: dict[str, list[Receipt]] = {}
        for found in (self.language_models, self.cuts, self.classifiers):
            for name, receipt in sorted(found.items()):
                trained.setdefault(source_of(name), []).append(receipt)
        cuts = {source: perplexity.cuts_of(receipt) for source, receipt in self.cuts.items()}
        models = {
            name: pages.models_of(name, source, self.corpus, cuts.get(name))
            for name, source in self.recipe.sources.items()
        }
        by_source = pages.arguments_of(self.recipe, models, self.inputs.models, trained, stage)
        return self.recipe, self.extracted, by_source, pages.Verdicts(self.verdicts)

    def model_entries(self) -> dict[str, ModelEntry]:
        """Return every model that the corpus depends on, for the manifest."""
        entries = {name: ModelEntry(sha256=sha) for name, sha in self.inputs.models.items()}
        kinds = {"perplexity": self.language_models, "cuts": self.cuts, "references": self.classifiers}
        for kind, found in kinds.items():
            for name, receipt in found.items():
                for output in receipt.outputs:
                    use = f"{name.replace('/', '.')}.{kind}.{output.path.rpartition('/')[2]}"
                    entries[use] = ModelEntry(sha256=output.sha256, path=output.path)
                self.findings.setdefault(kind, {})[name] = receipt.facts
        return entries

    def map(self, step: Step) -> Receipts:
        """Run a step whose units do not talk to each other, and return its receipts by unit."""
        self.record(step)
        found, ran = self.run_map(step)
        self.ran += ran
        self.tell(step, found)
        return found

    def exchange(self, mapping: Step, reducing: Step) -> tuple[Receipts, Receipts]:
        """Run a step whose mappers send blocks to reducers, and return the receipts of both by unit."""
        self.record(mapping)
        self.record(reducing)
        mapped, reduced, ran = self.run_exchange(mapping, reducing)
        self.ran += ran
        self.tell(mapping, mapped)
        self.tell(reducing, reduced)
        return mapped, reduced

    def run_map(self, step: Step) -> tuple[Receipts, int]:
        """Run one job of units that do not talk to each other."""
        return run_step(self.corpus, step, self.engine)

    def run_exchange(self, mapping: Step, reducing: Step) -> tuple[Receipts, Receipts, int]:
        """Run one job with a shuffle."""
        return run_exchange(self.corpus, mapping, reducing, self.engine)

    def tell(self, step: Step, found: Receipts) -> None:
        """Put the counts of a finished step into the run's status."""
        self.engine.status.end_step(step.name, (receipt.tallies for receipt in found.values()))

    def record(self, step: Step) -> None:
        """Remember the version of a step's code, for the manifest."""
        self.engine.check()
        if step.units:
            self.code.setdefault(step.name, set()).add(step.code())
