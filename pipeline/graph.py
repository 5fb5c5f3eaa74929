"""Run the stages of a build in order. Each stage uses the receipts of earlier stages.

Stages that do not depend on each other share Beam jobs. A task whose output files are complete is not repeated, so an
interrupted run continues where it stopped.
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
from pipeline.stages.models import trained_models


class StageGraph:
    """One run: a method per stage, with the name of the stage in `manifests.stages`, and the receipts of the stages.

    Methods that return `Work` are generators. They yield the turns of a job, and receive the receipts of its tasks.
    """

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
        """Create the run. The arguments are those of `pipeline.run.run`; `last` is the stage to stop after."""
        self.recipe, self.corpus, self.engine, self.inputs = recipe, corpus, engine, inputs
        self.keep_dropped, self.last, self.generation = keep_dropped, last, generation
        self.names = {name: [item.name for item in inputs.dumps if item.source == name] for name in recipe.sources}
        self.ran = 0
        self.recall_report = ""
        self.code: dict[str, set[str]] = {}
        self.findings: dict[str, Any] = {}
        self.ledger: dict[str, dict[str, dict[str, Any]]] = {}  # stage -> source -> tally
        if lists := filters.count_lists(recipe):
            self.findings["lists"] = lists
        if reasons := filters.custom_reasons(recipe):
            self.findings["reasons"] = reasons
        if inputs.unreadable:
            self.findings["unreadable"] = {"files": len(inputs.unreadable), "names": sorted(inputs.unreadable)}

        # `Receipts` are dicts from name to receipt. The comments say what the names are.
        self.offsets: Receipts = {}  # inputs, as SOURCE/NAME
        self.cited: Receipts = {}  # Wikipedia dumps, as SOURCE/NAME
        self.extracted: Receipts = {}  # splits
        self.verdicts: dict[str, Receipts] = {}  # stage -> splits
        self.language_models: Receipts = {}  # SOURCE/LANGUAGE
        self.cuts: Receipts = {}  # sources
        self.classifiers: Receipts = {}  # sources
        self.filtered: Receipts = {}  # splits
        self.splits: list[Split] = []
        self.exact: Receipts = {}  # hash ranges; each receipt has pairs of identical documents
        self.candidates: list[PartReceipts] = []  # the receipts of each search for near-duplicates
        self.sketched: Receipts = {}  # splits
        self.edges: Receipts = {}  # paths of files of duplicate pairs, relative to the corpus
        self.clean: list[Unit] = []  # a unit per split, which reads its clean documents
        self.measured: Receipt | None = None
        self.shards: Receipts = {}  # shards
        self.index: Receipts = {}  # index files

    def build(self) -> Manifest | None:
        """Run the stages in order, then write the manifest and the statistics.

        Returns:
            The manifest; None if the run stopped after the stage `last`.

        Raises:
            UserError, StorageError, WorkerDiedError, RecallError, LedgerError: The message is a sentence for the user.
        """
        for names, works in self.stages():
            self.finish(together(*(work() for work in works)))
            if self.last in names:
                return None
        made = self.manifest()
        self.finish(self.statistics(made.manifest_sha))
        return made

    def stages(self) -> tuple[tuple[tuple[str, ...], tuple[Callable[[], Work[None]], ...]], ...]:
        """Return the stages of the run in order, as pairs: names of stages, and methods whose work shares jobs.

        The stage `statistics` is not among them, because it runs after the manifest is written. The statistics of the
        splits are computed together with `recall` and `tokenizer`.
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
        """Hash the inputs, and find the offsets where large dumps can be cut."""
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
        """Train the language models that rules need, on the texts that the recipe gives."""
        training = self.inputs.training[perplexity.STAGE]
        self.language_models = yield from run_units(perplexity.train_step(self.recipe, training))

    def collect_cited_urls(self) -> Work[None]:
        """Collect the URLs that Wikipedia cites, for the sources whose rules need them."""
        self.cited = yield from run_units(references.url_step(self.inputs.training[references.STAGE]))

    def extract(self) -> Work[None]:
        """Extract documents, and join documents of sources in which a document consists of several rows."""
        given = (self.recipe, self.inputs.dumps, self.offsets, self.inputs.models, self.inputs.quarantine)
        step = extract.extract_step(*given)
        self.extract_arguments = step.by_source
        extracted, (joined, dropped_rows) = yield from together(run_units(step), join.join_sources(*given))
        self.extracted = pack_together(extracted, joined) if joined else extracted
        self.ledger["extract"] = manifest.sum_tallies(self.extracted, dropped_rows)
        if step.shared:
            sweep(self.corpus, step, self.extracted)
        self.inputs, self.offsets = replace(self.inputs, dumps=[]), {}  # They are large and not needed any more.

    def url_dedup(self) -> Work[None]:
        """Find documents with a newer copy under the same URL, in the sources whose rules need it."""
        yield from self.find_duplicates(url_dedup)

    def line_dedup(self) -> Work[None]:
        """Find lines that also occur in other documents, in the sources whose rules need it."""
        yield from self.find_duplicates(line_dedup)

    def find_duplicates(self, stage: ModuleType) -> Work[None]:
        """Run a stage that compares documents, given as its module, and store its verdicts and findings."""
        _, *found = yield stage.dedup_turns(*self.arguments_before(stage.STAGE))
        if found:
            [(_, duplicates)], [(_, verdicts)] = found
            self.verdicts[stage.STAGE] = verdicts
            self.findings[stage.STAGE] = stage.findings(duplicates)

    def perplexity(self) -> Work[None]:
        """Score documents and compute cut-offs, in the sources whose rules need it."""
        score = perplexity.score_step(*self.arguments_before(perplexity.STAGE))
        [[(scores,)], [(self.cuts,)]] = yield [[(score,)], [(perplexity.cut_step(self.recipe, score),)]]
        self.verdicts[perplexity.STAGE] = scores

    def references(self) -> Work[None]:
        """Train classifiers of pages that Wikipedia cites, in the sources whose rules need it."""
        training = self.inputs.training[references.STAGE]
        recipe, extracted, by_source, verdicts = self.arguments_before(references.STAGE)
        step = references.positives_step(recipe, training, self.extract_arguments, by_source)
        given = yield from run_units(step)
        sample = references.sample_step(self.cited, given, recipe, extracted, by_source, verdicts)
        train = references.train_step(self.recipe, sample, given)
        [_, [(self.classifiers,)]] = yield [[(sample,)], [(train,)]]

    def filter(self) -> Work[None]:
        """Filter the documents, and run the first steps that compare the kept documents, in the same job."""
        made = yield [[(filters.filter_step(*self.arguments_before(""), self.keep_dropped),)], self.first_comparisons()]
        [[(self.filtered,)], [(_, self.exact), (self.sketched,), *self.candidates]] = made
        self.ledger["filter"] = manifest.sum_tallies(self.filtered)
        self.verdicts.clear()
        here = splits_of(self.recipe, self.corpus, self.extracted, self.filtered)
        self.splits = [*here, *self.inputs.earlier]

    def first_comparisons(self) -> list[Part]:
        """Return the steps that compare documents and need only the results of `filter`."""
        splits = [*splits_of(self.recipe, self.corpus, self.extracted), *self.inputs.earlier]
        sketch = containment.sketch_step(self.recipe, splits)
        searches = neardup.near_searches(splits)
        return [neardup.find_exact(splits), (sketch,), *(search.find_candidates() for search in searches)]

    def neardup(self) -> Work[None]:
        """Verify the candidate pairs of near-duplicates, within this corpus and with earlier corpora."""
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
        """Join duplicates to clusters, find documents that are contained in others, and choose the survivors."""
        labels = yield from self.connect()
        contained = containment.compare_step(self.recipe, self.splits, self.sketched)
        step = survivors.survivor_step(self.recipe, self.splits, self.filtered, labels[-1], contained)
        [_, [(chosen,)]] = yield [[labels, (contained,)], [(step,)]]
        clusters.remove_intermediate_files(self.corpus)
        self.survivors = chosen["all"]
        self.findings[clusters.STAGE] = survivors.findings(self.survivors)
        self.clean = survivors.survivor_units(self.filtered, self.survivors)
        self.ledger["neardup"] = manifest.sum_tallies(chosen)
        self.splits, self.exact, self.candidates, self.sketched, self.edges = [], {}, [], {}, {}  # not needed any more

    def connect(self) -> Work[Part]:
        """Join duplicates to clusters. Return the last steps, which can share a job with other work."""
        return clusters.connect(self.corpus, self.edges, one_worker=self.recipe.deduplication.one_worker)

    def cluster_tables(self) -> Work[None]:
        """Write the tables of clusters in `clusters/`, with a file per split."""
        yield from run_units(survivors.table_step(self.filtered, self.survivors))

    def recall(self) -> Work[None]:
        """Measure the recall of near-duplicate detection with canaries. Raises RecallError if it is too low."""
        sources = recall.sources_by_minhash(self.recipe, map(source_of, self.filtered))
        if sources and self.recipe.deduplication.canaries:
            drawn = yield from run_units(recall.draw_step(self.recipe, self.clean, self.survivors))
            copies = yield from run_units(recall.copies_step(self.recipe, drawn))
            self.measured = (yield from run_units(recall.measure_step(self.recipe, drawn, copies)))["all"]
            self.recall_report = recall.report(self.measured)

    def tokenizer(self) -> Work[None]:
        """Train the tokenizer on a sample, or copy the given one."""
        tokenizer.require_text(self.recipe, self.ledger)
        sample = tokenizer.sample_step(self.recipe, self.clean, self.survivors)
        [_, [(trained,)]] = yield [[(sample,)], [(tokenizer.train_step(self.recipe, sample),)]]
        self.trained = trained["all"]

    def tokenize(self) -> Work[None]:
        """Write the token shards, the index of documents and URLs, and the statistics of shards."""
        recipe_sha = self.recipe.sha(self.names)
        parts, shards = tokenize.tokenize_steps(
            self.recipe, recipe_sha, self.clean, self.survivors, self.trained, self.generation
        )
        documents = sum(tally.out["records"] for tally in self.survivors.tallies.values())
        index = corpus_index.index_steps(shards, documents, self.generation)
        [[(tokenized, self.shards)], [(_, self.index), (self.shard_summaries,)]] = yield [
            [(parts, shards)],
            [index, (statistics.shard_step(shards),)],
        ]
        self.ledger["tokenize"] = manifest.sum_tallies(tokenized)

    def split_statistics(self) -> Work[None]:
        """Summarize the documents of each split for the statistics."""
        self.split_summaries = yield from run_units(
            statistics.split_step(self.recipe, self.extracted, self.filtered, self.survivors)
        )

    def manifest(self) -> Manifest:
        """Write the ledger and the manifest. Raises LedgerError if the ledger does not balance."""
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
        """Write `statistics.json`, which no hash covers."""
        yield from run_units(
            statistics.merge_step(
                self.recipe, manifest_sha, self.split_summaries, self.shard_summaries, self.survivors, self.measured
            )
        )

    def arguments_before(self, stage: str) -> tuple[Recipe, Receipts, dict[str, dict[str, Any]], filters.Verdicts]:
        """Return the arguments of a step function that applies rules before another stage.

        Args:
            stage: Name of the stage. The rules before the rule that needs it are applied. If empty, all are applied.

        Returns:
            The recipe, the receipts of `extract`, the arguments of each source, and the verdicts of earlier stages.
        """
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
            name: trained_models(name, source, self.corpus, cuts.get(name))
            for name, source in self.recipe.sources.items()
        }
        by_source = filters.rule_arguments(self.recipe, models, self.inputs.models, trained, stage)
        return self.recipe, self.extracted, by_source, self.verdicts

    def model_entries(self) -> dict[str, ModelEntry]:
        """Return the manifest entries of all models that the corpus depends on, by use."""
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
        """Run the jobs that the generator `work` yields, until it ends."""
        with garbage_collection(False):
            finish(work, self.run_turns)

    def run_turns(self, turns: Turns) -> list[list[PartReceipts]]:
        """Run one job. Return the receipts of each part of each turn."""
        self.engine.check()
        for step in steps_of(turns):
            if step.units and not step.omits_code_version:  # The manifest records the hash of the code.
                self.code.setdefault(step.name, set()).add(step.code())
        made, ran = run_job(self.corpus, turns, self.engine_for(turns))
        self.ran += ran
        return made

    def engine_for(self, turns: Turns) -> Engine:
        """Return the engine that runs a job.

        If no step of the job grows with the corpus, it is the local engine, because a remote engine needs minutes to
        start a job.
        """
        grows = any(kind_of(step.name).unit != "run" for step in steps_of(turns) if step.units)
        return self.engine if grows else self.engine.here()


def steps_of(turns: Turns) -> Iterator[Step]:
    """Yield the steps of a job."""
    yield from (step for parts in turns for part in parts for step in part)
