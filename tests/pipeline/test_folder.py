"""The output folder: which folders are a corpus, and which a run leaves alone."""

import errno
import fcntl
import threading
from pathlib import Path

import pytest

from filters.errors import UserError
from manifests.files import relative_files
from manifests.mirror import open_mirror
from pipeline.folder import LOCK, is_held, locked, prepare, publish_code

THEIRS = {
    "logs of another program": ["runs/events.out", "documents/thesis.txt"],
    "with its own lock and status": [LOCK, "runs/status.json", "shards/a.bin"],
    "hidden files": [".git/config"],
}


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"state": "theirs"}', "utf-8")


@pytest.mark.parametrize("names", THEIRS.values(), ids=list(THEIRS))
def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path, names: list[str]) -> None:
    fill(tmp_path, names)
    with pytest.raises(UserError, match="holds files that are not a corpus"), locked(tmp_path):
        pass
    assert relative_files(tmp_path) == sorted(names)


def test_files_in_a_store_beside_a_folder_named_runs_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "store", THEIRS["logs of another program"])
    corpus = open_mirror(tmp_path / "mirror", (tmp_path / "store").as_uri()).folder
    with pytest.raises(UserError, match="holds files that are not a corpus"), locked(corpus):
        pass
    assert relative_files(tmp_path / "store") == sorted(THEIRS["logs of another program"])


def test_a_refused_run_leaves_nothing_in_a_store_that_passes_for_a_corpus(tmp_path: Path) -> None:
    corpus = open_mirror(tmp_path / "mirror", (tmp_path / "store").as_uri()).folder
    for names in ([], ["inputs/books/a.txt"]):
        fill(tmp_path / "store", names)
        with pytest.raises(UserError, match="no file matches"), locked(corpus):
            raise UserError("no file matches")
    fill(tmp_path / "store", ["documents/theirs.txt"])
    with pytest.raises(UserError, match="holds files that are not a corpus"), locked(corpus):
        pass
    publish_code(corpus)  # the first thing that a run does
    with locked(corpus):
        pass


def test_a_refused_run_leaves_nothing_that_passes_for_a_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for _ in range(2):
        with pytest.raises(UserError, match="no file matches"), locked(corpus):
            raise UserError("no file matches")
    fill(corpus, ["documents/theirs.txt"])
    with pytest.raises(UserError, match="holds files that are not a corpus"), locked(corpus):
        pass


@pytest.mark.parametrize(
    "names", [[], ["inputs/books/a.txt"], ["documents/books/a.parquet", "receipts/extract/a.json"]]
)
def test_a_run_killed_after_any_write_can_go_on(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "corpus"):
        fill(tmp_path / "corpus", names)
        raise KeyboardInterrupt
    with locked(tmp_path / "corpus"):
        pass
    (tmp_path / "other/runs").mkdir(parents=True)
    (tmp_path / "other" / LOCK).touch()  # killed between the lock and its first byte
    with locked(tmp_path / "other"):
        pass


def test_a_glance_at_a_corpus_does_not_refuse_a_run(tmp_path: Path) -> None:
    """`status` holds the lock for a moment, and a run may begin in it."""
    prepare(tmp_path / "corpus")
    with (tmp_path / "corpus" / LOCK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        glance = threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN))
        glance.start()
        with locked(tmp_path / "corpus"):
            assert is_held(tmp_path / "corpus")
        glance.join()
    assert not is_held(tmp_path / "corpus")


def test_a_file_system_without_locks_is_not_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"cannot be locked \(No locks available\): give"), locked(tmp_path):
        pass
