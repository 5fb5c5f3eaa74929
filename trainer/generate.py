"""Text from a checkpoint, a token at a time."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from filters.errors import UserError
from manifests import tokenizer
from trainer.hf import Saved, opened
from trainer.model import Llama


def loaded(saved: Saved) -> Llama:
    """The model of a checkpoint, whole, float32, in this process."""
    with torch.device("meta"):
        model = Llama(saved.size, saved.vocabulary)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(saved.weight(name))
    model.eval()
    return model


def generate(
    place: Path, corpus: Path | None, prompt: str, tokens: int, temperature: float, top_p: float, seed: int
) -> Iterator[str]:
    """The prompt and up to `tokens` tokens after it, in pieces that are whole characters; ends at end-of-sequence.
    Raises UserError."""
    if temperature < 0 or not 0 < top_p <= 1:
        raise UserError("--temperature must be 0 or more, --top-p above 0 and at most 1")
    saved = opened(place)
    folder, manifest = saved.corpus(corpus)
    pieces = tokenizer.load(folder)
    model = loaded(saved)
    length = int(saved.state["plan"]["sequence_length"])
    ids = [manifest.tokenizer.bos, *pieces.encode(prompt)]
    chance = torch.Generator().manual_seed(seed)
    said = ""
    for _ in range(tokens):
        with torch.no_grad():
            # positions are relative: what no longer fits falls off the front
            logits = model(torch.tensor([ids[-length:]]))[0, -1]
        ids.append(sample(logits, temperature, top_p, chance))
        if ids[-1] == manifest.tokenizer.eos:
            break
        text = pieces.decode(ids)
        if not text.endswith("\ufffd"):  # else in the middle of a character
            yield text[len(said) :]
            said = text
    yield pieces.decode(ids)[len(said) :]


def sample(logits: Tensor, temperature: float, top_p: float, chance: torch.Generator) -> int:
    """A token by its probability at a temperature, among the likeliest that together have `top_p` (Holtzman et al.
    2020, nucleus sampling); the likeliest at temperature 0. `logits`: (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    likely, order = (logits / temperature).softmax(-1).sort(descending=True, stable=True)
    likely[likely.cumsum(-1) - likely >= top_p] = 0
    return int(order[torch.multinomial(likely, 1, generator=chance)])


def write(texts: Iterator[str]) -> None:
    """Print pieces of text as they come; what the terminal's encoding lacks becomes a question mark."""
    for text in texts:
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
        sys.stdout.buffer.flush()
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
