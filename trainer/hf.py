"""Convert weights to and from the layout of Hugging Face's Llama.

Both layouts pair rotary feature i with feature i + half of the head dimension. So a conversion only renames, splits and
concatenates weights. An export holds the weights of one output file in memory at a time.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from filters.errors import UserError
from manifests import tokenizer
from manifests.files import atomic_path, canonical_json, new_folder, sha256_file, write_atomic
from manifests.manifest import Manifest, TokenizerEntry
from manifests.sizes import Preset
from trainer.checkpoint import SavedModel, open_checkpoint, write_tensors
from trainer.model import ROTARY_BASE
from trainer.parallel import own_rows

FILE_BYTES = 5_000_000_000  # Maximum size of one safetensors file in bytes, as in transformers.
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OUTER_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
# Name of a weight below `blocks.N.` here -> names of Hugging Face's weights below `model.layers.N.`. If there are
# several names, the weight here is their concatenation along rows.
BLOCK_NAMES = {
    "attention_norm.weight": ("input_layernorm.weight",),
    "attention.qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attention.out.weight": ("self_attn.o_proj.weight",),
    "feed_forward_norm.weight": ("post_attention_layernorm.weight",),
    "feed_forward.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed_forward.down.weight": ("mlp.down_proj.weight",),
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def export(path: Path, out: Path, corpus: Path | None, dtype: str = "float32", file_bytes: int = FILE_BYTES) -> str:
    """Write weights, configuration, tokenizer and a model card into a new folder, in Hugging Face's layout.

    Args:
        path: Folder of a run or of one checkpoint.
        out: The new folder.
        corpus: The corpus's folder, if it was moved.
        dtype: Type of the weights, a key of TYPES.
        file_bytes: Maximum number of bytes of weights in one file.

    Returns:
        One line that describes the export.

    Raises:
        UserError: The checkpoint or the corpus does not exist, `out` is not empty, or the disk is full. After a failed
            write, nothing remains in `out`.
    """
    saved = open_checkpoint(path)
    corpus, manifest = saved.find_corpus(corpus)
    pieces = tokenizer.load(corpus)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: give a new folder")
    length = saved.length
    texts = {
        "config.json": _make_config(saved, manifest, dtype, length),
        "generation_config.json": {"bos_token_id": manifest.tokenizer.bos, "eos_token_id": manifest.tokenizer.eos},
        "tokenizer.json": tokenizer.tokenizer_json(pieces),
        "tokenizer_config.json": tokenizer.tokenizer_config(pieces, length),
    }
    model = (corpus / tokenizer.FILE).read_bytes()
    saved.check()
    with new_folder(out) as new:
        for name, value in texts.items():
            write_atomic(new / name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
        write_atomic(new / "tokenizer.model", model)
        write_atomic(new / "README.md", _write_card(saved, manifest).encode())
        files = _write_weights(saved, new, TYPES[dtype], file_bytes)
    return f"{out}: step {saved.state['step']}, {files} file{'s' if files > 1 else ''} of {dtype} weights"


def hf_names(name: str) -> tuple[str, ...]:
    """Return the names in Hugging Face's layout of a weight. Several weights are concatenated along rows here."""
    block = _BLOCK.fullmatch(name)
    if block is None:
        return (OUTER_NAMES[name],)
    return tuple(f"model.layers.{block[1]}.{part}" for part in BLOCK_NAMES[block[2]])


def _write_weights(saved: SavedModel, out: Path, dtype: torch.dtype, file_bytes: int) -> int:
    """Write `model.safetensors`, or several files and an index. Return the number of weight files."""
    groups: list[list[str]] = [[]]
    total = filled = 0
    for name, shape in saved.shapes.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        if groups[-1] and filled + size > file_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled, total = filled + size, total + size
    count = len(groups)
    files: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
        tensors: dict[str, Tensor] = {}
        for name in names:
            parts = hf_names(name)
            chunks = saved.weight(name).to(dtype).chunk(len(parts))
            tensors |= {part: chunk.clone() for part, chunk in zip(parts, chunks, strict=True)}
        with atomic_path(out / file) as temporary:
            write_tensors(temporary, tensors)
        files |= dict.fromkeys(tensors, file)
    if count > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
        write_atomic(out / "model.safetensors.index.json", canonical_json(index))
    return count


def _make_config(saved: SavedModel, manifest: Manifest, dtype: str, length: int) -> dict[str, Any]:
    size = saved.size
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": manifest.tokenizer.bos,
        "eos_token_id": manifest.tokenizer.eos,
        "head_dim": size.dimension // size.heads,
        "hidden_act": "silu",
        "hidden_size": size.dimension,
        "intermediate_size": size.width,
        "max_position_embeddings": length,
        "mlp_bias": False,
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "num_key_value_heads": size.heads,
        "rms_norm_eps": size.norm_epsilon,
        "rope_theta": ROTARY_BASE,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "vocab_size": saved.vocabulary,
    }


def _write_card(saved: SavedModel, manifest: Manifest) -> str:
    plan, step = saved.state["plan"], saved.state["step"]
    sources = sorted(manifest.sources.items())
    facts = {
        "model": saved.state["training"]["model"],
        "step": step,
        "tokens": step * plan["global_batch"] * plan["sequence_length"],
        "tokenizer": manifest.tokenizer.sha256,
        "rows": "\n".join(f"| {name} | {source.weight:g} | {source.unique_tokens:,} |" for name, source in sources),
    }
    return Path(__file__).with_name("model_card.md").read_text("utf-8").format(**plan, **facts)


