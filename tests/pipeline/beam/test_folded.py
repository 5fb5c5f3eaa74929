"""Folded receipts: tables of finished tasks say what the receipts say, and never more."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from toy import Engine, engine, run_exchange, run_step, tasks_of

from filters.reasons import Reason
from manifests import storage
from manifests.files import relative_files
from manifests.ledger import Tally
from manifests.mirror import open_mirror
from manifests.storage import StorageError
from pipeline.beam import exchange, waves
from pipeline.beam import receipts as reading
from pipeline.beam.receipts import count_tables, pack_table, read_receipt, read_tables, receipts, unpack_table
from pipeline.beam.step import Files, Keyed, Output, PackedReceipts, Receipt, Step, Unit, hash_key, sum_by_source

COUNT = 11


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold from four receipts on, into tables of about three."""
    monkeypatch.setattr(reading, "FOLD_FROM", 4)
    monkeypatch.setattr(reading, "ROWS", 3)


def squares(count: int = COUNT, **arguments: int) -> Step:
    units = [Unit(f"{n:02d}", {"number": n, **arguments}, (), n) for n in range(count)]
    return Step("toy", toy.square, units, owns=("squares",))


def plain(receipt: Receipt) -> list[Any]:
    return [receipt.fingerprint, receipt.outputs, receipt.tallies, receipt.facts, receipt.sha, hash_key(receipt)]


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=()), min_size=1)


@given(st.dictionaries(NAMES, st.lists(st.tuples(NAMES, st.integers(0), NAMES))), st.dictionaries(NAMES, NAMES))
def test_a_table_says_what_receipts_were_made_of(outputs: dict[str, list[Any]], facts: dict[str, Any]) -> None:
    """Also of paths with tabs, line ends and bytes that are no UTF-8; hashes are those of a value as JSON has it."""
    tally = Tally()
    tally.enter(records=len(facts))
    tally.drop(Reason.NO_TEXT, records=len(facts))
    given = {name: [Output(*one) for one in some] for name, some in outputs.items()}
    receipts = {name: Receipt(hash_key(name), some, {name: tally}, facts) for name, some in given.items()}
    read = unpack_table(pack_table(receipts))
    assert list(read) == list(given)
    packed = PackedReceipts(given, reversed(read.items()))
    assert packed.tallies == dict.fromkeys(given, tally) == sum_by_source(read)
    assert len(packed) == len(read) and dict(packed) == read and list(packed) == list(given)
    for name, receipt in packed.items():
        key = hash_key([[[output.path, output.sha256] for output in given[name]], facts])
        assert plain(receipt) == [hash_key(name), given[name], {name: tally}, facts, key, hash_key(key)]
        assert receipt.bytes == sum(output.bytes for output in given[name])
        assert receipt.paths == [output.path for output in given[name]]
        assert receipt.output_counts(name) == tally.out and receipt == receipts[name] == pickle.loads(
            pickle.dumps(receipt)
        )


def test_units_read_files_of_a_receipt_as_if_they_were_listed() -> None:
    outputs = [Output("clean/a", 1, "x"), Output("cleaner/a", 2, "y"), Output("dropped/a", 3, "z")]
    receipt = Receipt("f", outputs, {}, {"rows": 1})
    found = PackedReceipts(["00"], [("00", receipt)])
    clean, whole = Files(found, "00", ("clean/",)), Files(found, "00")
    assert hash_key([clean]) == hash_key([receipt.files(("clean/",))]) == hash_key([[("clean/a", "x")]])
    assert hash_key([whole]) == hash_key([receipt]) and whole.list() == receipt.files()
    assert pickle.loads(pickle.dumps(clean)) == ["clean/a"]
    step = Step("toy", toy.square, [Unit("00", {"path": Keyed("p", outputs[2])}, [clean, [outputs[1]]])])
    [task] = tasks_of(step)
    complete = step.task_builder()(step.units[0], task.fingerprint)
    assert sorted(complete.files) == [(output.path, output.sha256) for output in outputs]
    assert complete._replace(files=()) == task


def test_a_large_job_folds_each_receipt_once_and_the_driver_reads_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = run_step(tmp_path, squares(), engine(tmp_path))
    tables = dict(read_tables(tmp_path, "toy"))
    assert len(tables) <= count_tables(COUNT)
    assert sorted(itertools.chain(*tables.values())) == sorted(found) == [unit.name for unit in squares().units]
    assert all(plain(found[name]) == plain(read_receipt(tmp_path, "toy", name)) for name in found)  # type: ignore[arg-type]
    monkeypatch.setattr(reading, "read_receipt", None)
    assert run_step(tmp_path, squares(), engine(tmp_path))[1] == 0
    assert (
        list(receipts(tmp_path, "toy", squares().fingerprints()))
        and run_step(tmp_path, squares(), engine(tmp_path))[1] == 0
    )


