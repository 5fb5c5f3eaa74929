"""A record that kills the interpreter is found, listed and dropped by name; the result is a function of that list."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import crashes
import pytest
import toy
from corpus import ROOT, build, demo_recipe, digests
from toy import PoolEngine, engine, run_step, tasks_of

from filters.errors import UserError
from filters.formats.stored import open_stored
from filters.reasons import Reason
from manifests.manifest import Manifest
from manifests.recipe import Recipe, parse_recipe
from manifests.source import Source
from pipeline.beam import quarantine
from pipeline.beam.counters import LIVE
from pipeline.beam.engines import Engine
from pipeline.beam.pool import WorkerCrashedError, WorkerDiedError
from pipeline.beam.quarantine import (
    Place,
    RecordCrashedError,
    drop_quarantined,
    places_within,
    read_quarantine,
    record_crash,
)
from pipeline.beam.step import Step, Unit
from pipeline.beam.task import start_mark_path
from pipeline.run import run
from pipeline.sources.base import Outcome, Piece, Row, joined_for, reader_for
from pipeline.sources.inputs import Input, resolve

FATAL = {2: "segmentationfault", 7: "abortedbyassertion"}  # by line of the dump: at `extract`, at `filter`


def run_again(corpus: Path, function: Any, **arguments: Any) -> None:
    """Run a step of one task that an earlier attempt has left begun."""
    step = Step("toy", function, [Unit("books/a", arguments)])
    running = engine(corpus)
    mark = start_mark_path(running.timings, tasks_of(step)[0])
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    run_step(corpus, step, running)


@pytest.mark.parametrize("how", ["SIGSEGV", "SIGILL"])
def test_a_record_that_kills_the_interpreter_twice_is_named(tmp_path: Path, how: str) -> None:
    with pytest.raises(RecordCrashedError) as caught:
        run_again(tmp_path, crashes.die_at_record, how=how)
    assert caught.value.place == Place("books", "dump", 7, 3)


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (crashes.die_at_record, {"how": "SIGKILL"}, "signal SIGKILL at dump, byte 7"),
        (crashes.die_after_record, {"how": "SIGSEGV"}, "signal SIGSEGV, at no record that can be named"),
        (crashes.die_at_other_record, {}, "signal SIGSEGV at dump, byte 7"),
    ],
    ids=["killed from outside", "at no record", "at another record"],
)
def test_other_deaths_fail_by_name_and_blame_no_record(
    tmp_path: Path, function: Any, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(WorkerDiedError, match="stage toy, books/a: the interpreter died twice") as caught:
        run_again(tmp_path, function, **arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_task_that_does_not_die_again_is_done_and_counted(tmp_path: Path) -> None:
    run_again(tmp_path, toy.tally)
    assert (tmp_path / "tallied/books/a").exists() and LIVE.read()["records"] == 7
    assert not list((tmp_path / "runs").rglob("begun/*"))


def test_a_task_that_runs_alone_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Else it would write into a corpus that another run works on."""
    code = (
        "import pathlib, sys; sys.path.insert(0, 'tests'); import crashes\n"
        "from test_quarantine import run_again\n"
        "run_again(pathlib.Path(sys.argv[1]), crashes.write_pid_and_wait)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
    )
    told = tmp_path / "pid"
    while started.poll() is None and not told.exists():
        time.sleep(0.02)
    child = Path("/proc") / told.read_text("utf-8")
    assert child.exists()
    started.kill()
    started.wait()
    until = time.monotonic() + 30
    while child.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not child.exists()


def test_a_crash_is_learnt_from_until_that_is_of_no_use(tmp_path: Path) -> None:
    file, place = tmp_path / quarantine.FILE, Place("web", "dump", 7, 3)
    died, crashed = WorkerCrashedError("a worker died"), RecordCrashedError(quarantine.line_of(place))
    assert record_crash(file, frozenset(), died, 0) == frozenset() and not file.exists()
    held = record_crash(file, frozenset(), crashed, 1)
    assert held == read_quarantine(file) == {place}
    with pytest.raises(WorkerDiedError, match="byte 7 kills the interpreter, although it is quarantined"):
        record_crash(file, held, crashed, 2)
    with pytest.raises(WorkerDiedError, match="as 20 others did before it"):
        record_crash(file, frozenset(), crashed, quarantine.MOST_CRASHES)
    with pytest.raises(WorkerCrashedError):
        record_crash(file, frozenset(), died, quarantine.MOST_CRASHES)
    file.write_text("{}", "utf-8")
    with pytest.raises(UserError, match="is not a quarantine file"):
        read_quarantine(file)


def test_only_the_split_that_holds_a_record_depends_on_it() -> None:
    place = Place("web", "dump", 7, 3)
    assert places_within([place], "web", "dump", 0, 8) == places_within([place], "web", "dump", 7, 8) == (place,)
    for other in (("web", "dump", 8, 9), ("web", "dump", 0, 7), ("c4", "dump", 0, 8), ("web", "other", 0, 8)):
        assert places_within([place], *other) == ()
    plain = Step("toy", crashes.die_at_record, [Unit("a")])
    held = Step("toy", crashes.die_at_record, [Unit("a", quarantine=(place,))])
    assert plain.fingerprints() != held.fingerprints()


