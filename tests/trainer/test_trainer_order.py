"""The order of the data: exact quotas, each window once per epoch, the same for every way of computing it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import UserError
from manifests.order import (
    Plan,
    SourcePlan,
    Stage,
    count_windows,
    expected_counts,
    permute,
    plan_from,
    quotas,
    samples,
    stage_quotas,
)

sources = st.lists(
    st.tuples(
        st.floats(0.01, 1.0), st.floats(0.5, 5.0), st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(any)
    ),
    min_size=1,
    max_size=5,
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    made = tuple(
        SourcePlan(f"s{n}", weight, epochs, tuple((f"s{n}/{i}", windows) for i, windows in enumerate(shards)))
        for n, (weight, epochs, shards) in enumerate(draw(sources))
    )
    room = sum(int(source.max_epochs * source.windows) for source in made)
    batch = draw(st.integers(1, max(1, min(8, room))))
    steps = draw(st.integers(1, max(1, room // batch)))
    plan = Plan("sha", draw(st.integers(0, 9)), 16, batch, steps, made)
    if plan.samples > room:
        plan = Plan("sha", 0, 16, 1, max(1, room), made)
    if draw(st.booleans()):
        weight = st.floats(0.01, 1.0) | st.just(0.0)
        ends = sorted({plan.steps, *draw(st.lists(st.integers(1, plan.steps), max_size=3))})
        lengths = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        weights = st.tuples(*[weight] * len(made)).filter(any)
        plan = replace(plan, stages=tuple(Stage(length, draw(weights)) for length in lengths))
    return plan


def fits(plan: Plan) -> bool:
    try:
        quotas(plan)
    except UserError:
        return False
    return True


@given(plans().filter(fits))
@settings(max_examples=150, deadline=None)
def test_quotas_are_exact_within_caps_and_windows_are_used_once_an_epoch(plan: Plan) -> None:
    counts = quotas(plan)
    assert counts.sum() == plan.samples
    order = samples(plan, 0, plan.samples)
    for number, source in enumerate(plan.sources):
        mine = order.source == number
        assert mine.sum() == counts[number] <= int(source.max_epochs * source.windows)
        windows = list(zip(order.epoch[mine], order.shard[mine], order.window[mine], strict=True))
        assert len(set(windows)) == len(windows), "no window twice in one epoch"
        assert counts[number] == sum(part[number] for part in stage_quotas(plan))
        for epoch in range(int(order.epoch[mine].max(initial=0))):
            assert sum(e == epoch for e, _, _ in windows) == source.windows, "an epoch ends before the next begins"
        for _, shard, window in windows:
            assert 0 <= window < source.shards[shard][1]


@given(plans().filter(fits), st.sampled_from([1e18, 1e300]))
def test_a_cap_of_any_size_is_as_one_that_never_binds(plan: Plan, cap: float) -> None:
    def capped(most: float) -> list[list[int]]:
        free = replace(plan, sources=tuple(replace(source, max_epochs=most) for source in plan.sources))
        return [counts.tolist() for counts in stage_quotas(free)]

    assert capped(cap) == capped(plan.samples)


@given(plans().filter(fits), st.data())
@settings(max_examples=100, deadline=None)
def test_any_range_asked_alone_is_the_same_as_in_the_whole(plan: Plan, data: st.DataObject) -> None:
    whole = samples(plan, 0, plan.samples)
    start = data.draw(st.integers(0, plan.samples - 1))
    stop = data.draw(st.integers(start + 1, plan.samples))
    part = samples(plan, start, stop)
    for name in ("source", "epoch", "shard", "window"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[start:stop])


@given(plans().filter(fits))
@settings(max_examples=100, deadline=None)
def test_after_any_sample_each_source_has_its_share(plan: Plan) -> None:
    order = samples(plan, 0, plan.samples).source
    for number in range(len(plan.sources)):
        seen = np.cumsum(order == number)[plan.global_batch - 1 :: plan.global_batch]
        expected = [expected_counts(plan, step)[number] for step in range(1, plan.steps + 1)]
        assert np.abs(seen - expected).max() <= len(plan.sources) + 1


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=100, deadline=None)
def test_the_permutation_is_one(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


def test_the_permutation_shuffles_and_works_far_out() -> None:
    size = 10**12
    values = permute(np.arange(1000) + size // 2, size, 7)
    assert values.min() >= 0 and values.max() < size and len(set(values.tolist())) == 1000
    assert abs(np.corrcoef(np.arange(1000), values)[0, 1]) < 0.15
    assert 0.4 < values.mean() / size < 0.6


def big(steps: int = 333_786) -> Plan:
    made = tuple(
        SourcePlan(name, weight, 3.0, tuple((f"{name}/{i}", 10**6) for i in range(count)))
        for name, weight, count in (("web", 0.82, 700), ("books", 0.045, 30), ("wiki", 0.045, 30), ("code", 0.09, 70))
    )
    return Plan("sha", 1, 2048, 2048, steps, made)


def test_a_plan_of_a_trillion_tokens_is_asked_anywhere_at_once() -> None:
    plan = big()
    late = samples(plan, plan.samples - 2048, plan.samples)
    assert len(late.source) == 2048
    share = np.bincount(late.source, minlength=4) / 2048
    assert share == pytest.approx([0.82, 0.045, 0.045, 0.09], abs=0.003)


def test_caps_bind_and_the_rest_is_shared_out() -> None:
    made = (
        SourcePlan("a", 0.5, 1.0, (("a", 100),)),
        SourcePlan("b", 0.25, 100.0, (("b", 100),)),
        SourcePlan("c", 0.25, 100.0, (("c", 100),)),
    )
    assert quotas(Plan("", 0, 8, 1, 1000, made)).tolist() == [100, 450, 450]
    with pytest.raises(UserError, match="at most 20100 steps"):
        quotas(Plan("", 0, 8, 1, 20_101, made))


def test_a_stage_goes_on_where_the_one_before_ended_and_reads_only_what_it_weighs() -> None:
    stages = (Stage(3, (0.0, 1.0)), Stage(4, (0.5, 0.5)))
    plan = Plan("", 0, 8, 10, 7, (SourcePlan("a", 1, 1, (("a", 40),)), SourcePlan("b", 1, 2, (("b", 40),))), stages)
    assert [part.tolist() for part in stage_quotas(plan)] == [[0, 30], [20, 20]]
    order = samples(plan, 0, 70)
    assert set(order.source[:30]) == {1} and set(order.window[order.source == 1][:40]) == set(range(40))
    assert plan_from(json.loads(json.dumps(plan.as_dict()))) == plan
    with pytest.raises(UserError, match="stage 2 of the run gives at most 9 steps within its epoch caps, 10 were"):
        quotas(replace(plan, steps=13, stages=(stages[0], Stage(10, (0.5, 0.5)))))


def test_windows_share_no_target_and_need_one_token_more() -> None:
    assert [count_windows(tokens, 4) for tokens in (0, 1, 4, 5, 8, 9)] == [0, 0, 0, 1, 1, 2]


def test_the_order_is_the_same_in_another_process() -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1]);"
        "from test_trainer_order import big; from manifests.order import samples;"
        "order = samples(big(1000), 5000, 5100); print((order.source * 7 + order.shard * 11 + order.window).sum())"
    )
    order = samples(big(1000), 5000, 5100)
    expected = int((order.source * 7 + order.shard * 11 + order.window).sum())
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    assert int(said) == expected
