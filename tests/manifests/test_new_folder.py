"""Test `new_folder`: the folder appears complete, or not at all, and the error message names the file that failed."""

import errno
import os
from pathlib import Path

import pytest

from filters.errors import UserError
from manifests.files import new_folder, relative_files


def fail(code: int, path: Path | str | None = None) -> None:
    raise OSError(code, os.strerror(code), path) if path else OSError(code, os.strerror(code))


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a/new") as folder:
        (folder / "x").write_text("1", "utf-8")
        assert not (tmp_path / "a/new").exists()
    assert (tmp_path / "a/new/x").read_text("utf-8") == "1" and len(list((tmp_path / "a").iterdir())) == 1


@pytest.mark.parametrize(
    ("code", "file", "words"),
    [
        (13, "new/deep/x", "{0}/out/deep/x cannot be written (Permission denied): make room there, or give another"),
        (28, "", "{0}/out cannot be written (No space left on device): make room there, or give another folder"),
        (5, "model.bin", "{0}/model.bin cannot be read (Input/output error): check the path, the disk and the perm"),
        (5, "", "a read or write failed while {0}/out was made (Input/output error): check the disks"),
    ],
)
def test_the_file_that_failed_is_named(tmp_path: Path, code: int, file: str, words: str) -> None:
    with pytest.raises(UserError) as raised, new_folder(tmp_path / "out") as folder:
        fail(code, file and str(folder / file[4:] if file.startswith("new/") else tmp_path / file))
    assert str(raised.value).startswith(words.format(tmp_path)) and not list(tmp_path.iterdir())


def test_a_folder_above_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file(/out)? cannot be written \(Not a directory\)"),
        new_folder(tmp_path / "file/out"),
    ):
        pass


def test_files_of_a_folder_that_cannot_be_listed_do_not_pass_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").touch()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("b"):
            fail(code, path)
        return real(path)

    assert relative_files(tmp_path) == ["a/b/c"] and relative_files(tmp_path / "a/b/c") == []
    monkeypatch.setattr(os, "scandir", scandir)
    for code in (errno.EIO, errno.EACCES):
        with pytest.raises(OSError, match=os.strerror(code)):
            relative_files(tmp_path)
    code = errno.ENOENT  # The folder was removed after its name was listed.
    assert relative_files(tmp_path) == []
