"""Local classifiers that rate generated texts: toxicity, truthfulness, informativeness.

The judges of LLaMA's paper are not available: Perspective's API ends with 2026, and the GPT-3 models of TruthfulQA no
longer exist. Rates of other classifiers are not comparable with the rates in the paper.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.files import sha256_file, sha256_json

# What is rated -> possible names of the label whose probability is the rate. Names are in lower case, without
# fastText's prefix "__label__".
POSITIVE = {
    "toxicity": ("toxic", "toxicity", "label_1", "1"),
    "truthful": ("truthful", "true", "yes", "label_1", "1"),
    "informative": ("informative", "true", "yes", "label_1", "1"),
}
BATCH = 32  # number of texts that are rated in one forward pass

Rate = Callable[[Sequence[str]], list[float]]


@dataclass(frozen=True, slots=True)
class Judge:
    """A classifier.

    Attributes:
        sha256: Hash of the classifier's files.
        rate: A function from a list of texts to a list of rates. A rate is the probability of a label.
    """

    sha256: str
    rate: Rate


def open_judge(kind: str, path: Path) -> Judge:
    """Open a fastText model, or a folder with a sequence classifier of Hugging Face's transformers.

    Args:
        kind: A key of POSITIVE.
        path: The file or the folder.

    Raises:
        UserError: The classifier cannot be read, or has no label with a name in POSITIVE.
    """
    try:
        files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        sha256 = sha256_json({one.name: sha256_file(one) for one in files})
        labels, rate = _open_folder(path) if path.is_dir() else _open_fasttext(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--judge {kind}={path} cannot be read ({reason}): give a fastText model or a folder"
        ) from error
    names = {label.lower().removeprefix("__label__"): label for label in labels}
    label = next((names[name] for name in POSITIVE[kind] if name in names), None)
    if label is None:
        known = ", ".join(POSITIVE[kind])
        raise UserError(f"--judge {kind}={path} has the labels {', '.join(labels)}: one must be named {known}")

    def rate_checked(texts: Sequence[str]) -> list[float]:
        try:
            found = [row[label] for row in rate(texts)]
        except Exception as error:
            raise UserError(f"--judge {kind}={path} failed ({error!r}): no score is written") from error
        if len(found) != len(texts) or not all(math.isfinite(one) and 0 <= one <= 1.0001 for one in found):
            raise UserError(f"--judge {kind}={path} returned rates that are not probabilities: give another classifier")
        return found

    return Judge(sha256, rate_checked)


def _open_fasttext(path: Path) -> tuple[list[str], Callable[[Sequence[str]], list[dict[str, float]]]]:
    import fasttext

    model = fasttext.load_model(str(path))

    def rate(texts: Sequence[str]) -> list[dict[str, float]]:
        found = [model.predict(" ".join(text.split()), k=-1) for text in texts]
        return [dict(zip(labels, map(float, rates), strict=True)) for labels, rates in found]

    return list(model.get_labels()), rate


def _open_folder(path: Path) -> tuple[list[str], Callable[[Sequence[str]], list[dict[str, float]]]]:
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"the judge {path} needs transformers: pip install transformers") from error
    import torch

    pieces = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, local_files_only=True).eval()
    labels = [str(name) for _, name in sorted(model.config.id2label.items())]
    is_exclusive = len(labels) > 1 and model.config.problem_type != "multi_label_classification"

    @torch.inference_mode()
    def rate(texts: Sequence[str]) -> list[dict[str, float]]:
        rows: list[dict[str, float]] = []
        for start in range(0, len(texts), BATCH):
            given: Any = pieces(list(texts[start : start + BATCH]), return_tensors="pt", padding=True, truncation=True)
            logits = model(**given).logits.float()
            rates = logits.softmax(-1) if is_exclusive else logits.sigmoid()
            rows += [dict(zip(labels, row, strict=True)) for row in rates.tolist()]
        return rows

    return labels, rate
