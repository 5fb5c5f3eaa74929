"""Test the planner: it reproduces LLaMA's Table 1, applies epoch caps, and agrees with the quotas of the trainer."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from corpus import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_corpus import write_corpus

from manifests import order
from manifests.display import WIDTH, render_text
from manifests.manifest import load_manifest
from manifests.order import Plan as Order
from manifests.order import SourcePlan, plan_for, quotas
from manifests.planning import supply
from manifests.planning.plan import Plan, make_plan, plan_parts
from manifests.recipe import Recipe, load_recipe, parse_recipe
from pipeline.__main__ import main

LLAMA = str(ROOT / "recipes/llama.yaml")
PAPER = {
    "common_crawl": 1.10,
    "c4": 1.06,
    "github": 0.64,
    "wikipedia": 2.45,
    "books": 2.23,
    "arxiv": 1.06,
    "stackexchange": 1.03,
}
UNIQUE = [f"--unique={name}={tokens:g}" for name, (tokens, _) in supply.TABLE_1.items()]


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_papers_unique_tokens_give_the_papers_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, LLAMA, *UNIQUE)["plan"]
    assert {source["source"]: round(source["epochs"], 2) for source in plan["sources"]} == PAPER
    assert plan["reached_tokens"] == 1.4e12 and plan["short_tokens"] == 0
    assert plan["steps"] == 333_786 and plan["sequence_length"] == 2048  # 4M tokens per step (section 2.3).
    assert all(not source["cap_binds"] and source["missing"] is None for source in plan["sources"])
    sizes = {source["source"]: source["text_bytes"] for source in plan["sources"]}
    assert sizes == pytest.approx({name: size for name, (_, size) in supply.TABLE_1.items()})


TABLE = """\
llama: 1.40 T tokens, 65b

  source          unique    from      text   weight    share   epochs   cap   tokens seen     sequences
 ───────────────────────────────────────────────────────────────────────────────────────────────────────
  common_crawl     853 B   given   3.30 TB    67.0%    67.0%     1.10     2         938 B   458,007,812
  c4               198 B   given    783 GB    15.0%    15.0%     1.06     2         210 B   102,539,062
  books           28.3 B   given   85.0 GB     4.5%     4.5%     2.23     4        63.0 B    30,761,718
  github          98.0 B   given    328 GB     4.5%     4.5%     0.64     2        63.0 B    30,761,718
  wikipedia       25.7 B   given   83.0 GB     4.5%     4.5%     2.45     4        63.0 B    30,761,718
  arxiv           33.0 B   given   92.0 GB     2.5%     2.5%     1.06     2        35.0 B    17,089,843
  stackexchange   27.2 B   given   78.0 GB     2.0%     2.0%     1.03     2        28.0 B    13,671,874

  all             1.26 T           4.75 TB   100.0%   100.0%     1.11              1.40 T   683,593,750

