"""The ledger: records in and out of each stage, and the rest by reason.

A tally counts in named units: `records` and `bytes` (stored) for `extract`, `records` and `characters` after it,
`tokens` at the end. Whatever unit a stage counts at its entrance it must account for at its exit:

    in = out + dropped (whole records, by reason) + removed (parts of records that stay, by reason)

and the output of one stage is the input of the next. A ledger that does not balance fails the run.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.reasons import CUSTOM, AnyReason, Reason

STAGES = ("extract", "filter", "neardup", "tokenize")
"""The stages that documents pass, in order. Each takes in the records and characters the one before gave out."""


@dataclass
class Tally:
    """Counts of one stage over one source (or one split of it); every value maps a unit to a whole number."""

    entered: Counter[str] = field(default_factory=Counter)
    out: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    removed: dict[str, Counter[str]] = field(default_factory=dict)

    def enter(self, **units: int) -> None:
        """Count something that reached the stage."""
        self.entered.update(units)

    def keep(self, **units: int) -> None:
        """Count something that left the stage for the next."""
        self.out.update(units)

    def drop(self, reason: AnyReason, **units: int) -> None:
        """Count a whole record that ends here."""
        self.dropped.setdefault(reason.value, Counter()).update(units)

    def remove(self, reason: AnyReason, **units: int) -> None:
        """Count a part of a record that stays."""
        self.removed.setdefault(reason.value, Counter()).update(units)

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.add_plain(other.as_dict())

    def add_plain(self, plain: Mapping[str, Any]) -> None:
        """Add a tally as plain values, in a tenth of the time that it takes to make a tally of them."""
        pairs = [(self.entered, plain["in"]), (self.out, plain["out"])]
        for mine, theirs in ((self.dropped, plain["dropped"]), (self.removed, plain["removed"])):
            pairs += [(mine.setdefault(reason, Counter()), units) for reason, units in theirs.items()]
        for counter, units in pairs:
            for unit, count in units.items():  # `Counter.update` takes three times as long for so few
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
        """Return one clause for each unit that does not add up."""
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
    """Return the tally that `Tally.as_dict` wrote. Raises KeyError or TypeError for anything else."""
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
    """Return a sentence for every way in which a ledger {stage: {source: tally}} does not balance."""
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
    """Return the sources that have no record left, and why: the reason that took most, with its count."""
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
