"""The ledger: counts of what enters and leaves each stage, and of what each stage drops, by reason.

A tally counts in named units. At its input, `extract` counts `records` and stored `bytes`; later stages count `records`
and `characters`; the last stage also counts `tokens` at its output. For every unit at the input of a stage, the
following equation must hold:

    in = out + dropped (whole records, by reason) + removed (parts of kept records, by reason)

The output of one stage must equal the input of the next. A run fails if its ledger does not balance.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.reasons import CUSTOM, AnyReason, Reason

STAGES = ("extract", "filter", "neardup", "tokenize")
"""The stages that documents pass, in order. The output of one stage is the input of the next."""


@dataclass
class Tally:
    """The counts of one stage for one source or one split.

    Attributes:
        entered: number of each unit at the input.
        out: number of each unit at the output.
        dropped: number of each unit in whole records that were dropped, by reason.
        removed: number of each unit in removed parts of records that were kept, by reason.
    """

    entered: Counter[str] = field(default_factory=Counter)
    out: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    removed: dict[str, Counter[str]] = field(default_factory=dict)

    def enter(self, **units: int) -> None:
        """Add to the counts of the input."""
        self.entered.update(units)

    def keep(self, **units: int) -> None:
        """Add to the counts of the output."""
        self.out.update(units)

    def drop(self, reason: AnyReason, **units: int) -> None:
        """Add to the counts of dropped records."""
        self.dropped.setdefault(reason.value, Counter()).update(units)

    def remove(self, reason: AnyReason, **units: int) -> None:
        """Add to the counts of parts that were removed from kept records."""
        self.removed.setdefault(reason.value, Counter()).update(units)

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.add_plain(other.as_dict())

    def add_plain(self, plain: Mapping[str, Any]) -> None:
        """Add a tally that is given as the plain values of `as_dict`.

        It takes a tenth of the time of `tally_from`, which builds a `Tally` object.
        """
        pairs = [(self.entered, plain["in"]), (self.out, plain["out"])]
        for mine, theirs in ((self.dropped, plain["dropped"]), (self.removed, plain["removed"])):
            pairs += [(mine.setdefault(reason, Counter()), units) for reason, units in theirs.items()]
        for counter, units in pairs:
            for unit, count in units.items():  # `Counter.update` takes three times as long for two or three units.
                counter[unit] += count

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the keys `in`, `out`, `dropped` and `removed`."""
        return {
            "in": dict(self.entered),
            "out": dict(self.out),
            "dropped": {reason: dict(units) for reason, units in self.dropped.items()},
            "removed": {reason: dict(units) for reason, units in self.removed.items()},
        }

    def imbalance(self) -> list[str]:
        """Return a message for each unit whose input differs from its output and losses, and for each invalid entry."""
        problems = []
        left = [self.out, *self.dropped.values(), *self.removed.values()]
        for unit, entered in sorted(self.entered.items()):
            accounted = sum(units[unit] for units in left)
            if accounted != entered:
                problems.append(f"{entered} {unit} in, {accounted} accounted for")
        negative = any(count < 0 for units in [self.entered, *left] for count in units.values())
        problems += ["a count below zero"] if negative else []
        known = {reason.value for reason in Reason}
        strange = sorted(name for name in {*self.dropped, *self.removed} - known if not CUSTOM.fullmatch(name))
        problems += [f"{name!r} is no known reason" for name in strange]
        return problems


def tally_from(plain: Mapping[str, Any]) -> Tally:
    """Return the tally whose plain values `Tally.as_dict` returned. Raises KeyError or TypeError for other values."""
    return Tally(
        Counter(plain["in"]),
        Counter(plain["out"]),
        {reason: Counter(units) for reason, units in plain["dropped"].items()},
        {reason: Counter(units) for reason, units in plain["removed"].items()},
    )


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies."""
    result = Tally()
    for tally in tallies:
        result.add(tally)
    return result


def imbalances(ledger: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a message for each imbalance of a ledger.

    Args:
        ledger: {stage: {source: tally as plain values}}.
    """
    problems = []
    for stage, sources in sorted(ledger.items()):
        for source, plain in sorted(sources.items()):
            problems += [f"stage {stage}, source {source}: {what}" for what in tally_from(plain).imbalance()]
    present = [stage for stage in STAGES if stage in ledger]
    for earlier, later in itertools.pairwise(present):
        for source in sorted({*ledger[earlier], *ledger[later]}):
            given = tally_from(ledger[earlier].get(source, Tally().as_dict())).out
            taken = tally_from(ledger[later].get(source, Tally().as_dict())).entered
            problems += [
                f"source {source}: {earlier} gave out {given[unit]} {unit}, {later} took in {taken[unit]}"
                for unit in ("records", "characters")
                if given[unit] != taken[unit]
            ]
    return problems


def empty_sources(ledger: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return a dict from each source without any output to an explanation.

    The explanation names the reason for which most records were dropped, with their number.
    """
    present = [stage for stage in STAGES if stage in ledger]
    found = {}
    for name in sorted({name for stage in present for name in ledger[stage]}):
        tallies = [tally_from(ledger[stage].get(name, Tally().as_dict())) for stage in present]
        if tallies[-1].out["records"]:
            continue
        dropped = Counter[str]()
        for tally in tallies:
            dropped.update({reason: units["records"] for reason, units in tally.dropped.items()})
        found[name] = "its inputs hold no record"
        if dropped:
            [(reason, records)] = dropped.most_common(1)
            found[name] = f"{records:,} of {tallies[0].entered['records']:,} records were dropped as {reason}"
    return found
