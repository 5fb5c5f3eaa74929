"""De-duplication by source: which documents are compared, what a survivor stands for, on corpora made of signatures."""

import itertools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import run_exchange, run_map

from filters.dedup.containment import Containment
from filters.dedup.settings import Comparison
from filters.reasons import Reason
from manifests.document import CLUSTER_SCHEMA, content_hash
from manifests.files import sha256_file
from manifests.ledger import Tally
from manifests.recipe import Recipe, parse_recipe
from pipeline.beam.step import Output, Receipt, Receipts, Step, Unit
from pipeline.beam.tables import table_writer, write_ipc
from pipeline.dedup import clusters, containment, neardup, survivors
from pipeline.dedup.containment import CONTAINED_SCHEMA
from pipeline.dedup.signatures import ROW_BITS, SignatureRows, Split, signature_path, signature_settings, splits_of

SOURCES = ("code", "pages", "wiki")
WORDS = np.array("the keeper walked down to harbour and counted boats that had come home bells".split())
STORIES, VARIANTS = 3, 3  # variants of a story are some 0.95 alike: all settings below find every pair of them


def text_of(story: int, variant: int) -> str:
    chance = np.random.default_rng(story)
    words = [f"{word}{n}" for word, n in zip(chance.choice(WORDS, 200), chance.integers(0, 9, 200), strict=True)]
    return " ".join([*words[: 50 * variant], f"variant{variant}", *words[50 * variant + 1 :]])


TEXTS = {(story, variant): text_of(story, variant) for story in range(STORIES) for variant in range(VARIANTS)}
Document = tuple[int, int]  # story and variant

MINHASH = [False, {}, {"bands": 30, "rows": 3}, {"ngram": 3, "threshold": 0.6}, {"verify": "signatures", "rounds": 4}]
documents = st.lists(st.sampled_from(sorted(TEXTS)), max_size=7)
corpora = st.fixed_dictionaries(dict.fromkeys(SOURCES, documents))
changes = st.fixed_dictionaries(
    {},
    optional={"exact": st.booleans(), "minhash": st.sampled_from(MINHASH), "scope": st.sampled_from(["source", "all"])},
)
settings_of = st.fixed_dictionaries(dict.fromkeys(SOURCES, st.none() | changes))


def recipe_of(own: Mapping[str, Any], block: Mapping[str, Any]) -> Recipe:
    return parse_recipe(
        {
            "name": "x",
            "seed": 1,
            "goal_tokens": 1000,
            "sources": {name: {"kind": "books", "weight": 1, "deduplication": rules} for name, rules in own.items()},
            "deduplication": {"canaries": 0, **block},
        },
        "r",
    )


@dataclass
class Found:
    """What a run decides: by document, the size of its cluster and why it was removed."""

    sizes: dict[bytes, int] = field(default_factory=dict)
    reasons: dict[bytes, str] = field(default_factory=dict)
    clusters: dict[bytes, bytes] = field(default_factory=dict)
    similarities: dict[bytes, float | None] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def identity_of(source: str, place: int) -> bytes:
    return content_hash(f"{source} {place}")


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def write_splits(corpus: Path, recipe: Recipe, texts: Mapping[str, list[Document]]) -> tuple[Receipts, Receipts]:
    """Write the signatures of two splits per source; return receipts as `extract` and `filter` leave them."""
    extracted, filtered = {}, {}
    for source, held in texts.items():
        for half in (0, 1):
            rows = SignatureRows(signature_settings(recipe, source).value)
            tally = Tally()
            for place, document in enumerate(held):
                if place % 2 == half:
                    text = TEXTS[document]
                    rows.append(identity_of(source, place), content_hash(text), text, "")
                    tally.enter(records=1, characters=len(text))
                    tally.keep(records=1, characters=len(text))
            name = f"{source}/{half}"
            path = signature_path(name)
            rows.write(corpus / path)
            output = Output(path, (corpus / path).stat().st_size, sha256_file(corpus / path))
            extracted[name] = Receipt("", [], {}, {"file": name})
            clean = Output(f"clean/{name}.parquet", 0, "")  # that no step here reads
            filtered[name] = Receipt("", [clean, output], {source: tally}, {})
    return extracted, filtered


