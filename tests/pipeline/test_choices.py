"""Engines by name: what is missing is a sentence before work starts, and an engine that loses elements is refused."""

import importlib.util
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from filters.errors import UserError
from pipeline import choices
from pipeline.__main__ import ENGINES
from pipeline.beam.engines import Engine, check_options
from pipeline.choices import CHOICES, check_engine, choose, list_engines, option

JAR, EXTERNAL = "--flink_job_server_jar=https://x/y.jar", "--environment_type=EXTERNAL"


def engine(folder: Path, *arguments: str) -> Engine:
    return Engine(1, arguments, folder / "runs/now.parts", quiet=True)


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
        ("flink", ("--flink_master=[local]", "--flink_job_server_jar=no.jar"), "needs the jar no.jar, which does not"),
        ("flink", ("--flink_master=[local]",), "needs beam-runners-flink-2.2-job-server-"),
        ("flink", ("--flink_master=[local]", "--flink_version=1.20"), "needs beam-runners-flink-1.20-job-server-"),
        (
            "flink",
            ("--flink_master=here:8081", JAR),
            "needs Python workers: start `python -m apache_beam.",
        ),
        ("flink", ("--flink_master=here:8081", JAR, EXTERNAL), "needs the address of the worker pool"),
        (
            "flink",
            ("--flink_master=here:8081", JAR, EXTERNAL, "--environment_config=here:1"),
            "needs the number of tasks that run at once",
        ),
        (
            "flink",
            ("--flink_master=here:8081", JAR, EXTERNAL, "--environment_config=localhost:1"),
            "the worker pool at",
        ),
        ("spark", (), "needs the address of the cluster: -- --spark_master_url="),
        ("spark", ("--spark_master_url=local[2]",), "needs beam-runners-spark-3-job-server-"),
        ("spark", ("--spark_master_url=spark://here:7077", "--spark_job_server_jar=https://x/y.jar"), "Python workers"),
        ("portable", ("--job_endpoint=here:8073", EXTERNAL, "--environment_config=localhost:1"), "the worker pool at"),
        ("local", ("--runner=FlinkRunner",), "are both given"),
    ],
)
def test_what_is_missing_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(choices, "_missing_java", lambda arguments: "")
    monkeypatch.setattr(
        choices,
        "_accepts_connections",
        lambda address: address.partition("://")[2].startswith("here") or address.startswith("here"),
    )
    monkeypatch.setattr(choices, "JAR_CACHE", tmp_path)
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        choose(name, engine(tmp_path, *arguments))
    assert said in str(caught.value)


def given(name: str, folder: Path, *arguments: str) -> dict[str, str]:
    """Return the Beam options with which an engine runs, by name."""
    return dict(one.lstrip("-").split("=", 1) for one in choose(name, engine(folder, *arguments)).arguments)


def test_beams_options_are_set_well_and_any_given_one_passes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "_missing_java", lambda arguments: "")
    monkeypatch.setattr(choices, "_accepts_connections", lambda address: True)
    local = ("--flink_master=[local]", JAR)
    assert given("flink", tmp_path, *local) == {
        "runner": "FlinkRunner", "flink_master": "[local]", "flink_job_server_jar": "https://x/y.jar",
        "parallelism": "1",
    }  # fmt: skip
    assert given("flink", tmp_path, *local, "--parallelism=7")["parallelism"] == "7"
    cluster = ("--flink_master=here:8081", EXTERNAL, "--environment_config=localhost:50000", "--parallelism=9")
    assert given("flink", tmp_path, *cluster).keys() == {
        "runner", "flink_master", "environment_type", "environment_config", "parallelism", "sdk_worker_parallelism",
    }  # fmt: skip
    spark = ("--spark_master_url=spark://here:7077", EXTERNAL, "--environment_config=localhost:50000")
    assert given("spark", tmp_path, *spark)["runner"] == "SparkRunner"
    assert given("spark", tmp_path, *spark, "--sdk_worker_parallelism=3")["sdk_worker_parallelism"] == "3"
    assert given("portable", tmp_path, "--job_endpoint=here:8073")["environment_type"] == "LOOPBACK"
    pool = (EXTERNAL, "--environment_config=localhost:50000")
    assert given("portable", tmp_path, "--job_endpoint=here:8073", *pool)["environment_type"] == "EXTERNAL"
    for name, arguments in (("flink", local), ("flink", cluster), ("spark", spark)):
        check_options(choose(name, engine(tmp_path, *arguments)).arguments)


