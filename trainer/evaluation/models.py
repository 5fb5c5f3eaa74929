"""Open a model to evaluate: a checkpoint of this trainer, or a Llama in Hugging Face's layout."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from filters.errors import UserError
from manifests import tokenizer
from manifests.files import sha256_file, sha256_json
from trainer.checkpoint import STATE, open_checkpoint
from trainer.evaluation.engine import Engine, Vocabulary
from trainer.generate import load_model
from trainer.hf import load_hf_weights, read_llama_config
from trainer.model import Llama, allocate


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model to evaluate, which may not be loaded yet.

    Attributes:
        path: The model's folder.
        sha256: Hash of the model's files or weights.
        manifest_sha: manifest_sha of the training corpus, or "" if not known.
        step: Training step of the checkpoint, or 0 if not known.
        open: A function that returns the model, its vocabulary and the maximum number of tokens in its context.
    """

    path: Path
    sha256: str
    manifest_sha: str
    step: int
    open: Callable[[], tuple[Llama, Vocabulary, int]]


def find_model(path: Path, corpus: Path | None = None) -> EvaluatedModel:
    """Find the model in a folder, without loading it.

    Args:
        path: Folder of a run, of one checkpoint, or of a model in Hugging Face's layout.
        corpus: The corpus's folder, if it was moved.

    Raises:
        UserError: The folder contains no model, or a model that cannot be evaluated.
    """
    if (path / "config.json").is_file():
        files = [*path.glob("*.safetensors"), *path.glob("tokenizer*"), path / "config.json"]
        hashes = {file.name: sha256_file(file) for file in files}
        return EvaluatedModel(path, sha256_json(hashes), "", 0, lambda: _open_published(path))
    saved = open_checkpoint(path)
    folder, manifest = saved.find_corpus(corpus)

    def open_saved() -> tuple[Llama, Vocabulary, int]:
        vocabulary = read_vocabulary(folder / tokenizer.FILE)
        return load_model(saved), vocabulary, saved.length

    # These hashes are compared with the files when the model is loaded.
    hashes = {name: file["sha256"] for name, file in saved.state["files"].items()}
    identity = sha256_json({**hashes, STATE: sha256_file(saved.folder / STATE)})
    return EvaluatedModel(saved.folder, identity, manifest.manifest_sha, int(saved.state["step"]), open_saved)


def open_engine(source: EvaluatedModel, device: str, precision: str) -> Engine:
    """Load a model onto a device and return an engine.

    Args:
        source: The model.
        device: "cpu" or "cuda".
        precision: "fp32" or "bf16", the type of weights and products.
    """
    model, vocabulary, length = source.open()
    model = model.to(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    return Engine(model.requires_grad_(False), vocabulary, length)


def _open_published(folder: Path) -> tuple[Llama, Vocabulary, int]:
    config = read_llama_config(folder)
    model = allocate(config.size, config.vocabulary)
    load_hf_weights(model, folder)
    return model, _read_folder_vocabulary(folder), config.length


def _read_folder_vocabulary(folder: Path) -> Vocabulary:
    """Read `tokenizer.model`, or if there is none `tokenizer.json`, of a folder in Hugging Face's layout."""
    if (folder / "tokenizer.model").is_file():
        return read_vocabulary(folder / "tokenizer.model")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UserError(
            f"{folder} has no tokenizer.model, and its tokenizer.json needs: pip install tokenizers"
        ) from error
    try:
        made: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        bos, eos = (int(made.token_to_id(_token_text(settings[key]))) for key in ("bos_token", "eos_token"))
    except Exception as error:  # The library raises the class Exception and no subclass.
        raise UserError(
            f"{folder} has no readable tokenizer.json and tokenizer_config.json: download them again"
        ) from error
    return Vocabulary(
        lambda text: list(made.encode(text, add_special_tokens=False).ids), lambda ids: str(made.decode(ids)), bos, eos
    )


def _token_text(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read the vocabulary of a SentencePiece model. Raise UserError if the file cannot be read."""
    pieces = tokenizer.read_model(path, "give the folder that holds the model's tokenizer")
    return Vocabulary(pieces.encode, pieces.decode, pieces.bos_id(), pieces.eos_id())
