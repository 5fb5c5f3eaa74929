"""`launch` returns the exit code of the program instead of that of torchrun."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainer_corpus import write_corpus

from trainer.__main__ import _parse_launch, main
from trainer.checkpoint import list_checkpoints
from trainer.launch import STOPPED, launch, run_torchrun

OPTIONS = ["--model", "demo", "--sequence-length", "32", "--batch-tokens", "256"]
LAUNCH = [sys.executable, "-m", "trainer", "launch", "--nproc", "2"]


def test_words_before_the_dashes_are_torchruns() -> None:
    given, program = _parse_launch(["--nproc", "8", "--nnodes", "2", "--rdzv-id=x", "--", "train", "C", "--steps", "1"])
    assert given.nproc == 8 and given.torchrun == ["--nnodes", "2", "--rdzv-id=x"]
    assert program == ["train", "C", "--steps", "1"]


def test_the_runs_folder_is_that_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Path] = []
    monkeypatch.setattr("trainer.launch.launch", lambda options, workers, program, run: found.append(run) or 0)
    (tmp_path / "run.yaml").write_text("corpus: C\nmodel: demo\noutput: of-the-file\n", encoding="utf-8")
    for words in (["--output", "x/y"], ["--output=x/y"], ["--outp", "x/y"], ["--output", "a", "--output", "x/y"]):
        assert main(["launch", "--", "train", "--config", str(tmp_path / "run.yaml"), *words]) == 0
    assert found == [Path("x/y")] * 4, "the last one counts, as for `train` itself"
    with pytest.raises(SystemExit):
        main(["launch", "--", "train", "C", "--model", "demo"])
    assert "the following arguments are required: --output" in capsys.readouterr().err
    assert main(["launch", "--nproc", "2"]) == 2
    assert "give the command after --" in capsys.readouterr().err


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("launch") / "corpus", documents=300)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_told_to_stop_saves_and_ends_well(corpus: Path, tmp_path: Path, number: int) -> None:
    run = tmp_path / "run"
    command = [
        *LAUNCH,
        "--log-dir",
        str(run / "logs"),
        "--",
        "train",
        str(corpus),
        "--output",
        str(run),
        "--steps",
        "2000",
        *OPTIONS,
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    patience = time.monotonic() + 600
    while not (run / "metrics.csv").exists() or (run / "metrics.csv").read_bytes().count(b"\n") < 4:
        assert child.poll() is None and time.monotonic() < patience
        time.sleep(0.1)
    os.kill(child.pid, number)
    _, said = child.communicate(timeout=600)
    assert child.returncode == 0, said
    assert (
        "Traceback" not in said
        and "stopped and saved; the same command resumes it" in said
        and (run / STOPPED).is_file()
    )
    assert list((run / "logs").glob("*/attempt_0/*")), "torchrun made this folder before the run's"
    step = list_checkpoints(run)[-1][0]
    assert 3 <= step < 2000 and (run / "metrics.csv").read_bytes().count(b"\n") == step + 1


KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ("import sys; sys.exit(print('error: no such model', file=sys.stderr) or 2)", 2, "error: no such model"),
        (KILLED, 137, "rank 0 failed first, with SIGKILL"),
        ("", 0, ""),
    ],
)
def test_other_endings_keep_their_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ends: str, code: int, said: str
) -> None:
    """At most one line follows the output of a rank, and no traceback of torchrun is printed."""
    (tmp_path / STOPPED).write_text("of a run before", encoding="utf-8")
    (tmp_path / "script.py").write_text(ends, encoding="utf-8")
    assert launch([], 1, [str(tmp_path / "script.py")], tmp_path) == code
    assert not (tmp_path / STOPPED).exists()
    lines = [line for line in capfd.readouterr().err.splitlines() if "Warning" not in line]
    assert len(lines) == bool(said) and said in "".join(lines)


def test_a_port_in_use_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        assert run_torchrun(["--nproc-per-node", "1", "--nnodes", "1", "--master-port", str(port), "none.py"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: the ranks cannot meet (") and said.endswith("give another address or --master-port")
    assert str(port) in said
