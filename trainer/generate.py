"""Generate text with the model of a checkpoint."""

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
    """Load the whole model of a checkpoint onto one device, in this process.

    Raises:
        UserError: The checkpoint is damaged.
    """
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
    """Yield each prompt and its continuation, piece by piece.

    Each piece consists of complete characters. An empty line separates two texts.

    Args:
        path: Folder of a run or of one checkpoint.
        corpus: The corpus's folder, if it was moved.
        prompts: The texts to continue.
        tokens: Maximum number of tokens after each prompt. An end-of-sequence token ends the text earlier.
        temperature: See `sample`.
        top_p: See `sample`.
        seed: Seed of the random numbers of the first text. It is increased by one for each further text.
        device: "cpu", "cuda" (in bfloat16) or "auto".

    Raises:
        UserError: The checkpoint or the corpus does not exist.
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
            if not whole.endswith("\ufffd"):  # Otherwise the last character is incomplete.
                yield whole[len(printed) :]
                printed = whole
        yield pieces.decode(text)[len(printed) :]


@torch.no_grad()
def continue_text(
    model: Llama, prompt: Sequence[int], tokens: int, length: int, temperature: float, top_p: float, seed: int
) -> Iterator[int]:
    """Yield `tokens` new tokens of a text, using a cache of keys and values.

    When the text becomes longer than `length` tokens, the model continues with only the second half of the last
    `length` tokens. This is possible because rotary positions are relative.

    Args:
        model: The model, not sharded.
        prompt: Token ids of the text so far, at least one.
        tokens: Number of tokens to generate.
        length: Maximum number of tokens in the model's context.
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
    """Draw one token from each row of logits by nucleus sampling (Holtzman et al. 2020).

    Args:
        logits: (B, V).
        temperature: Divisor of the logits. 0 returns the most probable token.
        top_p: Draw from the most probable tokens whose total probability reaches this value.
        uniform: (B,) random numbers in [0, 1).

    Returns:
        (B,) token ids.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True, stable=True)
    probabilities[probabilities.cumsum(-1) - probabilities >= top_p] = 0
    ends = probabilities.cumsum(-1)
    places = (ends < uniform[:, None] * ends[:, -1:]).sum(-1, keepdim=True)
    return order.gather(1, places)[:, 0]


def print_pieces(pieces: Iterator[str]) -> None:
    """Print each piece of text at once. Characters that the terminal's encoding lacks are printed as question marks."""
    for text in itertools.chain(pieces, ["\n"]):
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
        sys.stdout.buffer.flush()
