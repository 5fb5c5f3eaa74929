"""Chunked loss, document masks, activation checkpointing and outlier detection equal plain formulas."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_corpus import write_corpus
from trainer_ranks import weights_sha

from manifests.manifest import load_manifest
from manifests.shard import open_shard
from manifests.sizes import PRESETS, Preset
from manifests.tokenizer import piece_bytes
from trainer import model as models
from trainer import parallel
from trainer.curves import compute_unigram_entropy
from trainer.metrics import flops_per_token, peak_flops
from trainer.model import Llama
from trainer.parallel import wrap_blocks
from trainer.step import OutlierDetector, build_optimizer, update

SMALL = Preset(32, 4, 2, 1e-3, multiple=8)
CPU = torch.device("cpu")


class Largest(TorchDispatchMode):
    """A mode that records the number of elements of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


def plain_loss(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    each = F.cross_entropy((x @ weight.T).flatten(0, 1).float(), targets.flatten(), reduction="none")
    return each.sum(), each.view(targets.shape)


def test_the_chunked_loss_is_the_plain_one_and_its_logits_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.LOSS_CHUNK, "cpu", 7 * 500)  # chunks of 7 rows, and a smaller last chunk
    torch.manual_seed(0)
    weight, targets = torch.randn(500, 16) / 4, torch.randint(0, 500, (4, 30))
    start = torch.randn(4, 30, 16)
    found = []
    for function in (plain_loss, models.compute_head_loss):
        x, w = start.clone().requires_grad_(), weight.clone().requires_grad_()
        with Largest() as largest:
            total, each = function(x, w, targets)
            (total / targets.numel()).backward()
        found.append((total.detach() / targets.numel(), each.detach(), x.grad, w.grad, largest.elements))
    plain, chunked = found
    for one, other in zip(plain[:4], chunked[:4], strict=True):
        assert torch.allclose(one, other, atol=1e-6, rtol=1e-6)
    assert plain[4] == 4 * 30 * 500 and chunked[4] == max(7 * 500, weight.numel())
    with torch.no_grad():
        assert torch.equal(models.compute_head_loss(start, weight, targets)[1], chunked[1])


def test_the_chunked_loss_in_bfloat16_is_near() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 40, 64), torch.randn(300, 64) / 8
    targets = torch.randint(0, 300, (2, 40))
    halves = [part.bfloat16().requires_grad_() for part in (x, weight)]
    wholes = [part.clone().requires_grad_() for part in (x, weight)]
    for parts in (halves, wholes):
        (models.compute_head_loss(*parts, targets)[0] / 80).backward()
    for half, whole in zip(halves, wholes, strict=True):
        assert half.grad.dtype == torch.bfloat16
        assert (half.grad.float() - whole.grad).norm() < 0.02 * whole.grad.norm()


def documents_of(*lengths: int) -> torch.Tensor:
    chance = torch.Generator().manual_seed(sum(lengths))
    parts = [torch.cat([torch.tensor([1]), torch.randint(3, 16, (n - 1,), generator=chance)]) for n in lengths]
    return torch.cat(parts)[None]


def test_with_masks_a_document_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    model = Llama(SMALL, 16).eval()
    whole = documents_of(5, 9, 6)
    other = whole.clone()
    other[0, 1:5] = (other[0, 1:5] - 2) % 13 + 3
    other[0, 15:] = (other[0, 15:] - 2) % 13 + 3
    bounds = models.document_bounds(whole, 1, "cpu")
    masked, beside = model(whole, documents=bounds), model(other, documents=bounds)
    assert torch.equal(masked[:, 5:14], beside[:, 5:14])
    assert torch.allclose(masked[:, 5:14], model(whole[:, 5:14]), atol=1e-5), "though its positions begin at 5"
    assert not torch.allclose(masked[:, 5:14], model(whole)[:, 5:14], atol=1e-3), "without masks it does"


