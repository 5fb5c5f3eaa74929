"""What is loaded from a file stands for the file as it is now, also in a process that has loaded it before."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.errors import UserError
from filters.loaded_files import keep_loaded
from filters.quality import blocklist, perplexity
from filters.quality.c4 import read_bad_words
from manifests.files import write_atomic
from pipeline.dedup.signatures import Lookup, SignatureRows


@given(st.lists(st.sampled_from(["change", "load", "load again"]), max_size=12))
def test_a_file_is_loaded_once_for_each_of_its_states(steps: list[str]) -> None:
    loads = 0

    @keep_loaded(2, lambda path: [path])
    def load(path: str) -> int:
        nonlocal loads
        loads += 1
        return states

    with pytest.MonkeyPatch.context() as patch:
        states, seen = 0, set[int]()
        patch.setattr(os, "stat", lambda path: os.stat_result((0, states, *[0] * 8)))
        for step in steps:
            if step == "change":
                states += 1
            else:
                seen.add(states)
                assert load("a file") == states and loads == len(seen)


def changed_lists(load: Callable[[Path], Any], path: Path, first: bytes, second: bytes) -> tuple[Any, Any]:
    write_atomic(path, first)
    before = load(path)
    write_atomic(path, second)
    return before, load(path)


@pytest.mark.parametrize(
    ("load", "first", "second", "expected"),
    [
        (lambda path: set(read_bad_words(str(path)).words), b"one", b"two", [{"one"}, {"two"}]),
        (lambda path: blocklist.load((str(path),)).blocks("http://a.org/"), b"a.org", b"b.org", [True, False]),
        (lambda path: perplexity.load_cutoffs(path, 30, 60), b"p,en\n30,1\n60,2\n", b"p,en\n30,3\n60,4\n",
         [{"en": (1, 2)}, {"en": (3, 4)}]),
    ],
)  # fmt: skip
def test_lists_that_change_under_their_path_count_as_they_are(
    tmp_path: Path, load: Callable[[Path], Any], first: bytes, second: bytes, expected: list[Any]
) -> None:
    assert list(changed_lists(load, tmp_path / "list", first, second)) == expected


def test_signatures_that_are_written_anew_are_read_anew(tmp_path: Path) -> None:
    """Another run in the process of this one may sign other documents in a file of the same size."""

    def write(characters: int) -> list[int]:
        rows = SignatureRows(None)
        rows.append(b"i" * 16, b"d" * 16, "x" * characters, "")
        rows.write(tmp_path / "signatures")
        found: list[int] = Lookup([tmp_path / "signatures"]).column("characters", np.array([0])).to_pylist()
        return found

    assert [write(3), write(5)] == [[3], [5]]


def test_a_model_that_appears_is_found_and_one_that_goes_is_missed(tmp_path: Path) -> None:
    files = [tmp_path / "en.sp.model", tmp_path / "en.arpa"]
    assert perplexity.find_models(str(tmp_path), "en") is None
    for file in files:
        file.touch()
    assert perplexity.find_models(str(tmp_path), "en") == tuple(map(str, files))
    files[0].unlink()
    assert perplexity.find_models(str(tmp_path), "en") is None
    with pytest.raises(UserError, match="cannot be read"):
        read_bad_words(str(tmp_path / "absent"))
