"""recall: originals are those of the smallest keys however documents lie in splits, each copied by one task."""

from hypothesis import given
from hypothesis import strategies as st

from manifests.recipe import parse_recipe
from pipeline.beam.step import Receipt
from pipeline.dedup.recall import TASK_ORIGINALS, copies_step

PLAIN = {"name": "x", "seed": 1, "goal_tokens": 9, "sources": {"c4": {"weight": 1.0, "inputs": ["x"]}}}


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.sets(st.integers(0, 999)), max_size=6), st.integers(1, 400))
def test_each_original_of_the_smallest_keys_is_copied_once(keys: dict[str, set[int]], canaries: int) -> None:
    recipe = parse_recipe({**PLAIN, "deduplication": {"canaries": canaries}}, "r")
    drawn = {f"c4/{split}": Receipt("", [], {}, {"keys": sorted(found)}) for split, found in keys.items()}
    units = copies_step(recipe, drawn).units
    taken = [
        (drawn[split].facts["keys"][row], split)
        for unit in units
        for split, rows in unit.arguments["originals"].items()
        for row in rows
    ]
    wanted = sorted((key, f"c4/{split}") for split, found in keys.items() for key in found)[:canaries]
    assert sorted(taken) == wanted
    assert len(units) == -(-len(wanted) // TASK_ORIGINALS)
    for unit in units:
        assert list(unit.reads) == [drawn[split] for split in unit.arguments["originals"]]
