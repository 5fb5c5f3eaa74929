"""Text from a checkpoint, one token at a time for several prompts at once."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from filters.errors import UserError
from manifests import tokenizer
from trainer.checkpoint import SavedModel, open_checkpoint
from trainer.events import find_corpus
from trainer.model import KeyValueCache, Llama, allocate, prefer_fast_attention


def load_model(saved: SavedModel, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """Return the whole model of a checkpoint on one device, in this process; raise UserError if it is damaged."""
    saved.check()
    model = allocate(saved.size, saved.vocabulary, device, dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(saved.weight(name))
    model.eval()
    return model


def generate(
    path: Path,
    corpus: Path | None,
    prompts: Sequence[str],
    tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    device: str = "auto",
) -> Iterator[list[str]]:
    """Yield each prompt and its continuation in pieces of whole characters, until all reach end-of-sequence.

    Args:
        path: A run's folder, or one checkpoint's.
        corpus: The corpus's folder, if it has moved.
        prompts: The texts to continue.
        tokens: The largest number of tokens after the prompt.
        temperature: See `sample`.
        top_p: See `sample`.
        seed: Seed of the random numbers.
        device: "cpu", "cuda" (in bfloat16) or "auto".

    Yields:
        The next piece of each text, "" for a text that has ended.

    Raises:
        UserError: A setting is out of range, or there is no such checkpoint or corpus.
    """
    if temperature < 0 or not 0 < top_p <= 1:
        raise UserError("--temperature must be 0 or more, --top-p above 0 and at most 1")
    saved = open_checkpoint(path)
    folder, manifest = find_corpus(saved.folder.parents[1], saved.state["plan"]["manifest_sha"], corpus)
    pieces = tokenizer.load(folder)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = load_model(saved, device, torch.bfloat16 if device == "cuda" else torch.float32)
    texts = [[manifest.tokenizer.bos, *pieces.encode(prompt)] for prompt in prompts]
    printed, ended = [""] * len(texts), [False] * len(texts)
    length = int(saved.state["plan"]["sequence_length"])
    drawing = continue_texts(model, texts, tokens, length, temperature, top_p, seed)
    for drawn in drawing:
        ended = [was or token == manifest.tokenizer.eos for was, token in zip(ended, drawn, strict=True)]
        for text, token, end in zip(texts, drawn, ended, strict=True):
            text += [] if end else [token]
        whole = [pieces.decode(text) for text in texts]
        ready = [not text.endswith("\ufffd") for text in whole]  # else the last character is incomplete
        yield [text[len(old) :] if up else "" for text, old, up in zip(whole, printed, ready, strict=True)]
        printed = [text if up else old for text, old, up in zip(whole, printed, ready, strict=True)]
        if all(ended):
            break
    yield [pieces.decode(text)[len(old) :] for text, old in zip(texts, printed, strict=True)]


@torch.no_grad()
def continue_texts(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    length: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> Iterator[list[int]]:
    """Yield the next token of every prompt, `tokens` times, by a cache of keys and values.

    A text's random numbers depend on the seed and its place among the prompts. Where a text grows beyond `length`
    tokens, the model goes on from its later half: positions are relative.

    Args:
        model: The model, whole on its device.
        prompts: Token ids of the texts so far, at least one each.
        tokens: Tokens to draw for each.
        length: Tokens that the model sees at once.
        temperature: See `sample`.
        top_p: See `sample`.
        seed: Seed of the random numbers.
    """
    texts, device = [list(prompt) for prompt in prompts], model.embedding.weight.device
    chance = [torch.rand(tokens, generator=torch.Generator().manual_seed(seed + row)) for row in range(len(texts))]
    uniform = torch.stack(chance, dim=1).to(device)
    cache: KeyValueCache | None = None
    with prefer_fast_attention(device):
        for number in range(tokens):
            if cache is None or cache.length >= length:
                keep = length if cache is None else max(1, length // 2)
                tails = [text[-keep:] for text in texts]
                wide = max(map(len, tails))
                padding = [wide - len(tail) for tail in tails]
                cache = KeyValueCache(model, len(texts), max(length, wide), padding if any(padding) else None)
                given = torch.tensor([[0] * (wide - len(tail)) + tail for tail in tails], device=device)
            else:
                given = torch.tensor([text[-1:] for text in texts], device=device)
            logits = model(given, cache=cache, last=1)[:, 0].float()
            drawn = sample(logits, temperature, top_p, uniform[number]).tolist()
            for text, token in zip(texts, drawn, strict=True):
                text.append(token)
            yield drawn


def sample(logits: Tensor, temperature: float, top_p: float, uniform: Tensor) -> Tensor:
    """Draw a token from each row of (B, V) logits by nucleus sampling (Holtzman et al. 2020), (B,).

    Args:
        logits: (B, V).
        temperature: Divides the logits; 0 returns the most probable token.
        top_p: Draw among the most probable tokens that together have this probability.
        uniform: (B,) random numbers from 0 to below 1.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True, stable=True)
    probabilities[probabilities.cumsum(-1) - probabilities >= top_p] = 0
    ends = probabilities.cumsum(-1)
    places = (ends < uniform[:, None] * ends[:, -1:]).sum(-1, keepdim=True)
    return order.gather(1, places)[:, 0]


def print_pieces(texts: Iterator[list[str]]) -> None:
    """Print one text's pieces at once and several texts one below the other, in the terminal's encoding."""
    whole: list[str] = []
    for pieces in texts:
        if len(pieces) == 1:
            _write(pieces[0])
        else:
            whole = [text + piece for text, piece in zip(whole or [""] * len(pieces), pieces, strict=True)]
    _write("\n\n".join(whole) + "\n")


def _write(text: str) -> None:
    """Print text, with a question mark for characters that the terminal's encoding lacks."""
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
    sys.stdout.buffer.flush()
