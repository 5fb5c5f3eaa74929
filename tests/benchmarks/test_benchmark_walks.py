"""The benchmark `walks`: which calls the tracer counts, and that the starts and ends in WALKS exist in the code."""

import ast
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import walks
from benchmarks.data import ROOT
from benchmarks.walks import TIMED, WALKS, Tracer, Window

FIRST = """
import threading

def start():
    return [step() for _ in range(3)]

def step():
    import traced_second
    return sum(traced_second.numbers()) + traced_second.Counter().add()

def before():
    step()
    start()
    step()

def apart():
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()

def end():
    pass

def twice():
    apart()
    end()
    step()
    end()
"""
SECOND = """
def at_import():
    return 1

ONE = at_import()

def numbers():
    yield from (1, 2)
    yield ONE

class Counter:
    def add(self):
        return 1
"""


def places(path: Path) -> Iterator[str]:
    """Yield each function of a file in the form of WALKS, `FILE:FUNCTION`."""

    def inside(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(ROOT).as_posix()}:{prefix}{node.name}"
            elif isinstance(node, ast.ClassDef):
                yield from inside(node.body, f"{prefix}{node.name}.")

    return inside(ast.parse(path.read_text(encoding="utf-8")).body, "")


@pytest.mark.parametrize("name", WALKS)
def test_the_ends_of_a_walk_are_in_the_code(name: str) -> None:
    for window in WALKS[name].windows:
        for place in filter(None, (window.start, window.end)):
            path = ROOT / place.partition(":")[0]
            assert path.is_file() and place in places(path), f"{place} has moved: adapt WALKS"


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "traced_first.py").write_text(FIRST)
    (tmp_path / "traced_second.py").write_text(SECOND)
    monkeypatch.setattr(walks, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("traced_first", "traced_second"):
        sys.modules.pop(name, None)
    yield importlib.import_module("traced_first")
    for name in ("traced_first", "traced_second"):
        sys.modules.pop(name, None)


def calls_of(function: Callable[[], object], *windows: Window) -> dict[str, int]:
    tracer = Tracer(windows)
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert tracer.unreached() == []
    return tracer.calls


def test_the_files_whose_calls_do_not_count_exist() -> None:
    assert [name for name in TIMED if not (ROOT / name).is_file()] == []


def test_calls_inside_a_window_are_counted_and_imports_are_not(traced: ModuleType) -> None:
    found = calls_of(traced.before, Window("traced_first.py:start"))
    assert found == {"traced_first.py": 1 + 3, "traced_second.py": 3 * 2}, "start and steps; numbers and add"
    assert list(found) == ["traced_first.py", "traced_second.py"]


def test_a_module_first_loaded_inside_a_window_counts_by_its_functions_alone(traced: ModuleType) -> None:
    assert calls_of(traced.start, Window("traced_first.py:start"))["traced_second.py"] == 3 * 2


def test_every_call_of_a_window_counts_and_methods_are_named_by_their_class(traced: ModuleType) -> None:
    assert calls_of(traced.before, Window("traced_second.py:Counter.add")) == {"traced_second.py": 5}
    both = (Window("traced_second.py:Counter.add"), Window("traced_first.py:start"))
    assert calls_of(traced.before, *both) == {"traced_second.py": 2 + 6, "traced_first.py": 4}, (
        "nothing is counted twice"
    )


def test_another_thread_counts_only_where_the_window_says_so(traced: ModuleType) -> None:
    assert calls_of(traced.apart, Window("traced_first.py:apart")) == {"traced_first.py": 1}
    everywhere = Window("traced_first.py:apart", everywhere=True)
    assert calls_of(traced.apart, everywhere) == {"traced_first.py": 2, "traced_second.py": 2}


def test_a_window_with_an_end_of_its_own_is_open_once(traced: ModuleType) -> None:
    window = Window("traced_first.py:apart", "traced_first.py:end", everywhere=True)
    assert calls_of(traced.twice, window) == {"traced_first.py": 3, "traced_second.py": 2}


def test_ends_that_are_not_reached_are_named(traced: ModuleType) -> None:
    tracer = Tracer((Window("traced_first.py:gone"), Window("traced_first.py:start", "traced_first.py:end")))
    sys.setprofile(tracer)
    try:
        traced.start()
    finally:
        sys.setprofile(None)
    assert tracer.unreached() == ["traced_first.py:gone", "traced_first.py:end"]