@pytest.fixture(scope="module")
def fatal(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Return a recipe over a dump of which one record kills the interpreter at `extract`, and one at `filter`."""
    folder = tmp_path_factory.mktemp("fatal")
    lines = [f"Page {n} says {FATAL.get(n, 'nothing')} about itself and {n * n} others." for n in range(12)]
    text = "".join(json.dumps({"text": line, "url": f"http://a.example/{n}"}) + "\n" for n, line in enumerate(lines))
    (folder / "a.json").write_text(text, "utf-8")
    filters = [{"crashes:CrashAtExtract": {}}, {"crashes:CrashAtFilter": {}}]
    source = {"weight": 1.0, "inputs": [str(folder / "*.json")], "filters": filters}
    plain = {"name": "x", "seed": 1, "goal_tokens": 9, "sources": {"c4": source}, "deduplication": {"canaries": 0}}
    return parse_recipe({**plain, "tokenizer": {"vocabulary": 300}, "shards": {"tokens": 4096}}, "r")


@pytest.fixture(scope="module")
def survived(fatal: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Return a corpus whose run has met both records, in worker processes."""
    corpus = tmp_path_factory.mktemp("survived") / "corpus"
    with mock.patch.object(Engine, "pool_for", PoolEngine.pool_for):
        return corpus, build(fatal, corpus)


def test_the_run_goes_on_without_the_records(survived: tuple[Path, Manifest]) -> None:
    corpus, manifest = survived
    dropped = manifest.ledger["extract"]["c4"]["dropped"]
    assert dropped["quarantined"]["records"] == len(FATAL)
    assert manifest.ledger["extract"]["c4"]["out"]["records"] == 12 - len(FATAL)
    letters = [json.loads(line) for line in (corpus / "deadletters/c4/a.json.jsonl").read_text("utf-8").splitlines()]
    listed = [json.loads(line) for line in (corpus / quarantine.FILE).read_text("utf-8").splitlines()]
    assert [letter["reason"] for letter in letters] == ["quarantined"] * len(FATAL)
    assert {letter.get("offset", 0) for letter in letters} == {place["offset"] for place in listed}


def test_the_list_gives_the_same_corpus_elsewhere(
    fatal: Recipe, survived: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """In one process, which would die at the first of them."""
    out = tmp_path / "corpus"
    done = run(fatal, out, Engine(1, (), out / "runs", quiet=True), 0, quarantined=survived[0] / quarantine.FILE)
    assert done.manifest is not None and done.quarantined == 0
    assert done.manifest.manifest_sha == survived[1].manifest_sha
    assert digests(out) == digests(survived[0])


def test_a_missing_list_is_a_mistake(fatal: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    with pytest.raises(UserError, match="none is not a file"):
        run(fatal, out, Engine(1, (), out / "runs", quiet=True), quarantined=tmp_path / "none")


def records_of(item: Input, source: Source) -> list[tuple[Piece, Outcome | Row]]:
    """Return every record of a file, cut into small pieces, with the piece that it is in."""
    joined, found = joined_for(source), list[tuple[Piece, Outcome | Row]]()
    with open_stored(Path(item.path)) as stored:
        if joined is None:
            reader = reader_for(item.source, source)
            for piece in reader.find_pieces(stored, source, 20_000):
                found += [(piece, one) for one in reader.read(stored, item.name, item.source, source, *piece)]
            return found
        survey = joined.survey(stored, item.name, source, 20_000)
        shared = joined.collect_shared(item.source, source, {item.name: survey.counts})
        for piece in survey.pieces:
            found += [(piece, one) for one in joined.read_rows(stored, item.name, source, shared, *piece)]
    return found


def test_every_reader_drops_the_record_that_is_named_and_leaves_the_others(sample: Path, tmp_path: Path) -> None:
    """The place of each file's last document or row lies within its piece, and naming it drops it with its bytes."""
    tried = set[str]()
    recipe = demo_recipe(sample)
    for name, source in recipe.sources.items():
        items = resolve(name, source.inputs, tmp_path)
        for item in items[:: 1 + len(items) // 8]:
            plain = records_of(item, source)
            wanted = [n for n, (_, one) in enumerate(plain) if isinstance(one, Row) or one.document is not None]
            if not wanted:
                continue
            (start, end, _), record = plain[wanted[-1]]
            locator = record.locator if isinstance(record, Row) or record.document is None else record.document.locator
            place = Place(name, locator.file, locator.offset, locator.length, locator.member, locator.inner_offset)
            assert places_within([place], name, item.name, start, end) == (place,)
            with drop_quarantined([place]):
                again = records_of(item, source)
            changed = [n for n, (one, other) in enumerate(zip(plain, again, strict=True)) if one != other]
            assert changed == wanted[-1:], place
            dropped = again[wanted[-1]][1]
            assert isinstance(dropped, Outcome) and dropped.reason is Reason.QUARANTINED
            assert dropped.stored == record.stored
            tried.add(name)
    assert tried == set(recipe.sources)