def labels_of(corpus: Path, edges: Receipts) -> Step:
    """Write the clusters of edges, and return the step that did."""
    paths = [receipt.outputs[0].path for receipt in edges.values()]
    cut = Step(clusters.CUT, clusters.map_components, [Unit("all", {"edges": paths})], {"ranges": 2})
    labels = clusters.label_step(edges, 2)
    run_exchange(corpus, cut, labels)
    return labels


def survivors_of(
    corpus: Path, recipe: Recipe, splits: list[Split], filtered: Receipts, contained: list[str], edges: Receipts
) -> Found:
    """Choose the survivors. `contained`: sources with a file of documents that lie within others."""
    compare = Step(containment.COMPARE, containment.compare_documents, [Unit(source) for source in contained])
    step = survivors.survivor_step(recipe, splits, filtered, labels_of(corpus, edges), compare)
    chosen = run_map(corpus, step)["all"]
    tables = run_map(corpus, survivors.table_step(filtered, chosen))
    found = Found(facts=chosen.facts)
    for row in pq.read_table(corpus / "duplicates/clusters-00000-of-00001.parquet").to_pylist():
        found.similarities[row["removed"]] = row["similarity"]
    for receipt in tables.values():
        table = pq.read_table(corpus / receipt.outputs[0].path)
        assert table.schema.equals(CLUSTER_SCHEMA)
        for row in table.to_pylist():
            found.sizes[row["id"]] = row["cluster_size"]
            found.reasons[row["id"]] = row["reason"]
            found.clusters[row["id"]] = row["cluster"]
    return found


def deduplicate(recipe: Recipe, texts: Mapping[str, list[Document]]) -> Found:
    """Run the steps from signatures to clusters as the graph does."""
    with folder() as corpus:
        extracted, filtered = write_splits(corpus, recipe, texts)
        splits = splits_of(recipe, corpus, extracted, filtered)
        edges = [*run_exchange(corpus, *neardup.find_exact(splits)).values()]
        for search in neardup.near_searches(splits):
            candidates = run_exchange(corpus, *search.find_candidates())
            run_exchange(corpus, *search.fetch_evidence(candidates))
            edges += run_exchange(corpus, *search.verify_candidates(candidates)).values()
        named = {receipt.outputs[0].path: receipt for receipt in edges}
        return survivors_of(corpus, recipe, splits, filtered, [], named)


def expected_clusters(recipe: Recipe, texts: Mapping[str, list[Document]]) -> list[set[bytes]]:
    """Return the clusters by the rules as documented, on every pair of documents."""
    graph: networkx.Graph = networkx.Graph()
    held = [(source, place, one) for source, found in texts.items() for place, one in enumerate(found)]
    for source, place, _ in held:
        graph.add_node(identity_of(source, place))
    for a, first, one in held:
        for b, second, other in held:
            here, there = recipe.comparison_of(a), recipe.comparison_of(b)
            within = a == b or here.scope == there.scope == "all"
            exact = here.exact and there.exact and one == other
            near = here.minhash is not None and here.minhash == there.minhash and one[0] == other[0]
            if within and (exact or near):
                graph.add_edge(identity_of(a, first), identity_of(b, second))
    return [set(found) for found in networkx.connected_components(graph)]


@given(corpora, settings_of, changes)
@settings(max_examples=40, deadline=None)
def test_documents_are_compared_as_their_sources_say(
    texts: dict[str, list[Document]], own: dict[str, Any], block: dict[str, Any]
) -> None:
    recipe = recipe_of(own, block)
    found = deduplicate(recipe, texts)
    clusters_found = defaultdict(set)
    for identity, cluster in found.clusters.items():
        clusters_found[cluster].add(identity)
    expected = expected_clusters(recipe, texts)
    assert sorted(map(sorted, clusters_found.values())) == sorted(map(sorted, expected))
    for members in expected:
        assert {found.sizes[one] for one in members} == {len(members)}
        assert sum(not found.reasons[one] for one in members) == 1
    schemes = {
        identity_of(source, place): recipe.comparison_of(source).scheme
        for source, held in texts.items()
        for place in range(len(held))
    }
    for one, similarity in found.similarities.items():
        near, comparable = (
            found.reasons[one] == Reason.NEAR_DUPLICATE,
            schemes[one] == schemes[found.clusters[one]] != "",
        )
        assert (similarity is None) == (near and not comparable), "known where there are signatures to compare"
        assert similarity is None or similarity > 0.5
    stayed = sum(found.sizes[one] for one, reason in found.reasons.items() if not reason)
    assert stayed == sum(map(len, texts.values())), "each document that entered is counted once"


