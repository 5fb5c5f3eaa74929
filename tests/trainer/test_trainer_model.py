"""The model equals plain formulas, has the paper's sizes, and its initial weights depend only on seed and names."""

import itertools
import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from trainer_ranks import weights_sha

from manifests.sizes import PRESETS, Preset
from trainer import parallel
from trainer.model import Attention, FeedForward, Llama, Rotary, rotate
from trainer.schedule import StageRate, rate_at
from trainer.step import build_optimizer

SMALL = Preset(32, 4, 2, 1e-3, multiple=8)


@pytest.mark.parametrize(("name", "billions"), [("7b", 6.738), ("13b", 13.016), ("33b", 32.529), ("65b", 65.286)])
def test_the_papers_sizes_to_two_in_a_thousand(name: str, billions: float) -> None:
    assert PRESETS[name].count_parameters(32_000) / 1e9 == pytest.approx(billions, rel=0.002)


def test_the_papers_table_2() -> None:
    rows = {
        name: (p.dimension, p.heads, p.layers, p.learning_rate) for name, p in PRESETS.items() if p.dimension >= 4096
    }
    assert rows == {
        "7b": (4096, 32, 32, 3e-4),
        "13b": (5120, 40, 40, 3e-4),
        "33b": (6656, 52, 60, 1.5e-4),
        "65b": (8192, 64, 80, 1.5e-4),
    }
    assert {PRESETS[name].batch_tokens for name in rows} == {4_194_304}
    published = {"7b": (11_008, 1e-6), "13b": (13_824, 1e-6), "33b": (17_920, 1e-6), "65b": (22_016, 1e-5)}
    assert {name: (PRESETS[name].width, PRESETS[name].norm_epsilon) for name in rows} == published


def test_the_demo_has_one_to_two_million_parameters() -> None:
    assert 1e6 < PRESETS["demo"].count_parameters(2048) < 2e6


def test_rotation_is_the_formula_and_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, 6, 8)
    turned = rotate(x, *Rotary(8)(0, 6, x))
    for position in range(6):
        for pair in range(4):
            angle = position * 10_000 ** (-2 * pair / 8)
            a, b = x[0, 0, position, pair].item(), x[0, 0, position, pair + 4].item()
            assert turned[0, 0, position, pair].item() == pytest.approx(
                a * math.cos(angle) - b * math.sin(angle), abs=1e-5
            )
            assert turned[0, 0, position, pair + 4].item() == pytest.approx(
                a * math.sin(angle) + b * math.cos(angle), abs=1e-5
            )
    same = rotate(x[:, :, :1].expand(1, 1, 6, 8), *Rotary(8)(0, 6, x))
    products = same[0, 0] @ same[0, 0].T
    assert products[0, 2].item() == pytest.approx(products[3, 5].item(), abs=1e-4)


