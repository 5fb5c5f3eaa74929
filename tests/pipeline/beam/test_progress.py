"""Counts of tasks as Beam counters and for people, tasks that take too long, and the status of a run."""

import fcntl
import io
import json
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import pytest
import toy
from toy import engine, run_step

from filters.errors import UserError
from manifests.files import write_atomic
from manifests.ledger import Tally
from manifests.mirror import open_mirror
from pipeline.__main__ import main
from pipeline.beam import marks, progress
from pipeline.beam.counters import LIVE, NAMESPACE, TASKS
from pipeline.beam.engines import Engine
from pipeline.beam.marks import Marks
from pipeline.beam.pool import POOLS, Called, Pool, _call
from pipeline.beam.progress import FILE, Progress, ReceiptCounts, RunStatus, read_status, status_text
from pipeline.beam.step import Step, Task, Unit
from pipeline.folder import is_held

EXPECTED = {"tasks": 4, "records": 4 * 7, "bytes": 4 * 70, "dropped/no-text": 4 * 2, "dropped/too-short": 4}
STEP = Step("toy", toy.tally, [Unit(f"{n}", {}, (), n) for n in range(4)], owns=("tallied",))


class KeepingEngine(Engine):
    """Keeps the pipelines of its jobs, and with them their results."""

    made: ClassVar[list[Any]] = []

    def pipeline(self) -> Any:
        self.made.append(super().pipeline())
        return self.made[-1]


class ThreadlessPool(Pool):
    """Calls functions at once, in this process."""

    def submit(self, function: Any, element: Any) -> "Future[Called]":
        future: Future[Called] = Future()
        future.set_result(_call(function, element))
        return future


class ThreadlessEngine(KeepingEngine):
    """Hands tasks to a pool that needs no process."""

    def pool_for(self, tasks: int, size: int) -> Pool:
        object.__setattr__(self, "pool", ThreadlessPool())
        assert id(self.pool) in POOLS
        return self.pool


@pytest.mark.parametrize("kind", [KeepingEngine, ThreadlessEngine], ids=["in this process", "in the pool"])
def test_records_bytes_and_every_drop_reason_are_beam_counters(tmp_path: Path, kind: type[KeepingEngine]) -> None:
    from apache_beam.metrics import MetricsFilter

    run_step(tmp_path, STEP, engine(tmp_path, kind=kind))
    found = kind.made.pop().result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    assert {one.key.metric.name: one.committed for one in found} == EXPECTED
    assert {one.key.step for one in found} == {"toy"}, "the engine's own display names the step"
    assert LIVE.read() == Counter(EXPECTED)


def test_receipts_give_the_same_counts_on_engines_that_tell_none(tmp_path: Path) -> None:
    counts = ReceiptCounts(tmp_path, {STEP.name}, len(STEP.units))
    assert not counts()
    run_step(tmp_path, STEP, engine(tmp_path))
    assert counts() == counts() == Counter(EXPECTED)


def test_of_a_large_job_receipts_are_counted_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "READ_RECEIPTS", len(STEP.units) - 1)
    counts = ReceiptCounts(tmp_path, {STEP.name}, len(STEP.units))
    run_step(tmp_path, STEP, engine(tmp_path))
    assert counts() == counts() == Counter({TASKS: len(STEP.units)})


def test_receipts_of_another_recipe_in_an_object_store_do_not_count(tmp_path: Path) -> None:
    """A run removes its own copies of them, and leaves the store's to be overwritten."""
    (tmp_path / "here").mkdir()
    storage = open_mirror(tmp_path / "here", f"file://{tmp_path}/store").storage
    run_step(tmp_path, STEP, engine(tmp_path))
    stored = {name: (tmp_path / f"receipts/toy/{name}.json").read_bytes() for name in ("0", "1")}
    storage.write("receipts/toy/0.json", stored["0"])
    counts = ReceiptCounts(tmp_path / "here", {STEP.name}, 2)
    assert not counts()
    storage.write("receipts/toy/0.json", stored["0"])
    assert counts()[TASKS] == 1
    storage.write("receipts/toy/1.json", stored["1"])
    assert counts()[TASKS] == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_tells_counts_and_is_silent_when_asked(tmp_path: Path) -> None:
    for quiet, terminal in ((False, io.StringIO()), (False, Terminal()), (True, io.StringIO())):
        with Progress("toy", 1, 3, lambda: Counter(EXPECTED), Marks(tmp_path), RunStatus(), terminal, quiet):
            pass
        said = terminal.getvalue()
        assert ("4 tasks" in said and "records/s" in said) is not quiet


