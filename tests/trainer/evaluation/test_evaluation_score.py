"""Every scoring rule is compared with a result that was computed by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation import score
from trainer.evaluation.items import Item
from trainer.evaluation.score import Likelihood

# The best of three choices is "ab" by sum, "abcdef" per character, "abc" per token, and "abc" against "Answer:".
ITEM = Item({}, ("ab", "abcdef", "abc"), gold=0)
TEXTS = (" ab", " abcdef", " abc")
FOUND = [Likelihood(-4.0, 1), Likelihood(-6.0, 2), Likelihood(-5.0, 3)]
UNCONDITIONAL = [Likelihood(-4.0, 1), Likelihood(-5.5, 2), Likelihood(-9.0, 3)]
# Their scores in nats: -4 in sum, -1 per character, -5/3 per token, +4 against "Answer:".
WINNERS = {"raw": 0, "characters": 1, "tokens": 2, "answer": 2}


@pytest.mark.parametrize("rule", WINNERS)
@pytest.mark.parametrize("gold", range(3))
def test_each_rule_ranks_by_its_own_measure(rule: str, gold: int) -> None:
    item = Item({}, ITEM.choices, gold)
    scores = score.score_choices(rule, item, TEXTS, FOUND, UNCONDITIONAL)
    assert scores["accuracy"] == float(WINNERS[rule] == gold)
    for name in ("raw", "characters", "tokens"):
        assert scores[f"accuracy {name}"] == float(WINNERS[name] == gold)


def test_bits_per_byte_count_the_bytes_that_are_scored() -> None:
    item = Item({}, ("é", "b"), gold=0)
    scores = score.score_choices("raw", item, (" é", " b"), [Likelihood(-6 * math.log(2), 2), Likelihood(-9.0, 1)], ())
    # Six bits are divided by three bytes: a space and the two bytes of é.
    assert scores["bits per byte"] == pytest.approx(2.0)


def test_a_tie_goes_to_the_first_choice() -> None:
    for gold in (0, 1):
        scores = score.score_choices("raw", Item({}, ("a", "b"), gold), (" a", " b"), [Likelihood(-1.0, 1)] * 2, ())
        assert scores["accuracy"] == float(gold == 0)


def test_a_pair_is_decided_by_perplexity_and_the_sum_is_told_beside_it() -> None:
    found = [Likelihood(-12.0, 6), Likelihood(-9.0, 3)]  # nats: -2 and -3 per token, -12 and -9 in sum
    assert score.score_choices("pair", Item({}, ("more", "less")), ("", ""), found, ()) == {
        "stereotype": 1.0,
        "stereotype by sum": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The Eiffel  Tower!", True),
        ("eiffel tower", True),
        ("an Eiffel tower", True),
        ("Eiffel", False),
        ("theeiffel tower", False),
        ("", False),
    ],
)
def test_exact_match_ignores_case_articles_punctuation_and_spaces(text: str, right: bool) -> None:
    item = Item({}, answers=("Big Ben", "the Eiffel Tower"))
    assert score.score_exact(item, [text]) == float(right)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7.\n#### 7", "7"),
        ("#### $1,234", "1234"),
        ("#### -3.5.", "-3.5"),
        ("####12 dollars #### 13", "12"),
        ("it is 7", ""),
        ("#### seven", ""),
        ("#### 3.14.15", ""),
        ("#### ..5", ""),
    ],
)
def test_a_number_stands_behind_the_mark(text: str, number: str) -> None:
    assert score.extract_number(text) == number


def test_numbers_are_equal_by_value() -> None:
    item = Item({}, answers=("1,200",))
    assert score.score_number(item, ["#### 1200.0"]) == 1
    assert score.score_number(item, ["#### 120"]) == 0
    assert score.score_number(item, ["no number"]) == 0
    assert score.score_number(item, ["#### 12.30.2023"]) == 0


def test_the_majority_decides_and_empty_answers_have_no_vote() -> None:
    assert score.vote(["1", "2", "2", "", "", "", "1", "2"]) == "2"
    assert score.vote(["1", "2", "2", "1"]) == "1"
    assert score.vote(["", ""]) == ""
    texts = ["#### 7", "#### 8", "?", "#### 8"]
    assert score.score_number(Item({}, answers=("8",)), texts) == 1
    assert score.score_number(Item({}, answers=("7",)), texts) == 0


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"$\boxed 7$ apples", "7"),
        (r"\fbox{a}", "a"),
        (r"\boxed{never closed", ""),
        ("no box", ""),
    ],
)
def test_the_last_box_is_the_answer(text: str, box: str) -> None:
    assert score.last_boxed(text) == box


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (r"\frac12", r"\dfrac{1}{2}"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"$10,\!000$", "10000"),
        (r"12\text{ cm}", "12"),
        (r"x = \left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"90^\circ", "90"),
        (r"5\%", "5"),
        (r"\text{Monday}", "Monday"),
        ("1,234", "1234"),
        ("(1,2)", "(1, 2)"),
    ],
)
def test_expressions_that_differ_in_form_only_are_equal(left: str, right: str) -> None:
    assert score.normalize_expression(left) == score.normalize_expression(right)


@pytest.mark.parametrize(("left", "right"), [("(1,2)", "12"), (r"\frac{1}{2}", r"\frac{2}{1}"), ("left", "le")])
def test_expressions_of_other_value_stay_different(left: str, right: str) -> None:
    assert score.normalize_expression(left) != score.normalize_expression(right)


def test_the_final_answer_or_the_last_box_is_compared() -> None:
    item = Item({}, answers=(r"\frac{1}{2}",))
    assert score.score_expression(item, ["The final answer is $\\frac12$. I hope it is correct."]) == 1
    assert score.score_expression(item, [r"Therefore \boxed{\dfrac{1}{2}}"]) == 1
    assert score.score_expression(item, ["one half"]) == 0
    assert score.score_expression(item, [r"\boxed{3}", r"\boxed{\frac12}", r"\boxed{\frac{1}{2}}"]) == 1


def test_pass_at_k_by_hand() -> None:
    assert score.pass_at_k(4, 1, 1) == pytest.approx(1 / 4)
    assert score.pass_at_k(4, 1, 2) == pytest.approx(1 / 2)  # 3 of the 6 pairs contain the sample that passed.
    assert score.pass_at_k(5, 2, 3) == pytest.approx(1 - 1 / 10)
    assert (score.pass_at_k(3, 0, 3), score.pass_at_k(3, 3, 1)) == (0, 1)
    with pytest.raises(ValueError, match="pass@5 needs 5 samples, not 4"):
        score.pass_at_k(4, 1, 5)


def test_intervals_by_hand() -> None:
    half = score.mean([1.0, 0.0] * 50)  # Wilson's interval for 50 of 100 is 0.404 to 0.596.
    assert (half.value, half.count) == (0.5, 100)
    assert (half.low, half.high) == (pytest.approx(0.4038, abs=1e-3), pytest.approx(0.5962, abs=1e-3))
    assert score.mean([1.0] * 10).low == pytest.approx(0.722, abs=1e-3)
    spread = score.mean([0.2, 0.4])  # The standard deviation is 0.1414; it is divided by the square root of 2.
    assert (spread.value, spread.high - spread.value) == (pytest.approx(0.3), pytest.approx(1.96 * 0.1))


@given(st.lists(st.sampled_from([0.0, 1.0]) | st.floats(0, 1), min_size=1))
def test_an_interval_holds_its_mean(values: list[float]) -> None:
    found = score.mean(values)
    assert found.low <= found.value + 1e-9 and found.value <= found.high + 1e-9