def test_rotation_is_that_of_the_published_code_on_features_in_its_order() -> None:
    """In the published code, features 2i and 2i + 1 form a pair. If rows are in that order, the scores are the same."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 4, 6, 8)
    rates = 1.0 / 10_000.0 ** (torch.arange(0, 8, 2).float() / 8)
    turns = torch.polar(torch.ones(6, 4), torch.outer(torch.arange(6).float(), rates))

    def published(x: torch.Tensor) -> torch.Tensor:
        pairs = x.unflatten(-1, (2, 4)).transpose(-1, -2).contiguous()
        return torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(-2)

    tables = Rotary(8)(0, 6, query)
    scores = rotate(query, *tables) @ rotate(key, *tables).mT
    assert torch.allclose(scores, published(query) @ published(key).mT, atol=1e-5)


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    layer, x = Attention(SMALL), torch.randn(2, 5, 32)
    cosines, sines = Rotary(8)(0, 5, x)
    query, key, value = (part.view(2, 5, 4, 8).transpose(1, 2) for part in (x @ layer.qkv.weight.T).split(32, dim=-1))
    scores = rotate(query, cosines, sines) @ rotate(key, cosines, sines).transpose(-1, -2) / math.sqrt(8)
    scores = scores.masked_fill(torch.triu(torch.ones(5, 5, dtype=torch.bool), 1), -math.inf)
    expected = (scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 5, 32) @ layer.out.weight.T
    assert torch.allclose(layer(x, cosines, sines), expected, atol=1e-5)


def test_feed_forward_and_norm_are_the_formulas() -> None:
    torch.manual_seed(0)
    layer, x = FeedForward(SMALL), torch.randn(3, 32)
    gate, up = (x @ layer.gate_up.weight.T).split(SMALL.width, dim=-1)
    assert torch.allclose(layer(x), (gate * torch.sigmoid(gate) * up) @ layer.down.weight.T, atol=1e-6)
    norm = Llama(SMALL, 16).norm
    assert torch.allclose(norm(x), x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt(), atol=1e-6)


def test_no_token_sees_a_later_one() -> None:
    torch.manual_seed(0)
    model = Llama(SMALL, 16)
    tokens = torch.randint(0, 16, (1, 12))
    before = model(tokens)
    tokens[0, 7] = (tokens[0, 7] + 1) % 16
    after = model(tokens)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7], after[:, 7])


def test_there_are_no_biases_and_the_head_is_its_own() -> None:
    model = Llama(SMALL, 16)
    assert not [name for name, _ in model.named_parameters() if "bias" in name]
    assert model.head.weight is not model.embedding.weight


def test_the_schedule_rises_falls_to_a_tenth_and_is_a_cosine_between() -> None:
    rates = [rate_at(step, [StageRate(110, "cosine", 1.0, 10)]) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    middle = 10 + (109 - 10) // 2
    assert rates[middle] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (middle - 10) / 99)))


def test_stable_then_decay_and_stages_of_their_own_rates() -> None:
    wsd = [rate_at(step, [StageRate(110, "wsd", 2.0, 10)]) for step in range(110)]
    assert wsd[9:90] == [2.0] * 81 and wsd[99] == pytest.approx(2 - 2 * math.sqrt(0.45)) and 0 < wsd[-1] < 0.06
    stages = [StageRate(5, "constant", 1.0, 2), StageRate(4, "linear", 0.8, 0), StageRate(3, "constant", 0.1, 0)]
    rates = [rate_at(step, stages) for step in range(12)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.1, 0.1, 0.1])


def test_weight_decay_is_for_matrices() -> None:
    optimizer = build_optimizer(Llama(SMALL, 16), 1e-3)
    decayed, rest = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and rest["weight_decay"] == 0.0
    assert decayed["betas"] == (0.9, 0.95)
    assert {p.dim() for p in decayed["params"]} == {2} and {p.dim() for p in rest["params"]} == {1}


@pytest.fixture
def ranks() -> parallel.Ranks:
    ranks = parallel.start("cpu", 1)
    yield ranks
    dist.destroy_process_group()


def test_initial_weights_depend_on_seed_and_name_alone(ranks: parallel.Ranks) -> None:
    one, two = parallel.build(SMALL, 16, 5, ranks), parallel.build(SMALL, 16, 5, ranks)
    other = parallel.build(SMALL, 16, 6, ranks)
    assert weights_sha(one) == weights_sha(two) != weights_sha(other)
    first, second = (one.blocks[n].attention.qkv.weight.full_tensor() for n in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first[: len(first) // 2], first[len(first) // 2 :]), "halves drawn alike: ranks would agree"
    assert first.std().item() == pytest.approx(0.02, rel=0.1)


def test_one_step_of_fsdp_is_one_step_of_plain_pytorch(ranks: parallel.Ranks) -> None:
    ours = parallel.build(SMALL, 16, 5, ranks)
    plain = Llama(SMALL, 16)
    parallel.initialize(plain, 5)
    tokens = torch.randint(0, 16, (4, 9), generator=torch.Generator().manual_seed(1))
    for model in (ours, plain):
        optimizer = build_optimizer(model, 1e-2)
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    assert weights_sha(ours) == weights_sha(plain)
