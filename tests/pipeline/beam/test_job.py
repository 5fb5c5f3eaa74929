"""Work in steps: what is advanced side by side shares jobs, and the turns of a job follow each other."""

from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
import toy

from filters.errors import RunError
from manifests.mirror import open_mirror
from pipeline.beam import exchange as beam_exchange
from pipeline.beam import receipts
from pipeline.beam.engines import Engine
from pipeline.beam.job import job_of, run_job, watch_progress
from pipeline.beam.step import Awaited, Receipts, Step, Unit
from pipeline.beam.task import NOTICES, perform
from pipeline.beam.work import PartReceipts, Turns, Work, finish, run_units, together


def empty(name: str) -> Step:
    return Step(name, toy.scatter, [])


def count(name: str, rounds: int) -> Work[list[Receipts]]:
    """Run a step in each round, and return all receipts."""
    found = []
    for number in range(rounds):
        found.append((yield from run_units(empty(f"{name}{number}"))))
    return found


def in_turns(name: str) -> Work[list[list[PartReceipts]]]:
    """Run an exchange, and then two steps side by side."""
    return (yield [[(empty("map"), empty("reduce"))], [(empty(f"{name}0"),), (empty(f"{name}1"),)]])


def test_work_side_by_side_shares_jobs_and_their_turns_until_each_ends() -> None:
    jobs: list[list[list[tuple[str, ...]]]] = []

    def run(turns: Turns) -> list[list[PartReceipts]]:
        jobs.append([[tuple(step.name for step in part) for part in parts] for parts in turns])
        return [[tuple({step.name: None} for step in part) for part in parts] for parts in turns]  # type: ignore[dict-item]

    a, nothing, c, b = finish(together(count("a", 3), count("nothing", 0), in_turns("c"), count("b", 2)), run)
    first = [[("a0",), ("map", "reduce"), ("b0",)], [("c0",), ("c1",)]]
    assert jobs == [first, [[("a1",), ("b1",)]], [[("a2",)]]]
    assert a == [{"a0": None}, {"a1": None}, {"a2": None}] and b == [{"b0": None}, {"b1": None}]
    assert nothing == [] and c == [[({"map": None}, {"reduce": None})], [({"c0": None},), ({"c1": None},)]]


def test_parts_of_one_job_leave_what_jobs_of_their_own_do(tmp_path: Path) -> None:
    steps = [Step(name, toy.square, [Unit(str(n), {"number": n}) for n in range(3)]) for name in ("toy/a", "toy/b")]
    both, ran = run_job(tmp_path / "one", [[(step,) for step in steps]], toy.engine(tmp_path / "one"))
    alone = [run_job(tmp_path / "two", [[(step,)]], toy.engine(tmp_path / "two"))[0][0][0] for step in steps]
    assert both == [alone] and ran == 6
    assert toy.digest(tmp_path / "one", "blocks", "receipts") == toy.digest(tmp_path / "two", "blocks", "receipts")
    assert run_job(tmp_path / "one", [[(step,) for step in steps]], toy.engine(tmp_path / "one")) == (both, 0)


def chained(numbers: Sequence[int], sent: int = 3) -> Turns:
    """Squares; sums of two, with an exchange beside them; and the sum of the sums."""
    squares = Step("toy/squares", toy.square, [Unit(str(n), {"number": n}) for n in numbers])
    units = [
        Unit(f"{n}", {"of": [f"squares/{n}", f"squares/{numbers[0]}"]},
             awaits=(Awaited("toy/squares", str(n)), Awaited("toy/squares", str(numbers[0]))))
        for n in numbers
    ]  # fmt: skip
    pairs = Step("toy/sums", toy.add_files, units)
    maps = Step("toy/map", toy.scatter, [Unit(str(n), {"bound": n}) for n in range(sent)])
    reduces = Step("toy/reduce", toy.gather, [Unit(f"{r:05d}") for r in range(toy.RANGES)])
    names = [unit.name for unit in units]
    whole = Unit("all", {"of": [f"sums/{name}" for name in names]},
                 awaits=tuple(Awaited("toy/sums", name) for name in names))  # fmt: skip
    return [[(squares,)], [(pairs,), (maps, reduces)], [(Step("toy/whole", toy.add_files, [whole]),)]]


KINDS = [Engine, toy.ShuffleEngine, toy.PoolEngine]


@pytest.mark.parametrize("kind", KINDS, ids=["in memory", "shuffle", "two processes"])
def test_a_turn_reads_what_the_one_before_has_written(tmp_path: Path, kind: type[Engine]) -> None:
    running = toy.engine(tmp_path, kind=kind)
    try:
        _, ran = run_job(tmp_path, chained([2, 3]), running)
        assert ran == 2 + 2 + 3 + toy.RANGES + 1
        assert (tmp_path / "sums/all").read_bytes() == b"21", "4 + 4, and 9 + 4"
        assert run_job(tmp_path, chained([2, 3]), running)[1] == 0
        assert run_job(tmp_path, chained([2, 3], sent=4), running)[1] == 1 + toy.RANGES, "the other parts are finished"
        (tmp_path / "sums/3").unlink()
        assert run_job(tmp_path, chained([2, 3], sent=4), running)[1] == 1, "a part of a turn alone"
        _, ran = run_job(tmp_path, chained([2, 5], sent=4), running)
        assert ran == 1 + 1 + 1 and (tmp_path / "sums/all").read_bytes() == b"37", "4 + 4, and 25 + 4"
    finally:
        running.pool.stop()


