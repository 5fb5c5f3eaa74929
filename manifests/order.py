"""The order of training data: the plan of a run determines which window of which shard sample i is.

The order is computed from the plan. It needs neither stored state nor a random number generator. Sources are
interleaved by a low-discrepancy rule with exact quotas. Within each (source, epoch), a Feistel permutation shuffles all
windows without an index. In each step, rank r of W ranks takes the samples `step * G + r :: W`, where G is the global
batch size. A run can therefore continue with another number of ranks and see the same global batches.

`shares` divides a budget among sources by weight, up to the cap of each source. The trainer counts in whole windows,
the planner in tokens.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from filters.errors import UserError
from filters.hashing import mix
from manifests.manifest import Manifest

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
FEISTEL_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One source of the mixture.

    Attributes:
        shards: (path below shards/, number of windows) of each train shard, in the order of the manifest.
    """

    name: str
    weight: float
    max_epochs: float
    shards: tuple[tuple[str, int], ...]

    @property
    def windows(self) -> int:
        """Return the number of windows in one epoch."""
        return sum(count for _, count in self.shards)


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a run with a separate mixture.

    Attributes:
        steps: number of optimizer steps.
        weights: the weight of each source, in the order of `Plan.sources`. A source with weight 0 is not used.
    """

    steps: int
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters that determine the order of training data.

    Attributes:
        sequence_length: in tokens.
        global_batch: sequences per step, over all ranks.
        steps: steps of the whole run.
        stages: parts of the run with separate mixtures. If it is empty, the whole run uses the weights of the sources.
    """

    manifest_sha: str
    seed: int
    sequence_length: int
    global_batch: int
    steps: int
    sources: tuple[SourcePlan, ...]
    stages: tuple[Stage, ...] = ()

    @property
    def samples(self) -> int:
        """Return the number of sequences in the whole run."""
        return self.steps * self.global_batch

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values for JSON; `plan_from` is the inverse."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Samples:
    """The locations of n samples, as four arrays of shape (n,).

    Attributes:
        source: index into `plan.sources`.
        epoch: number of the epoch of the source, from 0.
        shard: index into the shards of the source.
        window: index of the window in the shard. It has the tokens `window * L` to `window * L + L` inclusive.
    """

    source: Integers
    epoch: Integers
    shard: Integers
    window: Integers


