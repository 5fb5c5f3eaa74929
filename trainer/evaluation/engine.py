"""Likelihoods and generated texts of a model, in batches of similar length, with nothing computed twice.

A question with choices is one row: its context once, then each choice, which attends to the context and to itself. A
beginning that all questions share, such as examples, is computed once and kept as keys and values. The head is applied
only where a token is scored.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.evaluation.score import Likelihood
from trainer.evaluation.tasks import Decoding
from trainer.generate import sample
from trainer.model import Llama, rotate
from trainer.sizes import Preset

BATCH_TOKENS = {"cpu": 2_048, "cuda": 65_536}  # of one forward pass that ranks
CACHE_BYTES = {"cpu": 1 << 29, "cuda": 1 << 34}  # of keys and values while answers are written
SHARED_TOKENS = 16  # a shared beginning is kept from this length on
TAIL_TOKENS = 16  # in which the end of an answer is looked for after each token


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as the evaluator needs it.

    Attributes:
        encode: Returns the ids of a text, without a begin-of-sequence token.
        decode: Returns the text of ids.
        bos: Id of the begin-of-sequence token.
        eos: Id of the end-of-sequence token.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    bos: int
    eos: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """A question with choices as token ids.

    Attributes:
        root: Tokens that all choices begin with, the begin-of-sequence token first.
        branches: Further tokens of each choice.
        scored: How many tokens at the end of each choice are scored; they may begin in the root.
        truncated: Tokens were cut off to fit the model's context.
    """

    root: list[int]
    branches: list[list[int]]
    scored: list[int]
    truncated: bool

    @property
    def context(self) -> int:
        """Return the number of tokens before the first that is scored."""
        return min(len(self.root) + len(one) - count for one, count in zip(self.branches, self.scored, strict=True))

    @property
    def length(self) -> int:
        """Return the number of tokens of its row; the last of each choice is only predicted."""
        return len(self.root) + sum(len(branch) - 1 for branch in self.branches)

    def row(self, start: int) -> list[tuple[int, int, int]]:
        """Return (token, position, branch) of the tokens after the first `start`; the root is branch 0."""
        root = [(token, position, 0) for position, token in enumerate(self.root)]
        return root[start:] + [
            (token, position, number)
            for number, branch in enumerate(self.branches, start=1)
            for position, token in enumerate(branch[:-1], start=len(self.root))
        ]

    def places(self, start: int) -> list[list[tuple[int, int]]]:
        """Return (column in the row, token predicted there) of the scored tokens of each choice."""
        found, end, used = [], len(self.root), len(self.root) - start
        for branch, count in zip(self.branches, self.scored, strict=True):
            tokens = self.root + branch
            first = len(tokens) - count
            columns = [
                place - 1 - start if place <= end else used + place - 1 - end for place in range(first, len(tokens))
            ]
            found.append(list(zip(columns, tokens[first:], strict=True)))
            used += len(branch) - 1
        return found


@dataclass(frozen=True, slots=True)
class Prompt:
    """A context to continue.

    Attributes:
        tokens: Its ids, the begin-of-sequence token first.
        truncated: Tokens were cut off to fit the model's context.
    """

    tokens: list[int]
    truncated: bool


def encode_pair(vocabulary: Vocabulary, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a context, begin-of-sequence first, and those that its continuation adds.

    The two are encoded as one text, as a reader meets them, and spaces at the context's end belong to the
    continuation. A piece that spans both counts as the context's. lm-evaluation-harness does the same.
    """
    stripped = context.rstrip()
    whole = vocabulary.encode(context + continuation)
    before = vocabulary.encode(stripped) if stripped else []
    return [vocabulary.bos, *whole[: len(before)]], whole[len(before) :]


