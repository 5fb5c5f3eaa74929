"""Score answers: ranking of likelihoods, extraction and comparison of texts, votes, pass@k, intervals."""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.items import Item, last_boxed

Z = 1.96  # standard deviations of a 95 % interval


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The log-likelihood of a continuation.

    Attributes:
        nats: Sum over its tokens.
        tokens: Their number.
    """

    nats: float
    tokens: int


def score_choices(
    rule: str, item: Item, texts: Sequence[str], found: Sequence[Likelihood], unconditional: Sequence[Likelihood]
) -> dict[str, float]:
    """Score a question by the likelihoods of its choices; ties go to the first choice.

    Args:
        rule: "raw", "characters", "tokens", "answer" or "pair" (see `docs/evaluation.md`).
        item: The question.
        texts: The continuations whose likelihoods were measured.
        found: Their likelihoods after the question.
        unconditional: Their likelihoods after "Answer:", for the rule "answer", else empty.

    Returns:
        "accuracy" by the rule, "accuracy raw", "accuracy characters" and "accuracy tokens" beside it, and
        "bits per byte" of the right answer as it was scored, its leading space included. For a pair: "stereotype"
        by the likelihood per token (perplexity), and "stereotype by sum".
    """
    orders = {
        "raw": [one.nats for one in found],
        "characters": [one.nats / len(text) for one, text in zip(found, item.choices, strict=True)],
        "tokens": [one.nats / one.tokens for one in found],
        "answer": [one.nats - other.nats for one, other in zip(found, unconditional, strict=False)],
    }
    right = {name: float(bool(order) and order.index(max(order)) == item.gold) for name, order in orders.items()}
    if rule == "pair":
        return {"stereotype": right["tokens"], "stereotype by sum": right["raw"]}
    beside = {f"accuracy {name}": right[name] for name in ("raw", "characters", "tokens")}
    bits = -found[item.gold].nats / math.log(2) / len(texts[item.gold].encode())
    return {"accuracy": right[rule], **beside, "bits per byte": bits}


def normalize_answer(text: str) -> str:
    """Normalize a short answer: lower case, no articles, punctuation or repeated spaces (appendix A of the paper)."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def extract_number(text: str) -> str:
    """Return the number behind ####, without separators of thousands, or ""."""
    found = re.search(r"####\s*\$?(-?[\d.,]*\d)", text)
    digits = found[1].replace(",", "") if found else ""
    return digits if digits.count(".") < 2 else ""  # a date or a version, which a model may write, is no number


def extract_expression(text: str) -> str:
    """Return the final answer to a problem of MATH, normalized: behind Minerva's closing words, or in the last box."""
    found = re.search(r"[Ff]inal answer is(.*?)\. I hope", text, re.DOTALL)
    return normalize_expression(found[1] if found else last_boxed(text))


def normalize_expression(text: str) -> str:
    r"""Normalize a LaTeX answer in the manner of Lewkowycz et al. 2022, appendix D.

    Removes what does not change a value: dollars, spaces, units as text, \left and \right, separators of thousands.
    Writes fractions and roots with braces.
    """
    text = text.strip().rsplit("=", 1)[-1].replace("\\$", "").replace("$", "")
    text = re.sub(r"\\(left|right|displaystyle|!|,|;|:| )", "", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\^\{?\\circ\}?|\\%|%", "", text)
    text = re.sub(r"\\(?:text|mbox|textbf|mathrm)\{\s*(?:" + "|".join(UNITS) + r")s?\.?\s*\}(\^\d)?", "", text)
    text = re.sub(r"\\(?:text|mbox|textbf|mathrm|boxed)\{(.*?)\}", r"\1", text)
    text = re.sub(r"(?<![\\a-z])(?:" + "|".join(UNITS) + r")s?\b", "", text).replace(" ", "").rstrip(".")
    text = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text)
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text) else text


UNITS = (
    "cm|inche|inch|feet|foot|ft|km|mile|mph|meter|metre|minute|hour|second|day|week|dollar|cent|degree|unit|square|point|"
    "pound|gram|kg|student|way|integer|number"
).split("|")


def vote(answers: Sequence[str]) -> str:
    """Return the most frequent answer that is not empty, the first of equally frequent ones, or ""."""
    counts = Counter(answer for answer in answers if answer)
    return counts.most_common(1)[0][0] if counts else ""


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of `k` samples passes (Chen et al. 2021, equation 1)."""
    if samples < k:
        raise ValueError(f"pass@{k} needs {k} samples, not {samples}")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


def score_exact(item: Item, texts: Sequence[str]) -> float:
    """Return 1 if the normalized answer is one of the accepted ones."""
    return float(normalize_answer(texts[0]) in {normalize_answer(answer) for answer in item.answers})


def score_number(item: Item, texts: Sequence[str]) -> float:
    """Return 1 if the number behind ####, or that of most answers, is the right one."""
    found = vote([extract_number(text) for text in texts])
    return float(bool(found) and float(found) == float(item.answers[0].replace(",", "")))


def score_expression(item: Item, texts: Sequence[str]) -> float:
    """Return 1 if the final expression, or that of most answers, is the right one."""
    found = vote([extract_expression(text) for text in texts])
    return float(bool(found) and found == normalize_expression(item.answers[0]))


WRITTEN: Mapping[str, Callable[[Item, Sequence[str]], float]] = {
    "exact": score_exact,
    "number": score_number,
    "expression": score_expression,
}


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % interval.

    Attributes:
        value: The mean.
        low: Lower end of the interval.
        high: Upper end.
        count: Number of values.
    """

    value: float
    low: float
    high: float
    count: int


def mean(values: Sequence[float]) -> Mean:
    """Return a mean with its 95 % interval: Wilson's (1927) for zeros and ones, else by the normal distribution."""
    count = len(values)
    value = sum(values) / count
    if set(values) <= {0.0, 1.0}:
        center = (value + Z * Z / (2 * count)) / (1 + Z * Z / count)
        half = Z * math.sqrt(value * (1 - value) / count + Z * Z / (4 * count * count)) / (1 + Z * Z / count)
    else:
        center = value
        half = Z * math.sqrt(sum((one - value) ** 2 for one in values) / max(1, count - 1) / count)
    return Mean(value, center - half, center + half, count)
