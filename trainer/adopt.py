"""Published weights as initial ones, from a folder in Hugging Face's layout; 16-bit weights become float32."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from filters.errors import UserError
from manifests.files import sha256_file
from manifests.manifest import TokenizerEntry
from trainer.hf import theirs
from trainer.model import ROTARY_BASE
from trainer.parallel import fill
from trainer.presets import Preset


@torch.no_grad()
def adopt(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a folder into a model, each rank its part. Raises UserError when they are of another
    model."""
    tensors = _tensors(folder)
    for name, parameter in model.named_parameters():
        try:
            whole = torch.cat([tensors[part](part) for part in theirs(name)]).float()
        except (KeyError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{folder} lacks {theirs(name)[0]} or holds it damaged: fetch the model anew") from error
        if whole.shape != parameter.shape:
            raise UserError(
                f"{folder} has {theirs(name)[0]} for a weight of shape {tuple(whole.shape)}, the model wants "
                f"{tuple(parameter.shape)}: give the --model and the corpus that it was made for"
            )
        fill(parameter, whole)


def _tensors(folder: Path) -> dict[str, Callable[[str], Tensor]]:
    """What reads each tensor of a folder, by its name."""
    found: dict[str, Callable[[str], Tensor]] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            opened: Any = safe_open(file, "pt")
            found |= dict.fromkeys(opened.offset_keys(), opened.get_tensor)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be read ({str(error).splitlines()[0]}): fetch the model anew") from error
    if not found:
        raise UserError(f"{folder} holds no *.safetensors: give a model folder in Hugging Face's layout")
    if "model.embed_tokens.weight" in found and "lm_head.weight" not in found:  # tied
        embedding = found["model.embed_tokens.weight"]
        found["lm_head.weight"] = lambda _: embedding("model.embed_tokens.weight")
    return found


def norm_epsilon_of(folder: Path, size: Preset, tokenizer: TokenizerEntry) -> float:
    """The epsilon of a folder's norms: the one thing in which published models of a size differ. Raises UserError where
    its configuration or its tokenizer is another than the model's and the corpus's in what the shapes do not show."""
    try:
        said: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        epsilon = float(said["rms_norm_eps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} has no readable config.json of a Llama: fetch the model anew") from error
    path = folder / "tokenizer.model"
    if path.is_file() and sha256_file(path) != tokenizer.sha256:
        raise UserError(f"{folder} has another tokenizer than the corpus: build the corpus with {path}")
    rotary = {**said, **(said.get("rope_scaling") or {}), **(said.get("rope_parameters") or {})}
    heads = said.get("num_attention_heads")
    expected = {
        "dimension": (size.dimension, said.get("hidden_size")),
        "layers": (size.layers, said.get("num_hidden_layers")),
        "heads": (size.heads, heads),
        "heads of keys": (size.heads, said.get("num_key_value_heads") or heads),
        "rotary base": (ROTARY_BASE, rotary.get("rope_theta", ROTARY_BASE)),
        "kind of rotary positions": ("default", rotary.get("rope_type", rotary.get("type", "default"))),
        "activation": ("silu", said.get("hidden_act", "silu")),
        "biases": (False, bool(said.get("attention_bias") or said.get("mlp_bias"))),
        "vocabulary": (tokenizer.vocabulary, said.get("vocab_size", tokenizer.vocabulary)),
    }
    for what, (ours, found) in expected.items():
        if ours != found:
            raise UserError(
                f"{folder} has {what} {found}, the model {ours}: give the --model and the corpus it was made for"
            )
    return epsilon
