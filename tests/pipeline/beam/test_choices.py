"""Engines by name: what is missing is a sentence before work starts, and an engine that loses elements is refused."""

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest

from filters.errors import UserError
from manifests.manifest import load_manifest
from pipeline.__main__ import ENGINES, main
from pipeline.beam import choices
from pipeline.beam.choices import CHOICES, check_engine, choose, list_engines, option
from pipeline.beam.engines import Engine, check_options

RECIPE = """
name: tiny
seed: 1
goal_tokens: 1000
sources:
  books: {{weight: 1.0, inputs: ["{inputs}"]}}
deduplication: {{canaries: 0}}
tokenizer: {{vocabulary: 300}}
shards: {{tokens: 4096, validation: 0.1}}
"""


def engine(folder: Path, *arguments: str) -> Engine:
    return Engine(1, arguments, folder / "runs", quiet=True)


def test_every_engine_of_the_command_line_has_a_line() -> None:
    assert tuple(CHOICES) == ENGINES
    lines = list_engines().splitlines()
    assert [line.split()[0] for line in lines] == list(ENGINES)
    assert lines[0].split()[1] == "ready"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("portable", (), "needs the address of a job service"),
        ("portable", ("--job_endpoint=localhost:1",), "needs an answer from the job service at localhost:1"),
        ("flink", ("--flink_master=localhost:1",), "needs an answer from localhost:1"),
        ("flink", (), "needs the address of the cluster: -- --flink_master="),
        ("spark", (), "needs the address of the cluster: -- --spark_master_url="),
        ("local", ("--runner=FlinkRunner",), "are both given"),
    ],
)
def test_what_is_missing_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(choices, "_java", lambda: "")
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        choose(name, engine(tmp_path, *arguments))
    assert said in str(caught.value)


def test_an_engine_of_the_jvm_needs_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UserError, match="engine flink needs Java 11 or newer on the PATH or under JAVA_HOME"):
        choose("flink", engine(tmp_path, "--flink_master=[local]"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine dask needs the package distributed: pip install 'teratoken\[dask\]'"):
        choose("dask", engine(tmp_path))
    with pytest.raises(UserError, match="engine dataflow needs Beam's client for Google Cloud"):
        choose("dataflow", engine(tmp_path))


def test_options_are_found_in_both_forms() -> None:
    assert option(["--a=1", "--b", "2"], "b") == "2" and option(["--a=1"], "a") == "1" and option(["--a"], "a") == ""


class LosingEngine(Engine):
    """Runs a job on a pipeline of which the last step never happens."""

    @property
    def runner(self) -> str:
        return "LosingRunner"

    def pipeline(self) -> Any:
        return _Half()


class _Half:
    def __enter__(self) -> "_Half":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __or__(self, other: object) -> "_Half":
        return self


class BrokenEngine(LosingEngine):
    """Cannot start a job."""

    def pipeline(self) -> Any:
        raise RuntimeError("first line\nno jar at hand")


def test_an_engine_that_loses_elements_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="LosingRunner delivered 0 of 64 elements"):
        check_engine(LosingEngine(1, (), tmp_path / "runs", quiet=True))


def test_an_engine_that_cannot_start_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LosingRunner does not run a test job \(RuntimeError: no jar at hand\)"):
        check_engine(BrokenEngine(1, (), tmp_path / "runs", quiet=True))


def test_another_runner_passes_the_self_test(tmp_path: Path) -> None:
    other = engine(tmp_path, "--runner=apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner")
    check_engine(other)
    assert not (tmp_path / "runs/selftest").exists()


def test_options_of_a_runner_of_its_own_module_are_known() -> None:
    pytest.importorskip("dask", reason="the extra dask is not installed")
    check_options([f"--runner={choices.DASK}", "--dask_client_address=localhost:8786"])
    with pytest.raises(UserError, match="no option --dask_client_adress"):
        check_options([f"--runner={choices.DASK}", "--dask_client_adress=localhost:8786"])


@pytest.mark.cluster
def test_a_run_on_dask_has_the_hash_of_a_local_one(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    for number in range(12):
        draw = random.Random(number)
        words = " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(600))
        (tmp_path / f"{number}.txt").write_text(f"Book {number}. {words}.", encoding="utf-8")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.format(inputs=tmp_path / "*.txt"), encoding="utf-8")
    hashes = []
    for name in ("local", "dask"):
        out = tmp_path / name
        arguments = ["run", str(recipe), "--output", str(out), "--quiet", "--workers", "2", "--engine", name]
        assert main(arguments) == 0
        hashes.append(load_manifest(out).manifest_sha)
    assert hashes[0] == hashes[1]