def test_a_bar_with_many_steps_fits_a_terminal_of_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    title = progress.AND.join(["filter", "neardup/texts", "neardup/exact", "containment/sketches", "recall/copies"])
    terminal = Terminal()
    with Progress(title, 1000, 3000, Counter, Marks(tmp_path), RunStatus(), terminal, quiet=False):
        pass
    bars = [line for line in terminal.getvalue().splitlines() if "filter + neardup + …" in line]
    assert bars and all("1000/4000" in bar for bar in bars)


def test_a_task_that_takes_far_longer_than_others_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    looked = Marks(tmp_path)
    for number, (begins, ends) in enumerate([(0, 20), (0, 300), (20, 40), (40, 60)]):
        (tmp_path / f"{number}.json").write_text(json.dumps({"task": f"web/{number}", "span": (begins, ends)}), "utf-8")
    spans = {path: json.loads(path.read_text("utf-8"))["span"] for path in tmp_path.iterdir()}
    contents = {path: path.read_text("utf-8") for path in spans}
    slow: dict[int, list[str]] = {}
    for moment in range(0, 310, 10):
        now = float(moment)
        for path, (begins, ends) in spans.items():
            if begins <= moment < ends:
                path.write_text(contents[path], "utf-8")
            else:
                path.unlink(missing_ok=True)
        looked.poll()
        slow[moment] = [one.name for one in looked.slow()]
    assert slow[200] == [] and slow[210] == ["web/1"], "ten times the 20 s of the others"
    assert looked.running() == []


def test_the_mark_of_a_long_task_reaches_the_store_and_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver on another machine finds it there; a short task's mark costs no request."""
    store = (tmp_path / "store").as_uri()
    worker, driver = (open_mirror(tmp_path / machine, store) for machine in ("worker", "driver"))
    task, timings = Task("toy", "web/a", "", {}), "runs/x.parts"
    elsewhere = Marks(driver.folder / timings / marks.BEGUN, driver)
    before = dict(worker.storage.requests)
    with marks.mark_running(worker.folder / timings, task, worker):
        elsewhere.poll()
        assert elsewhere.running() == [] and worker.storage.requests["put"] == before.get("put", 0)
    monkeypatch.setattr(marks, "PUBLISH_SECONDS", 0.0)
    with marks.mark_running(worker.folder / timings, task, worker):
        deadline = time.monotonic() + 10
        while not elsewhere.running() and time.monotonic() < deadline:
            elsewhere.poll()
        assert [one.name for one in elsewhere.running()] == ["web/a"]
    elsewhere.poll()
    assert elsewhere.running() == [] and len(elsewhere.durations) == 1
    write_atomic(driver.folder / timings / marks.BEGUN / "dead.json", b'{"task": "web/b"}')
    driver.push([f"{timings}/{marks.BEGUN}/dead.json"])
    marks.remove_published(driver)
    assert not driver.storage.list_files("runs")


def test_a_slow_task_stands_in_the_line_of_progress_and_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((progress, "POLL_SECONDS"), (progress, "LINE_SECONDS"), (marks, "SLOW_SECONDS")):
        monkeypatch.setattr(module, name, 0.001)
    (tmp_path / "a.json").write_text('{"task": "web/a"}', "utf-8")
    terminal, status = io.StringIO(), RunStatus()
    status.open(tmp_path / "runs" / FILE)
    with Progress("toy", 1, 3, lambda: Counter(EXPECTED), Marks(tmp_path), status, terminal, False):
        time.sleep(0.3)
        named = [one["name"] for one in status.plain["slow"]]
    assert "5/4 tasks" in terminal.getvalue() and "web/a runs for 0 s, far longer than others" in terminal.getvalue()
    assert named == ["web/a"] and status.plain["slow"] == []


