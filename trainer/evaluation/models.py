"""A model to evaluate: a checkpoint of this trainer, or a Llama in Hugging Face's layout."""

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
    """A model on disk.

    Attributes:
        path: Its folder.
        sha256: Hash of its files.
        manifest_sha: Of the corpus that it was trained on, "" if not known.
        step: Of the checkpoint, 0 if not known.
        open: Loads the model, its tokenizer and the length of its context.
    """

    path: Path
    sha256: str
    manifest_sha: str
    step: int
    open: Callable[[], tuple[Llama, Vocabulary, int]]


def find_model(path: Path, corpus: Path | None = None) -> EvaluatedModel:
    """Return the model of a folder.

    Args:
        path: A run's folder, one of its checkpoints, or a model folder in Hugging Face's layout.
        corpus: The corpus's folder, if it has moved.

    Raises:
        UserError: The folder holds no model, or one that cannot be evaluated.
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

    hashes = {name: file["sha256"] for name, file in saved.state["files"].items()}  # compared when it is loaded
    identity = sha256_json({**hashes, STATE: sha256_file(saved.folder / STATE)})
    return EvaluatedModel(saved.folder, identity, manifest.manifest_sha, int(saved.state["step"]), open_saved)


def open_engine(source: EvaluatedModel, device: str, precision: str) -> Engine:
    """Load a model onto a device.

    Args:
        source: The model.
        device: "cpu" or "cuda".
        precision: "fp32" or "bf16", of weights and products.
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
    except Exception as error:  # the library raises bare exceptions
        raise UserError(
            f"{folder} has no readable tokenizer.json and tokenizer_config.json: download them again"
        ) from error
    return Vocabulary(
        lambda text: list(made.encode(text, add_special_tokens=False).ids), lambda ids: str(made.decode(ids)), bos, eos
    )


def _token_text(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def read_vocabulary(path: Path) -> Vocabulary:
    """Return the vocabulary of a SentencePiece model, or raise UserError."""
    pieces = tokenizer.read_model(path, "give the folder that holds the model's tokenizer")
    return Vocabulary(pieces.encode, pieces.decode, pieces.bos_id(), pieces.eos_id())
