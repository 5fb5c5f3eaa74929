"""The stages of a run in order, each from the receipts of those before.

Stages that do not depend on each other share Beam jobs. The files of each step are the resume points, and what is
finished is not done again.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from manifests.manifest import Manifest, ModelEntry
from manifests.recipe import Recipe
from manifests.stages import kind_of
from pipeline.beam.engines import Engine
from pipeline.beam.job import garbage_collection, run_job
from pipeline.beam.receipts import sweep
from pipeline.beam.step import Receipt, Receipts, Step, Unit, hash_key, pack_together, source_of
from pipeline.beam.work import Part, PartReceipts, Turns, Work, finish, run_units, together
from pipeline.dedup import clusters, containment, neardup, recall, survivors
from pipeline.dedup.signatures import Split, splits_of
from pipeline.preflight import RunInputs
from pipeline.stages import (
    corpus_index,
    extract,
    join,
    line_dedup,
    manifest,
    perplexity,
    references,
    split_offsets,
    statistics,
    tokenize,
    tokenizer,
    url_dedup,
)
from pipeline.stages import filter as filters
from pipeline.stages.models import models_of


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
        self.ledger: dict[str, dict[str, dict[str, Any]]] = {}  # tallies by stage and source
        if lists := filters.count_lists(recipe):
            self.findings["lists"] = lists
        if reasons := filters.custom_reasons(recipe):
            self.findings["reasons"] = reasons
        if inputs.unreadable:
            self.findings["unreadable"] = {"files": len(inputs.unreadable), "names": sorted(inputs.unreadable)}

        self.offsets: Receipts = {}  # by input
        self.cited: Receipts = {}  # by source and dump
        self.extracted: Receipts = {}  # by split, as are all below without a comment
        self.verdicts: dict[str, Receipts] = {}  # by stage, then by split
        self.language_models: Receipts = {}  # by `SOURCE/LANGUAGE`
        self.cuts: Receipts = {}  # by source
        self.classifiers: Receipts = {}  # by source
        self.filtered: Receipts = {}
        self.splits: list[Split] = []
        self.exact: Receipts = {}  # edges by range
        self.candidates: list[PartReceipts] = []  # by search
        self.sketched: Receipts = {}
        self.edges: Receipts = {}  # by path below the corpus
        self.clean: list[Unit] = []  # reads the clean documents of a split
        self.measured: Receipt | None = None
        self.shards: Receipts = {}  # by name
        self.index: Receipts = {}  # by file

    def build(self) -> Manifest | None:
        """Run the stages in order, then write the manifest and the statistics. Without these, stop after `last`.

        Raises:
            UserError, StorageError, WorkerDiedError, RecallError, LedgerError: with a sentence for the user.
        """
        for names, works in self.stages():
            self.finish(together(*(work() for work in works)))
            if self.last in names:
                return None
        made = self.manifest()
        self.finish(self.statistics(made.manifest_sha))
        return made

    def stages(self) -> tuple[tuple[tuple[str, ...], tuple[Callable[[], Work[None]], ...]], ...]:
        """Return the stages of the run in order: names, and the work that shares jobs.

        What describes the corpus comes last, and is not named: it is of no use without the manifest.
        """
        passes = (((stage,), (getattr(self, stage),)) for stage in filters.order_of_passes(self.recipe))
        return (
            (("split_offsets",), (self.split_offsets,)),
            (("extract", "join"), (self.extract, self.train_language_models, self.collect_cited_urls)),
            *passes,
            (("filter",), (self.filter,)),
            (("neardup",), (self.neardup,)),
            (("containment", "clusters"), (self.clusters,)),
            (("recall", "tokenizer"), (self.cluster_tables, self.recall, self.tokenizer, self.split_statistics)),
            (("tokenize", "corpus_index"), (self.tokenize,)),
        )

    def split_offsets(self) -> Work[None]:
        """Hash the inputs, and find where large dumps can be cut."""
        dumps, training = self.inputs.dumps, self.inputs.training
        others = [item for uses in training.values() for items in uses.values() for item in items]
        self.offsets, hashed = yield from together(
            run_units(split_offsets.offset_step(self.recipe, dumps)),
            run_units(split_offsets.checksum_step(self.recipe, dumps, others)),
        )
        known = partial(split_offsets.with_checksums, hashed={**self.offsets, **hashed})
        given = {stage: {use: known(items) for use, items in uses.items()} for stage, uses in training.items()}
        self.inputs = replace(self.inputs, dumps=known(dumps), training=given)

    def train_language_models(self) -> Work[None]:
        """Train the language models of the sources whose rules ask for it, on texts that are given."""
        training = self.inputs.training[perplexity.STAGE]
        self.language_models = yield from run_units(perplexity.train_step(self.recipe, training))

    def collect_cited_urls(self) -> Work[None]:
        """Collect the URLs that Wikipedia cites, for the sources whose rules ask for them."""
        self.cited = yield from run_units(references.url_step(self.inputs.training[references.STAGE]))

    def extract(self) -> Work[None]:
        """Read the documents of sources whose records stand for themselves, and join those of others from rows."""
        given = (self.recipe, self.inputs.dumps, self.offsets, self.inputs.models, self.inputs.quarantine)
        step = extract.extract_step(*given)
        self.extract_arguments = step.by_source
        extracted, (joined, dropped_rows) = yield from together(run_units(step), join.join_sources(*given))
        self.extracted = pack_together(extracted, joined) if joined else extracted
        self.ledger["extract"] = manifest.sum_tallies(self.extracted, dropped_rows)
        if step.shared:
            sweep(self.corpus, step, self.extracted)
        self.inputs, self.offsets = replace(self.inputs, dumps=[]), {}  # of no more use, and large

    def url_dedup(self) -> Work[None]:
        """Find older copies under one URL, of the sources whose rules ask for it."""
        yield from self.find_duplicates(url_dedup)

    def line_dedup(self) -> Work[None]:
        """Find lines that occur elsewhere, of the sources whose rules ask for it."""
        yield from self.find_duplicates(line_dedup)

    def find_duplicates(self, stage: ModuleType) -> Work[None]:
        """Run the turns of a stage's module that compares keys of all documents, and keep its verdicts."""
        _, *found = yield stage.dedup_turns(*self.before(stage.STAGE))
        if found:
            [(_, duplicates)], [(_, verdicts)] = found
            self.verdicts[stage.STAGE] = verdicts
            self.findings[stage.STAGE] = stage.findings(duplicates)

    def perplexity(self) -> Work[None]:
        """Score documents and find cut-offs, of the sources whose rules ask for it."""
        score = perplexity.score_step(*self.before(perplexity.STAGE))
        [[(scores,)], [(self.cuts,)]] = yield [[(score,)], [(perplexity.cut_step(self.recipe, score),)]]
        self.verdicts[perplexity.STAGE] = scores

    def references(self) -> Work[None]:
        """Train classifiers on the pages that Wikipedia cites, of the sources whose rules ask for it."""
        training = self.inputs.training[references.STAGE]
        recipe, extracted, by_source, verdicts = self.before(references.STAGE)
        step = references.positives_step(recipe, training, self.extract_arguments, by_source)
        given = yield from run_units(step)
        sample = references.sample_step(self.cited, given, recipe, extracted, by_source, verdicts)
        train = references.train_step(self.recipe, sample, given)
        [_, [(self.classifiers,)]] = yield [[(sample,)], [(train,)]]

    def filter(self) -> Work[None]:
        """Filter the documents, and begin to compare what is left."""
        made = yield [[(filters.filter_step(*self.before(""), self.keep_dropped),)], self.first_comparisons()]
        [[(self.filtered,)], [(_, self.exact), (self.sketched,), *self.candidates]] = made
        self.ledger["filter"] = manifest.sum_tallies(self.filtered)
        self.verdicts.clear()
        here = splits_of(self.recipe, self.corpus, self.extracted, self.filtered)
        self.splits = [*here, *self.inputs.earlier]

    def first_comparisons(self) -> list[Part]:
        """Return the steps that compare documents as soon as `filter` has run."""
        splits = [*splits_of(self.recipe, self.corpus, self.extracted), *self.inputs.earlier]
        sketch = containment.sketch_step(self.recipe, splits)
        searches = neardup.near_searches(splits)
        return [neardup.find_exact(splits), (sketch,), *(search.find_candidates() for search in searches)]

    def neardup(self) -> Work[None]:
        """Verify candidates for pairs of duplicates, in this corpus and with earlier ones."""
        searches = neardup.near_searches(self.splits)
        works = (search.verify(found) for search, found in zip(searches, self.candidates, strict=True))
        found = yield from together(*works)
        if len(searches) == 1:
            (done,) = found
        else:
            done = {name: pack_together(*(one[name] for one in found)) for name in neardup.SEARCH}
            neardup.sweep_searches(self.corpus, done)
        if searches:
            self.findings[neardup.STAGE] = neardup.findings(done[neardup.CANDIDATES], done[neardup.EDGES])
        near = done[neardup.EDGES].values()
        self.edges = {receipt.outputs[0].path: receipt for receipt in (*self.exact.values(), *near)}

    def clusters(self) -> Work[None]:
        """Join duplicates to clusters, find documents that are almost whole in others, and choose those that stay."""
        labels = yield from self.connect()
        contained = containment.compare_step(self.recipe, self.splits, self.sketched)
        step = survivors.survivor_step(self.recipe, self.splits, self.filtered, labels[-1], contained)
        [_, [(chosen,)]] = yield [[labels, (contained,)], [(step,)]]
        clusters.sweep_ways(self.corpus)
        self.survivors = chosen["all"]
        self.findings[clusters.STAGE] = survivors.findings(self.survivors)
        self.clean = survivors.survivor_units(self.filtered, self.survivors)
        self.ledger["neardup"] = manifest.sum_tallies(chosen)
        self.splits, self.exact, self.candidates, self.sketched, self.edges = [], {}, [], {}, {}  # of no more use

    def connect(self) -> Work[Part]:
        """Return the steps that are left to join duplicates to clusters."""
        return clusters.connect(self.corpus, self.edges, one_worker=self.recipe.deduplication.one_worker)

    def cluster_tables(self) -> Work[None]:
        """Write clusters beside the clean documents."""
        yield from run_units(survivors.table_step(self.filtered, self.survivors))

    def recall(self) -> Work[None]:
        """Measure the recall of near-duplicate detection on planted copies. Raises RecallError where it is too low."""
        sources = recall.sources_by_minhash(self.recipe, map(source_of, self.filtered))
        if sources and self.recipe.deduplication.canaries:
            drawn = yield from run_units(recall.draw_step(self.recipe, self.clean, self.survivors))
            copies = yield from run_units(recall.copies_step(self.recipe, drawn))
            self.measured = (yield from run_units(recall.measure_step(self.recipe, drawn, copies)))["all"]
            self.recall_report = recall.report(self.measured)

    def tokenizer(self) -> Work[None]:
        """Train the tokenizer on a sample, or take the given one."""
        tokenizer.require_text(self.recipe, self.ledger)
        sample = tokenizer.sample_step(self.recipe, self.clean, self.survivors)
        [_, [(trained,)]] = yield [[(sample,)], [(tokenizer.train_step(self.recipe, sample),)]]
        self.trained = trained["all"]

    def tokenize(self) -> Work[None]:
        """Write the token shards, then the index of documents and URLs and the statistics of shards."""
        recipe_sha = self.recipe.sha(self.names)
        parts, shards = tokenize.tokenize_steps(
            self.recipe, recipe_sha, self.clean, self.survivors, self.trained, self.generation
        )
        documents = sum(tally.out["records"] for tally in self.survivors.tallies.values())
        index = corpus_index.index_steps(shards, documents, self.generation)
        [[(tokenized, self.shards)], [(_, self.index), (self.of_shards,)]] = yield [
            [(parts, shards)],
            [index, (statistics.shard_step(shards),)],
        ]
        self.ledger["tokenize"] = manifest.sum_tallies(tokenized)

    def split_statistics(self) -> Work[None]:
        """Describe the documents of each split."""
        self.of_splits = yield from run_units(
            statistics.split_step(self.recipe, self.extracted, self.filtered, self.survivors)
        )

    def manifest(self) -> Manifest:
        """Write the ledger and the manifest. Raises LedgerError."""
        versions = {name: sorted(found) for name, found in sorted(self.code.items())}
        code = {name: found[0] if len(found) == 1 else hash_key(found) for name, found in versions.items()}
        index = corpus_index.index_entries(self.index)
        models = self.model_entries()
        return manifest.write_manifest_of(
            self.corpus,
            self.recipe,
            self.names,
            models,
            code,
            self.ledger,
            self.trained,
            self.shards,
            index,
            self.findings,
        )

    def statistics(self, manifest_sha: str) -> Work[None]:
        """Write `statistics.json`, which nothing hashes."""
        yield from run_units(
            statistics.merge_step(
                self.recipe, manifest_sha, self.of_splits, self.of_shards, self.survivors, self.measured
            )
        )

    def before(self, stage: str) -> tuple[Recipe, Receipts, dict[str, dict[str, Any]], filters.Verdicts]:
        """Return the arguments of a stage that applies the rules before its own; all rules for an empty name."""
        made = {perplexity.STAGE: (self.language_models, self.cuts), references.STAGE: (self.classifiers,)}
        trained: dict[str, list[Receipt]] = {}
        for name, source in self.recipe.sources.items():
            uses = {stage, *(rule.needs for rule in source.rule_for(stage)[0])}
            found = [receipts for needed, kinds in made.items() if needed in uses for receipts in kinds]
            trained[name] = [
                one for receipts in found for key, one in sorted(receipts.items()) if source_of(key) == name
            ]
        cuts = {source: perplexity.cuts_of(receipt) for source, receipt in self.cuts.items()}
        models = {
            name: models_of(name, source, self.corpus, cuts.get(name)) for name, source in self.recipe.sources.items()
        }
        by_source = filters.arguments_of(self.recipe, models, self.inputs.models, trained, stage)
        return self.recipe, self.extracted, by_source, self.verdicts

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

    def finish(self, work: Work[Any]) -> None:
        """Run the jobs that work asks for, until it ends."""
        with garbage_collection(False):
            finish(work, self.run_turns)

    def run_turns(self, turns: Turns) -> list[list[PartReceipts]]:
        """Run a job, and return the receipts of each part."""
        self.engine.check()
        for step in steps_of(turns):
            if step.units and not step.omits_code_version:  # for the manifest
                self.code.setdefault(step.name, set()).add(step.code())
        made, ran = run_job(self.corpus, turns, self.engine_for(turns))
        self.ran += ran
        return made

    def engine_for(self, turns: Turns) -> Engine:
        """Return the engine of a job: the local one where nothing grows with the corpus.

        A job of its own would take a remote engine minutes to start.
        """
        grows = any(kind_of(step.name).unit != "run" for step in steps_of(turns) if step.units)
        return self.engine if grows else self.engine.here()


def steps_of(turns: Turns) -> Iterator[Step]:
    """Yield the steps of a job."""
    yield from (step for parts in turns for part in parts for step in part)
