"""The pipeline's command line: every mistake is one sentence, exit code 2, before any work."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from corpus import ROOT

from pipeline.__main__ import STAGES, _print_traceback, _stop, main

RECIPE = """
name: x
seed: 1
goal_tokens: 1000
sources:
  books:
    weight: 1.0
    inputs: ["{books}"]
tokenizer: {{vocabulary: 400}}
"""
PROSE = "The keeper walked down to the harbour and counted the boats, as she did every evening of the year.\n"


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"Book number {number}.\n" + PROSE * (30 + number), encoding="utf-8")
    return folder


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def mistake(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said, said
    for expected in words:
        assert expected in said


def test_a_mistyped_key(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = RECIPE.format(books=books / "*.txt").replace("weight", "wieght")
    out = tmp_path / "out"
    mistake(capsys, ["run", write(tmp_path, text), "--output", str(out)], "sources.books.wieght", "'weight'")
    assert not out.exists()


def test_a_missing_input(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write(tmp_path, RECIPE.format(books=books / "*.gz"))
    mistake(capsys, ["run", recipe, "--output", str(tmp_path / "out")], "no file matches", "*.gz")
    mistake(capsys, ["run", recipe, "--output", str(tmp_path / "out"), "--input", "books=~no-such-user/x"], "no file")
    mistake(capsys, ["plan", recipe, "--input", "books=~no-such-user/x"], "no file matches '~no-such-user/x'")
    nowhere = ["run", recipe, "--output", str(tmp_path / "out"), "--input", "bokks=x"]
    mistake(capsys, nowhere, "no source 'bokks', only books")
    mistake(capsys, [*nowhere[:-1], "books"], "is not SOURCE=GLOB")


def test_a_recipe_without_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write(tmp_path, RECIPE.format(books="").replace('[""]', "[]"))
    mistake(
        capsys, ["run", recipe, "--output", str(tmp_path / "out")], "the recipe has no inputs", "--input books=GLOB"
    )


def test_a_recipe_whose_dumps_are_not_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["run", str(ROOT / "recipes/llama.yaml"), "--output", "out", "--only", "c4"]
    mistake(capsys, arguments, "source c4: no file matches", "dumps/en/*.json.gz")
    arguments[-1:] = ["c4", "books"]
    mistake(capsys, arguments, "no file matches the inputs of books '", ".txt', c4 '", "dumps/en/*.json.gz': check")


@pytest.mark.parametrize("model", ["none.bin", "recipe.yaml"])
def test_an_unreadable_model(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    text = RECIPE.format(books=books / "*.txt").replace(
        "weight: 1.0", f"weight: 1.0\n    filters: [language: {{model: {tmp_path / model}}}]"
    )
    mistake(capsys, ["run", write(tmp_path, text), "--output", str(tmp_path / "out")], "language model", model)
    text = RECIPE.format(books=books / "*.txt").replace("vocabulary: 400", f"path: {tmp_path / model}")
    mistake(capsys, ["run", write(tmp_path, text), "--output", str(tmp_path / "out")], "tokenizer", model)
    text = RECIPE.format(books=books / "*.txt").replace(
        "weight: 1.0", f"weight: 1.0\n    filters: [c4, bad_words: {tmp_path / 'no-list'}]"
    )
    mistake(capsys, ["run", write(tmp_path, text), "--output", str(tmp_path / "out")], "bad_words: ", "no-list")


def test_an_output_that_is_no_corpus_is_left_alone(
    tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, RECIPE.format(books=books / "*.txt"))
    mistake(capsys, ["run", recipe, "--output", str(books)], "holds files that are not a corpus")
    mistake(capsys, ["run", recipe, "--output", recipe], "is a file")
    assert len(list(books.iterdir())) == 3


def test_an_output_below_the_inputs_glob(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its files would be read as dumps, and change while they are read."""
    recipe = write(tmp_path, RECIPE.format(books=books / "**"))
    mistake(capsys, ["run", recipe, "--output", str(books / "out")], "lock lies in the output folder: give another")
    stored = write(tmp_path, RECIPE.format(books=f"{books.as_uri()}/**"))
    (books / "store/runs").mkdir(parents=True)
    (books / "store/runs/lock").write_text('{"teratoken_corpus":1}', encoding="utf-8")
    arguments = ["run", stored, "--output", f"{books.as_uri()}/store"]
    mistake(capsys, arguments, f"source books: {books.as_uri()}/store/runs/", "lies in the output folder")


