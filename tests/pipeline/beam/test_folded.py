"""Folded receipts: tables of finished tasks say what the receipts say, and never more."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import Engine, engine

from manifests.files import relative_files
from pipeline.beam import folded
from pipeline.beam import receipts as reading
from pipeline.beam.folded import FoldedReceipt, pack_receipt, read_tables, tables_for
from pipeline.beam.job import run_exchange, run_step
from pipeline.beam.receipts import read_receipt, receipts
from pipeline.beam.step import Receipt, Step, Unit, hash_key

COUNT = 11


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold from four receipts on, into tables of about three."""
    monkeypatch.setattr(folded, "FOLD_FROM", 4)
    monkeypatch.setattr(reading, "FOLD_FROM", 4)
    monkeypatch.setattr(folded, "ROWS", 3)


def squares(count: int = COUNT, **arguments: int) -> Step:
    units = [Unit(f"{n:02d}", {"number": n, **arguments}, (), n) for n in range(count)]
    return Step("toy", toy.square, units, owns=("squares",))


def plain(receipt: Receipt) -> list[Any]:
    return [receipt.fingerprint, receipt.outputs, receipt.tallies, receipt.facts, receipt.sha, hash_key(receipt)]


@pytest.mark.parametrize("name", ["a/b", 'tab\tline\nquote"é\U0001f600', "\udcff"])
def test_a_row_says_what_its_receipt_says(tmp_path: Path, name: str) -> None:
    _, _ = run_step(tmp_path, squares(1), engine(tmp_path))
    receipt = read_receipt(tmp_path, "toy", "00")
    assert receipt is not None
    receipt.facts[name] = [name, 1.5, None]
    row = pack_receipt(name, receipt)
    assert b"\n" not in row and plain(FoldedReceipt(row)) == plain(receipt)
    folded.write_table(tmp_path, "toy", [row])
    (rows,) = read_tables(tmp_path, "toy").values()
    assert list(rows) == [name] and plain(rows[name]) == plain(receipt)


def test_a_large_job_folds_each_receipt_once_and_the_driver_reads_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = run_step(tmp_path, squares(), engine(tmp_path))
    tables = read_tables(tmp_path, "toy")
    assert len(tables) <= tables_for(COUNT)
    assert sorted(itertools.chain(*tables.values())) == sorted(found) == [task.name for task in squares().tasks()]
    assert all(plain(found[name]) == plain(read_receipt(tmp_path, "toy", name)) for name in found)  # type: ignore[arg-type]
    monkeypatch.setattr(reading, "read_receipt", None)
    assert run_step(tmp_path, squares(), engine(tmp_path))[1] == 0
    assert list(receipts(tmp_path, squares().tasks())) and run_step(tmp_path, squares(), engine(tmp_path))[1] == 0


def test_an_exchange_folds_mappers_and_ranges(tmp_path: Path) -> None:
    maps = Step("toy/map", toy.scatter, [Unit(f"{n}", {"bound": n}, (), n) for n in range(9)])
    reduces = Step("toy/reduce", toy.gather, [Unit(f"{r}") for r in range(toy.RANGES)], owns=("ranges",))
    run_exchange(tmp_path, maps, reduces, engine(tmp_path))
    for step, count in (("toy/map", 9), ("toy/reduce", toy.RANGES)):
        tables = read_tables(tmp_path, step)
        assert len(list(itertools.chain(*tables.values()))) == count and len(tables) <= tables_for(count)


@pytest.mark.parametrize("damage", ["output gone", "output cut", "table cut", "tables gone", "all receipts gone"])
def test_damage_costs_at_most_the_damaged_units(tmp_path: Path, damage: str) -> None:
    run_step(tmp_path, squares(), engine(tmp_path))
    output, tables = tmp_path / "squares/05", sorted((tmp_path / folded.FOLDER).rglob("*/*"))
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
    assert not read_tables(tmp_path, "toy")
    assert run_step(tmp_path, squares(), engine(tmp_path))[1] == COUNT


def test_a_step_without_units_keeps_no_table(tmp_path: Path) -> None:
    run_step(tmp_path, squares(), engine(tmp_path))
    run_step(tmp_path, squares(0), engine(tmp_path))
    assert relative_files(tmp_path / "squares") == relative_files(tmp_path / folded.FOLDER) == []
