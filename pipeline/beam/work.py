"""Work in several steps: a generator that yields the job that it wants next, and is sent the receipts of it.

A part of a job is a step, or a mapping and a reducing step with a shuffle between (`pipeline.beam.exchange`). A job has
turns: the parts of a turn begin when those of the turn before have ended. So a step that reads what another of the same
job writes must be planned without its receipts (`Unit.awaits`). Work that does not depend on other work is advanced
side by side (`together`), so that it shares jobs: on a remote engine each job costs minutes, however small it is.
"""

from collections.abc import Callable, Generator, Sequence
from itertools import chain, islice, zip_longest
from typing import Any, TypeVar

from pipeline.beam.step import Receipts, Step

Part = tuple[Step, ...]  # a step, or a mapping and a reducing one; unit number r of a reducing step takes range r
PartReceipts = tuple[Receipts, ...]  # the receipts of a part, by step
Turns = Sequence[Sequence[Part]]  # the parts of a job, by turn
Result = TypeVar("Result")
Work = Generator[Turns, list[list[PartReceipts]], Result]


def run_units(step: Step) -> Work[Receipts]:
    """Run a step whose units do not talk to each other, and return its receipts by unit."""
    [[(found,)]] = yield [[(step,)]]
    return found


def exchange(mapping: Step, reducing: Step) -> Work[tuple[Receipts, Receipts]]:
    """Run a step whose mappers send blocks to reducers, and return the receipts of both by unit."""
    [[(mapped, reduced)]] = yield [[(mapping, reducing)]]
    return mapped, reduced


def together(*works: Work[Any]) -> Work[list[Any]]:
    """Advance works that do not depend on each other, the next jobs of all in one, and return their results."""
    results: list[Any] = [None] * len(works)
    asked: dict[int, Turns] = {}

    def advance(number: int, made: list[list[PartReceipts]] | None) -> None:
        try:
            asked[number] = next(works[number]) if made is None else works[number].send(made)
        except StopIteration as end:
            results[number] = end.value
            asked.pop(number, None)

    for number in range(len(works)):
        advance(number, None)
    while asked:
        found = yield [list(chain(*parts)) for parts in zip_longest(*asked.values(), fillvalue=())]
        left = [iter(made) for made in found]
        for number, turns in list(asked.items()):
            advance(number, [list(islice(made, len(parts))) for made, parts in zip(left, turns, strict=False)])
    return results


def finish(work: Work[Result], run: Callable[[Turns], list[list[PartReceipts]]]) -> Result:
    """Run the jobs that work asks for until it ends, and return its result."""
    try:
        turns = next(work)
        while True:
            turns = work.send(run(turns))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