@torch.no_grad()
def load_hf_weights(model: nn.Module, folder: Path) -> None:
    """Copy this rank's part of published weights into a model. 16-bit weights are converted to float32.

    Args:
        model: The model, on any number of ranks.
        folder: A model folder in Hugging Face's layout.

    Raises:
        UserError: The weights cannot be read, or belong to another model.
    """
    tensors = _open_tensors(folder)
    for name, parameter in model.named_parameters():
        names = hf_names(name)
        try:
            parts = [tensors[part](part) for part in names]
            if len(parts) == 3:  # queries, keys, values
                parts[1:] = [_repeat_shared_heads(part, model.size) for part in parts[1:]]
            whole = torch.cat(parts).float()
        except (KeyError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{folder} has no readable {names[0]}: download the model again") from error
        if whole.shape != parameter.shape:
            raise UserError(
                f"{folder} has {names[0]} of shape {tuple(whole.shape)}, the model needs {tuple(parameter.shape)}: "
                "give its --model and a corpus with its tokenizer"
            )
        local, begin = own_rows(parameter)
        local.copy_(whole[begin : begin + len(local)])


def _repeat_shared_heads(part: Tensor, size: Preset) -> Tensor:
    """Repeat key or value heads that several query heads share, so that each query head has its own.

    Sharing is grouped-query attention (Ainslie et al. 2023).
    """
    width = size.dimension // size.heads
    return part.unflatten(0, (-1, width)).repeat_interleave(size.dimension // len(part), 0).flatten(0, 1)


def _open_tensors(folder: Path) -> dict[str, Callable[[str], Tensor]]:
    """Return a dict from tensor name to a function that reads the tensor of that name from a folder."""
    readers: dict[str, Callable[[str], Tensor]] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            file: Any = safe_open(path, "pt")
            readers |= dict.fromkeys(file.offset_keys(), file.get_tensor)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be read ({str(error).splitlines()[0]}): download the model again") from error
    if not readers:
        raise UserError(f"{folder} holds no *.safetensors: give a model folder in Hugging Face's layout")
    if "model.embed_tokens.weight" in readers and "lm_head.weight" not in readers:  # tied embeddings
        embedding = readers["model.embed_tokens.weight"]
        readers["lm_head.weight"] = lambda _: embedding("model.embed_tokens.weight")
    return readers


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The numbers in the `config.json` of a Llama in Hugging Face's layout.

    Attributes:
        size: The model's size.
        key_heads: Number of key and value heads. It is less than the number of heads if heads share keys and values.
        vocabulary: Number of rows of the embedding.
        length: Maximum number of tokens in the context.
    """

    size: Preset
    key_heads: int
    vocabulary: int
    length: int


def read_llama_config(folder: Path) -> LlamaConfig:
    """Read the configuration of a published model.

    Raises:
        UserError: The configuration cannot be read, or describes a model that `trainer.model` does not support.
    """
    keys = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size")
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        dimension, heads, layers, width, vocabulary = (int(config[key]) for key in keys)
        length, epsilon = int(config["max_position_embeddings"]), float(config["rms_norm_eps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} has no readable config.json of a Llama: download the model again") from error
    rotary = {**config, **(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    expected = {
        "model_type": (config.get("model_type", "llama"), "llama"),
        "head_dim": (config.get("head_dim") or dimension // heads, dimension // heads),
        "rotary base": (rotary.get("rope_theta", ROTARY_BASE), ROTARY_BASE),
        "kind of rotary positions": (rotary.get("rope_type", rotary.get("type", "default")), "default"),
        "activation": (config.get("hidden_act", "silu"), "silu"),
        "biases": (bool(config.get("attention_bias") or config.get("mlp_bias")), False),
    }
    for setting, (published, ours) in expected.items():
        if published != ours:
            raise UserError(
                f"{folder} has {setting} {published}; only Llamas with {ours} are supported: give another model"
            )
    if width < 8 * dimension // 3:
        raise UserError(f"{folder} has intermediate_size {width}, less than 8/3 of hidden_size: give another model")
    size = Preset(dimension, heads, layers, 0.0, multiple=width, norm_epsilon=epsilon)
    return LlamaConfig(size, int(config.get("num_key_value_heads") or heads), vocabulary, length)


def read_norm_epsilon(folder: Path, size: Preset, tokenizer: TokenizerEntry) -> float:
    """Return the epsilon of the RMSNorm layers of a published model. Published models of one size differ in it.

    Args:
        folder: The published model.
        size: Size of the model to train.
        tokenizer: Tokenizer of the corpus.

    Raises:
        UserError: The published model has another size or another tokenizer.
    """
    config, path = read_llama_config(folder), folder / "tokenizer.model"
    if path.is_file() and sha256_file(path) != tokenizer.sha256:
        raise UserError(f"{folder} has a different tokenizer than the corpus: build the corpus with {path}")
    expected = {
        "dimension": (size.dimension, config.size.dimension),
        "layers": (size.layers, config.size.layers),
        "heads": (size.heads, config.size.heads),
        "heads of keys": (size.heads, config.key_heads),
        "vocabulary": (tokenizer.vocabulary, config.vocabulary),
    }
    for setting, (ours, published) in expected.items():
        if ours != published:
            difference = f"{setting} {published}, the model {ours}"
            raise UserError(f"{folder} has {difference}: give its --model and a corpus with its tokenizer")
    return config.size.norm_epsilon
