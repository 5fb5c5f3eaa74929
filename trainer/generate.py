"""Text from a checkpoint, one token at a time."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from manifests import tokenizer
from trainer.checkpoint import SavedModel, open_checkpoint
from trainer.model import KeyValueCache, Llama, allocate, prefer_fast_attention, resolve_device


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
) -> Iterator[str]:
    """Yield prompts with their continuations, an empty line between two, in pieces of whole characters.

    Args:
        path: A run's folder, or one checkpoint's.
        corpus: The corpus's folder, if it has moved.
        prompts: The texts to continue.
        tokens: The largest number of tokens after each prompt; end-of-sequence ends it before.
        temperature: See `sample`.
        top_p: See `sample`.
        seed: Seed of the random numbers of the first text; that of the next is one higher.
        device: "cpu", "cuda" (in bfloat16) or "auto".

    Raises:
        UserError: There is no such checkpoint or corpus.
    """
    device = resolve_device(device)
    saved = open_checkpoint(path)
    folder, manifest = saved.find_corpus(corpus)
    pieces, length = tokenizer.load(folder), saved.length
    model = load_model(saved, device, torch.bfloat16 if device == "cuda" else torch.float32)
    for number, prompt in enumerate(prompts):
        printed, text = "", [manifest.tokenizer.bos, *pieces.encode(prompt)]
        yield "\n\n" if number else ""
        for token in continue_text(model, text, tokens, length, temperature, top_p, seed + number):
            if token == manifest.tokenizer.eos:
                break
            text.append(token)
            whole = pieces.decode(text)
            if not whole.endswith("\ufffd"):  # else the last character is incomplete
                yield whole[len(printed) :]
                printed = whole
        yield pieces.decode(text)[len(printed) :]


@torch.no_grad()
def continue_text(
    model: Llama, prompt: Sequence[int], tokens: int, length: int, temperature: float, top_p: float, seed: int
) -> Iterator[int]:
    """Yield the next token of a text, `tokens` times, by a cache of keys and values.

    Where the text grows beyond `length` tokens, the model goes on from its later half: positions are relative.

    Args:
        model: The model, whole on its device.
        prompt: Token ids of the text so far, at least one.
        tokens: Tokens to draw.
        length: Tokens that the model sees at once.
        temperature: See `sample`.
        top_p: See `sample`.
        seed: Seed of the random numbers.
    """
    text, device = list(prompt), model.embedding.weight.device
    uniform = torch.rand(tokens, generator=torch.Generator().manual_seed(seed)).to(device)
    cache: KeyValueCache | None = None
    with prefer_fast_attention(device):
        for number in range(tokens):
            given = text[-1:]
            if cache is None or cache.length >= length:
                given = text[-(length if cache is None else max(1, length // 2)) :]
                cache = KeyValueCache(model, 1, length)
            logits = model(torch.tensor([given], device=device), cache=cache, last=1)[:, 0].float()
            token = int(sample(logits, temperature, top_p, uniform[number : number + 1]))
            text.append(token)
            yield token


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


def print_pieces(pieces: Iterator[str]) -> None:
    """Print each piece of text when it comes, with a question mark for characters that the terminal lacks."""
    for text in itertools.chain(pieces, ["\n"]):
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
        sys.stdout.buffer.flush()
