"""Jobs and the exchange: receipts, resuming, the same bytes however they run, and failures that end a run."""

import hashlib
from pathlib import Path

import pytest
import toy

from filters.errors import UserError
from manifests.files import relative_files
from pipeline.beam.engines import Engine, WorkerDiedError, check_options
from pipeline.beam.exchange import run_exchange
from pipeline.beam.task import Task, finished, read_receipt, receipts, remove_temporaries, run_tasks, sweep

PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


class ShuffleEngine(Engine):
    """Pretends that its runner has a real shuffle, so that blocks themselves are grouped."""

    in_memory = False


def engine(corpus: Path, *arguments: str, kind: type[Engine] = Engine) -> Engine:
    return kind(1, arguments, corpus / "runs/now.parts", quiet=True)


def squares(count: int, version: str = "1") -> list[Task]:
    return [Task("toy", f"{n:02d}", f"{version}-{n}", n, {"number": n}) for n in range(count)]


def digest(corpus: Path, *folders: str) -> dict[str, str]:
    names = [f"{folder}/{name}" for folder in folders for name in relative_files(corpus / folder)]
    return {name: hashlib.sha256((corpus / name).read_bytes()).hexdigest() for name in names}


def test_finished_tasks_are_not_run_again_and_changed_ones_are(tmp_path: Path) -> None:
    assert run_tasks(tmp_path, {}, squares(5), toy.square, engine(tmp_path)) == 5
    assert run_tasks(tmp_path, {}, squares(5), toy.square, engine(tmp_path)) == 0
    changed = [*squares(4), Task("toy", "04", "2-4", 4, {"number": 4})]
    assert run_tasks(tmp_path, {"add": 1}, changed, toy.square, engine(tmp_path)) == 1
    assert [(tmp_path / "squares" / name).read_bytes() for name in ("04", "03")] == [b"17", b"9"]


@pytest.mark.parametrize("damage", ["output gone", "output cut", "receipt gone", "receipt cut"])
def test_a_task_whose_files_are_not_whole_runs_again(tmp_path: Path, damage: str) -> None:
    tasks = squares(3)
    run_tasks(tmp_path, {}, tasks, toy.square, engine(tmp_path))
    before = digest(tmp_path, "squares", "receipts")
    path = tmp_path / ("squares/02" if damage.startswith("output") else "receipts/toy/02.json")
    if damage.endswith("gone"):
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert not finished(tmp_path, tasks[2])
    assert run_tasks(tmp_path, {}, tasks, toy.square, engine(tmp_path)) == 1
    assert digest(tmp_path, "squares", "receipts") == before


def test_the_sweep_removes_what_no_task_claims_and_nothing_else(tmp_path: Path) -> None:
    run_tasks(tmp_path, {}, squares(4), toy.square, engine(tmp_path))
    (tmp_path / "squares/deep").mkdir()
    (tmp_path / "squares/deep/stray").write_text("x", encoding="utf-8")
    (tmp_path / "other").write_text("x", encoding="utf-8")
    sweep(tmp_path, "toy", squares(3), ("squares",))
    assert relative_files(tmp_path / "squares") == ["00", "01", "02"]
    assert relative_files(tmp_path / "receipts") == ["toy/00.json", "toy/01.json", "toy/02.json"]
    assert not (tmp_path / "squares/deep").exists() and (tmp_path / "other").exists()


def test_temporaries_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/.abc.tmp").write_text("half", encoding="utf-8")
    (tmp_path / "shards/a.tmp").write_text("whole", encoding="utf-8")
    remove_temporaries(tmp_path)
    assert relative_files(tmp_path) == ["shards/a.tmp"]


def test_a_users_mistake_found_by_a_worker_leaves_its_sentence(tmp_path: Path) -> None:
    with pytest.raises((UserError, RuntimeError)):
        run_tasks(tmp_path, {"mistake": 2}, squares(4), toy.square, engine(tmp_path))
    assert (tmp_path / "runs/now.parts/mistake.txt").read_bytes() == b"this number is a mistake: give another"


def test_processes_give_the_same_bytes_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run_tasks(one, {}, squares(9), toy.square, engine(one))
    run_tasks(two, {}, list(reversed(squares(9))), toy.square, engine(two, *PROCESSES))
    assert digest(one, "squares", "receipts") == digest(two, "squares", "receipts")


def exchange(corpus: Path, running: Engine) -> int:
    maps = [Task("toy/map", name, name, bound, {"bound": bound}) for name, bound in (("b", 9), ("a", 5), ("c", 0))]
    reduces = [Task("toy/reduce", f"{r}", "v1") for r in range(toy.RANGES)]
    return run_exchange(corpus, {}, maps, toy.scatter, reduces, toy.gather, running)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [((), Engine), ((), ShuffleEngine), (PROCESSES, Engine)],
    ids=["files", "shuffle", "processes"],
)
def test_the_exchange_gives_the_same_bytes_by_files_by_shuffle_and_by_processes(
    tmp_path: Path, arguments: tuple[str, ...], kind: type[Engine]
) -> None:
    assert exchange(tmp_path, engine(tmp_path, *arguments, kind=kind)) == 3 + toy.RANGES
    first = (
        b"".join(n.to_bytes(8, "little") for n in (0, 4)) + b"|" + b"".join(n.to_bytes(8, "little") for n in (0, 4, 8))
    )
    assert (tmp_path / "ranges/0").read_bytes() == first, "blocks come in the order of the mappers' names"
    assert (tmp_path / "ranges/3").read_bytes() == b"", "a range without a block is reduced to an empty result"
    assert exchange(tmp_path, engine(tmp_path, *arguments, kind=kind)) == 0


def test_an_exchange_resumes_by_ranges_and_by_mappers(tmp_path: Path) -> None:
    exchange(tmp_path, engine(tmp_path))
    before = digest(tmp_path, "ranges", "receipts", "blocks")
    (tmp_path / "receipts/toy/reduce/1.json").unlink()
    assert exchange(tmp_path, engine(tmp_path)) == 1
    (tmp_path / "blocks/toy/map/a").unlink()
    assert exchange(tmp_path, engine(tmp_path)) == 1
    assert digest(tmp_path, "ranges", "receipts", "blocks") == before


def test_receipts_of_finished_tasks_hold_counts_and_facts(tmp_path: Path) -> None:
    run_tasks(tmp_path, {}, squares(2), toy.square, engine(tmp_path))
    found = receipts(tmp_path, squares(2))
    assert [found[name].facts["number"] for name in sorted(found)] == [0, 1]
    assert found["01"].tallies["toy"].entered["records"] == 1
    with pytest.raises(RuntimeError, match="left no receipt"):
        receipts(tmp_path, squares(3))
    assert read_receipt(tmp_path, "toy", "99") is None


def test_a_beam_option_that_does_not_exist_is_refused() -> None:
    check_options(["--runner=FlinkRunner", "--flink_master=localhost:8081"])
    with pytest.raises(UserError, match="no option --flinkmaster"):
        check_options(["--flinkmaster=x"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_dies_ends_the_run_by_name_instead_of_hanging_it(tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError, match=r"code 137 .* while at work on .*toy 02"):
        run_tasks(tmp_path, {"die": 2}, squares(6), toy.square, engine(tmp_path, *PROCESSES))
    done = [task.name for task in squares(6) if finished(tmp_path, task)]
    assert "02" not in done
    assert run_tasks(tmp_path, {}, squares(6), toy.square, engine(tmp_path)) == 6 - len(done)
