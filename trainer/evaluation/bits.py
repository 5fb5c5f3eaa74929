"""Bits per byte of held-out documents under a run's newest checkpoint, kept beside the run.

The file of documents is that of `python -m manifests freeze`. Bits per byte compare models of different tokenizers:
the bytes are those of the text, and the bits of all its tokens are added up.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from filters.errors import UserError
from manifests import tokenizer
from manifests.files import canonical_json, sha256_bytes, write_atomic
from trainer.checkpoint import open_checkpoint
from trainer.events import find_corpus
from trainer.generate import load_model
from trainer.model import Llama

FILE = "held-out.json"
BATCH_TOKENS = {"cpu": 4_096, "cuda": 131_072}  # of one forward pass


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Frozen documents.

    Attributes:
        compared: manifest_sha of the corpora that train on none of the documents.
        sources: Source of each document.
        texts: Text of each document.
        sha256: Of the file.
    """

    compared: list[str]
    sources: list[str]
    texts: list[str]
    sha256: str

    def sizes(self) -> npt.NDArray[np.float64]:
        """Return the bytes of each document in UTF-8."""
        return np.array([len(text.encode()) for text in self.texts], np.float64)


def read_held_out(path: Path) -> HeldOut:
    """Read the file that `python -m manifests freeze` wrote, or raise UserError."""
    try:
        data = path.read_bytes()
        head, *rows = [json.loads(line) for line in data.decode().split("\n")[:-1]]
        texts = [str(row["text"]) for row in rows]
        held_out = HeldOut(list(head["compared"]), [str(row["source"]) for row in rows], texts, sha256_bytes(data))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no file of `python -m manifests freeze`: give that file") from error
    if not texts or not all(texts):
        raise UserError(f"{path} has no document, or one without text: write it again with `manifests freeze`")
    return held_out


def score_run(run: Path, held_out: HeldOut) -> npt.NDArray[np.float64]:
    """Return the bits of each held-out document under a run's newest checkpoint, computed once.

    They are kept in `RUN/held-out.json`, and computed again for another checkpoint or other documents.

    Raises:
        UserError: There is no checkpoint, or its corpus has moved.
    """
    saved, path = open_checkpoint(run), run / FILE
    facts = {"held_out": held_out.sha256, "step": saved.state["step"], "plan": saved.state["plan"]["manifest_sha"]}
    before = json.loads(path.read_bytes()) if path.exists() else {}
    if {name: before.get(name) for name in facts} == facts:
        return np.array(before["bits"], np.float64)
    steps = saved.state["plan"]["steps"]
    if saved.state["step"] < steps:
        raise UserError(f"{run} stopped after step {saved.state['step']} of {steps}: finish it, or leave it out")
    corpus, manifest = find_corpus(run, facts["plan"], None)
    pieces = tokenizer.load(corpus)
    documents = [[manifest.tokenizer.bos, *pieces.encode(text)] for text in held_out.texts]
    bits = measure_bits(load_model(saved), documents, int(saved.state["plan"]["sequence_length"]))
    write_atomic(path, canonical_json({**facts, "bits": bits.tolist()}))
    return bits


def measure_bits(model: Llama, documents: list[list[int]], length: int) -> npt.NDArray[np.float64]:
    """Return the bits of all tokens of each document but its first, predicted in windows of `length` tokens.

    Args:
        model: The model; it is moved to a GPU if there is one.
        documents: Token ids, begin-of-sequence first.
        length: Tokens of a window; the windows of a document do not overlap.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    windows = [
        (number, ids[start : start + length + 1])
        for number, ids in enumerate(documents)
        for start in range(0, len(ids) - 1, length)
    ]
    windows.sort(key=lambda window: len(window[1]))  # so that little is padding
    nats = np.zeros(len(documents))
    rows = max(1, BATCH_TOKENS[device] // length)
    for start in range(0, len(windows), rows):
        part = windows[start : start + rows]
        padded = torch.zeros((len(part), len(part[-1][1])), dtype=torch.int64)
        for row, (_, ids) in enumerate(part):
            padded[row, : len(ids)] = torch.tensor(ids)
        with torch.no_grad():
            _, losses = model(padded[:, :-1].to(device), padded[:, 1:].to(device))
        for (number, ids), row_losses in zip(part, losses.double().cpu().numpy(), strict=True):
            nats[number] += row_losses[: len(ids) - 1].sum()
    return nats / math.log(2)