333,786 steps of 4,194,304 tokens in sequences of 2,048 (65b)
"""


def test_the_printed_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", LLAMA, *UNIQUE]) == 0
    assert capsys.readouterr().out.startswith(TABLE)


def test_the_goal_of_the_smaller_models(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, LLAMA, "--goal-tokens=1e12", *UNIQUE)["plan"]  # 7B and 13B in Table 2.
    assert plan["reached_tokens"] == 1e12 and plan["steps"] == 10**12 // 4_194_304
    for source in plan["sources"]:
        assert source["epochs"] == pytest.approx(PAPER[source["source"]] / 1.4, abs=0.01)


@pytest.mark.parametrize("tokens", ["0", "-1", "0.5", "nan", "inf", "many"])
def test_a_goal_that_is_no_number_of_tokens_is_refused(capsys: pytest.CaptureFixture[str], tokens: str) -> None:
    with pytest.raises(SystemExit):
        main(["plan", LLAMA, f"--goal-tokens={tokens}"])
    assert "argument --goal-tokens: must be a" in capsys.readouterr().err


def with_books(tokens: str) -> list[str]:
    return [f"--unique=books={tokens}" if "books" in option else option for option in UNIQUE]


def test_a_cap_binds_and_the_rest_goes_to_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, LLAMA, *with_books("3e9"))["plan"]
    found = {source["source"]: source for source in plan["sources"]}
    books = found["books"]
    assert books["cap_binds"] and books["epochs"] == 4 and books["tokens_seen"] == 12e9
    assert books["missing"]["tokens"] == pytest.approx(0.045 * 1.4e12 / 4 - 3e9)
    left = (1.4e12 - 12e9) / 0.955
    for name, source in found.items():
        if name != "books":
            assert source["tokens_seen"] == pytest.approx(source["asked_share"] * left)
            assert not source["cap_binds"] and source["missing"] is None
    assert sum(source["given_share"] for source in found.values()) == pytest.approx(1)


def test_a_table_with_every_finding_fits_and_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--unique=c4=198e9", "--unique=wikipedia=25.7e9", "--unique=arxiv=1", "--gpu-hour-price=2"]
    assert main(["plan", LLAMA, *arguments]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= WIDTH
    assert "…" not in said, "nothing is cut"
    assert "Books3, most of LLaMA's books, was withdrawn" in said
    assert "no input" in said and "2 binds" in said
    flat = " ".join(said.split())
    assert "SHORT: 901 B of 1.40 T tokens are out of reach within the caps" in flat
    assert "lower goal_tokens to 498,800,000,002." in flat
    crawl = next(line for line in said.splitlines() if "dumps like LLaMA's" in line)
    # 0.67 of 1.4 T tokens in two epochs are 469 B unique tokens. In LLaMA, one dump gave 853 / 5 B tokens.
    assert "469 B" in crawl and "2.7 dumps" in crawl


def test_a_recipe_without_any_tokens_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, LLAMA)["plan"]
    assert plan["steps"] == 0 and plan["short_tokens"] == 1.4e12
    needs = {source["source"]: source["missing"]["tokens"] for source in plan["sources"]}
    assert needs["wikipedia"] == pytest.approx(0.045 * 1.4e12 / 4)
    assert main(["plan", LLAMA]) == 0
    assert "give --input, --unique or --corpus." in " ".join(capsys.readouterr().out.split())


def recipe_of(sources: list[tuple[float, float, float]], goal: int) -> tuple[Recipe, dict[str, supply.Supply]]:
    factors = supply.default_factors("books")
    plain = {f"s{n}": {"kind": "books", "weight": w, "max_epochs": e} for n, (w, e, _) in enumerate(sources)}
    recipe = parse_recipe({"name": "x", "seed": 1, "goal_tokens": goal, "sources": plain}, "x")
    return recipe, {f"s{n}": supply.stated_supply(tokens, factors) for n, (_, _, tokens) in enumerate(sources)}


def plan_of(sources: list[tuple[float, float, float]], goal: int) -> Plan:
    return make_plan(*recipe_of(sources, goal))


source_lists = st.lists(
    st.tuples(st.floats(0.01, 1.0), st.floats(0.25, 8.0), st.one_of(st.just(0.0), st.floats(1.0, 1e12))),
    min_size=1,
    max_size=7,
)
goals = st.integers(1, 2 * 10**12)


@given(source_lists, goals)
@settings(max_examples=200, deadline=None)
def test_the_goal_is_shared_out_within_caps_by_weight(sources: list[tuple[float, float, float]], goal: int) -> None:
    plan = plan_of(sources, goal)
    possible = sum(epochs * tokens for _, epochs, tokens in sources)
    assert plan.reached == pytest.approx(min(goal, possible), rel=1e-9)
    assert (plan.short > 0) == (possible < goal * (1 - 1e-12))
    for line in plan.lines:
        assert line.tokens <= line.max_epochs * line.supply.unique_tokens * (1 + 1e-12)
        assert (line.missing is not None) == (
            line.asked * goal / line.max_epochs > line.supply.unique_tokens * (1 + 1e-12)
        )
        assert line.missing is None or line.missing.tokens > 0
    free = [line for line in plan.lines if not line.capped]
    for line in free:  # Sources below their caps keep their relative weights.
        assert line.tokens / free[0].tokens == pytest.approx(line.asked / free[0].asked, rel=1e-9)
        assert line.given >= line.asked * (1 - 1e-9), "a source below its cap never gets less than it asks for"
    assert plan.short == 0 or all(line.capped for line in plan.lines)
    if plan.short:
        assert sum(line.missing.tokens * line.max_epochs for line in plan.lines if line.missing) >= plan.short * (
            1 - 1e-9
        )


@given(source_lists, goals, st.data())
@settings(max_examples=150, deadline=None)
def test_more_never_gives_less(sources: list[tuple[float, float, float]], goal: int, data: st.DataObject) -> None:
    before = {line.source: line.tokens for line in plan_of(sources, goal).lines}
    for name, tokens in ((line.source, line.tokens) for line in plan_of(sources, goal * 2).lines):
        assert tokens >= before[name] * (1 - 1e-9), "a larger goal takes from no source"
    chosen = data.draw(st.integers(0, len(sources) - 1))
    richer = [(w, e, t * 3 + 5.0 if n == chosen else t) for n, (w, e, t) in enumerate(sources)]
    after = plan_of(richer, goal)
    assert after.reached >= sum(before.values()) * (1 - 1e-9)
    assert next(line.tokens for line in after.lines if line.source == f"s{chosen}") >= before[f"s{chosen}"] * (1 - 1e-9)


@given(source_lists, st.integers(1, 10**9), st.sampled_from([2, 16, 1000]))
@settings(max_examples=150, deadline=None)
def test_a_thousand_times_as_much_of_all_is_the_same_mixture(
    sources: list[tuple[float, float, float]], goal: int, times: int
) -> None:
    small = plan_of(sources, goal)
    large = plan_of([(w * 0.5, e, t * times) for w, e, t in sources], goal * times)
    for one, other in zip(small.lines, large.lines, strict=True):
        assert (one.source, one.given, one.asked) == (
            other.source,
            pytest.approx(other.given),
            pytest.approx(other.asked),
        )


def test_the_trainers_quotas_are_what_they_were_before_the_rule_was_shared() -> None:
    chance = random.Random(2302)
    found = hashlib.sha256()
    for _ in range(1000):
        made = tuple(
            SourcePlan(f"s{n}", chance.uniform(0.01, 1), chance.uniform(0.3, 5), ((f"s{n}", _windows(chance)),))
            for n in range(chance.randint(1, 8))
        )
        room = sum(int(source.max_epochs * source.windows) for source in made)
        if room:
            steps = int(chance.uniform(0.01, 1) * (room - 1)) + 1
            found.update(quotas(Order("", 0, 8, 1, steps, made)).tobytes())
    # This hash was printed by an earlier, separate implementation in the trainer.
    assert found.hexdigest() == "b8b6e0169f9dacbcd97b5f5be055425c264c7f2dedb240608c3344dac95ef3c9"


def _windows(chance: random.Random) -> int:
    return int(10 ** chance.uniform(0, 9))


def test_shares_by_hand() -> None:
    weights, caps = np.array([0.5, 0.25, 0.25]), np.array([100.0, 1e9, 300.0])
    assert order.shares(weights, caps, 1000.0).tolist() == [100.0, 600.0, 300.0]
    assert order.shares(weights, np.array([1.0, 2.0, 3.0]), 1000.0).tolist() == [1.0, 2.0, 3.0]
    assert order.whole_shares(np.ones(3), np.array([9, 9, 9]), 10).tolist() == [4, 3, 3]


def test_planner_and_trainer_mix_a_corpus_alike(tmp_path: Path) -> None:
    manifest = load_manifest(write_corpus(tmp_path))
    entries = manifest.sources
    rows = [(entries[name].weight, 1.2, float(entries[name].unique_tokens)) for name in ("books", "web")]
    goal = 9_600
    plan = plan_of(rows, goal)
    capped = {name: entry.model_copy(update={"max_epochs": 1.2}) for name, entry in entries.items()}
    order = plan_for(manifest.model_copy(update={"sources": capped}), 1, 8, 8, goal // 64)
    counts = dict(zip(("s0", "s1"), (quotas(order) * 8).tolist(), strict=True))
    assert any(line.missing for line in plan.lines), "a cap binds here"
    # The trainer uses only complete windows, so it loses at most 8 tokens of each of the three shards.
    for line in plan.lines:
        assert abs(line.tokens - counts[line.source]) <= 8 * 3 * 1.2 + 8


def test_tokens_are_estimated_from_stored_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("a.warc.gz", 3000), ("b.warc.gz", 1000), ("x.warc.wet.gz", 2000), ("book.txt", 500)):
        (tmp_path / name).write_bytes(bytes(size))
    both = [f"--input=common_crawl={tmp_path}/*.gz", f"--input=books={tmp_path}/*.txt"]
    found = {source["source"]: source for source in planned(capsys, LLAMA, *both)["plan"]["sources"]}
    per_token = 3.3e12 / 853e9
    crawl = (4000 * 0.18 * 0.049 + 2000 * 2.5 * 0.0275) / per_token * (1 - 0.0001)
    assert found["common_crawl"]["unique_tokens"] == pytest.approx(crawl)
    assert (found["common_crawl"]["files"], found["common_crawl"]["stored_bytes"]) == (3, 6000)
    assert found["books"]["unique_tokens"] == pytest.approx(500 * 0.95 / (85 / 28.3) * (1 - 0.0001))
    assert found["books"]["origin"] == "estimated" and found["c4"]["origin"] == "none"
    wanted = found["common_crawl"]["missing"]
    assert wanted["pieces"] == pytest.approx(wanted["tokens"] / (crawl / 3)) and wanted["piece"] == "file"
    assert main(["plan", LLAMA, *both]) == 0
    said = capsys.readouterr().out
    assert "Estimated from stored bytes" in said and "assumed" in said and max(map(len, said.splitlines())) <= WIDTH


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--unique=c5=1e9"], ["--unique c5=…", "no source 'c5'"]),
        (["--input=c5=x"], ["--input c5=…", "no source 'c5'"]),
        (["--unique=c4=many"], ["'c4=many'", "SOURCE=TOKENS"]),
        (["--unique=c4=-1"], ["'c4=-1'"]),
        (["--unique=c4=nan"], ["'c4=nan'"]),
        (["--unique=c4=1e999"], ["'c4=1e999'"]),
        (["--unique=c4"], ["'c4'"]),
        (["--unique=c4=1", "--unique=c4=2"], ["given twice"]),
        (["--unique=c4=1", "--input=c4=x"], ["both --input and --unique"]),
        (["--input=c4=nowhere/*.gz"], ["no file matches"]),
        (["--input=c4=https://example.org/c4.json.gz"], ["downloaded", "--unique c4=TOKENS"]),
        (["--corpus=nowhere"], ["nowhere is not a folder"]),
        (["--rates=nowhere.json"], ["nowhere.json cannot be read"]),
        (["--run=nowhere"], ["--run nowhere", "cannot be read"]),
    ],
)
def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    assert main(["plan", LLAMA, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    for word in words:
        assert word in said, said


def test_the_recipe_of_the_paper_reads_well_in_every_state() -> None:
    recipe = load_recipe(Path(LLAMA))
    for tokens in (0.0, 1.0, 1e9, 1e13):
        supplies = {name: supply.stated_supply(tokens, supply.default_factors(name)) for name in recipe.sources}
        said = render_text(plan_parts(make_plan(recipe, supplies)))
        assert max(map(len, said.splitlines())) <= WIDTH and "…" not in said
