"""Compute likelihoods of choices and generate answers, in batches of similar length.

Nothing is computed twice:

- A question with choices is one row of a batch. The row contains the context once, followed by each choice. A choice
  attends to the context and to itself, but not to other choices.
- A prefix that all questions share, such as examples, is computed once. Its keys and values are kept.
- The output head is applied only at tokens that are scored.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
import torch.nn.functional as F
from torch import Tensor

from manifests.order import hash_text
from trainer.evaluation.score import Likelihood
from trainer.evaluation.tasks import Decoding
from trainer.generate import sample
from trainer.model import KeyValueCache, Llama, attend

BATCH_TOKENS = {"cpu": 1_024, "cuda": 65_536}  # maximum number of tokens in a forward pass that scores choices
CACHE_BYTES = {"cpu": 1 << 29, "cuda": 1 << 34}  # maximum bytes of keys and values while answers are generated
SIMILAR = 0.8  # minimum length of a row, as a share of the longest row in its batch
SHARED_TOKENS = 16  # minimum length in tokens of a shared prefix that is cached
TAIL_TOKENS = 16  # number of last tokens in which a stop text is searched after each new token


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The functions and ids of a tokenizer that the evaluation uses.

    Attributes:
        encode: Function from a text to its ids, without a begin-of-sequence token.
        decode: Function from ids to their text.
        bos: Id of the begin-of-sequence token.
        eos: Id of the end-of-sequence token.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    bos: int
    eos: int


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """A question with choices, as token ids. The choices form a tree with one root.

    Attributes:
        root: Tokens with which the texts of all choices begin. The first is the begin-of-sequence token.
        branches: The remaining tokens of each choice's text.
        scored: Number of tokens at the end of each choice's text that are scored. They may begin in the root.
        truncated: True if tokens were removed to fit the model's context.
    """

    root: list[int]
    branches: list[list[int]]
    scored: list[int]
    truncated: bool

    @property
    def context(self) -> int:
        """Return the number of tokens before the first scored token."""
        return min(len(self.root) + len(one) - count for one, count in zip(self.branches, self.scored, strict=True))

    @property
    def length(self) -> int:
        """Return the number of tokens in the row. It excludes the last token of each choice: it is only predicted."""
        return len(self.root) + sum(len(branch) - 1 for branch in self.branches)

    def row(self, start: int) -> list[tuple[int, int, int]]:
        """Return (token, position, branch) for the tokens of the row after the first `start`. The root is branch 0."""
        root = [(token, position, 0) for position, token in enumerate(self.root)]
        return root[start:] + [
            (token, position, number)
            for number, branch in enumerate(self.branches, start=1)
            for position, token in enumerate(branch[:-1], start=len(self.root))
        ]

    def places(self, start: int) -> list[list[tuple[int, int]]]:
        """Return for each choice a list of (column, token), one for each scored token.

        The column is the index in `row(start)` at which the token is predicted.
        """
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
        tokens: Token ids of the context. The first is the begin-of-sequence token.
        truncated: True if tokens were removed to fit the model's context.
    """

    tokens: list[int]
    truncated: bool