def test_looking_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.001)
    spent: list[float] = []

    def slow_listing() -> Counter[str]:
        time.sleep(0.02)
        spent.append(0.02)
        return Counter()

    with Progress("toy", 0, 1, slow_listing, Marks(tmp_path), RunStatus(), io.StringIO(), True):
        time.sleep(1.0)
    assert 2 <= len(spent) <= 4, "one look of 20 ms every 400 ms, and one at the end"


def test_steps_that_share_a_job_have_lines_of_their_own_when_it_has_ended(tmp_path: Path) -> None:
    status = RunStatus()
    status.open(tmp_path / "runs" / FILE)
    status.begin(f"extract{progress.AND}join/rows", 0, 5)
    status.update(5, Counter(EXPECTED), [], [])
    status.end_job()
    status.end_step("extract", "a", 1, Tally(Counter(records=5)))
    status.end_step("join/rows", "a", 2, Tally())
    status.end_step("join/groups", "a", 1, Tally())
    status.close(None)
    steps = read_status(tmp_path)["steps"]
    assert [(step["name"], step["total"]) for step in steps] == [("extract", 1), ("join/rows", 2), ("join/groups", 1)]
    assert steps[0]["counts"]["records"] == 5 and steps[0]["seconds"] == steps[1]["seconds"] > 0


def test_steps_of_one_name_are_added_up_and_each_counts_once(tmp_path: Path) -> None:
    status = RunStatus()
    status.open(tmp_path / "runs" / FILE)
    status.end_step("extract", "web/a", 2, Tally(Counter(records=5)))
    status.end_step("extract", "posts/joined", 1, Tally(Counter(records=7)))
    status.end_step("extract", "web/a", 2, Tally(Counter(records=4)))  # again, after a record crashed
    status.close(None)
    [step] = read_status(tmp_path)["steps"]
    assert (step["done"], step["total"], step["counts"]["records"]) == (3, 3, 11)


def test_the_status_of_a_run_that_runs_dies_fails_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no run has begun there"):
        read_status(tmp_path)
    status, place = RunStatus(), tmp_path / "runs" / FILE
    status.open(place)
    status.begin("extract", 1, 3)
    status.update(2, Counter(EXPECTED), [progress.RunningTask("web/a", 70.0)], [progress.RunningTask("web/a", 70.0)])
    status._write()
    said = status_text(tmp_path, read_status(tmp_path), True)
    assert "running for 0 s" in said and "extract  2/3 tasks" in said
    assert "28 records, 280 B, 12 dropped: no-text 8, too-short 4" in said
    assert "extract: web/a runs for 70 s, far longer than others" in said
    assert "was killed, or ended without a message: give the same command again" in status_text(
        tmp_path, read_status(tmp_path), False
    )
    status.end_job()
    status.end_step("extract", "a", 3, Tally(Counter(records=11)))
    status.end_step("url_dedup", "", 0, Tally())
    status.end_step("clusters", "all", 1, Tally())
    status.close(ValueError("too bad\nand more"))
    assert main(["status", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "failed (ValueError: too bad)" in said and "11 records" in said
    assert [line.split()[:2] for line in said.splitlines()[1:]] == [["extract", "3/3"], ["clusters", "1/1"]], "in order"
    status.close(KeyboardInterrupt())
    assert (
        status_text(tmp_path, read_status(tmp_path), False)
        .splitlines()[0]
        .endswith(": stopped: give the same command again, which continues")
    )
    status.close(None)
    assert main(["status", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"


def test_a_corpus_is_held_while_a_run_has_its_lock(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    (tmp_path / "runs").mkdir()
    with (tmp_path / "runs/lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
