"""Checkpoints in the layout of Hugging Face's Llama: since rotary pairs are two halves in both, a renaming.

One file's worth of weights is in memory at a time.
"""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader

from filters.errors import UserError
from manifests import tokenizer
from manifests.files import atomic_path, canonical_json, write_atomic
from manifests.manifest import Manifest
from trainer import checkpoint
from trainer.model import ROTARY_BASE
from trainer.presets import Preset, preset
from trainer.trace import corpus_of

FILE_BYTES = 5_000_000_000
"""of one safetensors file, as transformers writes them"""
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ALONE = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
IN_BLOCK = {
    "attention_norm.weight": ("input_layernorm.weight",),
    "attention.qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attention.out.weight": ("self_attn.o_proj.weight",),
    "feed_forward_norm.weight": ("post_attention_layernorm.weight",),
    "feed_forward.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed_forward.down.weight": ("mlp.down_proj.weight",),
}
"""ours to theirs, below `blocks.N.` and `model.layers.N.`; two or three of theirs are ours one below the other"""
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is not loaded: its model's size, the shapes of its weights by our names, and what its state
    says."""

    folder: Path
    size: Preset
    shapes: dict[str, tuple[int, ...]]
    state: dict[str, Any]

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return self.shapes["embedding.weight"][0]

    def corpus(self, elsewhere: Path | None) -> tuple[Path, Manifest]:
        """The corpus it was trained on, where it lay or lies now. Raises UserError."""
        return corpus_of(self.folder.parents[1], self.state["plan"]["manifest_sha"], elsewhere)

    def weight(self, name: str) -> Tensor:
        """One weight, whole, float32."""
        tensor = torch.empty(self.shapes[name])
        with warnings.catch_warnings():  # that there is but one process is meant
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp.load({"model": {name: tensor}}, checkpoint_id=str(self.folder), no_dist=True)
        return tensor


def opened(place: Path) -> Saved:
    """The checkpoint at a path, or the newest of a run. Raises UserError."""
    done = checkpoint.found(place)
    folder = done[-1][1] if done else place
    if not (folder / checkpoint.STATE).is_file():
        raise UserError(f"{place} holds no checkpoint: give a run's folder or one of its checkpoints/step-…")
    state = checkpoint.read_state(folder)
    saved = FileSystemReader(folder).read_metadata().state_dict_metadata
    shapes = {name[6:]: tuple(entry.size) for name, entry in saved.items() if name.startswith("model.")}
    training = state["training"]
    return Saved(folder, preset(training["model"], training["norm_epsilon"]), shapes, state)


def export(place: Path, out: Path, corpus: Path | None, kind: str = "float32", file_bytes: int = FILE_BYTES) -> str:
    """Write weights, configuration, tokenizer and a card into the new folder `out`, and say what was written. `kind`:
    of `TYPES`. Raises UserError."""
    saved = opened(place)
    corpus, manifest = saved.corpus(corpus)
    pieces = tokenizer.load(corpus)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    length = int(saved.state["plan"]["sequence_length"])
    texts = {
        "config.json": _config(saved, manifest, kind, length),
        "generation_config.json": {"bos_token_id": manifest.tokenizer.bos, "eos_token_id": manifest.tokenizer.eos},
        "tokenizer.json": tokenizer.tokenizer_json(pieces),
        "tokenizer_config.json": tokenizer.tokenizer_config(pieces, length),
    }
    for name, value in texts.items():
        write_atomic(out / name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
    write_atomic(out / "tokenizer.model", (corpus / tokenizer.FILE).read_bytes())
    write_atomic(out / "README.md", _card(saved, manifest).encode())
    files = _write_weights(saved, out, TYPES[kind], file_bytes)
    return f"{out}: step {saved.state['step']}, {files} file{'s' if files > 1 else ''} of {kind} weights"


def theirs(name: str) -> tuple[str, ...]:
    """Hugging Face's names of one of our weights, which is theirs one below the other."""
    block = _BLOCK.fullmatch(name)
    if block is None:
        return (ALONE[name],)
    return tuple(f"model.layers.{block[1]}.{part}" for part in IN_BLOCK[block[2]])


def _write_weights(saved: Saved, out: Path, kind: torch.dtype, file_bytes: int) -> int:
    """`model.safetensors`, or several with an index; gives how many."""
    groups: list[list[str]] = [[]]
    total = filled = 0
    for name, shape in saved.shapes.items():
        size = torch.Size(shape).numel() * kind.itemsize
        if groups[-1] and filled + size > file_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled, total = filled + size, total + size
    count = len(groups)
    places: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
        tensors: dict[str, Tensor] = {}
        for name in names:
            split = theirs(name)
            parts = saved.weight(name).to(kind).chunk(len(split))
            tensors |= {there: part.clone() for there, part in zip(split, parts, strict=True)}
        with atomic_path(out / file) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    if count > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        write_atomic(out / "model.safetensors.index.json", canonical_json(index))
    return count


def _config(saved: Saved, manifest: Manifest, kind: str, length: int) -> dict[str, Any]:
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
        "torch_dtype": kind,
        "vocab_size": saved.vocabulary,
    }


def _card(saved: Saved, manifest: Manifest) -> str:
    plan, step = saved.state["plan"], saved.state["step"]
    tokens = step * plan["global_batch"] * plan["sequence_length"]
    rows = "\n".join(
        f"| {name} | {source.weight:g} | {source.unique_tokens:,} |"
        for name, source in sorted(manifest.sources.items())
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
license: other
---
A LLaMA of the size `{saved.state["training"]["model"]}`, trained with Teratoken
for {step:,} of {plan["steps"]:,} steps, {tokens:,} tokens.

- corpus: manifest_sha `{manifest.manifest_sha}`
- tokenizer: SentencePiece, sha256 `{manifest.tokenizer.sha256}`
- seed {plan["seed"]}, sequences of {plan["sequence_length"]:,} tokens, {plan["global_batch"]:,} a step

| source | weight | unique tokens |
|---|---|---|
{rows}

The training code is under the Apache License 2.0. The weights were made from the texts of these sources, whose own
licences say what may be done with them; the corpus's recipe names those it knows.
"""
