"""Train small SentencePiece models, and generate texts that are hard for a tokenizer."""

import io
from functools import lru_cache
from typing import Any

import sentencepiece
from corpus import ROOT
from hypothesis import strategies as st

from filters.models.sentencepiece import open_model
from manifests.recipe import Tokenizer
from pipeline.stages.tokenizer import train_bpe

CODE = "def f(x):\n\tif x  ==  10:\n        return  'a\u00a0b'   # 2024\n\n\n"

AWKWARD = [
    *["", " ", "  ", " " * 17, "\n", "\r\n", "\r", "\t", "\0", "\x1f", "\x85", "\u2028", "\ufeff", "\xa0"],
    *["\u2581", "\u2585", "\ud800", "\udfff", "\ue000", "\ufffe", "\U0010ffff", "e\u0301", "\ufb01"],
    *["\u202ea\u202c", "\U0001f469\u200d\U0001f680", "\u0661\u0662", "漢字", "ひら", "0123", "aaaa", "the", " the"],
    *["<s>", "</s>", "<unk>", "<0x0A>", "<0x00>"],
]

# A strategy for texts of any Unicode characters, including lone surrogates. Awkward texts are more frequent.
texts = st.lists(st.one_of(st.sampled_from(AWKWARD), st.characters(), st.text(max_size=5))).map("".join)


def sample_texts() -> list[str]:
    """Return the texts of the bundled pages, which use several scripts, and a text of code."""
    paths = sorted((ROOT / "samples/pages").rglob("*.txt"))
    return [*(path.read_text(encoding="utf-8") for path in paths), CODE * 50]


@lru_cache(maxsize=1)
def small_model() -> bytes:
    """Return a serialized BPE model of 3,000 pieces, trained by the pipeline's function."""
    return train_bpe(sample_texts(), Tokenizer(vocabulary=3_000, character_coverage=0.999))


@lru_cache(maxsize=1)
def opened() -> sentencepiece.SentencePieceProcessor:
    """Return a processor of the small model."""
    return open_model(small_model(), "small")


def trained(**options: Any) -> bytes:
    """Return a serialized model with our options, some of which are replaced by the given options of SentencePiece."""
    ours: dict[str, Any] = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "vocab_size": 400,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    lines = [line for text in sample_texts()[:20] for line in text.split("\n") if line.isascii()]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **{**ours, **options})
    return model.getvalue()
