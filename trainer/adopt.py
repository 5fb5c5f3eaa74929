"""Published weights as initial ones: a folder in Hugging Face's layout, or the files LLaMA was published in.

Hugging Face's have the rotary pairs as two halves, as ours; LLaMA's own have them as neighbours, so that the rows of
its query and key matrices change places. 16-bit weights become float32.
"""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from manifests.errors import UserError
from manifests.files import sha256_file
from manifests.manifest import TokenizerEntry
from trainer.export import theirs
from trainer.model import NORM_EPSILON, ROTARY_BASE
from trainer.presets import Preset

META_ALONE = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
META_IN_BLOCK = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
META_ACROSS = ("embed_tokens", "o_proj", "down_proj")
"""weights that LLaMA's files hold column-wise parts of; of the others they hold row-wise parts, and norms whole"""
_META_BLOCK = re.compile(r"layers\.(\d+)\.(.+)\.weight")

Tensors = dict[str, Callable[[], Tensor]]


def adopt(model: nn.Module, folder: Path, size: Preset, vocabulary: int) -> None:
    """Copy the weights of a folder into a model, each rank its part. Raises UserError when they are of another
    model."""
    tensors = _tensors(folder, size)
    _check_settings(folder, size, vocabulary)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            try:
                whole = torch.cat([tensors[part]() for part in theirs(name)]).float()
            except (KeyError, SafetensorError, RuntimeError) as error:
                raise UserError(
                    f"{folder} lacks {theirs(name)[0]} or holds it damaged: fetch the model anew"
                ) from error
            if whole.shape != parameter.shape:
                raise UserError(
                    f"{folder} has {theirs(name)[0]} for a weight of shape {tuple(whole.shape)}, the model wants "
                    f"{tuple(parameter.shape)}: give the --model and the corpus that it was made for"
                )
            if isinstance(parameter, DTensor):
                place = (parameter.device_mesh, parameter.placements)
                parameter.copy_(distribute_tensor(whole.to(parameter.device), *place, src_data_rank=None))
            else:
                parameter.copy_(whole)


def check_tokenizer(folder: Path, tokenizer: TokenizerEntry) -> None:
    """Refuse (UserError) a folder whose tokenizer is another than the corpus's: the ids would mean other pieces."""
    path = folder / "tokenizer.model"
    if path.is_file() and sha256_file(path) != tokenizer.sha256:
        raise UserError(f"{folder} has another tokenizer than the corpus: build the corpus with {path}")


def _check_settings(folder: Path, size: Preset, vocabulary: int) -> None:
    """What must be equal beyond the shapes of the weights."""
    try:
        theirs_file = next(path for name in ("config.json", "params.json") if (path := folder / name).is_file())
        said: dict[str, Any] = json.loads(theirs_file.read_bytes())
    except (StopIteration, ValueError) as error:
        raise UserError(f"{folder} has no readable config.json or params.json: fetch the model anew") from error
    rotary = {**said, **(said.get("rope_scaling") or {}), **(said.get("rope_parameters") or {})}
    heads = said.get("num_attention_heads", said.get("n_heads"))
    expected = {
        "dimension": (size.dimension, said.get("hidden_size", said.get("dim"))),
        "layers": (size.layers, said.get("num_hidden_layers", said.get("n_layers"))),
        "heads": (size.heads, heads),
        "heads of keys": (size.heads, said.get("num_key_value_heads", said.get("n_kv_heads")) or heads),
        "epsilon of the norms": (NORM_EPSILON, said.get("rms_norm_eps", said.get("norm_eps"))),
        "rotary base": (ROTARY_BASE, rotary.get("rope_theta", ROTARY_BASE)),
        "kind of rotary positions": ("default", rotary.get("rope_type", rotary.get("type", "default"))),
        "activation": ("silu", said.get("hidden_act", "silu")),
        "biases": (False, bool(said.get("attention_bias") or said.get("mlp_bias"))),
        "vocabulary": (vocabulary, max(0, said.get("vocab_size", vocabulary)) or vocabulary),
    }
    for what, (ours, found) in expected.items():
        if ours != found:
            raise UserError(
                f"{folder} has {what} {found}, the model {ours}: give the --model and the corpus it was made for"
            )


def _tensors(folder: Path, size: Preset) -> Tensors:
    """How to read each tensor of a folder, by Hugging Face's names. Nothing is unpickled but tensors."""
    found: Tensors = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            opened: Any = safe_open(file, "pt")
            found |= {name: _bind(opened.get_tensor, name) for name in opened.offset_keys()}
        for file in sorted(folder.glob("pytorch_model*.bin")) if not found else ():
            found |= {name: _bind(_same, tensor) for name, tensor in _unpickled(file).items()}
        parts = [_unpickled(file) for file in sorted(folder.glob("consolidated.*.pth"))] if not found else []
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        raise UserError(f"{folder} cannot be read ({str(error).splitlines()[0]}): fetch the model anew") from error
    for name in parts[0] if parts else ():
        if there := _from_meta(name):
            found[there] = _bind(_joined, (there, [part[name] for part in parts], size.heads))
    if not found:
        raise UserError(
            f"{folder} holds no *.safetensors, pytorch_model*.bin or consolidated.*.pth: give a model folder"
        )
    found.setdefault("lm_head.weight", found.get("model.embed_tokens.weight", _nothing))
    return found


def _from_meta(name: str) -> str:
    block = _META_BLOCK.fullmatch(name)
    if block:
        return f"model.layers.{block[1]}.{META_IN_BLOCK[block[2]]}.weight" if block[2] in META_IN_BLOCK else ""
    stem = name.removesuffix(".weight")
    return f"{META_ALONE[stem]}.weight" if stem in META_ALONE else ""


def _joined(what: tuple[str, list[Tensor], int]) -> Tensor:
    """A weight of LLaMA's own files from its parts, its rotary pairs apart."""
    name, parts, heads = what
    if parts[0].dim() == 1:
        return parts[0]
    whole = torch.cat(parts, dim=1 if name.split(".")[-2] in META_ACROSS else 0)
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        rows, columns = whole.shape
        whole = whole.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
    return whole


def _unpickled(file: Path) -> dict[str, Tensor]:
    return dict(torch.load(file, map_location="cpu", mmap=True, weights_only=True))


def _bind(read: Callable[[Any], Tensor], what: Any) -> Callable[[], Tensor]:
    return lambda: read(what)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _nothing() -> Tensor:
    raise KeyError("lm_head.weight")
