"""Files of blocks: merges hold each range's blocks in the mappers' order, however little is held or read at once."""

import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from manifests.files import canonical_json, write_atomic
from pipeline.beam import exchange
from pipeline.beam.exchange import (
    Mapped,
    find_blocks,
    find_index,
    merge_blocks,
    merge_step,
    unpack_blocks,
    write_blocks,
)
from pipeline.beam.receipts import receipt_name
from pipeline.beam.step import Output, Step, Task, Unit

BLOCKS = st.dictionaries(st.integers(0, 9), st.binary(min_size=1, max_size=20), max_size=10)


def write(corpus: Path, step: str, name: str, mapped: Mapped) -> Task:
    """Write a finished mapper's blocks and receipt."""
    made = write_blocks(lambda *_: mapped, step, corpus, name)
    outputs = [Output(path, (corpus / path).stat().st_size, "0" * 64)._asdict() for path in made.paths]
    plain = {"fingerprint": "f", "outputs": outputs, "tallies": {}, "facts": made.facts}
    write_atomic(corpus / receipt_name(step, name), canonical_json(plain))
    return Task(step, name, "f")


@given(st.lists(BLOCKS, min_size=1, max_size=6), st.integers(1, 99), st.integers(1, 99))
def test_a_merge_holds_every_block_in_order(sent: list[dict[int, bytes]], held: int, span: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.multiple(exchange, MERGE_BYTES=held, SPAN_BYTES=span),
    ):
        corpus = Path(folder)
        tasks = [write(corpus, "map", f"{n}", Mapped(sorted(blocks.items()))) for n, blocks in enumerate(sent)]
        indexes = [find_index(corpus, task) for task in reversed(tasks)]
        merge = write(corpus, "merge", "0", merge_blocks(corpus, "0", indexes, first="0"))
        found = dict(find_blocks(corpus, merge, set(range(10)), as_places=False))
        expected = {r: [blocks[r] for blocks in sent if r in blocks] for r in range(10)}
        assert {r: unpack_blocks(packed) for r, (_, packed) in found.items()} == {
            r: b for r, b in expected.items() if b
        }
        one = dict(find_blocks(corpus, merge, {3}, as_places=True))
        assert one.keys() == found.keys() & {3}


@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 200))
def test_merges_divide_the_mappers_by_name_and_bound_the_places(mappers: int, ranges: int, most: int) -> None:
    names = [f"{n}" for n in range(mappers)]
    with patch.object(exchange, "MOST_PLACES", most):
        step = merge_step(Step("map", write, []), dict.fromkeys(names, "f"), ranges)
    if step is None:
        assert mappers * ranges <= most
        return
    assert len(step.units) <= max(1, most // ranges)
    assert [name for unit in step.units for name, _ in unit.reads] == sorted(names)
    assert [unit.name for unit in step.units] == sorted(unit.name for unit in step.units)
    assert all(isinstance(unit, Unit) and unit.arguments["first"] == unit.reads[0][0] for unit in step.units)