def encode_pair(vocabulary: Vocabulary, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Encode a context and its continuation.

    Both are encoded as one text. Spaces at the end of the context belong to the continuation. A piece that spans both
    belongs to the context. lm-evaluation-harness does the same.

    Returns:
        The tokens of the context with the begin-of-sequence token first, and the tokens of the continuation.
    """
    stripped = context.rstrip()
    whole = vocabulary.encode(context + continuation)
    before = vocabulary.encode(stripped) if stripped else []
    return [vocabulary.bos, *whole[: len(before)]], whole[len(before) :]


def build_choice_request(vocabulary: Vocabulary, pairs: Sequence[tuple[str, str]], length: int) -> ChoiceRequest:
    """Encode the contexts and continuations of a question's choices, truncated to a model's context length.

    The same number of tokens is removed from all contexts, so that the longest choice fits. They are removed at the
    left, after the begin-of-sequence token. If a continuation does not fit without any context, its end is removed.

    Args:
        vocabulary: The tokenizer.
        pairs: (context, continuation) of each choice.
        length: Maximum number of tokens in the model's context.
    """
    encoded = [encode_pair(vocabulary, context, continuation) for context, continuation in pairs]
    whole = [(before, after[:length]) for before, after in encoded]
    excess = max(0, max(len(before) + len(after) - 1 for before, after in whole) - length)
    cut = [([before[0], *before[1 + excess :]], after) for before, after in whole]
    shared = len(_common_prefix([before + after[:-1] for before, after in cut]))
    texts = [before + after for before, after in cut]
    truncated = excess > 0 or any(len(after) > length for _, after in encoded)
    return ChoiceRequest(
        texts[0][:shared], [text[shared:] for text in texts], [len(after) for _, after in cut], truncated
    )


def build_prompt(vocabulary: Vocabulary, context: str, length: int, answer: int) -> Prompt:
    """Encode a context to continue, truncated at the left so that an answer fits.

    Args:
        vocabulary: The tokenizer.
        context: The text.
        length: Maximum number of tokens in the model's context.
        answer: Maximum number of tokens of the answer. At most half of the model's context is reserved for it.
    """
    tokens = vocabulary.encode(context)
    room = length - min(answer, length // 2) - 1
    return Prompt([vocabulary.bos, *tokens[max(0, len(tokens) - room) :]], len(tokens) > room)


def _common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    columns = zip(*rows, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def compute_states(
    model: Llama, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: KeyValueCache | None, places: Tensor
) -> Tensor:
    """Compute the final hidden states at some places of new tokens, with any positions and any mask.

    This function repeats the layers of `trainer.model` in a faster form. Without gradients, sums and products may
    overwrite their inputs. The last layer computes keys and values of all tokens, but everything else only at `places`.

    Args:
        model: The model.
        tokens: (B, T) int64 ids.
        positions: (B, T), or (1, T) if all rows have the same positions.
        mask: (B, 1, T, cached + T) bool, True where a token attends, or None for causal attention to the new tokens.
        cache: Keys and values of earlier tokens, or None. The new tokens are added to it.
        places: (N, 2) rows and columns of `tokens`, where N is at least 1.

    Returns:
        (N, D).
    """
    (rows, columns), first = places.unbind(1), int(places[:, 1].min())
    x = model.embedding(tokens).flatten(0, 1)
    cosines, sines = (table[positions][:, :, None, None] for table in model.rotary(0, int(positions.max()) + 1, x))
    half = sines.shape[-1] // 2
    sines = torch.cat([-sines[..., :half], sines[..., half:]], dim=-1)
    layers = cache.layers if cache else [None] * len(model.blocks)
    for block, layer in zip(model.blocks, layers, strict=True):
        parts = block.attention.qkv(block.attention_norm(x)).view(*tokens.shape, 3, model.size.heads, -1)
        turned = torch.addcmul(parts[:, :, :2] * cosines, parts[:, :, :2].roll(half, -1), sines).type_as(parts)
        query, key, value = (one.transpose(1, 2) for one in (*turned.unbind(2), parts[:, :, 2]))
        if layer is not None:
            key, value = layer.append(key, value)
        if block is not model.blocks[-1]:
            mixed = attend(query, key, value, mask).transpose(1, 2).reshape(x.shape)
        else:
            x, length = x[rows * tokens.shape[1] + columns], tokens.shape[1]
            if mask is None and first:
                mask = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()[None, None]
            mixed = attend(query[:, :, first:], key, value, mask if mask is None else mask[:, :, first:])
            mixed = mixed[rows, :, columns - first].flatten(1)
        x.addmm_(mixed, block.attention.out.weight.T)
        gate, up = block.feed_forward.gate_up(block.feed_forward_norm(x)).chunk(2, dim=-1)
        x.addmm_(F.silu(gate, inplace=True).mul_(up), block.feed_forward.down.weight.T)
    states: Tensor = model.norm(x)
    return states


@dataclass
class Engine:
    """An engine that computes likelihoods and answers for batches of requests.

    Attributes:
        model: The whole model on one device.
        vocabulary: The model's tokenizer.
        length: Maximum number of tokens in the model's context.
        batch_tokens: Maximum number of tokens in a forward pass, or 0 for BATCH_TOKENS.
    """

    model: Llama
    vocabulary: Vocabulary
    length: int
    batch_tokens: int = 0

    def __post_init__(self) -> None:
        self.device = self.model.head.weight.device
        self.batch_tokens = self.batch_tokens or BATCH_TOKENS[self.device.type]
        self.shared: list[int] = []  # tokens of the last shared prefix
        self.shared_cache: KeyValueCache | None = None  # keys and values of the shared prefix

    @torch.inference_mode()
    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[tuple[int, list[Likelihood]]]:
        """Yield (index of a request, likelihoods of its choices), the longest rows first."""
        start = self._cache_shared_prefix([one.root[: one.context - 1] for one in requests])
        for batch in self._make_batches([one.length - start for one in requests], self.batch_tokens):
            yield from zip(batch, self._score_batch([requests[number] for number in batch], start), strict=True)

    @torch.inference_mode()
    def generate_answers(
        self, requests: Sequence[Prompt], decoding: Decoding, names: Sequence[str]
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield (index of a request, its answers), the longest contexts first.

        Args:
            requests: The contexts.
            decoding: Settings of the generation.
            names: A name for each request, from which its random numbers are seeded. So no answer depends on the batch.
        """
        start = self._cache_shared_prefix([one.tokens[:-1] for one in requests])
        new = min(decoding.tokens, self.length // 2)
        costs = [(len(one.tokens) + new) * decoding.samples for one in requests]
        token_bytes = 2 * self.model.size.layers * self.model.size.dimension * self.model.head.weight.element_size()
        for batch in self._make_batches(costs, CACHE_BYTES[self.device.type] // token_bytes):
            chosen, seeds = [requests[number] for number in batch], [names[number] for number in batch]
            yield from zip(batch, self._generate_batch(chosen, decoding, start, seeds), strict=True)

    def _make_batches(self, costs: Sequence[int], limit: int) -> Iterator[list[int]]:
        """Yield batches of indexes of requests, in order of decreasing cost.

        The requests of a batch have similar costs, because each row is padded to the longest row. A batch contains at
        least one request. If it contains more, its number of requests times their highest cost is at most `limit`.

        Args:
            costs: Number of tokens of each request.
            limit: Maximum number of tokens of a batch.
        """
        order = sorted(range(len(costs)), key=lambda number: -costs[number])
        while order:
            longest = costs[order[0]]
            similar = sum(costs[number] >= SIMILAR * longest for number in order)
            rows = max(1, min(similar, limit // longest))
            yield order[:rows]
            order = order[rows:]

    def _cache_shared_prefix(self, beginnings: Sequence[list[int]]) -> int:
        """Compute and cache the keys and values of the prefix that all requests share.

        A prefix of fewer than SHARED_TOKENS tokens is not cached.

        Args:
            beginnings: The tokens of each request that may be part of the prefix.

        Returns:
            The number of tokens of the cached prefix, or 0.
        """
        shared = _common_prefix(beginnings) if len(beginnings) > 1 else []
        if len(shared) < SHARED_TOKENS:
            return 0
        if shared != self.shared:
            tokens = torch.tensor([shared], device=self.device)
            self.shared_cache = KeyValueCache(self.model, 1, len(shared))
            positions = torch.arange(len(shared), device=self.device)[None]
            end = torch.tensor([[0, len(shared) - 1]], device=self.device)
            compute_states(self.model, tokens, positions, None, self.shared_cache, end)
            self.shared = shared
        return len(shared)

    def _open_cache(self, rows: int, start: int, width: int) -> KeyValueCache:
        """Return a cache whose rows begin with the shared prefix, of `start` tokens, and have room for `width` more."""
        cache = KeyValueCache(self.model, rows, start + width)
        if start and self.shared_cache:
            for layer, shared in zip(cache.layers, self.shared_cache.layers, strict=True):
                layer.append(shared.keys.expand(rows, -1, -1, -1), shared.values.expand(rows, -1, -1, -1))
        return cache

    def _score_batch(self, requests: list[ChoiceRequest], start: int) -> list[list[Likelihood]]:
        """Return the likelihoods of the choices of each request, in one forward pass.

        A token attends to earlier tokens of its branch and of the root, and to the shared prefix of `start` tokens.
        """
        width = max(one.length for one in requests) - start
        rows = [one.row(start) + [(0, 0, -1)] * (width - one.length + start) for one in requests]
        tokens, positions, branch = torch.tensor(rows, device=self.device).unbind(-1)
        mask = None
        if start or any(len(branch) > 1 for one in requests for branch in one.branches):
            mask = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
            mask = F.pad(mask.tril(), (start, 0), value=True)[:, None]
        cache = self._open_cache(len(requests), start, width) if start else None
        choices = [(row, choice) for row, one in enumerate(requests) for choice in one.places(start)]
        places = torch.tensor([(row, *place) for row, choice in choices for place in choice], device=self.device)
        states = compute_states(self.model, tokens, positions, mask, cache, places[:, :2])
        _, losses = self.model.head(states[None], places[None, :, 2])
        sums = losses[0].double().cpu().split([len(choice) for _, choice in choices])
        found = iter(Likelihood(-float(part.sum()), len(part)) for part in sums)
        return [[next(found) for _ in one.branches] for one in requests]

    def _read_prompts(self, requests: list[Prompt], start: int, room: int) -> tuple[KeyValueCache, Tensor, Tensor]:
        """Compute keys and values of contexts of different lengths, padded at the right.

        Args:
            requests: The contexts.
            start: Number of tokens of the shared prefix.
            room: Number of free columns in the cache after the longest context.

        Returns:
            The cache; the final hidden state of each context's last token, (B, D); and a mask, (B, columns) bool, that
            is True in columns with a token of the context and in the free columns.
        """
        tokens = [one.tokens[start:] for one in requests]
        lengths = torch.tensor([len(row) for row in tokens], device=self.device)
        width = int(lengths.max())
        padded = torch.tensor([row + [0] * (width - len(row)) for row in tokens], device=self.device)
        positions = torch.arange(start, start + width, device=self.device)[None]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        mask = F.pad(causal, (start, 0), value=True)[None, None] if start else None
        cache = self._open_cache(len(requests), start, width + room)
        ends = torch.stack([torch.arange(len(requests), device=self.device), lengths - 1], dim=1)
        states = compute_states(self.model, padded, positions, mask, cache, ends)
        columns = torch.arange(start + width + room, device=self.device)
        return cache, states, (columns < start + lengths[:, None]) | (columns >= start + width)

    def _generate_batch(
        self, requests: list[Prompt], decoding: Decoding, start: int, names: list[str]
    ) -> list[list[str]]:
        """Return the answers to each request. The next token of each row is in the same column of the cache."""
        limit = min(decoding.tokens, self.length // 2)
        cache, last, seen = self._read_prompts(requests, start, limit)
        copies = [row for row in range(len(requests)) for _ in range(decoding.samples)]
        live = answers = [
            Answer(
                list(requests[row].tokens),
                len(requests[row].tokens),
                draw_uniform(f"{names[row]} {number % decoding.samples}", limit),
            )
            for number, row in enumerate(copies)
        ]
        rows = torch.tensor(copies, device=self.device)
        cache, last, seen = cache.select(rows), last[rows], seen[rows]
        places = torch.tensor([one.begin for one in live], device=self.device)
        for number in range(limit):
            uniform = torch.stack([one.uniform[number] for one in live]).to(self.device)
            drawn = sample(self.model.head(last).float(), decoding.temperature, decoding.top_p, uniform)
            self._extend(live, drawn.tolist(), decoding.stop)
            kept = torch.tensor([row for row, one in enumerate(live) if not one.ended], device=self.device)
            if not len(kept):
                break
            # Remove ended answers only when half of the rows have ended, because this copies the cache.
            if len(kept) <= len(live) // 2:
                cache = cache.select(kept)
                live, places, seen = [live[row] for row in kept.tolist()], places[kept], seen[kept]
            new = torch.tensor([[one.tokens[-1]] for one in live], device=self.device)
            mask = seen[:, None, None, : cache.length + 1]
            firsts = F.pad(torch.arange(len(live), device=self.device)[:, None], (0, 1))
            last = compute_states(self.model, new, places[:, None], mask, cache, firsts)
            places = places + 1
        texts = iter(self._cut_text(one, decoding.stop) for one in answers)
        return [[next(texts) for _ in range(decoding.samples)] for _ in requests]

    def _extend(self, answers: list["Answer"], drawn: list[int], stops: Sequence[str]) -> None:
        """Add a token to each answer that has not ended."""
        for one, token in zip(answers, drawn, strict=True):
            one.ended = one.ended or token == self.vocabulary.eos
            if not one.ended:
                one.tokens.append(token)
                tail = self.vocabulary.decode(one.tokens[max(one.begin, len(one.tokens) - TAIL_TOKENS) :])
                one.ended = any(stop in tail for stop in stops)

    def _cut_text(self, answer: "Answer", stops: Sequence[str]) -> str:
        """Return the text of an answer up to the first stop text.

        The answer is decoded together with its context, because a tokenizer removes the space at the beginning of a
        text.
        """
        context = self.vocabulary.decode(answer.tokens[1 : answer.begin])
        text = self.vocabulary.decode(answer.tokens[1:])[len(context) :]
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


@dataclass(slots=True)
class Answer:
    """An answer that is being generated.

    Attributes:
        tokens: Tokens of the context, followed by tokens of the answer.
        begin: Index of the first token of the answer.
        uniform: Random numbers in [0, 1), one for each token of the answer.
        ended: True if the answer is complete.
    """

    tokens: list[int]
    begin: int
    uniform: Tensor
    ended: bool = False


def draw_uniform(name: str, count: int) -> Tensor:
    """Return `count` random numbers in [0, 1). They depend only on the name."""
    return torch.rand(count, generator=torch.Generator().manual_seed(hash_text(name) >> 1))
