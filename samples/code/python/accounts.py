"""Keep the petty cash by double entry: read a journal, check it, print balances.

A journal is a text file. A transaction begins with its date and a description; the lines below it, indented, move money
between accounts. One amount of a transaction may be left out and is worked out from the others:

    2024-03-04 Stamps
        expenses:post         12.50
        assets:cash
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

HEAD = re.compile(r"(\d{4}-\d{2}-\d{2})\s+(\S.*)")
POSTING = re.compile(r"\s+([a-z][a-z:\-]*)(?:\s{2,}(-?[\d.,]+))?\s*")
KINDS = ("assets", "liabilities", "equity", "income", "expenses")


class JournalError(Exception):
    """A line of the journal that is wrong, with its number."""


@dataclass
class Posting:
    """An amount that enters an account, or leaves it where it is negative."""

    account: str
    amount: Decimal | None


@dataclass
class Transaction:
    """What happened on a day, and which accounts it moved money between."""

    day: str
    description: str
    line: int
    postings: list[Posting] = field(default_factory=list)

    def completed(self) -> Transaction:
        """Return the transaction with the missing amount filled in, if there is one."""
        missing = [posting for posting in self.postings if posting.amount is None]
        total = sum((posting.amount for posting in self.postings if posting.amount is not None), Decimal(0))
        if len(missing) > 1:
            raise JournalError(f"line {self.line}: only one amount of a transaction may be left out")
        if not missing and total != 0:
            raise JournalError(f"line {self.line}: the amounts add up to {total} instead of 0")
        filled = [Posting(one.account, -total if one.amount is None else one.amount) for one in self.postings]
        return Transaction(self.day, self.description, self.line, filled)


def parse(lines: Iterable[str]) -> Iterator[Transaction]:
    """Yield the transactions of a journal. Empty lines and lines that begin with a semicolon are passed over."""
    current: Transaction | None = None
    for number, line in enumerate(lines, 1):
        text = line.rstrip()
        if not text or text.lstrip().startswith(";"):
            continue
        if head := HEAD.fullmatch(text):
            if current is not None:
                yield current.completed()
            current = Transaction(head[1], head[2], number)
        elif current is not None and (found := POSTING.fullmatch(text)):
            current.postings.append(Posting(account(found[1], number), amount(found[2], number)))
        else:
            raise JournalError(f"line {number}: neither a transaction nor a posting: {text!r}")
    if current is not None:
        yield current.completed()


def account(name: str, line: int) -> str:
    """Return the name if it belongs to one of the five kinds of account."""
    if name.partition(":")[0] not in KINDS:
        raise JournalError(f"line {line}: {name!r} is below none of {', '.join(KINDS)}")
    return name


def amount(text: str | None, line: int) -> Decimal | None:
    """Return the amount in hundredths exactly; binary fractions would lose cents."""
    if text is None:
        return None
    try:
        return Decimal(text.replace(",", "")).quantize(Decimal("0.01"))
    except InvalidOperation:
        raise JournalError(f"line {line}: {text!r} is no amount") from None


def balances(transactions: Iterable[Transaction]) -> dict[str, Decimal]:
    """Return what each account holds, its sub-accounts included."""
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for transaction in transactions:
        for posting in transaction.postings:
            parts = posting.account.split(":")
            for depth in range(1, len(parts) + 1):
                totals[":".join(parts[:depth])] += posting.amount or Decimal(0)
    return dict(totals)


def report(totals: dict[str, Decimal]) -> str:
    """Return the balances as an indented table, accounts without a balance left out."""
    rows = []
    for name in sorted(totals, key=lambda full: (KINDS.index(full.partition(":")[0]), full)):
        if totals[name]:
            depth = name.count(":")
            rows.append(f"{totals[name]:>12,.2f}  {'  ' * depth}{name.rpartition(':')[2]}")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    parser = argparse.ArgumentParser(description="Print the balances of a journal.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--until", default="9999-12-31", help="leave out what happened later")
    options = parser.parse_args(arguments)
    try:
        with options.journal.open(encoding="utf-8") as file:
            chosen = [one for one in parse(file) if one.day <= options.until]
    except (OSError, JournalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(balances(chosen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
