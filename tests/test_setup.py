"""Set-up: error messages of one sentence, wheels for every supported Python, and interrupted installations."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup_venv() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / ".ci/setup_venv.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BETWEEN = [pytest.param(version, marks=pytest.mark.slow) for version in ("3.12", "3.13")]


@pytest.mark.parametrize("version", ["3.11", *BETWEEN, "3.14"])
def test_wheels_exist_for_every_supported_python(version: str) -> None:
    """Resolve all packages of `make setup` for Linux from wheels only, without installing them."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--python-version", version]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--only-binary=:all:", "--extra", "dev"]
    command += ["-c", "constraints.txt", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False, timeout=600)
    unreachable = ("error sending request", "Failed to fetch", "Could not connect", "dns error", "timed out")
    if done.returncode and any(words in done.stderr for words in unreachable):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert {"apache-beam", "fasttext-community", "torch", "ufal-kenlm"} <= names


def test_an_old_python_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = (3, 9); $2" 2>&1\n', "utf-8")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make on this machine")
    done = subprocess.run(
        [make, f"PYTHON={old}", "setup"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode and "needs Python 3.11 or newer" in done.stdout + done.stderr
    assert "is 3.9: give another" in done.stdout + done.stderr and not (tmp_path / ".venv").exists()


def test_a_full_disk_is_refused_in_a_sentence(
    setup_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_venv.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * setup_venv.GIB))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(setup_venv.SetupError, match=r"has 5\.0 GiB free and the packages need 8: make room"):
        setup_venv.check_room(tmp_path / "venv", torch_installed=False)
    setup_venv.check_room(tmp_path / "venv", torch_installed=True)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://wheels.example/whl/cpu")
    setup_venv.check_room(tmp_path / "venv", torch_installed=False)


def test_a_python_without_venv_is_refused_in_a_sentence(
    setup_venv: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_venv, "runs", lambda python, code: False)
    with pytest.raises(setup_venv.SetupError, match=r"has no venv module: install it"):
        setup_venv.check_venv_module()


def test_an_interrupted_installation_is_made_anew(
    setup_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv, ran = tmp_path / "venv", list[list[str]]()

    def record(command: list[str], title: str) -> None:
        ran.append(command)
        if "venv" in command:
            (venv / "bin").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(setup_venv, "run_reporting", record)
    monkeypatch.setattr(setup_venv, "check_room", lambda venv, torch_installed: None)
    monkeypatch.setattr(setup_venv, "runs", lambda python, code: True)
    monkeypatch.setattr(setup_venv, "uv_options", lambda python: [])
    venv.mkdir()
    (venv / ".unfinished").touch()
    setup_venv.main(venv)
    assert ran[0][1:4] == ["-m", "venv", "--clear"] and not (venv / ".unfinished").exists()
    ran.clear()
    setup_venv.main(venv)
    assert not any("--clear" in command for command in ran), "a whole environment is only brought up to date"
    assert all("--only-binary=:all:" in command for command in ran) and len(ran) == 3


def test_pip_installs_where_uv_fails(setup_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv, ran = tmp_path / "venv", list[list[str]]()

    def fail_uv(command: list[str], title: str) -> None:
        ran.append(command)
        if "uv" in command[:4]:
            raise setup_venv.SetupError("no route")

    monkeypatch.setattr(setup_venv, "run_reporting", fail_uv)
    monkeypatch.setattr(setup_venv, "check_room", lambda venv, torch_installed: None)
    monkeypatch.setattr(setup_venv, "runs", lambda python, code: True)
    monkeypatch.setattr(setup_venv, "uv_options", lambda python: [])
    venv.mkdir()
    setup_venv.main(venv)
    assert [command[2] for command in ran] == ["pip", "uv", "pip", "uv", "pip"]


def test_uv_reads_the_indexes_of_pip(setup_venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://one.example/simple https://two.example/simple")
    options = setup_venv.uv_options(Path(sys.executable))
    assert options[options.index("https://one.example/simple") - 1] == "--extra-index-url"
    assert options[options.index("https://two.example/simple") - 1] == "--extra-index-url"


def test_a_failed_installation_says_what_pip_said(setup_venv: ModuleType) -> None:
    code = "print('no matching distribution'); raise SystemExit(3)"
    with pytest.raises(setup_venv.SetupError, match=r"no matching distribution\npip install failed"):
        setup_venv.run_reporting([sys.executable, "-c", code], "pip install")
