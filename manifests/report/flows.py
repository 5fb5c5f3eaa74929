"""Where records, characters and tokens went, as flows taken from the ledger: what came in, what left at each stage and
why, what arrived in shards. Nothing is rounded or left out, so a river's widths balance where its ledger does."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from filters.reasons import DEAD_LETTERS
from manifests.ledger import STAGES, Tally, tally_from
from manifests.manifest import Manifest

Unit = Literal["records", "characters", "tokens"]

MEASURED_FROM: dict[Unit, tuple[str, str]] = {
    "records": ("extract", "in"),
    "characters": ("extract", "out"),
    "tokens": ("tokenize", "out"),
}
"""the first place in the ledger where a unit is counted"""


@dataclass(frozen=True)
class Flow:
    """So much of a unit, from or to one place. `kind`: a source it comes from, a reason for which whole records left
    (`damaged`: to the dead letters) or parts of records that stayed, or where it arrived."""

    name: str
    amount: int
    kind: Literal["source", "dropped", "damaged", "removed", "arrived"]


@dataclass(frozen=True)
class River:
    """The way of one unit: the sources it comes from, at each stage what left, and where the rest arrived."""

    unit: Unit
    entered: list[Flow]
    stages: list[tuple[str, list[Flow]]]
    arrived: list[Flow]

    def total(self) -> int:
        """All that entered."""
        return amount(self.entered)

    def balance(self) -> int:
        """What entered but neither left nor arrived; 0 for a ledger that balances."""
        return self.total() - sum(amount(flows) for _, flows in self.stages) - amount(self.arrived)


def amount(flows: list[Flow]) -> int:
    """The sum of flows."""
    return sum(flow.amount for flow in flows)


def river(manifest: Manifest, unit: Unit) -> River:
    """The way of records (from dumps), characters (from extraction) or tokens (from the tokenizer) to the shards."""
    first, side = MEASURED_FROM[unit]
    ledger = {stage: manifest.ledger.get(stage, {}) for stage in STAGES}
    tallies = {stage: {name: tally_from(plain) for name, plain in found.items()} for stage, found in ledger.items()}
    entered = {name: (tally.entered if side == "in" else tally.out)[unit] for name, tally in tallies[first].items()}
    counted = STAGES[STAGES.index(first) + (side == "out") :]
    stages = [(stage, _left([*tallies[stage].values()], unit)) for stage in counted]
    if unit == "characters":
        arrived = [Flow(name, tally.out[unit], "arrived") for name, tally in tallies["tokenize"].items()]
    else:
        kind = "documents" if unit == "records" else "tokens"
        arrived = [
            Flow(f"{name}, {side}", sum(getattr(shard, kind) for shard in shards), "arrived")
            for name, entry in manifest.sources.items()
            for side, shards in (("train", entry.train), ("held out", entry.validation))
        ]
    return River(unit, _sorted(Flow(name, size, "source") for name, size in entered.items()), stages, _sorted(arrived))


def folded(flows: list[Flow], most: int) -> list[Flow]:
    """The largest flows, and the rest of each kind as one."""
    if len(flows) <= most:
        return flows
    shown, rest = flows[: most - 1], flows[most - 1 :]
    kinds = {flow.kind for flow in rest}
    others = Flow(f"{len(rest):,} others", amount(rest), rest[0].kind if len(kinds) == 1 else "dropped")
    return [*shown, others]


def _left(tallies: Iterable[Tally], unit: Unit) -> list[Flow]:
    """What left at one stage, all sources together."""
    dropped: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    for tally in tallies:
        dropped.update({reason: units[unit] for reason, units in tally.dropped.items()})
        removed.update({reason: units[unit] for reason, units in tally.removed.items()})
    whole = [Flow(name, size, "damaged" if name in DEAD_LETTERS else "dropped") for name, size in dropped.items()]
    return _sorted([*whole, *(Flow(name, size, "removed") for name, size in removed.items())])


def _sorted(flows: Iterable[Flow]) -> list[Flow]:
    """The largest first, equal ones by name; none that are empty."""
    return sorted((flow for flow in flows if flow.amount), key=lambda flow: (-flow.amount, flow.name))
