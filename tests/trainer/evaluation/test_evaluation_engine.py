"""Batches, shared prefixes and caches give the same likelihoods and texts as one plain pass per choice."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.sizes import Preset
from trainer.evaluation.engine import (
    Engine,
    Vocabulary,
    build_choice_request,
    build_prompt,
    compute_states,
    encode_pair,
)
from trainer.evaluation.tasks import Decoding
from trainer.model import Llama

BYTES = Vocabulary(
    encode=lambda text: [byte + 3 for byte in text.encode()],
    decode=lambda ids: bytes(i - 3 for i in ids if i > 2).decode("utf-8", "replace"),
    bos=1,
    eos=2,
)
SIZE = Preset(32, 2, 2, 1e-3, multiple=32)


@pytest.fixture(scope="module")
def model() -> Llama:
    torch.manual_seed(3)
    made = Llama(SIZE, 259)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 2 else 1.0)
    return made.requires_grad_(False)


def naive(model: Llama, context: list[int], continuation: list[int]) -> float:
    scores = model(torch.tensor([context + continuation]))[0].log_softmax(-1)
    return float(sum(scores[len(context) + i - 1, token] for i, token in enumerate(continuation)))


texts = st.text("ab c\u00e9", max_size=12)
questions = st.lists(
    st.tuples(texts, st.lists(texts.map(lambda text: " " + text), min_size=1, max_size=4)), min_size=1, max_size=6
)


@settings(max_examples=30, deadline=None)
@given(questions, st.sampled_from(["", "Twenty shared tokens, or a few more. "]), st.sampled_from([16, 200]))
def test_ranking_equals_one_pass_per_choice(model: Llama, asked: list, shared: str, batch: int) -> None:
    pairs = [[(shared + context, choice) for choice in choices] for context, choices in asked]
    engine = Engine(model, BYTES, 128, batch)
    found = dict(engine.score_choices([build_choice_request(BYTES, one, 128) for one in pairs]))
    assert sorted(found) == list(range(len(pairs)))
    for number, one in enumerate(pairs):
        for (context, choice), got in zip(one, found[number], strict=True):
            before, after = encode_pair(BYTES, context, choice)
            assert got.nats == pytest.approx(naive(model, before, after), abs=1e-4)
            assert got.tokens == len(after)


def test_contexts_that_differ_are_ranked_too(model: Llama) -> None:
    pairs = [("Ann saw Bo so Ann", " left."), ("Ann saw Bo so Bo", " left.")]
    [(_, found)] = Engine(model, BYTES, 128).score_choices([build_choice_request(BYTES, pairs, 128)])
    expected = [naive(model, *encode_pair(BYTES, *pair)) for pair in pairs]
    assert [one.nats for one in found] == pytest.approx(expected, abs=1e-4)


def test_a_context_loses_its_left_end_for_all_choices_alike() -> None:
    ranking = build_choice_request(BYTES, [("0123456789", " a"), ("0123456789", " bcd")], 10)
    assert BYTES.decode(ranking.root) == "456789 "  # With begin-of-sequence and " bc" these are 10 tokens.
    assert (ranking.root[0], ranking.truncated) == (BYTES.bos, True)
    assert not build_choice_request(BYTES, [("0123456789", " a"), ("0123456789", " bcd")], 14).truncated
    long = build_choice_request(BYTES, [("0123", "x" * 30)], 10)
    assert (long.scored, long.truncated, BYTES.decode(long.root)) == ([10], True, "x" * 9)


def test_a_prompt_leaves_room_for_the_answer() -> None:
    prompt = build_prompt(BYTES, "0123456789", 10, 4)
    assert (BYTES.decode(prompt.tokens), prompt.truncated) == ("56789", True)
    assert len(build_prompt(BYTES, "0123456789", 10, 400).tokens) == 5
    assert not build_prompt(BYTES, "01234", 10, 4).truncated


def greedy(model: Llama, text: str, count: int) -> str:
    ids = [BYTES.bos, *BYTES.encode(text)]
    begin = len(ids)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == BYTES.eos:
            break
    return BYTES.decode(ids[begin:])


@pytest.mark.parametrize("shared", ["", "Twenty shared tokens, or a few more. "])
def test_greedy_texts_equal_one_pass_per_token(model: Llama, shared: str) -> None:
    contexts = [shared + text for text in ("a", "bb c", "\u00e9a", "the end of a longer one", "b")]
    prompts = [build_prompt(BYTES, text, 128, 12) for text in contexts]
    found = dict(Engine(model, BYTES, 128).generate_answers(prompts, Decoding(12, ()), contexts))
    assert [found[number] for number in range(5)] == [[greedy(model, text, 12)] for text in contexts]


def test_a_text_ends_before_its_first_stop(model: Llama) -> None:
    whole = greedy(model, "bb c", 12)
    stop = whole[4:6]
    [(_, [text])] = Engine(model, BYTES, 128).generate_answers(
        [build_prompt(BYTES, "bb c", 128, 12)], Decoding(12, (stop,)), [""]
    )
    assert text == whole[: whole.index(stop)]


def test_samples_depend_on_the_question_not_on_the_batch(model: Llama) -> None:
    prompts = [build_prompt(BYTES, text, 128, 8) for text in ("a", "bb c")]
    decoding = Decoding(8, (), samples=3, temperature=1.0)
    together = dict(Engine(model, BYTES, 128).generate_answers(prompts, decoding, ["one", "two"]))
    alone = dict(Engine(model, BYTES, 128).generate_answers(prompts[1:], decoding, ["two"]))
    assert together[1] == alone[0]
    assert len(set(together[1])) == 3
    assert math.prod(map(len, together[0])) > 0


def test_examples_and_contexts_are_read_once(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def count(model: Llama, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        read.append(tokens.numel())
        return compute_states(model, tokens, *rest)

    monkeypatch.setattr("trainer.evaluation.engine.compute_states", count)
    shots = "Three examples, shown before every question. "
    pairs = [[(shots + text, f" {letter}") for letter in "ABCD"] for text in ("one", "two", "six")]
    list(Engine(model, BYTES, 128).score_choices([build_choice_request(BYTES, one, 128) for one in pairs]))
    # The examples are read once. Of each question, three letters and the space before all choices are read.
    assert sum(read) == 1 + len(shots) + 3 * 4
    read.clear()
    prompts = [build_prompt(BYTES, shots + text, 128, 5) for text in ("one", "two", "six")]
    list(
        Engine(model, BYTES, 128).generate_answers(
            prompts, Decoding(5, (), samples=2, temperature=1.0), ["a", "b", "c"]
        )
    )
    assert sum(read[:2]) == 1 + len(shots) + 3 * 3  # Each context is read once for its two answers.