def test_an_unknown_beam_option(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write(tmp_path, RECIPE.format(books=books / "*.txt"))
    mistake(capsys, ["run", recipe, "--output", str(tmp_path / "o"), "--", "--rnner=X"], "no option --rnner")


@pytest.mark.parametrize("words", [["stray"], ["--flink_master=[local]", "stray"], ["--streaming", "--x=1", "y"]])
def test_a_stray_word_among_beam_options(
    tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    recipe = write(tmp_path, RECIPE.format(books=books / "*.txt"))
    arguments = ["run", recipe, "--output", str(tmp_path / "o"), "--", *words]
    mistake(capsys, arguments, f"{words[-1]!r} after `--` is not an option")


def test_rates_without_a_limit(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write(tmp_path, RECIPE.format(books=books / "*.txt"))
    mistake(capsys, ["run", recipe, "--output", str(tmp_path / "o"), "--rates", "none"], "--rates needs --max-cost")


def test_a_url_with_a_slash_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "recipe.yaml", "--output", "s3:/bucket/x"]) == 2
    assert "write s3://bucket/x" in capsys.readouterr().err


def test_all_documents_dropped(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = RECIPE.format(books=books / "*.txt").replace(
        "weight: 1.0", "weight: 1.0\n    filters: [min_characters: 90000]"
    )
    arguments = ["run", write(tmp_path, text), "--output", str(tmp_path / "out"), "--quiet"]
    mistake(capsys, arguments, "no document was kept (books: 3 of 3 records were dropped as")


def test_kill_ends_a_command_with_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.choices.list_engines", lambda: _stop(signal.SIGTERM, None))
    assert main(["engines"]) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_vocabulary_too_large_for_the_text(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found by a worker in the middle of the run: the sentence arrives all the same."""
    recipe = write(tmp_path, RECIPE.format(books=books / "*.txt").replace("400", "30000"))
    arguments = ["run", recipe, "--output", str(tmp_path / "out"), "--quiet"]
    mistake(capsys, arguments, "no tokenizer of 30,000 pieces", "lower tokenizer.vocabulary")


def test_tracing_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mistake(capsys, ["trace", str(tmp_path), "books/train-00000-of-00001.arrow", "0"], "has no manifest.json")


def test_a_run_a_second_run_and_a_trace(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = write(tmp_path, RECIPE.format(books=books / "*.txt")), str(tmp_path / "out")
    assert main(["run", recipe, "--output", out, "--quiet"]) == 0
    first = capsys.readouterr().out
    assert "balanced" in first and "built in" in first
    assert main(["status", out]) == 0
    assert re.search(r"out: finished\n.*^extract +\d+/\d+ tasks .* records", capsys.readouterr().out, re.S | re.M)
    assert main(["run", recipe, "--output", out, "--quiet"]) == 0
    second = capsys.readouterr().out
    assert "nothing to do, already finished" in second and first.split()[-1] == second.split()[-1]
    again = f"main({['run', recipe, '--output', out, '--quiet']})"
    loaded = "print(sorted({'apache_beam', 'grpc', 'pandas', 'torch'} & sys.modules.keys()))"
    code = f"import sys; from pipeline.__main__ import main; {again}; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert "nothing to do" in done.stdout and done.stdout.endswith("[]\n"), "importing them costs more CPU than the run"
    trace = ["trace", out, "books/train-00000-of-00001.arrow", "7"]
    assert main(trace) == 0
    assert "the same" in capsys.readouterr().out
    changed = next(books.iterdir())
    for path in books.iterdir():
        path.write_text(path.read_text(encoding="utf-8").replace("keeper", "kepper"), encoding="utf-8")
    assert main([*trace, "--json"]) == 1
    assert '"same": false' in capsys.readouterr().out
    mistake(capsys, [*trace, "--input", f"boks={books}"], "the corpus has no source 'boks', only books")
    for path in books.iterdir():
        path.rename(tmp_path / path.name)
    mistake(capsys, trace, "no file matches")
    assert not changed.exists()


def test_a_corpus_that_another_run_is_writing_is_left_to_it(
    tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write(tmp_path, RECIPE.format(books=books / "*.txt")), tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    with (out / "runs/lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        mistake(capsys, ["run", recipe, "--output", str(out)], "another run is writing")
    assert main(["run", recipe, "--output", str(out), "--quiet"]) == 0


def _keyboard_heard() -> None:
    """In a child: what starts in the background of a script ignores the keyboard, and its children with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("victim", ["worker", "main"])
def test_a_run_broken_off_ends_at_once_and_goes_on_later(tmp_path: Path, books: Path, victim: str) -> None:
    """A worker killed, or the keyboard: the process ends although its other worker is still at work."""
    if victim == "worker" and not shutil.which("pgrep"):
        pytest.skip("pgrep is not installed")
    recipe, out = write(tmp_path, RECIPE.format(books=books / "*.txt")), tmp_path / "out"
    for number in range(22):
        (books / f"more-{number}.txt").write_text(PROSE * 2000 + str(number), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline", "run", recipe, "--output", str(out), "--workers", "2"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True, preexec_fn=_keyboard_heard
    )
    while process.poll() is None and not list((out / "receipts").rglob("*.json")):
        time.sleep(0.01)
    if victim == "main":
        process.send_signal(signal.SIGINT)
    else:
        while process.poll() is None:
            listed = ["pgrep", "-g", str(process.pid), "-f", "multiprocessing.forkserver"]
            workers = subprocess.run(listed, capture_output=True, encoding="utf-8").stdout.split()
            if len(workers) > 1:  # the fork server, then its children
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.kill(int(workers[-1]), signal.SIGKILL)
                    process.wait(30)
    _, said = process.communicate(timeout=600)
    assert process.returncode == (130 if victim == "main" else 1), said
    assert ("stopped: " if victim == "main" else "a worker process ended with code 137") in said
    assert "Traceback" not in said
    assert main(["run", recipe, "--output", str(out), "--quiet"]) == 0


def test_one_stage_at_a_time(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = write(tmp_path, RECIPE.format(books=books / "*.txt")), tmp_path / "out"
    for stage in STAGES:
        assert main(["run", recipe, "--output", str(out), "--stage", stage, "--quiet"]) == 0
        assert f"stage {stage} is finished" in capsys.readouterr().out
        assert not (out / "manifest.json").exists()
    assert (out / "shards").is_dir()
    assert main(["run", recipe, "--output", str(out), "--quiet"]) == 0


def test_a_file_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = write(tmp_path, RECIPE.format(books=books / "*.txt")), tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / "runs/lock").write_text('{"teratoken_corpus":1}', encoding="utf-8")
    (out / "manifest.json").mkdir()
    monkeypatch.setenv("TERATOKEN_SCRATCH", str(books / "0.txt"))
    for place, said in ((str(out), "Is a directory"), (f"file://{tmp_path}/store", "File exists")):
        assert main(["run", recipe, "--output", place]) == 1
        assert re.fullmatch(rf"error: run: access to /.* failed \({said}\): [^\n]*\n", capsys.readouterr().err)
    assert main(["status", "x" * 300]) == 1
    assert "File name too long" in capsys.readouterr().err
    (out / "runs/status.json").write_text("{}", encoding="utf-8")
    mistake(capsys, ["status", str(out)], "it is no status")


def test_the_end_of_a_grpc_connection_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def run(module: str) -> str:
        code = compile("raise ValueError('Channel closed!')", "channel", "exec")
        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setattr(threading, "excepthook", _print_traceback)
        thread = threading.Thread(target=exec, args=(code, {"__name__": module}))
        thread.start()
        thread.join()
        monkeypatch.undo()
        return capsys.readouterr().err

    assert run("grpc._channel") == ""
    assert "ValueError: Channel closed!" in run("pipeline.beam.progress")