def test_the_version_of_flink_is_beams() -> None:
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    assert FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS[-1] == choices.FLINK


def test_a_jar_in_beams_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "_missing_java", lambda arguments: "")
    monkeypatch.setattr(choices, "_accepts_connections", lambda address: False)
    monkeypatch.setattr(choices, "JAR_CACHE", tmp_path)
    (tmp_path / f"beam-runners-flink-2.2-job-server-{version('apache-beam')}.jar").touch()
    assert given("flink", tmp_path, "--flink_master=[local]")["runner"] == "FlinkRunner"


def test_an_engine_of_the_jvm_needs_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="engine flink needs Java 11 or newer on the PATH, or given as -- --job_server"):
        choose("flink", engine(tmp_path, "--flink_master=[local]"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine dask needs the package distributed: pip install dask distributed"):
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
        check_engine(LosingEngine(1, (), tmp_path / "runs/now.parts", quiet=True))


def test_an_engine_that_cannot_start_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LosingRunner does not run a test job \(RuntimeError: no jar at hand\)"):
        check_engine(BrokenEngine(1, (), tmp_path / "runs/now.parts", quiet=True))


def test_another_runner_passes_the_self_test(tmp_path: Path) -> None:
    other = engine(tmp_path, "--runner=apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner")
    check_engine(other)
    assert not (tmp_path / "runs/selftest").exists()


def test_options_of_a_runner_of_its_own_module_are_known() -> None:
    pytest.importorskip("dask", reason="the extra dask is not installed")
    check_options([f"--runner={choices.DASK}", "--dask_client_address=localhost:8786"])
    with pytest.raises(UserError, match="no option --dask_client_adress"):
        check_options([f"--runner={choices.DASK}", "--dask_client_adress=localhost:8786"])


@pytest.mark.parametrize("address", ["localhost:abc", "localhost:99999", "[::1", "..:80", "", "http://", "a" * 70])
def test_an_address_that_is_none_does_not_answer(tmp_path: Path, address: str) -> None:
    with pytest.raises(UserError, match="engine portable needs"):
        choose("portable", engine(tmp_path, f"--job_endpoint={address}"))


@pytest.mark.parametrize("options", [["--direct_num_workers=abc"], ["--runner"], ["--streaming=maybe"]])
def test_what_beam_refuses_is_one_sentence(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=rf"^Beam refuses [^\n]*{options[0].partition('=')[0]}[^\n]*$"):
        check_options(options)
    assert capsys.readouterr() == ("", "")


def test_what_a_killed_self_test_has_left_does_not_count(tmp_path: Path) -> None:
    left = tmp_path / "runs" / choices.SELF_TEST
    left.mkdir(parents=True)
    for number in range(choices.TESTED):
        (left / str(number)).touch()
    with pytest.raises(UserError, match="LosingRunner delivered 0 of 64 elements"):
        check_engine(LosingEngine(1, (), tmp_path / "runs/now.parts", quiet=True))


def test_what_beam_logs_of_an_engine_that_cannot_start_is_not_said_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class LoggingEngine(LosingEngine):
        def pipeline(self) -> Any:
            logging.getLogger("apache_beam").error("no jar at hand")
            raise RuntimeError("no jar at hand")

    with pytest.raises(UserError, match="no jar at hand"):
        check_engine(LoggingEngine(1, (), tmp_path / "runs/now.parts", quiet=True))
    logging.getLogger("apache_beam").error("later")
    assert [record.message for record in caplog.records] == ["later"]