def build_ranking(vocabulary: Vocabulary, pairs: Sequence[tuple[str, str]], length: int) -> Ranking:
    """Encode the contexts and continuations of a question's choices, cut to a model's context.

    All contexts lose the same number of tokens, at the left after the begin-of-sequence token, until the longest
    choice fits. A continuation that does not fit even alone loses its end.

    Args:
        vocabulary: The tokenizer.
        pairs: Context and continuation of each choice.
        length: Tokens of the model's context.
    """
    encoded = [encode_pair(vocabulary, context, continuation) for context, continuation in pairs]
    whole = [(before, after[:length]) for before, after in encoded]
    excess = max(0, max(len(before) + len(after) - 1 for before, after in whole) - length)
    cut = [([before[0], *before[1 + excess :]], after) for before, after in whole]
    shared = len(_common_prefix([before + after[:-1] for before, after in cut]))
    texts = [before + after for before, after in cut]
    truncated = excess > 0 or any(len(after) > length for _, after in encoded)
    return Ranking(texts[0][:shared], [text[shared:] for text in texts], [len(after) for _, after in cut], truncated)


def build_prompt(vocabulary: Vocabulary, context: str, length: int, answer: int) -> Prompt:
    """Encode a context to continue, cut at the left to leave room for an answer.

    Args:
        vocabulary: The tokenizer.
        context: The text.
        length: Tokens of the model's context.
        answer: The largest number of tokens to write; at most half of the model's context is left free.
    """
    tokens = vocabulary.encode(context)
    room = length - min(answer, length // 2) - 1
    return Prompt([vocabulary.bos, *tokens[max(0, len(tokens) - room) :]], len(tokens) > room)


def _common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    columns = zip(*rows, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


class Cache:
    """Keys and values of the tokens that a model has read, by layer, each (B, H, length, D/H).

    Attributes:
        used: Tokens stored.
    """

    def __init__(self, size: Preset, rows: int, length: int, like: Tensor) -> None:
        shape = (2, rows, size.heads, length, size.dimension // size.heads)
        self.layers = [torch.empty(shape, dtype=like.dtype, device=like.device) for _ in range(size.layers)]
        self.used = 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of new tokens of a layer; return those of all tokens."""
        end = self.used + key.shape[2]
        stored = self.layers[layer]
        stored[0, :, :, self.used : end], stored[1, :, :, self.used : end] = key, value
        return stored[0, :, :, :end], stored[1, :, :, :end]

    def begin_with(self, other: "Cache") -> None:
        """Start each row with the tokens of another cache, which has one row or as many."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine[:, :, :, : other.used] = theirs[:, :, :, : other.used]
        self.used = other.used

    def keep(self, rows: Tensor) -> None:
        """Replace the rows by those of the given numbers, which may repeat."""
        self.layers = [stored[:, rows] for stored in self.layers]


def compute_hidden(model: Llama, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
    """Return the final hidden states of new tokens.

    Args:
        model: The model.
        tokens: (B, T) ids.
        positions: (B, T), or (1, T) for the same in all rows.
        mask: (B, 1, T, cached + T), True where a token attends; None for causal attention to the new tokens only.
        cache: Tokens read before, to which the new ones are added, or None.

    Returns:
        (B, T, D).
    """
    x = model.embedding(tokens)
    cosines, sines = (table[positions][:, None] for table in model.rotary(int(positions.max()) + 1, x))
    for layer, block in enumerate(model.blocks):
        attention = block.attention
        parts = attention.qkv(block.attention_norm(x)).unflatten(-1, (3, attention.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
        if cache:
            key, value = cache.append(layer, key, value)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        x = x + attention.out(mixed.transpose(1, 2).flatten(2))
        x = x + block.feed_forward(block.feed_forward_norm(x))
    if cache:
        cache.used += tokens.shape[1]
    return model.norm(x)


@dataclass
class Engine:
    """A model that answers batches of requests.

    Attributes:
        model: The whole model on one device.
        vocabulary: Its tokenizer.
        length: Tokens of its context.
        batch_tokens: Tokens of one forward pass.
    """

    model: Llama
    vocabulary: Vocabulary
    length: int
    batch_tokens: int = 0

    def __post_init__(self) -> None:
        self.device = self.model.head.weight.device
        self.batch_tokens = self.batch_tokens or BATCH_TOKENS[self.device.type]
        self.shared: list[int] = []  # the last shared beginning
        self.shared_cache: Cache | None = None  # its keys and values

    @torch.inference_mode()
    def rank(self, requests: Sequence[Ranking]) -> Iterator[tuple[int, list[Likelihood]]]:
        """Yield each request's number and the likelihoods of its choices, the longest rows first."""
        start = self._read_shared([one.root[: one.context - 1] for one in requests])
        for batch in self._batches([one.length - start for one in requests], self.batch_tokens):
            yield from zip(batch, self._rank_batch([requests[number] for number in batch], start), strict=True)

    @torch.inference_mode()
    def write(
        self, requests: Sequence[Prompt], decoding: Decoding, names: Sequence[str]
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield each request's number and its answers, the longest contexts first.

        Args:
            requests: The contexts.
            decoding: How to continue them.
            names: Seeds of the random numbers of each request, so that no answer depends on its batch.
        """
        start = self._read_shared([one.tokens[:-1] for one in requests])
        new = min(decoding.tokens, self.length // 2)
        costs = [(len(one.tokens) + new) * decoding.samples for one in requests]
        token_bytes = 2 * self.model.size.layers * self.model.size.dimension * self.model.head.weight.element_size()
        for batch in self._batches(costs, CACHE_BYTES[self.device.type] // token_bytes):
            chosen, seeds = [requests[number] for number in batch], [names[number] for number in batch]
            yield from zip(batch, self._write_batch(chosen, decoding, start, seeds), strict=True)

    def _batches(self, costs: Sequence[int], limit: int) -> Iterator[list[int]]:
        """Yield the numbers of requests, dearest first, in batches that cost at most `limit` (or hold one request)."""
        order = sorted(range(len(costs)), key=lambda number: -costs[number])
        while order:
            rows = max(1, limit // costs[order[0]])
            yield order[:rows]
            order = order[rows:]

    def _read_shared(self, beginnings: Sequence[list[int]]) -> int:
        """Read what all requests begin with, if it is long and not kept already; return its number of tokens."""
        shared = _common_prefix(beginnings) if len(beginnings) > 1 else []
        if len(shared) < SHARED_TOKENS:
            return 0
        if shared != self.shared:
            tokens = torch.tensor([shared], device=self.device)
            self.shared_cache = Cache(self.model.size, 1, len(shared), self.model.head.weight)
            positions = torch.arange(len(shared), device=self.device)[None]
            compute_hidden(self.model, tokens, positions, None, self.shared_cache)
            self.shared = shared
        return len(shared)

    def _cache(self, rows: int, start: int, width: int) -> Cache:
        """Return a cache for `width` tokens after the shared beginning."""
        cache = Cache(self.model.size, rows, start + width, self.model.head.weight)
        if start and self.shared_cache:
            cache.begin_with(self.shared_cache)
        return cache

    def _rank_batch(self, requests: list[Ranking], start: int) -> list[list[Likelihood]]:
        width = max(one.length for one in requests) - start
        rows = [one.row(start) + [(0, 0, -1)] * (width - one.length + start) for one in requests]
        tokens, positions, branch = torch.tensor(rows, device=self.device).unbind(-1)
        mask = None
        if start or any(len(branch) > 1 for one in requests for branch in one.branches):
            mask = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
            mask = F.pad(mask.tril(), (start, 0), value=True)[:, None]
        cache = self._cache(len(requests), start, width) if start else None
        hidden = compute_hidden(self.model, tokens, positions, mask, cache)
        choices = [(row, choice) for row, one in enumerate(requests) for choice in one.places(start)]
        places = torch.tensor([(row, *place) for row, choice in choices for place in choice], device=self.device)
        distinct, number = places[:, :2].unique(dim=0, return_inverse=True)
        logits = self.model.head(hidden[distinct[:, 0], distinct[:, 1]])
        scores = F.log_softmax(logits, dim=-1, dtype=torch.float32)[number, places[:, 2]]
        sums = [float(part.sum()) for part in scores.double().cpu().split([len(choice) for _, choice in choices])]
        found = iter(Likelihood(nats, len(choice)) for nats, (_, choice) in zip(sums, choices, strict=True))
        return [[next(found) for _ in one.branches] for one in requests]

    def _write_batch(self, requests: list[Prompt], decoding: Decoding, start: int, names: list[str]) -> list[list[str]]:
        """Return the answers to each request; all rows read their next token in the same column of the cache."""
        tokens, limit = [one.tokens[start:] for one in requests], min(decoding.tokens, self.length // 2)
        lengths = torch.tensor([len(row) for row in tokens], device=self.device)
        width = int(lengths.max())
        padded = torch.tensor([row + [0] * (width - len(row)) for row in tokens], device=self.device)
        cache = self._cache(len(requests), start, width + limit)
        positions = torch.arange(start, start + width, device=self.device)[None]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        mask = F.pad(causal, (start, 0), value=True)[None, None] if start else None
        hidden = compute_hidden(self.model, padded, positions, mask, cache)
        last = hidden[torch.arange(len(requests), device=self.device), lengths - 1]
        answers = [
            Answer(one.tokens, _seeded(f"{name} {number}"))
            for one, name in zip(requests, names, strict=True)
            for number in range(decoding.samples)
        ]
        rows = torch.arange(len(requests), device=self.device).repeat_interleave(decoding.samples)
        cache.keep(rows)
        columns = torch.arange(start + width + limit, device=self.device)
        seen = (columns < start + lengths[:, None]) | (columns >= start + width)  # not the padding
        last, places, seen, live = last[rows], start + lengths[rows], seen[rows], answers
        for _ in range(limit):
            self._extend(live, self.model.head(last), decoding)
            kept = torch.tensor([row for row, one in enumerate(live) if not one.ended], device=self.device)
            if not len(kept):
                break
            if len(kept) <= len(live) // 2:  # a copy costs, so not after each answer
                cache.keep(kept)
                live, places, seen = [live[row] for row in kept.tolist()], places[kept], seen[kept]
            new = torch.tensor([[one.tokens[-1]] for one in live], device=self.device)
            mask = seen[:, None, None, : cache.used + 1]
            last = compute_hidden(self.model, new, places[:, None], mask, cache)[:, 0]
            places = places + 1
        texts = iter(self._text(one, decoding.stop) for one in answers)
        return [[next(texts) for _ in range(decoding.samples)] for _ in requests]

    def _extend(self, answers: list["Answer"], logits: Tensor, decoding: Decoding) -> None:
        """Add a token to each answer that has not ended."""
        greedy = logits.argmax(-1).tolist()
        for row, one in enumerate(answers):
            if one.ended:
                continue
            drawn = greedy[row]
            if decoding.temperature:
                drawn = sample(logits[row].float().cpu(), decoding.temperature, decoding.top_p, one.random)
            if drawn == self.vocabulary.eos:
                one.ended = True
                continue
            one.tokens.append(drawn)
            tail = self.vocabulary.decode(one.tokens[max(one.begin, len(one.tokens) - TAIL_TOKENS) :])
            one.ended = any(stop in tail for stop in decoding.stop)

    def _text(self, answer: "Answer", stops: Sequence[str]) -> str:
        """Return an answer's text up to the first stop; a tokenizer drops a space only where a whole text begins."""
        context = self.vocabulary.decode(answer.tokens[1 : answer.begin])
        text = self.vocabulary.decode(answer.tokens[1:])[len(context) :]
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


class Answer:
    """An answer that is being written.

    Attributes:
        tokens: The context's tokens and its own.
        begin: Index of its first token.
        ended: It is complete.
        random: Source of random numbers.
    """

    def __init__(self, context: list[int], random: torch.Generator) -> None:
        self.tokens, self.begin, self.ended, self.random = list(context), len(context), False, random


def _seeded(name: str) -> torch.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
