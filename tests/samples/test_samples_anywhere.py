"""The sample depends only on the version of Python, not on installed packages, locale, time or order of files."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
from corpus import ROOT

MAKE = ROOT / "samples/make.py"
SMALL = "fe28bf335335a01142fa30d08e30db0b0332a29798bf7a6721f30794fd7dbe17"
"""Digest of the small sample, the same with every Python. A change of samples/ that means to change it changes this."""
DOCUMENTED = (
    '"""A stub that documents itself."""\n\n\ndef stub():\n    """' + "Say that nobody asked for this. " * 20 + '"""\n'
)
ELSEWHERE = {
    "LC_ALL": "C",
    "TZ": "Asia/Kathmandu",
    "PYTHONHASHSEED": "random",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def digest(folder: Path) -> str:
    """Return a SHA-256 of the names and bytes of all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return found.hexdigest()


def made(out: Path, *options: str, python: tuple[str, ...] = (), umask: int = -1, **variables: str) -> str:
    """Run samples/make.py in a separate process. Return the digest of the files that it wrote."""
    command = [sys.executable, "-B", *python, str(MAKE), str(out), *options]
    kept = {name: value for name, value in os.environ.items() if name not in {*ELSEWHERE, "PYTHONPATH"}}
    subprocess.run(command, check=True, env=kept | variables, umask=umask, cwd=out.parent)
    return digest(out)


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """Return a folder of documented packages, two of which have names of modules of the standard library."""
    folder = tmp_path / "stubs"
    for name in ("stub/__init__.py", "aaa.py", "colorsys.py", "pydoc_data/__init__.py", "pydoc_data/topics.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(DOCUMENTED + "\n\ntopics = {'stub': 'No topic of Python.'}\n", encoding="utf-8")
    return folder


def test_the_small_sample_is_the_same_with_every_python(tmp_path: Path) -> None:
    """The sample is also written without site-packages, because samples/make.py needs only the standard library."""
    assert made(tmp_path / "plain", "--small", python=("-S", "-s")) == SMALL


@pytest.mark.parametrize("options", [("--small",), pytest.param((), marks=pytest.mark.slow)], ids=["small", "full"])
def test_packages_locale_time_zone_umask_and_hash_seed_change_nothing(
    tmp_path: Path, stubs: Path, options: tuple[str, ...]
) -> None:
    plain = SMALL if "--small" in options else made(tmp_path / "plain")
    assert made(tmp_path / "other", *options, umask=0o077, PYTHONPATH=str(stubs), **ELSEWHERE) == plain


@pytest.fixture(scope="module")
def documentation() -> Iterator[ModuleType]:
    with mock.patch.object(sys, "path", [str(ROOT / "samples"), *sys.path]):
        import pydoc_pages
    yield pydoc_pages


def test_only_listed_files_of_the_standard_library_are_documented(
    tmp_path: Path, documentation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Add a package in site-packages, a new module, and a package with a module's name to the library's folder."""
    library = Path(sysconfig.get_path("stdlib"))
    some = sorted({"json/__init__.py", "textwrap.py", *documentation.MODULES.read_text("utf-8").splitlines()[::8]})
    (tmp_path / "list").write_text("\n".join(some) + "\n", "utf-8")
    monkeypatch.setattr(documentation, "MODULES", tmp_path / "list")
    listed = [*some, documentation.TOPICS]
    for name in listed:
        if (library / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library / name, tmp_path / name)
    for name in ("site-packages/stub/__init__.py", "aaa.py", "textwrap/__init__.py", "json.py", "json/stub.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(DOCUMENTED, encoding="utf-8")
    before = documentation.pages()
    with mock.patch.object(documentation.sysconfig, "get_path", return_value=str(tmp_path)):
        assert documentation.pages() == before
    assert not any("nobody asked for this" in page for _, page in before)


def test_the_listed_files_are_part_of_this_python(documentation: ModuleType) -> None:
    """The list is sorted and has no file twice, and all its files exist in this version of Python."""
    library = Path(sysconfig.get_path("stdlib"))
    names = documentation.MODULES.read_text("utf-8").splitlines()
    assert names == sorted(set(names)) and len(names) > 200
    assert [name for name in [*names, documentation.TOPICS] if not (library / name).is_file()] == []
    assert set(documentation.COMPILED) <= set(sys.builtin_module_names)
