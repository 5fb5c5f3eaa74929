"""Compare the arms of an ablation: differences in bits per byte, with confidence intervals.

An arm is a corpus and a set of training options. The runs of an arm differ only in their seeds. All arms are measured
on the same units:

- The held-out documents in a file that `python -m manifests freeze` wrote.
- The right answers of tasks, if all runs were evaluated on these tasks.

Bits per byte is the sum of the bits of all tokens of a text, divided by the UTF-8 bytes of the text. So models with
different tokenizers can be compared.

The interval of a difference covers two kinds of variation:

- The choice of held-out documents. Documents are drawn with replacement (bootstrap). The same draws are used for both
  arms.
- The choice of seeds. The standard deviation between seeds is pooled over the two arms. A variable with Student's t
  distribution, multiplied by the standard error, is added to each draw. The degrees of freedom are the number of runs
  minus 2. Runs are not drawn with replacement, because three runs are too few for that.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from filters.errors import UserError
from manifests import tokenizer
from manifests.files import canonical_json, sha256_bytes, write_atomic
from trainer.checkpoint import open_checkpoint
from trainer.evaluation.evaluate import BITS, ITEMS, read_records
from trainer.evaluation.results import RESULTS
from trainer.events import read_run
from trainer.generate import load_model
from trainer.model import Llama, resolve_device

Array = npt.NDArray[np.float64]
Answers = dict[tuple[str, str], float]

# File in a run's folder: the bits of each held-out document, computed with the run's newest checkpoint.
FILE = "held-out.json"
BATCH_TOKENS = {"cpu": 4_096, "cuda": 131_072}  # tokens of one forward pass
LEVEL = 0.95  # confidence level
DRAWS, DRAWS_AT_ONCE = 2_000, 100  # number of bootstrap draws of documents, and of draws in memory at a time
# Number of draws of the noise between seeds. It is larger, because the distribution of this noise has longer tails.
NOISE_DRAWS = 20_000
WIDTHS = (10, 10, 12, 22, 12, 7)  # widths of the columns of a table in characters
MEAN = "mean of sources"  # name of the row by which `decide` decides
ANSWERS = "answers: "  # prefix of a row's name, before the name of a task


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The documents of a file that `python -m manifests freeze` wrote.

    Attributes:
        compared: manifest_sha of each corpus that contains none of the documents in its training data.
        sources: Source of each document.
        texts: Text of each document.
        sha256: Hash of the file.
        reference: manifest_sha of the corpus that held the documents out.
    """

    compared: list[str]
    sources: list[str]
    texts: list[str]
    sha256: str
    reference: str = ""

    def count_bytes(self) -> Array:
        """Return the number of UTF-8 bytes of each document, (documents,) float64."""
        return np.array([len(text.encode()) for text in self.texts], np.float64)


def read_held_out(path: Path) -> HeldOut:
    """Read the file that `python -m manifests freeze` wrote, or raise UserError."""
    try:
        data = path.read_bytes()
        head, *rows = [json.loads(line) for line in data.decode().split("\n")[:-1]]
        texts = [str(row["text"]) for row in rows]
        sources, reference = [str(row["source"]) for row in rows], str(head["reference"])
        held_out = HeldOut(list(head["compared"]), sources, texts, sha256_bytes(data), reference)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a file of `python -m manifests freeze`: give such a file") from error
    if not texts or not all(texts):
        raise UserError(f"{path} has no document, or one without text: write it again with `manifests freeze`")
    return held_out