@pytest.mark.parametrize("kind", [Engine, toy.ShuffleEngine], ids=["in memory", "shuffle"])
def test_merges_and_tables_of_a_turn_end_before_the_next_begins(
    tmp_path: Path, kind: type[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beam_exchange, "MOST_PLACES", 2 * toy.RANGES)
    monkeypatch.setattr(receipts, "FOLD_FROM", 2)
    made, _ = run_job(tmp_path, chained([2, 3, 4], sent=5), toy.engine(tmp_path, kind=kind))
    assert (tmp_path / "sums/all").read_bytes() == b"41"
    tables = {
        step
        for step in ("toy/squares", "toy/sums", "toy/map", "toy/reduce")
        if list(receipts.read_tables(tmp_path, step))
    }
    assert tables == {"toy/squares", "toy/sums", "toy/map", "toy/reduce"}
    assert run_job(tmp_path, chained([2, 3, 4], sent=5), toy.engine(tmp_path, kind=kind)) == (made, 0)


def test_a_task_fetches_what_it_awaits_from_an_object_store(tmp_path: Path) -> None:
    """The next turn's tasks run on a machine that has none of the files that those before have written."""
    storage = open_mirror(tmp_path / "one", f"file://{tmp_path}/store").storage
    squares, pairs, _ = chained([2, 3])
    run_job(tmp_path / "one", [squares], toy.engine(tmp_path / "one"))
    open_mirror(tmp_path / "two", storage.url)
    known = {"toy/squares": squares[0][0].fingerprints()}
    step = pairs[0][0]
    unit = step.units[1]
    task = step.task_builder(known)(unit, step.fingerprints({}, known)[unit.name])
    perform(task, job=job_of(tmp_path / "two", step, toy.engine(tmp_path / "two")))
    assert storage.read("sums/3") == b"13"


def test_work_that_no_remote_worker_is_needed_for_runs_here(tmp_path: Path) -> None:
    remote = Engine(2, ("--runner=PortableRunner", "--job_endpoint=localhost:1"), tmp_path)
    assert not remote.is_local and remote.here().is_local
    assert remote.here().pool is remote.pool and remote.here().status is remote.status


def test_a_job_that_an_engine_has_given_up_ends_in_a_sentence(tmp_path: Path) -> None:
    lost = "Pipeline toy_1 failed in state FAILED: CANCELLED: client cancelled"
    said = r"\(CANCELLED: client cancelled\).* the same command again"
    with pytest.raises(RunError, match=said), watch_progress(tmp_path, [], 0, toy.engine(tmp_path)):
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"), watch_progress(tmp_path, [], 0, toy.engine(tmp_path)):
        raise RuntimeError(f"{lost}: Traceback (most recent call last):\n ...\nZeroDivisionError: division by zero")


@pytest.mark.parametrize("error", [grpc.RpcError(), grpc.FutureTimeoutError()])
def test_a_job_service_that_has_gone_is_told_in_a_sentence(tmp_path: Path, error: Exception) -> None:
    said = r"job service has gone \(no answer\): .* the same command again"
    with pytest.raises(RunError, match=said), watch_progress(tmp_path, [], 0, toy.engine(tmp_path)):
        raise error


@pytest.mark.parametrize("kind", NOTICES)
def test_what_a_worker_of_another_machine_says_arrives_with_the_error_of_its_engine(
    tmp_path: Path, kind: type[Exception]
) -> None:
    """It cannot leave a file where the driver looks for one."""
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n'
    raised = f"{trace}{kind.__module__}.{kind.__name__}: a sentence with [brackets]: mend it"
    for text in (
        f"Pipeline toy_1 failed in state FAILED: java.lang.RuntimeException: Error received from SDK harness: {raised}",
        f"{raised}\n\nDuring handling of it, another exception occurred:\n\n{raised} [while running 'x']",
        f"{trace}OSError: [Errno 5] EIO\n\n{raised} [while running 'to 1-ptransform-7']\n\tat X.y(X.java:1)",
    ):
        with pytest.raises(kind) as caught, watch_progress(tmp_path, [], 0, toy.engine(tmp_path)):
            raise RuntimeError(text)
        assert str(caught.value) == "a sentence with [brackets]: mend it"
    with pytest.raises(kind, match=r"^mend it$"), watch_progress(tmp_path, [], 0, toy.engine(tmp_path)):
        raise kind("mend it [while running 'x']")
