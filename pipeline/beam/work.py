"""Write work that needs several jobs as a generator: it yields a job and receives the job's receipts.

A part of a job is one step, or a mapping and a reducing step with a shuffle between them (`pipeline.beam.exchange`). A
job consists of turns. The parts of a turn begin when all parts of the previous turn have ended. All turns are planned
before the job starts, so a step that reads outputs of an earlier turn is planned without the receipts of these outputs
(`Unit.awaits`). Independent generators are advanced together (`together`), so that they share jobs: on a remote engine,
even a small job takes minutes.
"""

from collections.abc import Callable, Generator, Sequence
from itertools import chain, islice, zip_longest
from typing import Any, TypeVar

from pipeline.beam.step import Receipts, Step

# A step, or a mapping and a reducing step. Unit number r of the reducing step gets the blocks of range r.
Part = tuple[Step, ...]
PartReceipts = tuple[Receipts, ...]  # the receipts of each step of a part
Turns = Sequence[Sequence[Part]]  # the parts of each turn of a job
Result = TypeVar("Result")
Work = Generator[Turns, list[list[PartReceipts]], Result]


def run_units(step: Step) -> Work[Receipts]:
    """Run a step without a shuffle, and return its receipts."""
    [[(found,)]] = yield [[(step,)]]
    return found


def exchange(mapping: Step, reducing: Step) -> Work[tuple[Receipts, Receipts]]:
    """Run a mapping and a reducing step with a shuffle between them, and return the receipts of both steps."""
    [[(mapped, reduced)]] = yield [[(mapping, reducing)]]
    return mapped, reduced


def together(*works: Work[Any]) -> Work[list[Any]]:
    """Run independent generators, and return their results. The jobs that they yield at a time are run as one job."""
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
    """Run the jobs that a generator yields until it ends, and return its result.

    Args:
        work: the generator.
        run: runs a job and returns the receipts of each turn and part.
    """
    try:
        turns = next(work)
        while True:
            turns = work.send(run(turns))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
