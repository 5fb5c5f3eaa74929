"""Work in steps: what is advanced side by side shares jobs, and gets its own receipts."""

from pathlib import Path

import toy

from pipeline.beam.engines import Engine
from pipeline.beam.job import Made, Part, Work, exchange, finish, run_job, run_units, together
from pipeline.beam.step import Receipts, Step, Unit


def empty(name: str) -> Step:
    return Step(name, toy.scatter, [])


def count(name: str, rounds: int) -> Work[list[Receipts]]:
    """Run a step in each round, and return all receipts."""
    found = []
    for number in range(rounds):
        found.append((yield from run_units(empty(f"{name}{number}"))))
    return found


def test_work_side_by_side_shares_jobs_until_each_ends() -> None:
    jobs: list[list[tuple[str, ...]]] = []

    def run(parts: list[Part]) -> list[Made]:
        jobs.append([tuple(step.name for step in part) for part in parts])
        return [tuple({step.name: None} for step in part) for part in parts]  # type: ignore[dict-item]

    work = together(count("a", 3), count("nothing", 0), exchange(empty("map"), empty("reduce")), count("b", 2))
    a, nothing, shuffled, b = finish(work, run)
    assert jobs == [[("a0",), ("map", "reduce"), ("b0",)], [("a1",), ("b1",)], [("a2",)]]
    assert a == [{"a0": None}, {"a1": None}, {"a2": None}] and b == [{"b0": None}, {"b1": None}]
    assert nothing == [] and shuffled == ({"map": None}, {"reduce": None})


def test_parts_of_one_job_leave_what_jobs_of_their_own_do(tmp_path: Path) -> None:
    steps = [Step(name, toy.square, [Unit(str(n), {"number": n}) for n in range(3)]) for name in ("toy/a", "toy/b")]
    both, ran = run_job(tmp_path / "one", [(step,) for step in steps], toy.engine(tmp_path / "one"))
    alone = [run_job(tmp_path / "two", [(step,)], toy.engine(tmp_path / "two"))[0][0] for step in steps]
    assert both == alone and ran == 6
    assert toy.digest(tmp_path / "one", "blocks", "receipts") == toy.digest(tmp_path / "two", "blocks", "receipts")
    assert run_job(tmp_path / "one", [(step,) for step in steps], toy.engine(tmp_path / "one")) == (both, 0)


def test_work_that_no_remote_worker_is_needed_for_runs_here(tmp_path: Path) -> None:
    remote = Engine(2, ("--runner=PortableRunner", "--job_endpoint=localhost:1"), tmp_path)
    assert not remote.is_local and remote.here().is_local
    assert remote.here().pool is remote.pool and remote.here().status is remote.status
