"""Small SentencePiece models, and texts that are hard for a tokenizer, for several test files."""

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

# Any Unicode, lone surrogates included; texts that are likely to go wrong come more often.
texts = st.lists(st.one_of(st.sampled_from(AWKWARD), st.characters(), st.text(max_size=5))).map("".join)


def sample_texts() -> list[str]:
    """Return the bundled pages, in several scripts, and code."""
    paths = sorted((ROOT / "samples/pages").rglob("*.txt"))
    return [*(path.read_text(encoding="utf-8") for path in paths), CODE * 50]


@lru_cache(maxsize=1)
def small_model() -> bytes:
    """Return a BPE model of 3,000 pieces, trained as the pipeline trains it."""
    return train_bpe(sample_texts(), Tokenizer(vocabulary=3_000, character_coverage=0.999))


@lru_cache(maxsize=1)
def opened() -> sentencepiece.SentencePieceProcessor:
    """Return the small model, opened."""
    return open_model(small_model(), "small")


def trained(**options: Any) -> bytes:
    """Return a model like ours, with other values for some of SentencePiece's own options."""
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