def count_windows(tokens: int, sequence_length: int) -> int:
    """Return the number of windows in a shard.

    A window has L + 1 tokens: L inputs, and L targets shifted by one token. Neighbouring windows share one token.
    """
    return max(0, (tokens - 1) // sequence_length)


def plan_for(
    manifest: Manifest,
    seed: int,
    sequence_length: int,
    global_batch: int,
    steps: int,
    stages: Sequence[tuple[int, Mapping[str, float]]] = (),
) -> Plan:
    """Return the plan of a training run on a corpus.

    Args:
        manifest: The manifest of the corpus.
        seed: The seed of the shuffle.
        sequence_length: Tokens per sequence.
        global_batch: Sequences per step, over all ranks.
        steps: Steps of the whole run.
        stages: (steps, dict from source name to weight) of each stage. An empty dict means the weights of the manifest.

    Raises:
        UserError: A stage names a source that is not in the corpus, or the corpus is too small.
    """
    sources = tuple(
        SourcePlan(
            name,
            source.weight,
            source.max_epochs,
            tuple((shard.path, count_windows(shard.tokens, sequence_length)) for shard in source.train),
        )
        for name, source in sorted(manifest.sources.items())
    )
    present = tuple(source for source in sources if source.windows)
    if not present:
        raise UserError(f"no shard contains a window of {sequence_length} tokens: give a shorter --sequence-length")
    names = [source.name for source in present]
    if unknown := sorted({name for _, mixture in stages for name in mixture if name not in names}):
        raise UserError(f"a stage weighs {unknown[0]}, which the corpus lacks: give some of {', '.join(names)}")
    weights = [
        Stage(count, tuple(float(mixture.get(each.name, 0)) if mixture else each.weight for each in present))
        for count, mixture in stages
    ]
    plan = Plan(manifest.manifest_sha, seed, sequence_length, global_batch, steps, present, tuple(weights))
    quotas(plan)
    return plan


def plan_from(plain: dict[str, Any]) -> Plan:
    """Return the plan whose plain values `Plan.as_dict` returned. Raises ValueError for other values."""
    return TypeAdapter(Plan).validate_python(plain)


def quotas(plan: Plan) -> Integers:
    """Return the number of samples from each source in the whole run. The sum is `plan.samples`."""
    return np.asarray(np.sum(stage_quotas(plan), axis=0))


def stage_quotas(plan: Plan) -> list[Integers]:
    """Return the number of samples from each source, one array per stage.

    Samples are divided among the sources in proportion to the weights of the stage. Over all stages, a source gives at
    most `max_epochs` times its windows. If this cap limits a source, the other sources give more. Fractions are rounded
    by the largest-remainder method.

    Raises:
        UserError: The caps of the sources of a stage allow fewer samples than the stage needs.
    """
    stages = plan.stages or (Stage(plan.steps, tuple(source.weight for source in plan.sources)),)
    most = sum(stage.steps for stage in stages) * plan.global_batch  # Limits the caps, which may exceed int64.
    left = np.array([int(min(source.max_epochs * source.windows, most)) for source in plan.sources], np.int64)
    found: list[Integers] = []
    for stage in stages:
        weights = np.array(stage.weights, np.float64)
        used = weights > 0
        possible = int(left[used].sum()) // plan.global_batch
        if possible < stage.steps:
            where = f"stage {len(found) + 1} of the run" if plan.stages else "the corpus"
            raise UserError(
                f"{where} gives at most {possible} steps within its epoch caps, {stage.steps} were asked for: "
                f"lower {'its steps' if plan.stages else '--steps'} to {possible}, or raise max_epochs in the recipe"
            )
        counts = np.zeros(len(left), np.int64)
        counts[used] = whole_shares(weights[used], left[used], stage.steps * plan.global_batch)
        found.append(counts)
        left = left - counts
    return found


def expected_counts(plan: Plan, step: int) -> npt.NDArray[np.float64]:
    """Return the approximate number of samples of each source before a step.

    The error is a few samples at most, because the samples of each source are evenly distributed over a stage.
    """
    total = np.zeros(len(plan.sources), np.float64)
    for counts in stage_quotas(plan):
        steps = int(counts.sum()) // plan.global_batch
        total += counts * (min(step, steps) / steps)
        step = max(0, step - steps)
    return total


def samples(plan: Plan, start: int, stop: int) -> Samples:
    """Return the locations of the samples `start` to `stop` (exclusive) of the run.

    The cost depends only on the length of the range. Each stage continues with the windows of a source after the last
    window of the stages before it.
    """
    begin, drawn, parts = 0, np.zeros(len(plan.sources), np.int64), []
    for counts in stage_quotas(plan):
        end = begin + int(counts.sum())
        if max(start, begin) < min(stop, end):
            owner, ordinal = _interleave(counts, max(start, begin) - begin, min(stop, end) - begin)
            parts.append((owner, ordinal + drawn[owner]))
        begin, drawn = end, drawn + counts
    source, ordinal = (np.concatenate(column) for column in zip(*parts, strict=True))
    epoch, shard, window = (np.empty(len(source), np.int64) for _ in range(3))
    for number, entry in enumerate(plan.sources):
        mine = source == number
        if not mine.any():
            continue
        epoch[mine], inside = np.divmod(ordinal[mine], entry.windows)
        permuted = np.empty_like(inside)
        for turn in np.unique(epoch[mine]):
            now = epoch[mine] == turn
            permuted[now] = permute(inside[now], entry.windows, hash_text(f"{plan.seed}\0{entry.name}\0{turn}"))
        ends = np.cumsum([count for _, count in entry.shards])
        shard[mine] = np.searchsorted(ends, permuted, side="right")
        window[mine] = permuted - np.concatenate([[0], ends[:-1]])[shard[mine]]
    return Samples(source, epoch, shard, window)


def _interleave(counts: Integers, start: int, stop: int) -> tuple[Integers, Integers]:
    """Return the source of each sample from `start` to `stop`, and the number of the sample within this source.

    Sample k (from 0) of the q samples of a source has the position (2k + 1) / 2q. All samples are sorted by position,
    then by source. Therefore, among the first i samples, the count of each source differs from its proportional share
    by at most the number of sources.

    Args:
        counts: number of samples of each source.
        start: the first sample.
        stop: the end of the range, exclusive.
    """
    whole = int(counts.sum())
    slack = len(counts) + 1
    low, high = (start - slack) / whole, (stop + slack) / whole
    places, owners, ordinals, before = [], [], [], 0
    for number, count in enumerate(counts.tolist()):
        if count == 0:
            continue
        first = max(0, int(low * count) - 2)
        ordinal = np.arange(first, min(count, int(high * count) + 3), dtype=np.int64)
        place = (2 * ordinal + 1) / (2 * count)
        inside = (place >= low) & (place < high)
        before += first + int((place < low).sum())
        places.append(place[inside])
        ordinals.append(ordinal[inside])
        owners.append(np.full(int(inside.sum()), number, np.int64))
    place, owner, ordinal = np.concatenate(places), np.concatenate(owners), np.concatenate(ordinals)
    order = np.lexsort([ordinal, owner, place])[start - before : stop - before]
    return owner[order], ordinal[order]


def permute(values: Integers, size: int, key: int) -> Integers:
    """Apply a keyed permutation of the numbers 0 to size - 1 to an array of such numbers.

    A Feistel network permutes the numbers below the next even power of two. It is applied repeatedly until the result
    is below `size` (cycle walking, Black and Rogaway 2002).
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    result = values.astype(np.uint64)
    walking = np.ones(len(result), bool)
    while walking.any():
        left, right = result[walking] >> np.uint64(half), result[walking] & mask
        for turn in range(FEISTEL_ROUNDS):
            round_key = np.uint64((key + turn * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
            left, right = right, left ^ (mix(right ^ round_key) & mask)
        result[walking] = (left << np.uint64(half)) | right
        walking = result >= np.uint64(size)
    return result.astype(np.int64)


def hash_text(text: str) -> int:
    """Return the first 64 bits of the SHA-256 of a text, used as permutation key or as random seed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def shares(weights: Floats, caps: npt.NDArray[Any], total: float) -> Floats:
    """Divide `total` among sources in proportion to their weights, with at most `caps[i]` for source i.

    If a cap limits a source, the remainder is divided among the sources below their caps, again in proportion to the
    weights. The sum of the result is `total`, or the sum of all caps if this is less.

    Args:
        weights: (n,) weights above zero.
        caps: (n,) maximum of each source, in the unit of `total`.
        total: the amount to divide.
    """
    capped = np.zeros(len(caps), bool)
    while True:
        free = total - caps[capped].sum()
        ideal = np.where(capped, caps, 0).astype(np.float64)
        if not capped.all():
            ideal[~capped] = free * weights[~capped] / weights[~capped].sum()
        over = ~capped & (ideal > caps)
        if not over.any():
            return ideal
        capped |= over


def whole_shares(weights: Floats, caps: Integers, total: int) -> Integers:
    """Round the result of `shares` to whole numbers by the largest-remainder method.

    The sum of the result is `total`. The sum of the caps must be at least `total`.
    """
    ideal = shares(weights, caps, total)
    whole = np.floor(ideal).astype(np.int64)
    missing = int(total - whole.sum())
    room = whole < caps
    order = np.lexsort([np.arange(len(caps)), -(ideal - whole), ~room])
    whole[order[:missing]] += 1
    return whole