@pytest.mark.parametrize(("kind", "places"), [(Engine, 1_000), (Engine, 8), (toy.ShuffleEngine, 8)])
def test_an_exchange_folds_mappers_and_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Engine], places: int
) -> None:
    """Also with a level of merges between, for which places are few."""
    monkeypatch.setattr(exchange, "MOST_PLACES", places)
    maps = Step("toy/map", toy.scatter, [Unit(f"{n}", {"bound": n}, (), n) for n in range(9)])
    reduces = Step("toy/reduce", toy.gather, [Unit(f"{r}") for r in range(toy.RANGES)], owns=("ranges",))
    run_exchange(tmp_path, maps, reduces, engine(tmp_path, kind=kind))
    for step, count in (("toy/map", 9), ("toy/reduce", toy.RANGES)):
        tables = dict(read_tables(tmp_path, step))
        assert len(list(itertools.chain(*tables.values()))) == count and len(tables) <= count_tables(count)


def test_folding_whose_storage_fails_is_repeated_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "WAITS", [0.0])
    calls: list[int] = []

    def fail(*given: Any) -> None:
        calls.append(1)
        if len(calls) == 1 or (tmp_path / "broken").exists():
            raise OSError(5, "Input/output error", "the-disk")
        reading.fold_receipts(*given)

    monkeypatch.setattr(waves, "fold_receipts", fail)
    run_step(tmp_path, squares(), engine(tmp_path))
    assert len(list(itertools.chain(*dict(read_tables(tmp_path, "toy")).values()))) == COUNT
    (tmp_path / "broken").touch()
    with pytest.raises(StorageError, match=r"^stage toy, receipts: access to the-disk failed .* continues from here$"):
        run_step(tmp_path, squares(add=1), engine(tmp_path))
    (tmp_path / "broken").unlink()
    assert run_step(tmp_path, squares(add=1), engine(tmp_path))[1] == 0, "the tasks are finished"


@pytest.mark.parametrize("damage", ["output gone", "output cut", "table cut", "tables gone", "all receipts gone"])
def test_damage_costs_at_most_the_damaged_units(tmp_path: Path, damage: str) -> None:
    run_step(tmp_path, squares(), engine(tmp_path))
    output, tables = tmp_path / "squares/05", sorted((tmp_path / reading.TABLES).rglob("*/*"))
    if damage == "output gone":
        output.unlink()
    elif damage == "output cut":
        output.write_bytes(b"")
    elif damage == "table cut":
        tables[0].write_bytes(tables[0].read_bytes()[:-9])
    elif damage == "tables gone":
        for table in tables:
            table.unlink()
    else:
        for receipt in (tmp_path / "receipts").rglob("*.json"):
            receipt.unlink()
    found, ran = run_step(tmp_path, squares(), engine(tmp_path))
    assert ran == (1 if damage.startswith("output") else 0)
    assert list(found) == [f"{n:02d}" for n in range(COUNT)] and output.read_text("utf-8") == "25"


def test_a_table_of_another_recipe_is_gone_before_the_step_runs(tmp_path: Path) -> None:
    """Its rows would be true again for the first recipe, over outputs of the second that are as long."""
    run_step(tmp_path, squares(), engine(tmp_path))

    class Killed(Engine):
        def pipeline(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_step(tmp_path, squares(add=1), engine(tmp_path, kind=Killed))
    assert not list(read_tables(tmp_path, "toy"))
    assert run_step(tmp_path, squares(), engine(tmp_path))[1] == COUNT


def test_a_step_without_units_keeps_no_table(tmp_path: Path) -> None:
    run_step(tmp_path, squares(), engine(tmp_path))
    run_step(tmp_path, squares(0), engine(tmp_path))
    assert relative_files(tmp_path / "squares") == relative_files(tmp_path / reading.TABLES) == []


@pytest.mark.parametrize("fold_from", [4, 500])
def test_a_store_keeps_no_receipt_of_an_older_recipe_or_of_a_unit_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold_from: int
) -> None:
    """The older one would be true again for its recipe, over an output of the newer one that is as long."""
    monkeypatch.setattr(reading, "FOLD_FROM", fold_from)
    url = (tmp_path / "store").as_uri()

    def run(machine: str, step: Step, kind: type[Engine] = Engine) -> int:
        corpus = open_mirror(tmp_path / machine, url).folder
        return run_step(corpus, step, engine(corpus, kind=kind))[1]

    def stored(folder: str) -> list[str]:
        return [name.removesuffix(".json") for name in relative_files(tmp_path / "store" / folder)]

    class Killed(Engine):
        def pipeline(self) -> Any:
            raise KeyboardInterrupt

    assert run("one", squares()) == COUNT
    with pytest.raises(KeyboardInterrupt):
        run("two", squares(add=1), Killed)
    assert not stored("receipts/toy") and not stored(reading.TABLES)
    assert run("three", squares()) == COUNT
    assert run("four", squares(5)) == 0
    assert stored("receipts/toy") == stored("squares") == [f"{n:02d}" for n in range(5)]
