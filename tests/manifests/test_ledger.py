"""Test the ledger: balanced tallies are accepted, and every kind of imbalance is detected."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from filters.reasons import DEAD_LETTERS, DESCRIPTIONS, Reason
from manifests.ledger import STAGES, Tally, empty_sources, imbalances, tally_from, total

units = st.dictionaries(st.sampled_from(["records", "bytes", "characters", "tokens"]), st.integers(0, 10**12))
reasons = st.dictionaries(st.sampled_from([reason.value for reason in Reason]), units, max_size=4)


@st.composite
def balanced(draw: st.DrawFn) -> Tally:
    """Draw a balanced tally."""
    plain = {"in": {}, "out": draw(units), "dropped": draw(reasons), "removed": draw(reasons)}
    tally = tally_from(plain)
    for unit in draw(st.sets(st.sampled_from(["records", "bytes", "characters"]))):
        left = [tally.out, *tally.dropped.values(), *tally.removed.values()]
        tally.entered[unit] = sum(counts[unit] for counts in left)
    return tally


@given(balanced())
def test_what_is_accounted_for_balances(tally: Tally) -> None:
    assert tally.imbalance() == []
    assert tally_from(tally.as_dict()).as_dict() == tally.as_dict()


@given(balanced(), st.sampled_from(["records", "bytes", "characters"]), st.integers(1, 10**6))
def test_what_is_lost_in_silence_is_found(tally: Tally, unit: str, lost: int) -> None:
    before = sum(counts[unit] for counts in [tally.out, *tally.dropped.values(), *tally.removed.values()])
    tally.entered[unit] = before + lost
    assert any(f"{before + lost} {unit} in" in problem for problem in tally.imbalance())


@given(st.lists(balanced(), max_size=5))
def test_sums_of_equal_units_balance_too(tallies: list[Tally]) -> None:
    for tally in tallies:  # A sum of tallies balances only if all tallies count the same units at their inputs.
        tally.entered.clear()
        for unit in ("records", "characters"):
            left = [tally.out, *tally.dropped.values(), *tally.removed.values()]
            tally.entered[unit] = sum(counts[unit] for counts in left)
    whole = total(tallies)
    assert whole.imbalance() == []
    assert whole.entered["records"] == sum(tally.entered["records"] for tally in tallies)


def ledger() -> dict[str, dict[str, dict]]:
    made: dict[str, dict[str, dict]] = {}
    for stage in STAGES:
        tally = Tally()
        tally.enter(records=10, characters=100)
        tally.keep(records=10, characters=100)
        made[stage] = {"books": tally.as_dict()}
    return made


def test_a_whole_ledger_balances_and_a_gap_between_stages_does_not() -> None:
    assert imbalances(ledger()) == []
    for stage in STAGES[1:]:
        broken = copy.deepcopy(ledger())
        for side in ("in", "out"):
            broken[stage]["books"][side]["records"] = 9
        assert any(f"{stage} took in 9" in problem for problem in imbalances(broken))


def test_a_stage_without_one_of_its_sources_is_found() -> None:
    broken = ledger()
    broken["filter"] = {}
    assert any("filter took in 0" in problem for problem in imbalances(broken))


def test_a_count_below_zero_is_found_although_the_sum_is_right() -> None:
    broken = ledger()
    broken["filter"]["books"]["removed"] = {"c4-edited": {"characters": -5}, "c4-policy": {"characters": 5}}
    assert any("a count below zero" in problem for problem in imbalances(broken))


def test_an_unknown_reason_is_found() -> None:
    broken = ledger()
    broken["extract"]["books"]["dropped"]["because"] = {"records": 0}
    assert any("'because' is no known reason" in problem for problem in imbalances(broken))


def test_every_reason_is_described_and_damage_is_a_dead_letter() -> None:
    assert set(DESCRIPTIONS) == set(Reason)
    assert Reason.CORRUPT_GZIP in DEAD_LETTERS


def test_a_source_without_a_document_is_named_with_what_took_most() -> None:
    kept, lost = Tally(), Tally()
    for tally in (kept, lost):
        tally.enter(records=4)
        tally.drop(Reason.TOO_SHORT, records=3)
    kept.keep(records=1)
    lost.drop(Reason.NO_TEXT, records=1)
    after = Tally()
    for count in (after.enter, after.keep):
        count(records=1)
    ledger = {
        "extract": {"a": kept.as_dict(), "b": lost.as_dict(), "c": Tally().as_dict()},
        "filter": {"a": after.as_dict(), "b": Tally().as_dict(), "c": Tally().as_dict()},
    }
    assert empty_sources(ledger) == {
        "b": f"3 of 4 records were dropped as {Reason.TOO_SHORT.value}",
        "c": "its inputs hold no record",
    }
