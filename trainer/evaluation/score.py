"""Score answers: rank likelihoods, extract and compare texts, take votes, compute pass@k and intervals."""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.items import Item, last_boxed

Z = 1.96  # half width of a 95 % interval in standard deviations


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The log-likelihood of a continuation.

    Attributes:
        nats: Sum of the log-likelihoods of its tokens.
        tokens: Number of its tokens.
    """

    nats: float
    tokens: int


def score_choices(
    rule: str, item: Item, texts: Sequence[str], found: Sequence[Likelihood], unconditional: Sequence[Likelihood]
) -> dict[str, float]:
    """Score a question by the likelihoods of its choices. If choices are equal, the first one counts.

    Args:
        rule: "raw", "characters", "tokens", "answer" or "pair" (see `docs/evaluation.md`).
        item: The question.
        texts: The continuation of each choice.
        found: The likelihood of each continuation after the context.
        unconditional: The likelihood of each continuation after "Answer:" for the rule "answer", else empty.

    Returns:
        A dict from metric to score. For the rule "pair": "stereotype" by the likelihood per token (perplexity), and
        "stereotype by sum" by the summed likelihood. For other rules: "accuracy" by the rule; "accuracy raw", "accuracy
        characters" and "accuracy tokens" by these rules; and "bits per byte" of the right continuation, including its
        leading space.
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
    """Normalize a short answer (appendix A of LLaMA's paper).

    The text is converted to lower case. Articles, punctuation and repeated spaces are removed.
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def extract_number(text: str) -> str:
    """Return the number after `####`, without thousands separators, or "" if there is none."""
    found = re.search(r"####\s*\$?(-?[\d.,]*\d)", text)
    digits = found[1].replace(",", "") if found else ""
    return digits if digits.count(".") < 2 else ""  # A date or a version is not a number.


def extract_expression(text: str) -> str:
    """Return the normalized final answer in a solution to a problem of MATH.

    The answer is in Minerva's final sentence ("final answer is … . I hope"), or else in the last box.
    """
    found = re.search(r"[Ff]inal answer is(.*?)\. I hope", text, re.DOTALL)
    return normalize_expression(found[1] if found else last_boxed(text))


def normalize_expression(text: str) -> str:
    r"""Normalize a LaTeX answer in the manner of Lewkowycz et al. 2022, appendix D.

    Parts that do not change the value are removed: dollar signs, spaces, units as text, \left and \right, thousands
    separators. Fractions and roots are written with braces.
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
    """Return the most frequent nonempty answer, or "". If answers are equally frequent, return the first of them."""
    counts = Counter(answer for answer in answers if answer)
    return counts.most_common(1)[0][0] if counts else ""


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of `k` samples passes (Chen et al. 2021, equation 1)."""
    if samples < k:
        raise ValueError(f"pass@{k} needs {k} samples, not {samples}")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


def score_exact(item: Item, texts: Sequence[str]) -> float:
    """Return 1 if the first text, normalized, equals an accepted answer, else 0."""
    return float(normalize_answer(texts[0]) in {normalize_answer(answer) for answer in item.answers})


def score_number(item: Item, texts: Sequence[str]) -> float:
    """Return 1 if the most frequent number after `####` is the right answer, else 0."""
    found = vote([extract_number(text) for text in texts])
    return float(bool(found) and float(found) == float(item.answers[0].replace(",", "")))


def score_expression(item: Item, texts: Sequence[str]) -> float:
    """Return 1 if the most frequent final expression is the right answer, else 0."""
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
        high: Upper end of the interval.
        count: Number of values.
    """

    value: float
    low: float
    high: float
    count: int


def mean(values: Sequence[float]) -> Mean:
    """Return the mean with a 95 % interval: Wilson's (1927) if all values are 0 or 1, else a normal interval."""
    count = len(values)
    value = sum(values) / count
    if set(values) <= {0.0, 1.0}:
        center = (value + Z * Z / (2 * count)) / (1 + Z * Z / count)
        half = Z * math.sqrt(value * (1 - value) / count + Z * Z / (4 * count * count)) / (1 + Z * Z / count)
    else:
        center = value
        half = Z * math.sqrt(sum((one - value) ** 2 for one in values) / max(1, count - 1) / count)
    return Mean(value, center - half, center + half, count)
