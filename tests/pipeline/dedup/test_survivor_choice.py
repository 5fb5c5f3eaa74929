"""The choice of survivors: against a naive one, document by document, however many clusters are looked at together."""

from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.dedup.minhash import MinHash
from filters.dedup.settings import Comparison, Deduplication
from filters.hashing import run_starts
from manifests.files import relative_files, sha256_file
from pipeline.beam.step import Output
from pipeline.beam.tables import write_ipc
from pipeline.dedup import survivors
from pipeline.dedup.clusters import LABEL_SCHEMA
from pipeline.dedup.signatures import ROW_BITS, SignatureRows, Split, signature_path

MINHASH = MinHash(ngram=1, bands=2, rows=2)
Documents = list[tuple[int, str, str, int]]  # split, text, timestamp, cluster


STAMPS = [
    "",
    "2019",
    "2020-02-01T00:00:00Z",
    "2020-02-01T00:00:00.25Z",
    "2020-02-01T00:00:00.300Z",
    "2020-02-01T00:00:01Z",
]


@given(st.lists(st.integers(1, 7), max_size=30), st.integers(1, 9))
def test_slices_hold_whole_clusters_and_are_as_large_as_allowed(sizes: list[int], most: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = [labels[part].tolist() for part in survivors.cluster_slices(run_starts(labels), most)]
    assert list(chain.from_iterable(parts)) == labels.tolist()
    assert all(len(part) <= most or len(set(part)) == 1 for part in parts)
    for part, after in pairwise(parts):
        assert part[-1] < after[0] and len(part) + after.count(after[0]) > most


def choose(folder: Path, documents: Documents, rules: Deduplication, most: int) -> dict[str, str]:
    """Write the files of signatures and labels, choose, and return the hashes of all that was written."""
    splits, nodes, labels = [], [], []
    for number in range(3):
        name, rows = f"web/{number}", SignatureRows(MINHASH)
        mine = [(place, one) for place, one in enumerate(documents) if one[0] == number]
        for row, (place, (_, text, stamp, cluster)) in enumerate(mine):
            rows.append(b"%016d" % place, b"%16s" % text.encode(), text, stamp)
            nodes.append((number << ROW_BITS) + row)
            labels.append(cluster)
        rows.write(folder / signature_path(name))
        signed = Output(signature_path(name), 0, "")
        compared = Comparison(scope="all", minhash=MINHASH)
        splits.append(Split(name, str(folder), False, "web", "", len(mine), compared, signed, signed))
    smallest = {label: min(n for n, other in zip(nodes, labels, strict=True) if other == label) for label in labels}
    columns = [pa.array(nodes, pa.int64()), pa.array([smallest[label] for label in labels], pa.int64())]
    write_ipc(folder / "labels.arrow", LABEL_SCHEMA, columns)
    units = {"web": {"records": len(documents), "characters": sum(len(text) for _, text, _, _ in documents)}}
    with mock.patch.object(survivors, "cluster_slices", partial(survivors.cluster_slices, most=most)):
        result = survivors.choose_survivors(
            folder, "all", rules=rules, splits=splits, units=units, labels=["labels.arrow"], contained=[]
        )
    paths = sorted(result.paths)
    assert paths == [name for name in relative_files(folder) if name.startswith(("duplicates/", "verdicts/"))]
    kept = result.tallies["web"].out["records"]
    assert kept == len({label for *_, label in documents}), "one of each cluster"
    return {path: sha256_file(folder / path) for path in paths}


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["a b", "a b c", "d e", ""]), st.sampled_from(STAMPS),
                  st.integers(0, 4)),
        max_size=14,
    ),
    st.permutations(["longest", "newest", "oldest"]),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_the_choice_is_the_naive_one_and_the_same_in_any_slices(documents: Documents, order: list[str]) -> None:
    rules = Deduplication(survivor=order[:2])
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        hashes = choose(Path(one), documents, rules, 1 << 20)
        assert choose(Path(other), documents, rules, 2) == hashes
        table = pq.read_table(Path(one) / "duplicates").to_pylist()

    def rank(place: int) -> tuple[object, ...]:
        _, text, stamp, _ = documents[place]
        keys: dict[str, object] = {
            "longest": -len(text),
            "newest": -STAMPS.index(stamp),
            "oldest": STAMPS.index(stamp) or len(STAMPS),
        }
        return (*(keys[rule] for rule in order[:2]), place)

    wanted = []
    for cluster in {one[3] for one in documents}:
        first, *others = sorted((p for p, one in enumerate(documents) if one[3] == cluster), key=rank)
        for place in others:
            code = survivors.EXACT if documents[place][1] == documents[first][1] else survivors.NEAR
            wanted.append((b"%016d" % first, b"%016d" % place, survivors.REASONS[code]))
    assert [(row["cluster"], row["removed"], row["reason"]) for row in table] == sorted(wanted)
    assert all(row["kept"] == row["cluster"] for row in table)
    assert all(row["similarity"] == 1 for row in table if row["reason"] == survivors.REASONS[survivors.EXACT])
