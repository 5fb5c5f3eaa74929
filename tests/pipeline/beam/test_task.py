"""Steps and the exchange: receipts, resuming, the same bytes however they run, and failures that end a run."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import PoolEngine, ShuffleEngine, digest, engine, run_exchange, run_step, tasks_of

from filters.errors import UserError
from manifests import storage
from manifests.files import relative_files, sha256_file, sync_path
from manifests.mirror import open_mirror
from manifests.storage import StorageError
from pipeline.beam import receipts as receipts_on_disk
from pipeline.beam import task
from pipeline.beam.engines import Engine, check_options
from pipeline.beam.exchange import find_blocks
from pipeline.beam.pool import WorkerDiedError
from pipeline.beam.receipts import is_finished, read_receipt, receipts, remove_temporaries, sweep
from pipeline.beam.step import Keyed, Receipts, Step, Unit

ROOT = Path(__file__).parents[3]


def squares(count: int, version: str = "1", **settings: int) -> Step:
    units = [Unit(f"{n:02d}", {"number": n}, [version], n) for n in range(count)]
    return Step("toy", toy.square, units, settings, owns=("squares",))


def run(corpus: Path, step: Step, kind: type[Engine] = Engine) -> int:
    """Run a step and return how many units ran."""
    running = engine(corpus, kind=kind)
    try:
        return run_step(corpus, step, running)[1]
    finally:
        running.pool.stop()


def test_finished_units_are_not_run_again_and_changed_ones_are(tmp_path: Path) -> None:
    assert run(tmp_path, squares(5)) == 5
    assert run(tmp_path, squares(5)) == 0
    changed = Step(
        "toy", toy.square, [*squares(4).units, Unit("04", {"number": 4, "add": 1}, ["1"], 4)], owns=("squares",)
    )
    assert run(tmp_path, changed) == 1
    assert (tmp_path / "squares/04").read_text("utf-8") == "17" and (tmp_path / "squares/03").read_text() == "9"


def test_each_declared_part_of_a_unit_is_in_its_fingerprint() -> None:
    def of(step: Step) -> str:
        return tasks_of(step)[0].fingerprint

    def step(settings: dict | None = None, by_source: dict | None = None, **unit: Any) -> Step:
        made = Unit(**{"name": "a", "arguments": {"number": 1}, "source": "web"} | unit)
        return Step("toy", toy.square, [made], settings or {}, by_source or {})

    plain = of(step())
    changed = [
        step({"add": 1}),
        step(by_source={"web": {"add": 1}}),
        step(name="b"),
        step(arguments={"number": 2}),
        step(reads=["x"]),
        step(calls=(toy.wait,)),
    ]
    assert len({plain, *map(of, changed)}) == 1 + len(changed)
    assert of(step(size=7)) == of(step(by_source={"books": {"add": 1}})) == plain
    assert (
        of(step(arguments={"number": Keyed("here", 1)})) == of(step(arguments={"number": Keyed("there", 1)})) == plain
    )
    mappers, fewer = squares(2).fingerprints(), squares(1).fingerprints()
    reduced = Step("toy", toy.square, [Unit("a")])
    assert len({reduced.fingerprints(upstream)["a"] for upstream in ({}, mappers, fewer)}) == 3
    ignores_mappers = Step("toy", toy.square, [Unit("a")], ignores_mappers=True)
    assert ignores_mappers.fingerprints() == ignores_mappers.fingerprints(mappers) == reduced.fingerprints()


@pytest.mark.parametrize("damage", ["output gone", "output cut", "receipt gone", "receipt cut"])
def test_a_unit_whose_files_are_not_whole_runs_again(tmp_path: Path, damage: str) -> None:
    step = squares(3)
    run(tmp_path, step)
    before = digest(tmp_path, "squares", "receipts")
    path = tmp_path / ("squares/02" if damage.startswith("output") else "receipts/toy/02.json")
    if damage.endswith("gone"):
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert not is_finished(tmp_path, tasks_of(step)[2])
    assert run(tmp_path, step) == 1
    assert digest(tmp_path, "squares", "receipts") == before


@pytest.mark.parametrize("folded", [False, True])
def test_an_output_that_is_newer_than_its_receipt_is_hashed_once_and_made_again_if_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folded: bool
) -> None:
    if folded:
        monkeypatch.setattr(receipts_on_disk, "FOLD_FROM", 1)
    step, hashed = squares(3), list[Path]()
    run(tmp_path, step)
    before = digest(tmp_path, "squares", "receipts")
    (tmp_path / "squares/02").write_text("5", "utf-8")
    for name in ("01", "02"):  # as a copy has, made later
        path = tmp_path / "squares" / name
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))

    def hash_file(path: Path) -> str:
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(receipts_on_disk, "sha256_file", hash_file)
    assert run(tmp_path, step) == 1
    assert digest(tmp_path, "squares", "receipts") == before
    assert {path.name for path in hashed} == {"01", "02"}
    hashed.clear()
    assert run(tmp_path, step) == 0 and not hashed


def test_the_sweep_removes_what_no_unit_claims_and_nothing_else(tmp_path: Path) -> None:
    run(tmp_path, squares(4))
    (tmp_path / "squares/deep").mkdir()
    (tmp_path / "squares/deep/stray").write_text("x", "utf-8")
    (tmp_path / "other").write_text("x", "utf-8")
    assert run(tmp_path, squares(3)) == 0
    assert relative_files(tmp_path / "squares") == ["00", "01", "02"]
    assert relative_files(tmp_path / "receipts") == ["toy/00.json", "toy/01.json", "toy/02.json"]
    assert not (tmp_path / "squares/deep").exists() and (tmp_path / "other").exists()


def test_steps_that_share_folders_are_swept_together(tmp_path: Path) -> None:
    halves = [replace(squares(4), units=squares(4).units[start::2], shared=True) for start in (0, 1)]
    found: Receipts = {}
    for half in halves:
        found |= run_step(tmp_path, half, engine(tmp_path))[0]
    (tmp_path / "squares/stray").write_text("x", "utf-8")
    sweep(tmp_path, halves[0], found)
    assert relative_files(tmp_path / "squares") == ["00", "01", "02", "03"]


def test_temporaries_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/.abc.tmp").write_text("half", "utf-8")
    (tmp_path / "shards/a.tmp").write_text("whole", "utf-8")
    remove_temporaries(tmp_path)
    assert relative_files(tmp_path) == ["shards/a.tmp"]


def test_a_users_mistake_found_by_a_worker_reaches_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this number is a mistake: give another"):
        run(tmp_path, squares(4, mistake=2))


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WAITS", [0.0, 0.0, 0.0])


@pytest.mark.usefixtures("no_waits")
def test_a_unit_whose_storage_fails_is_repeated_from_its_start(tmp_path: Path) -> None:
    assert run(tmp_path, squares(4, fail=2, times=3)) == 4
    assert (tmp_path / "calls").read_text("utf-8").split().count("02") == 4
    assert (tmp_path / "squares/02").read_text("utf-8") == "4"
    assert not list((tmp_path / "runs").rglob("begun/*"))


@pytest.mark.usefixtures("no_waits")
def test_storage_that_keeps_failing_ends_the_step_by_name_and_the_rest_is_kept(tmp_path: Path) -> None:
    said = r"^stage toy, 02: access to .*the-disk failed \(Input/output error\) after 4 tries: .* continues from here$"
    step = squares(4, fail=2, times=4)
    with pytest.raises(StorageError, match=said):
        run(tmp_path, step)
    assert [one.name for one in tasks_of(step) if is_finished(tmp_path, one)] == ["03"], "the largest ran first"
    assert run(tmp_path, step) == 3
    assert (tmp_path / "squares/02").read_text("utf-8") == "4"


def test_a_failure_in_another_process_is_told_even_where_no_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(task.NOTICES, StorageError, "workers.log/failure.txt")  # below a file
    with pytest.raises(StorageError, match=r"^stage toy, 02: access to .* continues from here$"):
        run(tmp_path, squares(4, fail=2, times=99), PoolEngine)


def test_processes_give_the_same_bytes_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(one, squares(9))
    run(two, replace(squares(9), units=squares(9).units[::-1]), PoolEngine)
    assert digest(one, "squares", "receipts") == digest(two, "squares", "receipts")


def exchange(corpus: Path, running: Engine) -> int:
    maps = [Unit(name, {"bound": bound}, (), bound) for name, bound in (("b", 9), ("a", 5), ("c", 0))]
    reduces = Step("toy/reduce", toy.gather, [Unit(f"{r}") for r in range(toy.RANGES)], owns=("ranges",))
    return run_exchange(corpus, Step("toy/map", toy.scatter, maps), reduces, running)[2]


@pytest.mark.parametrize("places", [1 << 18, 2 * toy.RANGES], ids=["each", "merged"])
@pytest.mark.parametrize("kind", [Engine, ShuffleEngine, PoolEngine], ids=["files", "shuffle", "processes"])
def test_the_exchange_gives_the_same_bytes_by_files_by_shuffle_and_by_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Engine], places: int
) -> None:
    monkeypatch.setattr("pipeline.beam.exchange.MOST_PLACES", places)
    running = engine(tmp_path, kind=kind)
    merges = 2 if places < 3 * toy.RANGES and kind is not ShuffleEngine else 0
    assert exchange(tmp_path, running) == 3 + merges + toy.RANGES
    first = (
        b"".join(n.to_bytes(8, "little") for n in (0, 4)) + b"|" + b"".join(n.to_bytes(8, "little") for n in (0, 4, 8))
    )
    assert (tmp_path / "ranges/0").read_bytes() == first, "blocks come in the order of the mappers' names"
    assert (tmp_path / "ranges/3").read_bytes() == b"", "a range without a block is reduced to an empty result"
    assert exchange(tmp_path, running) == 0
    assert not (tmp_path / "blocks/toy/map-merge").exists(), "merged blocks go when they have been read"
    running.pool.stop()


def test_an_exchange_resumes_by_ranges_and_by_mappers(tmp_path: Path) -> None:
    exchange(tmp_path, engine(tmp_path))
    before = digest(tmp_path, "ranges", "receipts", "blocks")
    (tmp_path / "receipts/toy/reduce/1.json").unlink()
    assert exchange(tmp_path, engine(tmp_path)) == 1
    (tmp_path / "blocks/toy/map/a").unlink()
    assert exchange(tmp_path, engine(tmp_path)) == 1
    assert digest(tmp_path, "ranges", "receipts", "blocks") == before


def test_an_exchange_resumes_by_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange(tmp_path, engine(tmp_path))
    before = digest(tmp_path, "ranges", "receipts", "blocks")
    monkeypatch.setattr("pipeline.beam.exchange.MOST_PLACES", 2 * toy.RANGES)
    (tmp_path / "receipts/toy/reduce/1.json").unlink()
    with monkeypatch.context() as killed:
        killed.setattr("pipeline.beam.job.sweep", lambda *_: None)
        assert exchange(tmp_path, engine(tmp_path)) == 3, "two merges and a range"
    (tmp_path / "receipts/toy/reduce/2.json").unlink()
    (tmp_path / "blocks/toy/map-merge/000001").unlink()
    assert exchange(tmp_path, engine(tmp_path)) == 2, "a merge and a range, which takes the other merge over"
    assert digest(tmp_path, "ranges", "receipts", "blocks") == before


def test_a_machine_with_an_older_receipt_reads_the_block_index_of_the_newer(tmp_path: Path) -> None:
    """A mapper was done again elsewhere: its file there has other blocks than the receipt here tells."""
    here = open_mirror(tmp_path / "here", (tmp_path / "store").as_uri()).folder
    exchange(here, engine(here))
    (task,) = tasks_of(Step("toy/map", toy.scatter, [Unit("a", {"bound": 5}, (), 5)]))
    before = list(find_blocks(here, task, {0, 1}, as_places=True))
    assert len(before) == 2
    receipt = here / "receipts/toy/map/a.json"
    receipt.write_bytes(receipt.read_bytes().replace(task.fingerprint.encode(), b"0" * 64))
    assert list(find_blocks(here, task, {0, 1}, as_places=True)) == before


def test_receipts_of_finished_units_hold_counts_and_facts(tmp_path: Path) -> None:
    found, _ = run_step(tmp_path, squares(2), engine(tmp_path))
    assert [found[name].facts["number"] for name in sorted(found)] == [0, 1]
    assert found["01"].tallies["toy"].entered["records"] == 1
    with pytest.raises(StorageError, match="02 left no receipt"):
        receipts(tmp_path, "toy", squares(3).fingerprints())
    assert read_receipt(tmp_path, "toy", "99") is None


def test_outputs_are_on_the_disk_before_their_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []

    def sync(path: Path) -> None:
        sync_path(path)
        assert len(list((tmp_path / "receipts").rglob("*.json"))) == len(synced)
        synced.append(path)

    monkeypatch.setattr(task, "sync_path", sync)
    found, _ = run_step(tmp_path, squares(3), engine(tmp_path))
    assert sorted(synced) == sorted(tmp_path / one.path for receipt in found.values() for one in receipt.outputs)


def test_a_beam_option_that_does_not_exist_is_refused() -> None:
    check_options(["--runner=FlinkRunner", "--flink_master=localhost:8081"])
    with pytest.raises(UserError, match="no option --flinkmaster"):
        check_options(["--flinkmaster=x"])


def test_a_worker_that_dies_ends_the_run_by_name_instead_of_hanging_it(tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError, match=r"code 137 .* while working on .*toy 02"):
        run(tmp_path, squares(6, die=2), PoolEngine)
    done = [one.name for one in tasks_of(squares(6, die=2)) if is_finished(tmp_path, one)]
    assert "02" not in done
    assert run(tmp_path, squares(6)) == 6


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """The driver is killed where nothing can be tidied up; its two workers, one of them at work, end by themselves."""
    code = (
        "import os, sys; sys.path.insert(0, 'tests'); import toy; from pipeline.beam.pool import Pool\n"
        "pool = Pool(); pool.start(2)\n"
        "print(*[process.pid for process in pool._workers], flush=True)\n"
        "pool.submit(toy.hold, 600); os.kill(os.getpid(), 9)\n"
    )
    said = tmp_path / "said"
    with said.open("wb") as file:  # a pipe would stay open as long as the workers do
        started = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=file, timeout=120, check=False)
    pids = [int(pid) for pid in said.read_text("utf-8").split()]
    assert started.returncode == -9 and len(pids) == 2
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
