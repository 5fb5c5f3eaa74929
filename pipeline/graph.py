"""The stages of a run in order, each from the receipts of the one before.

Every stage is finished before the next begins, its files are the resume points, and what is finished is not done again.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.files import sha256_json
from manifests.manifest import Manifest, ModelEntry
from manifests.recipe import Recipe
from pipeline.beam.engines import Engine
from pipeline.beam.exchange import run_exchange
from pipeline.beam.fingerprint import code_version
from pipeline.beam.task import MISTAKE, Receipt, Task, receipts, run_tasks, sweep
from pipeline.preflight import Given
from pipeline.stages import (
    containment,
    corpora,
    extract,
    join,
    manifest,
    models,
    neardup,
    perplexity,
    references,
    statistics,
    survivors,
    tokenize,
    tokenizer,
)
from pipeline.stages import corpus_index as lookup
from pipeline.stages import filter as annotate
from pipeline.stages import line_dedup as lines
from pipeline.stages import recall as canaries
from pipeline.stages import split_offsets as index
from pipeline.stages import url_dedup as urls
from pipeline.stages.clusters import connected
from pipeline.stages.corpora import Split
from pipeline.stages.judge import Models

STAGES = (
    index,
    extract,
    join,
    urls,
    lines,
    perplexity,
    references,
    annotate,
    neardup,
    survivors,
    tokenizer,
    tokenize,
    lookup,
    manifest,
)

Receipts = dict[str, Receipt]


class Enough(Exception):  # noqa: N818  # no error: `--stage` asked for no more
    """The stage that was asked for is finished."""


class Walk:
    """One run's facts, and the stages as methods that read top to bottom."""

    def __init__(
        self,
        recipe: Recipe,
        corpus: Path,
        engine: Engine,
        given: Given,
        keep_dropped: int,
        only: str | None,
        generation: int,
    ) -> None:
        self.recipe, self.corpus, self.engine, self.generation = recipe, corpus, engine, generation
        self.given, self.keep_dropped, self.only = given, keep_dropped, only
        self.plain = recipe.model_dump()
        self.names = {name: [item.name for item in given.inputs if item.source == name] for name in recipe.sources}
        self.canaries = ""
        self.older: Receipts = {}
        self.findings: dict[str, Any] = models.blocklists(recipe)
        self.ran = 0

    def stages(self) -> Manifest:
        """Walk the stages."""
        recipe, given, sources = self.recipe, self.given, {"sources": self.plain["sources"]}
        indexed = self.map(index, index.tasks(recipe, given.inputs), sources)
        self.after(index)
        extracted, ended = self.extract(indexed, sources)
        self.older = self.compare_urls(extracted)
        self.after(urls)
        verdicts = self.compare_lines(extracted)
        self.after(lines)
        language_models, scored, cuts = self.take_perplexities(extracted, verdicts)
        self.after(perplexity)
        classifiers = self.learn_references(extracted, verdicts, language_models, scored, cuts)
        self.after(references)

        judged = self.judged(extracted, verdicts, language_models, scored, cuts, classifiers)
        settings = {**sources, "deduplication": self.plain["deduplication"], "models": self.models(cuts)}
        settings["keep_dropped"] = self.keep_dropped
        annotated = self.map(annotate, annotate.tasks(recipe, extracted, judged, self.keep_dropped), settings)
        self.after(annotate)

        splits = [*corpora.splits_of(self.corpus, extracted, annotated), *given.earlier]
        labels = self.join_edges(self.compare_documents(splits))
        settings = survivors.settings(recipe, splits, annotated)
        inside = self.find_contained(splits)
        chosen = survivors.tasks(recipe, splits, labels, inside)
        clusters = self.tasks(survivors, chosen, settings, survivors.join)["all"]
        self.canaries = self.measure_recall(annotated, clusters)
        self.after(neardup)

        samples = self.tasks(
            tokenizer, tokenizer.sample_tasks(recipe, annotated, clusters), {"seed": recipe.seed}, tokenizer.draw
        )
        settings = {"tokenizer": self.plain["tokenizer"]}
        trained = self.tasks(tokenizer, tokenizer.train_tasks(recipe, samples), settings, tokenizer.train)["all"]
        self.after(tokenizer)

        recipe_sha, plan = recipe.sha(self.names), tokenize.buckets(recipe, clusters, trained)
        maps = tokenize.map_tasks(recipe, annotated, clusters, trained)
        settings = tokenize.settings(recipe, recipe_sha, plan, trained)
        reduces = tokenize.reduce_tasks(recipe_sha, plan, maps, self.generation)
        shards = self.exchange(tokenize, settings, maps, tokenize.encode, reduces, tokenize.write)
        self.after(tokenize)
        places = lookup.map_tasks(shards, self.generation)
        found = self.exchange(
            lookup, lookup.settings(places), places, lookup.cut, lookup.reduce_tasks(places), lookup.merge
        )
        self.after(lookup)

        ledgers = {
            extract.STAGE: [*extracted.values(), *ended.values()],
            annotate.STAGE: list(annotated.values()),
            neardup.STAGE: [clusters],
            tokenize.STAGE: list(receipts(self.corpus, maps).values()),
        }
        code = {stage.STAGE: code_version(stage.__name__) for stage in STAGES}
        entries = self.model_entries(language_models, cuts, classifiers)
        written = (shards, lookup.index_entries(found))
        made = manifest.write(self.corpus, recipe, self.names, entries, code, ledgers, trained, *written, self.findings)
        self.sum_up(made.manifest_sha, extracted, annotated, clusters, shards)
        return made

    def extract(self, indexed: Receipts, settings: dict[str, Any]) -> tuple[Receipts, Receipts]:
        """Documents by split, of sources read record by record and of those joined from rows, in files of the same kind
        and place; and what counts the rows that were joined to none."""
        tasks = extract.tasks(self.recipe, self.given.inputs, indexed, self.given.models)
        with self.mistakes():
            self.ran += run_tasks(self.corpus, settings, tasks, extract.work, self.engine)
        self.after(extract)
        with self.mistakes():
            joined, rows, ran = join.join(self.corpus, self.recipe, self.given.inputs, indexed, self.engine)
        self.ran += ran
        sweep(self.corpus, extract.STAGE, [*tasks, *joined], extract.OWNED)
        self.after(join)
        return receipts(self.corpus, [*tasks, *joined]), receipts(self.corpus, rows)

    def compare_urls(self, extracted: Receipts) -> Receipts:
        """Verdicts on older copies by split, of the sources that ask for them."""
        maps = urls.map_tasks(self.recipe, extracted)
        if not maps:
            return {}
        found = self.exchange(urls, {}, maps, urls.cut, urls.reduce_tasks(maps), urls.find)
        places, verdicts = urls.place_tasks(found), urls.verdict_tasks(maps, found)
        self.findings[urls.STAGE] = urls.findings(found)
        return self.exchange(urls, {}, places, urls.send_back, verdicts, urls.judge)

    def compare_lines(self, extracted: Receipts) -> Receipts:
        """Line verdicts by split, of the sources that ask for them."""
        maps = lines.map_tasks(self.recipe, extracted, self.older)
        if not maps:
            return {}
        settings = lines.settings(maps)
        found = self.exchange(lines, settings, maps, lines.cut, lines.reduce_tasks(maps), lines.find)
        places, verdicts = lines.place_tasks(found), lines.verdict_tasks(maps, found)
        self.findings[lines.STAGE] = lines.findings(found)
        return self.exchange(lines, settings, places, lines.send_back, verdicts, lines.judge)

    def compare_documents(self, splits: list[Split]) -> Receipts:
        """The verified edges between duplicates, by path below the corpus."""
        settings = neardup.settings(self.recipe, splits)
        maps = neardup.band_tasks(self.recipe, splits)
        found = self.exchange(
            neardup, settings, maps, neardup.cut, neardup.candidate_tasks(maps), neardup.find_candidates
        )
        edges = {f"blocks/{neardup.CANDIDATES}/{name}": receipt for name, receipt in found.items() if "exact" in name}
        if self.recipe.deduplication.minhash is None:
            return edges
        wanted = neardup.wanted_tasks(self.recipe, found)
        fetches = neardup.fetch_tasks(maps, wanted)
        fetched = self.exchange(neardup, settings, wanted, neardup.ask, fetches, neardup.collect)
        evidence = neardup.evidence_tasks(fetched, maps, wanted)
        judges = neardup.edge_tasks(evidence, wanted)
        verified = self.exchange(neardup, settings, evidence, neardup.send, judges, neardup.verify)
        self.findings[neardup.STAGE] = neardup.findings(found, verified)
        return edges | {f"blocks/{neardup.EDGES}/{name}": receipt for name, receipt in verified.items()}

    def join_edges(self, edges: Receipts) -> list[Task]:
        """The finished tasks that hold the clusters."""
        ranges = max(1, -(-16 * sum(receipt.facts["edges"] for receipt in edges.values()) // neardup.RANGE_BYTES))
        with self.mistakes():
            most = self.recipe.deduplication.one_worker
            tasks, ran = connected(self.corpus, edges, ranges, self.engine, f"{neardup.STAGE}/connected", most)
        self.ran += ran
        return tasks

    def find_contained(self, splits: list[Split]) -> Receipts:
        """Which documents are almost whole in others, of the sources that ask for it, by source."""
        settings = {"sources": self.plain["sources"], "splits": splits}
        sketched = self.tasks(containment, containment.sketch_tasks(self.recipe, splits), settings, containment.sketch)
        compared = containment.compare_tasks(self.recipe, splits, sketched)
        return self.tasks(containment, compared, settings, containment.compare)

    def measure_recall(self, annotated: Receipts, clusters: Receipt) -> str:
        """What the planted copies say of the recipe's bands, as text; empty where none were asked for. Raises
        RecallError where they are not found as often as they must be."""
        maps = canaries.draw_tasks(self.recipe, annotated, clusters)
        if not maps:
            return ""
        settings = {"seed": self.recipe.seed, "deduplication": self.plain["deduplication"]}
        drawn = self.tasks(canaries, maps, settings, canaries.draw)
        measured = self.tasks(canaries, canaries.measure_tasks(self.recipe, drawn), settings, canaries.measure)
        return canaries.report(self.recipe, measured["all"])

    def sum_up(
        self, manifest_sha: str, extracted: Receipts, annotated: Receipts, clusters: Receipt, shards: Receipts
    ) -> None:
        """Write `statistics.json`, which nothing hashes."""
        settings = {"seed": self.recipe.seed}
        maps = statistics.split_tasks(self.recipe, extracted, annotated, clusters)
        splits = self.tasks(statistics, maps, settings, statistics.sum_up)
        measured = self.tasks(statistics, statistics.shard_tasks(shards), settings, statistics.measure)
        merges = statistics.merge_tasks(self.recipe, self.corpus, manifest_sha, splits, measured, clusters)
        self.tasks(statistics, merges, settings, statistics.merge)

    def take_perplexities(self, extracted: Receipts, verdicts: Receipts) -> tuple[Receipts, Receipts, Receipts]:
        """Language models by `SOURCE/LANGUAGE`, scores by split, and cut-offs by source."""
        settings = {"seed": self.recipe.seed, "sources": self.plain["sources"]}
        tasks = perplexity.train_tasks(self.recipe, self.given.texts)
        trained = self.tasks(perplexity, tasks, settings, perplexity.train)
        judged = self.judged(extracted, verdicts, trained, {}, {}, {})
        settings["models"] = self.models({})
        tasks = perplexity.score_tasks(self.recipe, extracted, judged)
        scored = self.tasks(perplexity, tasks, settings, perplexity.score)
        cuts = self.tasks(perplexity, perplexity.cut_tasks(self.recipe, scored), {}, perplexity.cut)
        return trained, scored, cuts

    def learn_references(
        self, extracted: Receipts, verdicts: Receipts, trained: Receipts, scored: Receipts, cuts: Receipts
    ) -> Receipts:
        """Reference classifiers by source."""
        settings = {"seed": self.recipe.seed, "sources": self.plain["sources"], "models": self.models(cuts)}
        cited = self.tasks(references, references.url_tasks(self.recipe, self.given.wiki), {}, references.collect)
        judged = self.judged(extracted, verdicts, trained, scored, cuts, {})
        tasks = references.sample_tasks(self.recipe, extracted, cited, judged)
        sampled = self.tasks(references, tasks, settings, references.sample)
        return self.tasks(references, references.train_tasks(self.recipe, tasks, sampled), settings, references.train)

    def models(self, cuts: Receipts) -> dict[str, Models]:
        """Where each source's models lie."""
        found = {source: perplexity.cuts_of(receipt) for source, receipt in cuts.items()}
        return {
            name: models.models_of(name, source, self.corpus, found.get(name))
            for name, source in self.recipe.sources.items()
        }

    def judged(
        self,
        extracted: Receipts,
        verdicts: Receipts,
        trained: Receipts,
        scored: Receipts,
        cuts: Receipts,
        classifiers: Receipts,
    ) -> dict[str, str]:
        """By split, the hash of all that the verdicts on its documents depend on beside their text."""
        found = {}
        for split in extracted:
            name = split.partition("/")[0]
            given = {use: sha for use, sha in self.given.models.items() if use.startswith(f"{name}.")}
            used = [trained[key].sha() for key in sorted(trained) if key.startswith(f"{name}/")]
            used += [receipts[name].sha() for receipts in (cuts, classifiers) if name in receipts]
            used += [receipts[split].sha() for receipts in (self.older, verdicts, scored) if split in receipts]
            found[split] = sha256_json([models.rules(self.recipe.sources[name]), given, used])
        return found

    def model_entries(self, trained: Receipts, cuts: Receipts, classifiers: Receipts) -> dict[str, ModelEntry]:
        """Every model that the corpus depends on, for the manifest."""
        entries = {name: ModelEntry(sha256=sha) for name, sha in self.given.models.items()}
        for kind, found in (("perplexity", trained), ("cuts", cuts), ("references", classifiers)):
            for name, receipt in found.items():
                for output in receipt.outputs:
                    use = f"{name.replace('/', '.')}.{kind}.{output.path.rpartition('/')[2]}"
                    entries[use] = ModelEntry(sha256=output.sha256, path=output.path)
                self.findings.setdefault(kind, {})[name] = receipt.facts
        return entries

    def after(self, stage: Any) -> None:
        """End here if this is the stage that was asked for."""
        if self.only == stage.STAGE:
            raise Enough

    def map(self, stage: Any, tasks: list[Task], settings: dict[str, Any]) -> Receipts:
        """A stage of one step."""
        return self.tasks(stage, tasks, settings, stage.work)

    def tasks(self, stage: Any, tasks: list[Task], settings: dict[str, Any], work: Any) -> Receipts:
        """A step whose tasks do not talk to each other."""
        with self.mistakes():
            self.ran += run_tasks(self.corpus, settings, tasks, work, self.engine)
        if tasks:
            sweep(self.corpus, tasks[0].stage, tasks, _owned(stage, tasks[0].stage))
        return receipts(self.corpus, tasks)

    def exchange(
        self, stage: Any, settings: dict[str, Any], maps: list[Task], mapper: Any, reduces: list[Task], reducer: Any
    ) -> Receipts:
        """A step whose mappers send blocks to reducers."""
        with self.mistakes():
            self.ran += run_exchange(self.corpus, settings, maps, mapper, reduces, reducer, self.engine)
        for tasks in (maps, reduces):
            sweep(self.corpus, tasks[0].stage, tasks, _owned(stage, tasks[0].stage))
        return receipts(self.corpus, reduces)

    @contextlib.contextmanager
    def mistakes(self) -> Iterator[None]:
        """A user's mistake found by a worker reaches the user as its one sentence, whatever the engine wraps it in."""
        notice = self.engine.timings / MISTAKE
        try:
            yield
        except Exception:
            if notice.exists():
                raise UserError(notice.read_text(encoding="utf-8")) from None
            raise


def _owned(stage: Any, step: str) -> tuple[str, ...]:
    """The folders that a step of a stage owns."""
    owned: Mapping[str, tuple[str, ...]] | tuple[str, ...] = stage.OWNED
    return owned[step] if isinstance(owned, Mapping) else owned