@given(corpora, settings_of, changes)
@settings(max_examples=15, deadline=None)
def test_sources_that_are_not_compared_with_others_are_as_alone(
    texts: dict[str, list[Document]], own: dict[str, Any], block: dict[str, Any]
) -> None:
    recipe = recipe_of(own, block)
    together, alone = deduplicate(recipe, texts), Found()
    groups = defaultdict(list)
    for name in SOURCES:
        scope = recipe.comparison_of(name).scope
        groups["all" if scope == "all" else name].append(name)
    for names in groups.values():
        found = deduplicate(recipe.with_sources(only=names), {name: texts[name] for name in names})
        alone.sizes |= found.sizes
        alone.reasons |= found.reasons
        alone.clusters |= found.clusters
    assert (together.sizes, together.reasons, together.clusters) == (alone.sizes, alone.reasons, alone.clusters)


edges_between = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12)
shares = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.sampled_from([0.9, 0.95, 1.0])), max_size=12)


@given(edges_between, shares, st.booleans())
@settings(max_examples=60, deadline=None)
def test_survivors_stand_for_every_document_that_entered(
    edges: list[tuple[int, int]], contained: list[tuple[int, int, float]], against: bool
) -> None:
    """Any clusters, any documents within others, with and without an earlier corpus that half of the nodes are of."""
    nodes = [(number % 4 << ROW_BITS) + number // 4 for number in range(12)]
    recipe = recipe_of(dict.fromkeys(SOURCES), {"minhash": "off"})
    with folder() as corpus:
        texts = {"code": [(0, 0)] * 6, "pages": [(0, 0)] * 6}  # the texts do not matter here: splits of three rows
        extracted, filtered = write_splits(corpus, recipe, texts)
        splits = splits_of(recipe, corpus, extracted, filtered)
        if against:
            past = [replace(split, earlier=True) for split in splits[2:]]
            splits, filtered = [*splits[:2], *past], {name: filtered[name] for name in list(filtered)[:2]}
        here = {node for node in nodes if not splits[node >> ROW_BITS].earlier}
        pairs = [(nodes[a], nodes[b]) for a, b in edges if a != b]
        write_ipc(
            corpus / "edges", clusters.EDGE_SCHEMA, [pa.array([pair[n] for pair in pairs], pa.int64()) for n in (0, 1)]
        )
        inside = [(nodes[a], nodes[b], share) for a, b, share in contained if a != b and {nodes[a], nodes[b]} <= here]
        columns = [pa.array([row[n] for row in inside], CONTAINED_SCHEMA.types[n]) for n in (0, 1, 2)]
        write_ipc(corpus / f"blocks/{containment.COMPARE}/code.arrow", CONTAINED_SCHEMA, columns)
        receipt = Receipt("", [Output("edges", 0, "")], {}, {"edges": len(pairs)})
        found = survivors_of(corpus, recipe, splits, filtered, ["code"], {"edges": receipt})
        removed = pq.read_table(corpus / "duplicates/clusters-00000-of-00001.parquet").to_pylist()
    stayed = [one for one, reason in found.reasons.items() if not reason]
    assert sum(found.sizes[one] for one in stayed) + found.facts["of_earlier"] == len(here)
    assert all(found.clusters[one] == one for one in stayed)
    gone = {row["removed"] for row in removed}
    assert not gone & {row["kept"] for row in removed}, "what is kept stays"
    assert gone == {one for one, reason in found.reasons.items() if reason}
    if not against:
        counted = Counter(found.clusters.values())
        assert {one: found.sizes[one] for one in stayed} == {one: counted[one] for one in stayed}


def test_of_two_documents_within_each_other_one_stays() -> None:
    """Both were removed when the second was compared with what the first one had become."""
    nodes = np.arange(2, dtype=np.int64)
    pairs = (np.array([1, 0]), np.array([0, 1]), np.array([0.99, 0.95]))
    into, removed = survivors.join_contained(nodes, nodes, np.ones(2, bool), pairs)
    assert into.tolist() == [0, 0] and removed == [(1, 0.99)]
    alike = (np.array([0, 1]), np.array([1, 0]), np.array([0.95, 0.95]))
    into, removed = survivors.join_contained(nodes, nodes, np.ones(2, bool), alike)
    assert into.tolist() == [0, 0] and removed == [(1, 0.95)], "of equal ones the first stays"


BOOKS = {b"%016d" % n: " ".join(text_of(story, 0) for story in stories)
         for n, stories in enumerate([(0,), (0,), (1, 2), (2, 1), (0, 1), (0,), (3,), (0, 1, 2), (0,)])}  # fmt: skip


@given(st.permutations(sorted(BOOKS)), st.lists(st.integers(0, len(BOOKS)), max_size=3), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_books_within_books_do_not_depend_on_the_order_of_documents_and_splits(
    order: list[bytes], edges: list[int], max_books: int
) -> None:
    """Copies and books of one length tie, and a hash that many books hold leads to some of them only."""

    def survive(order: list[bytes], edges: list[int]) -> tuple[list[Any], set[Any]]:
        bounds, ids, own = [0, *sorted(edges), len(order)], dict[int, bytes](), list[tuple[int, str]]()
        with folder() as corpus:
            for number, (start, end) in enumerate(itertools.pairwise(bounds)):
                with table_writer(
                    corpus / f"clean/books/{number}.parquet", pa.schema([("id", pa.binary(16)), ("text", pa.string())])
                ) as writer:
                    for row, identity in enumerate(order[start:end]):
                        writer.append({"id": identity, "text": BOOKS[identity]})
                        ids[(number << ROW_BITS) + row] = identity
                own.append((number, f"books/{number}"))
                containment.sketch_documents(corpus, f"books/{number}", ngram=5, scale=4)
            rules = Containment(scale=4)
            result = containment.compare_documents(corpus, "books", rules=rules, splits=own)
            pairs = containment.read_contained(corpus, result.paths)
        nodes = np.array(sorted(ids), np.int64)
        into, removed = survivors.join_contained(nodes, np.arange(len(nodes)), np.ones(len(nodes), bool), pairs)
        inner, outer, shares = (column.tolist() for column in pairs)
        kept = {(ids[int(nodes[at])], ids[int(nodes[into[at]])], share) for at, share in removed}
        return [(ids[a], ids[b], share) for a, b, share in zip(inner, outer, shares, strict=True)], kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.beam.tables.GROUP_ROWS", 2)  # texts are read again by their row groups
        patch.setattr(containment, "find_candidates", partial(containment.find_candidates, max_books=max_books))
        assert survive(order, edges) == survive(sorted(BOOKS), [])


def test_a_change_for_one_source_redoes_only_its_search() -> None:
    keys = []
    for bands in (20, 21):
        recipe = recipe_of({"code": {"minhash": {"bands": bands}}, "pages": None}, {})
        with folder() as corpus:
            extracted, filtered = write_splits(corpus, recipe, {"code": [(0, 0)], "pages": [(1, 0)]})
            splits = splits_of(recipe, corpus, extracted, filtered)
            steps = [search.find_candidates() for search in neardup.near_searches(splits)]
        keys.append([mapping.fingerprints() for mapping, _ in steps])
    (code, pages), (code_after, pages_after) = keys
    assert pages == pages_after and not code.keys() & code_after.keys()


def test_settings_of_a_source_change_only_what_they_name() -> None:
    block = Comparison.model_validate({"minhash": {"threshold": 0.9}, "scope": "source"})
    assert Comparison.model_validate({}).complete(block).model_dump() == block.model_dump()
    own = Comparison.model_validate({"minhash": {"bands": 20}}).complete(block)
    assert own.minhash is not None and (own.minhash.bands, own.minhash.threshold) == (20, 0.9)
    assert own.scope == "source"
    for off in (False, "off", None):
        assert Comparison.model_validate({"minhash": off}).complete(block).minhash is None
    nothing = Comparison.model_validate(False).complete(block)
    assert (nothing.exact, nothing.minhash) == (False, None)