def test_variable_length_attention_is_given_the_same_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel needs a GPU. Here it is replaced by a loop over documents with the same signature."""

    def looped(query, key, value, cu_query, cu_key, most_query, most_key, *, window_size):
        assert window_size == (-1, 0) and cu_query is cu_key and cu_query.dtype == torch.int32
        ends = cu_query.tolist()
        assert ends[0] == 0 and ends[-1] == len(query) and most_query == most_key == 12
        parts = [slice(a, b) for a, b in itertools.pairwise(ends) if a < b]
        assert all(part.stop - part.start <= most_query for part in parts)
        heads = [[x[part].transpose(0, 1) for x in (query, key, value)] for part in parts]
        return torch.cat([F.scaled_dot_product_attention(*h, is_causal=True).transpose(0, 1) for h in heads])

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", looped)
    torch.manual_seed(0)
    tokens = torch.cat([documents_of(5, 7), documents_of(12), documents_of(1, 1, 10)])
    tokens[1, 0] = 5  # A sequence may begin in the middle of a document.
    parts = [torch.randn(3, 4, 12, 8) for _ in range(3)]
    masked = models.attend(*parts, models.document_bounds(tokens, 1, "cpu"))
    packed = models.attend(*parts, models.document_bounds(tokens, 1, "cuda"))
    assert torch.allclose(masked, packed, atol=1e-6)


def test_bounds_for_a_gpu_hardly_ever_change_their_shape() -> None:
    shapes = {len(models.document_bounds(documents_of(*[4] * n, 64 - 4 * n), 1, "cuda")) for n in range(8, 15)}
    assert shapes == {17}


def test_activation_checkpointing_changes_memory_and_nothing_else() -> None:
    kept, gradients = {}, {}
    tokens = torch.randint(0, 16, (2, 24), generator=torch.Generator().manual_seed(0))
    for mode in ("none", "selective", "full"):
        model = Llama(SMALL, 16)
        parallel.initialize(model, 0)
        names = [name for name, _ in model.named_parameters()]
        wrap_blocks(model, mode, False)
        assert [name for name, _ in model.named_parameters()] == names
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            total, _ = model(tokens, tokens)
        total.backward()
        kept[mode] = sum(sizes)
        gradients[mode] = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.equal(gradients["none"], gradients["full"]) and torch.equal(gradients["none"], gradients["selective"])
    assert kept["full"] < kept["none"] / 4


@pytest.mark.slow
def test_compiled_blocks_give_the_same_loss_and_gradients() -> None:
    """This test is slow, because the compiler takes half a minute. No other test depends on it."""
    tokens = torch.randint(0, 16, (2, 24), generator=torch.Generator().manual_seed(0))
    found = []
    for compiled in (False, True):
        model = Llama(SMALL, 16)
        parallel.initialize(model, 0)
        wrap_blocks(model, "selective", compiled)
        total, _ = model(tokens, tokens)
        total.backward()
        found.append((total.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-5) and torch.allclose(found[0][1], found[1][1], atol=1e-5)


def verdicts(outliers: OutlierDetector, values: list[float]) -> list[int]:
    return [int(outliers.classify(torch.tensor(value, dtype=torch.float64))) for value in values]


def test_outliers_are_six_deviations_above_a_full_window() -> None:
    outliers = OutlierDetector(6.0, 4, CPU)
    assert verdicts(outliers, [1.0, 9.0, float("nan"), 1.0]) == [0, 0, 1, 0], "no limit before the window is full"
    outliers = OutlierDetector(6.0, 4, CPU)
    verdicts(outliers, [1.0, 1.2, 1.0, 1.2])
    assert float(outliers.limit()) == pytest.approx(1.1 + 6 * 0.1)
    assert verdicts(outliers, [1.69, float("inf"), 0.0]) == [0, 1, 0], "only what is above stands out"


def test_one_outlier_hardly_raises_the_limit_and_a_lasting_level_is_accepted() -> None:
    outliers = OutlierDetector(6.0, 128, CPU)
    chance = random.Random(0)
    verdicts(outliers, [1 + 0.1 * chance.random() for _ in range(200)])
    before = float(outliers.limit())
    assert verdicts(outliers, [1000.0]) == [2] and float(outliers.limit()) < 1.1 * before
    assert 1 < verdicts(outliers, [3.0] * 128).count(2) < 40


def test_without_sigmas_only_what_is_not_finite_stands_out() -> None:
    assert verdicts(OutlierDetector(0.0, 2, CPU), [1.0, 1.0, 1e9, float("inf")]) == [0, 0, 0, 1]


def test_outliers_go_on_from_their_state_to_the_last_bit() -> None:
    chance = random.Random(1)
    values = [chance.random() for _ in range(60)]
    for follow in (0.0, 0.3):
        one, two, three = (OutlierDetector(1.0, 8, CPU, follow) for _ in range(3))
        whole = verdicts(one, values)
        first = verdicts(two, values[:31])
        three.restore(two.state())
        assert first + verdicts(three, values[31:]) == whole and one.state() == three.state() and 2 in whole


def test_a_trend_sees_what_the_fall_of_a_loss_would_hide() -> None:
    """The values fall from 8 by 0.02 per step, with noise of 0.05. At step 150, 0.6 is added."""
    chance = random.Random(2)
    values = [8 - 0.02 * step + chance.gauss(0, 0.05) + 0.6 * (step == 150) for step in range(250)]
    found = {follow: verdicts(OutlierDetector(6.0, 128, CPU, follow), values) for follow in (0.0, 0.3)}
    assert 2 not in found[0.0]
    assert [step for step, verdict in enumerate(found[0.3]) if verdict] == [150]
    lasting = OutlierDetector(6.0, 128, CPU, 0.3)
    verdicts(lasting, values)
    assert verdicts(lasting, [float("nan"), *[5.0] * 60])[-30:] == [0] * 30, "a lasting level is accepted"
    assert verdicts(OutlierDetector(6.0, 2, CPU, 0.3), [float("inf"), 9.0, 9.0, 9.0, 9.5]) == [1, 0, 0, 0, 2]


def test_an_update_clips_and_one_left_out_changes_nothing() -> None:
    model, plain = Llama(SMALL, 16), Llama(SMALL, 16)
    for each in (model, plain):
        parallel.initialize(each, 0)
    ours, theirs = build_optimizer(model, 1e-2), build_optimizer(plain, 1e-2)
    tokens = torch.randint(0, 16, (2, 8), generator=torch.Generator().manual_seed(0))

    def norm(each: Llama) -> torch.Tensor:
        each(tokens, tokens)[0].backward()
        return torch.stack([p.grad.double().norm() for p in each.parameters()]).norm()

    for verdict in (0, 2, 1, 0):
        before, state = weights_sha(model), str(ours.state_dict())
        if verdict == 1:
            model.norm.weight.grad = torch.full_like(model.norm.weight, float("nan"))
        update(ours, 1e-2, norm(model), torch.tensor(verdict))
        assert (weights_sha(model) == before) == (verdict != 0)
        assert verdict == 0 or str(ours.state_dict()) == state
        if verdict == 0:
            assert norm(plain) > 1
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            theirs.step()
            theirs.zero_grad()
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def test_bytes_of_pieces_add_up_to_the_text(tmp_path: Path) -> None:
    texts = ["the cat sat on the mat ", " a  b", "na\u00efve \u65e5\u672c\n\tcaf\u00e9", "x"]
    (tmp_path / "models").mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a b c d e f"] * 50),
        model_prefix=str(tmp_path / "models/tokenizer"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "models/tokenizer.model"))
    pieces = piece_bytes(tmp_path, model.bos_id())
    assert pieces is not None and piece_bytes(tmp_path / "none", 1) is None
    tokens = [id for text in texts for id in (model.bos_id(), *model.encode(text), model.eos_id())]
    row = np.array([[model.eos_id(), *tokens]], np.uint16)
    assert pieces.count_targets(row).tolist() == [sum(len(text.encode()) for text in texts)]


def test_mfu_in_both_conventions() -> None:
    """The paper reports 380 tokens/s for 65B on an A100. By 6N this is 47.6 % of its 312 TFLOP/s."""
    simple, outside, whole = flops_per_token(PRESETS["65b"], 32_000, 2048).values()
    assert 380 * simple / 312e12 == pytest.approx(0.477, abs=0.001)
    assert simple - outside == 6 * 32_000 * 8192
    assert whole - simple == 12 * 80 * 8192 * 2048
    assert peak_flops("NVIDIA H100 80GB HBM3", True, None) == peak_flops("NVIDIA H200", True, None) == 989e12
    assert peak_flops("NVIDIA H100 PCIe", True, None) == 756e12
    assert peak_flops("", True, None) is None and peak_flops("NVIDIA H200", False, None) is None
    assert peak_flops("", False, 0.1) == 1e11


def test_unigram_entropy_is_the_formula(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", documents=5)
    found = compute_unigram_entropy(corpus, load_manifest(corpus))
    assert sorted(found) == ["books", "web"]
    tokens = torch.cat(
        [torch.tensor(open_shard(p).tokens.astype("int64")) for p in (corpus / "shards/web").glob("train-*")]
    )
    shares = tokens.bincount().double() / len(tokens)
    shares = shares[shares > 0]
    assert found["web"] == pytest.approx(float(-(shares * shares.log()).sum()))


@pytest.fixture
def ranks() -> parallel.Ranks:
    ranks = parallel.start("cpu", 1)
    yield ranks
    dist.destroy_process_group()


def test_bf16_keeps_weights_and_gradients_in_fp32(ranks: parallel.Ranks) -> None:
    model = parallel.build(SMALL, 16, 0, ranks, precision="bf16")
    plain = parallel.build(SMALL, 16, 0, ranks)
    tokens = torch.randint(0, 16, (2, 24), generator=torch.Generator().manual_seed(0))
    norms = []
    for each in (model, plain):
        for last in (False, True):
            each.set_requires_gradient_sync(last)
            each.set_reshard_after_backward(last)
            each(tokens, tokens)[0].backward()
        assert {p.dtype for p in each.parameters()} == {p.grad.dtype for p in each.parameters()} == {torch.float32}
        norms.append(float(parallel.gradient_norm(each, ranks)))
    assert norms[0] != norms[1] and norms[0] == pytest.approx(norms[1], rel=0.01)
