"""The order of training data: sample i is a window of a shard, as a pure function of the plan.

Nothing is stored and nothing is drawn: sources are interleaved by a low-discrepancy rule with exact quotas, and inside
(source, epoch) a Feistel permutation gives a global shuffle without an index. Rank r of W takes samples
`step * G + r :: W`, so a run can go on with another number of ranks and see the same global batches.

A budget is shared among sources by weight, up to each one's cap (`shares`): the trainer counts in whole windows, the
planner in tokens.
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
    """One source of the mixture. `shards`: (path below shards/, windows) in the manifest's order."""

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
    """A part of a run with a mixture of its own. `weights`: of the plan's sources in their order, 0 leaves one out."""

    steps: int
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of the order. `global_batch` in sequences; `steps` of the whole run.

    Without `stages` the run is one stage with the weights of the sources.
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
        """Return plain values, which `plan_from` reads."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Samples:
    """The places of samples, one value each."""

    source: Integers  # index into `plan.sources`
    epoch: Integers
    shard: Integers  # index into that source's shards
    window: Integers  # in the shard: tokens `window * L` to `window * L + L` inclusive


def windows_of(tokens: int, sequence_length: int) -> int:
    """Return the number of windows in a shard: L inputs and, one further on, L targets."""
    return max(0, (tokens - 1) // sequence_length)


def plan_for(
    manifest: Manifest,
    seed: int,
    sequence_length: int,
    global_batch: int,
    steps: int,
    stages: Sequence[tuple[int, Mapping[str, float]]] = (),
) -> Plan:
    """Return the plan of a run over a corpus.

    Args:
        manifest: The corpus's manifest.
        seed: Seed of the shuffle.
        sequence_length: In tokens.
        global_batch: Sequences of a step.
        steps: Of the whole run.
        stages: Steps and weights by source of each stage; a stage without weights has those of the manifest.

    Raises:
        UserError: A stage names a source that the corpus lacks, or the corpus is too small.
    """
    sources = tuple(
        SourcePlan(
            name,
            source.weight,
            source.max_epochs,
            tuple((shard.path, windows_of(shard.tokens, sequence_length)) for shard in source.train),
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
    """Return the plan that `as_dict` turned into plain values. Raises ValueError for anything else."""
    return TypeAdapter(Plan).validate_python(plain)


def quotas(plan: Plan) -> Integers:
    """Return the number of samples from each source in the whole run; the sum is `plan.samples`."""
    return np.asarray(np.sum(stage_quotas(plan), axis=0))


def stage_quotas(plan: Plan) -> list[Integers]:
    """Return the number of samples from each source in each stage: by its weight, in all at most its epochs.

    What a cap leaves over is shared among the others, in whole numbers by largest remainder.

    Raises:
        UserError: The caps of a stage's sources together are below its samples.
    """
    stages = plan.stages or (Stage(plan.steps, tuple(source.weight for source in plan.sources)),)
    most = sum(stage.steps for stage in stages) * plan.global_batch  # a cap above it binds nowhere, and may be huge
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
    """Return the samples of each source before a step, exact to within a few: stages share them out evenly."""
    total = np.zeros(len(plan.sources), np.float64)
    for counts in stage_quotas(plan):
        steps = int(counts.sum()) // plan.global_batch
        total += counts * (min(step, steps) / steps)
        step = max(0, step - steps)
    return total


def samples(plan: Plan, start: int, stop: int) -> Samples:
    """Return samples `start` to `stop` of the run, at a cost that depends on the length of the range alone.

    A stage goes on with each source's windows where the stages before it ended.
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
    """Return the source of each sample, and its number within that source.

    The k-th of q samples of a source stands at (2k + 1) / 2q of the run; all are sorted by that place, then by source.
    So after any i samples every source has its share of i to within the number of sources.
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
    """Return values under a keyed permutation of 0 to size - 1.

    A Feistel network over the next even power of two is applied until the value is back in range (cycle walking, Black
    and Rogaway 2002).
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
    """Return the first 64 bits of the SHA-256 of a text: the key of a permutation, or the seed of random numbers."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def shares(weights: Floats, caps: npt.NDArray[Any], total: float) -> Floats:
    """Return each source's part of `total`, in its unit: in proportion to `weights` (above zero), at most `caps`.

    Where a cap binds, the rest goes to the sources below theirs, again by weight. The sum is `total`, or that of all
    caps if it is less.
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
    """Return `shares` as whole numbers by largest remainder. They sum to `total`, which the caps must allow."""
    ideal = shares(weights, caps, total)
    whole = np.floor(ideal).astype(np.int64)
    missing = int(total - whole.sum())
    room = whole < caps
    order = np.lexsort([np.arange(len(caps)), -(ideal - whole), ~room])
    whole[order[:missing]] += 1
    return whole
