"""Text from a checkpoint, one token at a time."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from filters.errors import UserError
from manifests import tokenizer
from trainer.hf import SavedModel, open_checkpoint
from trainer.model import Llama


def load_model(saved: SavedModel) -> Llama:
    """Return the whole model of a checkpoint as float32, in this process."""
    with torch.device("meta"):
        model = Llama(saved.size, saved.vocabulary)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(saved.weight(name))
    model.eval()
    return model


def generate(
    path: Path, corpus: Path | None, prompt: str, tokens: int, temperature: float, top_p: float, seed: int
) -> Iterator[str]:
    """Yield the prompt and its continuation in pieces of whole characters, until end-of-sequence.

    Args:
        path: A run's folder, or one checkpoint's.
        corpus: The corpus's folder, if it has moved.
        prompt: The text to continue.
        tokens: The largest number of tokens after the prompt.
        temperature: See `sample`.
        top_p: See `sample`.
        seed: Seed of the random numbers.

    Raises:
        UserError: A setting is out of range, or there is no such checkpoint or corpus.
    """
    if temperature < 0 or not 0 < top_p <= 1:
        raise UserError("--temperature must be 0 or more, --top-p above 0 and at most 1")
    saved = open_checkpoint(path)
    folder, manifest = saved.corpus(corpus)
    pieces = tokenizer.load(folder)
    model = load_model(saved)
    length = int(saved.state["plan"]["sequence_length"])
    ids = [manifest.tokenizer.bos, *pieces.encode(prompt)]
    random = torch.Generator().manual_seed(seed)
    printed = ""
    for _ in range(tokens):
        with torch.no_grad():  # positions are relative, so the oldest tokens can be cut off
            logits = model(torch.tensor([ids[-length:]]))[0, -1]
        ids.append(sample(logits, temperature, top_p, random))
        if ids[-1] == manifest.tokenizer.eos:
            break
        text = pieces.decode(ids)
        if not text.endswith("\ufffd"):  # else the last character is incomplete
            yield text[len(printed) :]
            printed = text
    yield pieces.decode(ids)[len(printed) :]


def sample(logits: Tensor, temperature: float, top_p: float, random: torch.Generator) -> int:
    """Draw a token from (V,) logits by nucleus sampling (Holtzman et al. 2020).

    Args:
        logits: (V,).
        temperature: Divides the logits; 0 returns the most probable token.
        top_p: Draw among the most probable tokens that together have this probability.
        random: Source of random numbers.
    """
    if temperature == 0:
        return int(logits.argmax())
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True, stable=True)
    probabilities[probabilities.cumsum(-1) - probabilities >= top_p] = 0
    return int(order[torch.multinomial(probabilities, 1, generator=random)])


def print_pieces(texts: Iterator[str]) -> None:
    """Print pieces of text at once, with a question mark for characters that the terminal's encoding lacks."""
    for text in texts:
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
        sys.stdout.buffer.flush()
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
