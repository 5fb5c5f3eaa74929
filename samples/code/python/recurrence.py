"""Expand rules such as "every second Tuesday" or "the last Friday of the month" into dates."""

from __future__ import annotations

import calendar
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": -1}


class RuleError(ValueError):
    """A rule that cannot be understood, or that no date can ever satisfy."""


@dataclass(frozen=True)
class Weekly:
    """Every n-th week on some weekdays, counted from the week of `start`."""

    start: date
    weekdays: frozenset[int]
    interval: int = 1

    def dates(self) -> Iterator[date]:
        monday = self.start - timedelta(days=self.start.weekday())
        for week in itertools.count(0, self.interval):
            for weekday in sorted(self.weekdays):
                day = monday + timedelta(weeks=week, days=weekday)
                if day >= self.start:
                    yield day


@dataclass(frozen=True)
class Monthly:
    """A weekday by its place in the month, such as the second or the last one."""

    start: date
    weekday: int
    ordinal: int

    def dates(self) -> Iterator[date]:
        for months in itertools.count(self.start.year * 12 + self.start.month - 1):
            year, month = divmod(months, 12)
            day = self.in_month(year, month + 1)
            if day is not None and day >= self.start:
                yield day

    def in_month(self, year: int, month: int) -> date | None:
        """Return the day in this month, or None if the month has no fifth such weekday."""
        first, length = calendar.monthrange(year, month)
        offset = (self.weekday - first) % 7
        days = range(1 + offset, length + 1, 7)
        index = self.ordinal - 1 if self.ordinal > 0 else self.ordinal
        try:
            return date(year, month, days[index])
        except IndexError:
            return None


@dataclass
class Schedule:
    """A rule with its exceptions: days that fall out, and days that are added by hand."""

    rule: Weekly | Monthly
    skipped: set[date] = field(default_factory=set)
    added: set[date] = field(default_factory=set)
    until: date | None = None

    def between(self, low: date, high: date) -> list[date]:
        """Return the days from `low` to `high`, both included, in order."""
        regular = itertools.takewhile(lambda day: day <= high, self.rule.dates())
        wanted = {day for day in regular if day >= low} | {day for day in self.added if low <= day <= high}
        if self.until is not None:
            wanted = {day for day in wanted if day <= self.until}
        return sorted(wanted - self.skipped)

    def next_after(self, day: date) -> date | None:
        """Return the first day after `day`, or None if the schedule has ended by then."""
        limit = self.until or day + timedelta(days=366 * 5)
        found = self.between(day + timedelta(days=1), limit)
        return found[0] if found else None


def parse(text: str, start: date) -> Weekly | Monthly:
    """Parse "every tuesday", "every second week on monday and friday" or "last friday of the month".

    Raises:
        RuleError: the text is none of these, or names an unknown weekday.
    """
    words = text.lower().replace(",", " ").replace(" and ", " ").split()
    if words[-3:] == ["of", "the", "month"] and len(words) == 5:
        ordinal, weekday = words[:2]
        if ordinal not in ORDINALS:
            raise RuleError(f"{ordinal!r} is none of {', '.join(ORDINALS)}")
        return Monthly(start, weekday_number(weekday), ORDINALS[ordinal])
    if words[:1] != ["every"]:
        raise RuleError(f"a rule begins with 'every' or ends in 'of the month': {text!r}")
    words, interval = words[1:], 1
    if words[:1] and words[0] in ("second", "third", "fourth"):
        interval, words = ORDINALS[words[0]], words[1:]
    if words[:2] == ["week", "on"]:
        words = words[2:]
    if not words:
        raise RuleError(f"no weekday in {text!r}")
    return Weekly(start, frozenset(map(weekday_number, words)), interval)


def weekday_number(name: str) -> int:
    """Return 0 for Monday to 6 for Sunday; three letters are enough."""
    matches = [number for number, full in enumerate(WEEKDAYS) if len(name) >= 3 and full.startswith(name)]
    if len(matches) != 1:
        raise RuleError(f"{name!r} is no weekday")
    return matches[0]