@dataclass(frozen=True)
class Arm:
    """The runs of one corpus and one set of training options.

    Attributes:
        name: The name of the corpus's folder. If an earlier arm has the same name, the name of the first run is added.
        seeds: The seed of each run.
        bits: (runs, documents) float64, bits of each held-out document.
        answers: For each run, a dict from (task, question) to the bits per byte of the right answer.
    """

    name: str
    seeds: list[int]
    bits: Array
    answers: list[Answers] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between an arm and the baseline in bits per byte.

    Attributes:
        group: A source, a task, or `MEAN`.
        baseline: Mean over the baseline's runs.
        arm: Mean over the arm's runs.
        difference: arm - baseline.
        low: Lower end of the interval, or NaN if there is only one run per arm.
        high: Upper end of the interval, or NaN if there is only one run per arm.
        seed_noise: Standard deviation between seeds, pooled over both arms, or NaN if there is only one run per arm.
        units: Number of documents or questions. For the group `MEAN`, number of sources.
    """

    group: str
    baseline: float
    arm: float
    difference: float
    low: float
    high: float
    seed_noise: float
    units: int

    @property
    def is_significant(self) -> bool:
        """Return True if the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, Any]:
        """Return a dict of the attributes, with None in place of NaN."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def compare_arms(baseline: Arm, arm: Arm, sources: Sequence[str], sizes: Array, seed: int = 0) -> list[Difference]:
    """Return the differences for all sources and tasks, and as the last row the mean over sources.

    The interval of the mean has a confidence level of 95 %. The intervals of the other rows are wider, so that all of
    them together have a level of 95 % (Bonferroni correction).

    Args:
        baseline: The arm to compare with.
        arm: The other arm.
        sources: (documents,) source of each held-out document.
        sizes: (documents,) bytes of each held-out document.
        seed: Seed of the random draws.
    """
    rng = np.random.default_rng(seed)
    groups = [(name, [one.bits[:, mine] for one in (baseline, arm)], sizes[mine]) for name, mine in _split(sources)]
    deciding = len(groups)
    keys = sorted(set.intersection(*(set(answers) for one in (baseline, arm) for answers in one.answers or [{}])))
    answered = [np.array([[run[key] for key in keys] for run in one.answers]) for one in (baseline, arm)]
    for name, mine in _split([task for task, _ in keys]):
        groups.append((ANSWERS + name, [bits[:, mine] for bits in answered], np.ones(int(mine.sum()))))
    values = [[bits.sum(1) / size.sum() for bits in pair] for _, pair, size in groups]
    drawn = [_bootstrap(after.mean(0) - before.mean(0), size, rng) for _, (before, after), size in groups]
    level = 1 - (1 - LEVEL) / len(groups)
    rows = [
        _measure_difference(name, pair, draws, len(size), level, rng)
        for (name, _, size), pair, draws in zip(groups, values, drawn, strict=True)
    ]
    means = [np.mean([pair[side] for pair in values[:deciding]], axis=0) for side in (0, 1)]
    return [*rows, _measure_difference(MEAN, means, np.mean(drawn[:deciding], axis=0), deciding, LEVEL, rng)]


def _split(labels: Sequence[str]) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    return [(name, np.array(labels) == name) for name in sorted(set(labels))]


def _bootstrap(change: Array, size: Array, rng: np.random.Generator) -> Array:
    """Draw units with replacement, and return for each draw the sum of changes divided by the sum of sizes.

    Args:
        change: (units,) change in bits.
        size: (units,) bytes of each document, or 1 for each question.
        rng: The random number generator.

    Returns:
        (DRAWS,) changes in bits per byte.
    """
    count = len(change)
    draws = (rng.integers(0, count, (DRAWS_AT_ONCE, count)) for _ in range(DRAWS // DRAWS_AT_ONCE))
    return np.concatenate([change[units].sum(1) / size[units].sum(1) for units in draws])


def _measure_difference(
    group: str, values: Sequence[Array], drawn: Array, units: int, level: float, rng: np.random.Generator
) -> Difference:
    """Return the difference between two arms for one group, with its interval.

    Args:
        group: Name of the group.
        values: For the baseline and the arm, (runs,) bits per byte.
        drawn: (DRAWS,) differences from the bootstrap.
        units: Number of documents, questions or sources.
        level: Confidence level of the interval.
        rng: The random number generator.
    """
    before, after = values
    freedom = len(before) + len(after) - 2
    low = high = noise = float("nan")
    if freedom:
        squares = sum(((one - one.mean()) ** 2).sum() for one in values)
        noise = float(np.sqrt(squares / freedom))
        error = noise * np.sqrt(1 / len(before) + 1 / len(after))
        varied = np.resize(drawn, NOISE_DRAWS) + error * rng.standard_t(freedom, NOISE_DRAWS)
        low, high = np.quantile(varied, [(1 - level) / 2, (1 + level) / 2]).tolist()
    first, second = float(before.mean()), float(after.mean())
    return Difference(group, first, second, second - first, low, high, noise, units)


def score_run(run: Path, held_out: HeldOut) -> Array:
    """Return the bits of each held-out document, computed with a run's newest checkpoint.

    The result is saved in `RUN/held-out.json` and read from there later. It is computed again if the checkpoint or the
    documents differ.

    Raises:
        UserError: The run has no checkpoint, the run is not finished, or its corpus was moved.
    """
    saved, path = open_checkpoint(run), run / FILE
    facts = {"held_out": held_out.sha256, "checkpoint": saved.state["sha256"]}
    before = json.loads(path.read_bytes()) if path.exists() else {}
    if {name: before.get(name) for name in facts} == facts:
        return np.array(before["bits"], np.float64)
    steps = saved.state["plan"]["steps"]
    if saved.state["step"] < steps:
        raise UserError(f"{run} stopped after step {saved.state['step']} of {steps}: finish it, or leave it out")
    corpus, manifest = saved.find_corpus()
    pieces = tokenizer.load(corpus)
    documents = [[manifest.tokenizer.bos, *pieces.encode(text)] for text in held_out.texts]
    bits = measure_bits(load_model(saved), documents, saved.length)
    write_atomic(path, canonical_json({**facts, "bits": bits.tolist()}))
    return bits


def measure_bits(model: Llama, documents: list[list[int]], length: int) -> Array:
    """Return the bits of each document, (documents,) float64: the sum over all its tokens except the first.

    Args:
        model: The model. It is moved to a GPU if there is one.
        documents: Token ids of each document. The first token is the begin-of-sequence token.
        length: Tokens of a window. Each document is divided into windows that do not overlap, and a token is predicted
            from the earlier tokens of its window.
    """
    device = resolve_device("auto")
    model = model.to(device)
    windows = [
        (number, ids[start : start + length + 1])
        for number, ids in enumerate(documents)
        for start in range(0, len(ids) - 1, length)
    ]
    windows.sort(key=lambda window: len(window[1]))  # Similar lengths in a batch need little padding.
    nats = np.zeros(len(documents))
    rows = max(1, BATCH_TOKENS[device] // length)
    for start in range(0, len(windows), rows):
        part = windows[start : start + rows]
        padded = torch.zeros((len(part), len(part[-1][1])), dtype=torch.int64)
        for row, (_, ids) in enumerate(part):
            padded[row, : len(ids)] = torch.tensor(ids)
        with torch.no_grad():
            _, losses = model(padded[:, :-1].to(device), padded[:, 1:].to(device))
        for (number, ids), row_losses in zip(part, losses.double().cpu().numpy(), strict=True):
            nats[number] += row_losses[: len(ids) - 1].sum()
    return nats / math.log(2)


def load_arms(runs: Sequence[Path], held_out: HeldOut) -> list[Arm]:
    """Score runs and group them into arms. Arms are in the order of their first runs.

    Raises:
        UserError: A run is not finished, runs have different numbers of tokens, two runs of an arm have the same seed,
            or a run's corpus was not compared with the held-out documents.
    """
    grouped: dict[str, dict[int, Path]] = {}  # arm -> seed -> run
    names: dict[str, str] = {}
    tokens: dict[int, Path] = {}
    for run in runs:
        facts = read_run(run)
        plan, training = facts["plan"], dict(facts["training"])
        tokens.setdefault(plan["steps"] * plan["global_batch"] * plan["sequence_length"], run)
        if len(tokens) > 1:
            (first, one), (second, other) = tokens.items()
            raise UserError(f"{one} has {first:,} tokens and {other} {second:,}: compare runs of the same budget")
        if plan["manifest_sha"] == held_out.reference not in held_out.compared:
            raise UserError(
                f"{run} is trained on the reference corpus of the held-out text, "
                "which was not compared with this text: name it twice, as in "
                "`python -m manifests freeze REFERENCE REFERENCE CORPUS`, and use that file"
            )
        if plan["manifest_sha"] not in held_out.compared:
            raise UserError(
                f"the held-out text was not compared with the corpus of {run}: "
                "give all corpora to `python -m manifests freeze` and use the file that it writes"
            )
        seed, corpus = training.pop("seed"), Path(facts["corpus"]).name
        arm = repr((plan["manifest_sha"], sorted(training.items())))
        names.setdefault(arm, f"{corpus} ({run.name})" if corpus in names.values() else corpus)
        seeds = grouped.setdefault(arm, {})
        if seed in seeds:
            raise UserError(f"{seeds[seed]} and {run} are of the same corpus, options and seed: give one of them")
        seeds[seed] = run
    return [
        Arm(
            names[arm],
            list(seeds),
            np.stack([score_run(run, held_out) for run in seeds.values()]),
            [read_answers(run / "evaluation") for run in seeds.values()],
        )
        for arm, seeds in grouped.items()
    ]


def read_answers(folder: Path) -> Answers:
    """Return a dict from (task, question) to the bits per byte of the right answer.

    The values are from the last `python -m trainer evaluate` that wrote into the folder. Without such files, return {}.
    """
    if not (folder / RESULTS).is_file():
        return {}
    model = json.loads((folder / RESULTS).read_bytes())["model"]["sha256"]
    records = read_records(folder / ITEMS, model).values()
    return {(one["task"], one["key"]): one["scores"][BITS] for one in records if BITS in one["scores"]}


def decide(baseline: Arm, arm: Arm, mean: Difference) -> str:
    """Return one sentence that states whether the arm is better or worse than the baseline."""
    if np.isnan(mean.low):
        return f"{arm.name} and {baseline.name}: the noise of seeds is not known, train two seeds or more of an arm"
    if not mean.is_significant:
        width = (mean.high - mean.low) / 2
        return f"no difference seen between {arm.name} and {baseline.name}: up to {width:.4f} is within the noise"
    word = "worse" if mean.difference > 0 else "better"
    share = abs(mean.difference) / mean.baseline
    return f"{arm.name} is {word} than {baseline.name} by {abs(mean.difference):.4f} bits per byte ({share:.1%})"


def compare(runs: Sequence[Path], held_out: HeldOut) -> tuple[str, dict[str, Any]]:
    """Compare each arm with the baseline, which is the arm of the first run.

    Returns:
        The text to print, and a dict of the same results as plain values.

    Raises:
        UserError: All runs belong to one arm; see also `load_arms`.
    """
    arms = load_arms(runs, held_out)
    if len(arms) < 2:
        raise UserError(f"all runs are of {arms[0].name}: give runs of two corpora, or with different options")
    sizes, baseline = held_out.count_bytes(), arms[0]
    lines = [f"held-out text: {len(sizes):,} documents, {int(sizes.sum()):,} bytes, sha256 {held_out.sha256[:16]}"]
    results = []
    for arm in arms[1:]:
        rows = compare_arms(baseline, arm, held_out.sources, sizes)
        decision = decide(baseline, arm, rows[-1])
        lines += [
            "",
            f"{arm.name} (seeds {_list_seeds(arm.seeds)}) - {baseline.name} (seeds {_list_seeds(baseline.seeds)})",
        ]
        lines += [*_format_table(rows), decision]
        differences = [row.as_dict() for row in rows]
        results.append({"baseline": baseline.name, "arm": arm.name, "differences": differences, "decision": decision})
    return "\n".join(lines), {"held_out": held_out.sha256, "comparisons": results}


def _list_seeds(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _format_table(rows: Sequence[Difference]) -> list[str]:
    heads = ("baseline", "arm", "difference", "95 % interval", "seed noise", "units")
    lines = [f"{'bits per byte':<24}" + "".join(f"{head:>{width}}" for head, width in zip(heads, WIDTHS, strict=True))]
    for row in rows:
        interval = "not known" if np.isnan(row.low) else f"{row.low:+.4f} to {row.high:+.4f}"
        noise = "not known" if np.isnan(row.seed_noise) else f"{row.seed_noise:.4f}"
        cells = (f"{row.baseline:.4f}", f"{row.arm:.4f}", f"{row.difference:+.4f}", interval, noise, f"{row.units:,}")
        lines.append(f"{row.group:<24}" + "".join(f"{one:>{width}}" for one, width in zip(cells, WIDTHS, strict=True)))
    return lines
