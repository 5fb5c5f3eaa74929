"""The command `evaluate`, from published files to results: records, errors and downloads."""

import functools
import gzip
import http.server
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_files import write_benchmarks
from safetensors.torch import load_file, save_file
from small_tokenizers import trained
from trainer_corpus import write_text_corpus

from benchmarks.evaluation import write_random_model
from filters.errors import UserError
from manifests.manifest import load_manifest
from manifests.sizes import Preset, get_preset
from trainer.__main__ import main
from trainer.evaluation import confine, harness, judges
from trainer.evaluation import evaluate as module
from trainer.evaluation.engine import Engine
from trainer.evaluation.evaluate import ITEMS, Options, TaskRun, evaluate, prepare, score_texts
from trainer.evaluation.items import Item
from trainer.evaluation.layouts import download, load_items
from trainer.evaluation.models import EvaluatedModel, find_model, open_engine
from trainer.evaluation.results import summarize
from trainer.evaluation.tasks import TASKS, select_tasks
from trainer.evaluation.training import evaluate_step, prepare_runs
from trainer.model import Llama

RANKED = [
    "boolq",
    "piqa",
    "siqa",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "openbookqa",
    "mmlu",
    "crows_pairs",
    "winogender",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    write_random_model(folder, Preset(32, 2, 2, 1e-3, multiple=32), trained(), 256)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["evaluate", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_scores_and_tells_what_it_cannot(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, llama, "--data", data, "--output", tmp_path, "--shots", "0", "--samples", "2")
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    names = [one["name"] for one in results["runs"]]
    assert code == 0 and {"boolq", "race_high", "gsm8k 0-shot", "mmlu 0-shot"} <= set(names)
    assert "give --judge toxicity=PATH" in results["not_scored"]["realtoxicityprompts"]
    assert "give --run-code" in results["not_scored"]["humaneval"]
    assert not set(names) & set(results["not_scored"])
    source = find_model(llama)
    assert results["model"] == {"sha256": source.sha256, "manifest_sha": "", "step": 0}
    boolq = next(one for one in results["runs"] if one["name"] == "boolq")
    assert (boolq["questions"], boolq["published_questions"], boolq["comparable_with_paper"]) == (2, 3270, False)
    assert boolq["paper"][""]["65B"] == 85.3 and "| boolq" in out and "85.3" in out
    assert "boolq: 2 of the 3,270 published questions; not distinguishable from chance" in out
    assert boolq["metrics"]["bits per byte"]["value"] > 1
    gsm8k = next(one for one in results["runs"] if one["name"] == "gsm8k 0-shot")
    assert gsm8k["paper"] == {}  # the paper shows eight examples


def test_files_are_read_once_for_all_numbers_of_examples(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(*arguments: Any, **more: Any) -> list[Item]:
        read.append(more)
        return load_items(*arguments, **more)

    monkeypatch.setattr(module, "load_items", counted)
    runs, refused = prepare(select_tasks(["natural_questions"]), data, Options(shots=(0, 1)))
    assert [run.shots for run in runs] == [0, 1] and not refused and len(read) == 2


def test_the_work_of_a_summary_grows_with_questions_times_groups() -> None:
    """MMLU has 14,042 questions in 61 groups."""
    looked_at = 0

    class Groups(list[str]):
        def __contains__(self, name: object) -> bool:
            nonlocal looked_at
            looked_at += 1
            return super().__contains__(name)

    items = [Item({}, ("a", "b"), groups=("all", f"group {number % 2}")) for number in range(60)]
    keys = [str(number) for number in range(60)]
    run = TaskRun("mmlu", TASKS["mmlu"], 5, items, [], keys)
    scores = [{"accuracy": float(number % 3 == 0)} for number in range(60)]
    records = {
        key: {"groups": Groups(item.groups), "scores": score, "truncated": False}
        for key, item, score in zip(keys, items, scores, strict=True)
    }
    (found,) = summarize(EvaluatedModel(Path(), "", "", 0, lambda: pytest.fail()), [run], records, {})["runs"]
    assert {name: group["count"] for name, group in found["groups"].items()} == {
        "all": 60,
        "group 0": 30,
        "group 1": 30,
    }
    assert looked_at == 60 * 3


def test_an_interrupted_run_continues_where_it_stopped(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(shots=(0,))
    source = find_model(llama)
    runs, _ = prepare(select_tasks(RANKED), data, options)

    def load() -> Engine:
        return open_engine(source, "cpu", "fp32")

    whole = evaluate(source, load, runs, tmp_path / "whole", options)
    rank_batch, calls = Engine._score_batch, 0

    def fails_later(self: Engine, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise KeyboardInterrupt
        return rank_batch(self, *arguments)

    monkeypatch.setattr(Engine, "_score_batch", fails_later)
    with pytest.raises(KeyboardInterrupt):
        evaluate(source, load, runs, tmp_path / "cut", options)
    monkeypatch.setattr(Engine, "_score_batch", rank_batch)
    kept = (tmp_path / "cut" / ITEMS).read_text(encoding="utf-8")
    assert kept.count("\n") > 0
    (tmp_path / "cut" / ITEMS).write_text(kept + '{"model": "trunc', encoding="utf-8")
    assert evaluate(source, load, runs, tmp_path / "cut", options) == whole
    after = (tmp_path / "cut" / ITEMS).read_text(encoding="utf-8")
    assert after.startswith(kept)  # No record is written twice.
    assert len(after.splitlines()) == len(whole) + 1

    def never() -> Engine:
        raise AssertionError("all questions have records")

    assert evaluate(source, never, runs, tmp_path / "cut", options) == whole


def test_a_question_whose_right_answer_was_corrected_is_scored_anew(llama: Path, data: Path, tmp_path: Path) -> None:
    files, found = shutil.copytree(data, tmp_path / "data"), []
    for label in ("0", "1"):
        (files / "piqa/dev-labels.lst").write_text(f"{label}\n", encoding="utf-8")
        runs, _ = prepare(select_tasks(["piqa"]), files, Options())
        source = find_model(llama)
        records = evaluate(source, lambda: open_engine(source, "cpu", "fp32"), runs, tmp_path, Options())  # noqa: B023
        found.append(records[runs[0].keys[0]]["scores"]["accuracy"])
    assert sorted(found) == [0.0, 1.0]


def test_another_model_after_the_same_step_is_evaluated_anew(data: Path, tmp_path: Path) -> None:
    corpus, scores = write_text_corpus(tmp_path / "corpus", 600), []
    model = Llama(get_preset("dim=32,layers=1,heads=2"), 600)
    options = {"run": tmp_path / "run", "corpus": corpus, "length": 64, "is_first": True}
    (tmp_path / "run").mkdir()
    runs = prepare_runs(["boolq"], data, 5)
    # The last model has other weights after the same step, as after a resume from an older checkpoint.
    for scale in (1.0, 1.0, 3.0):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        told = []
        scores.append(evaluate_step(model, 4, lambda works: told.append(works) or works, runs=runs, **options))  # noqa: B023
        assert told == [True] * (0 if len(scores) == 2 else len(runs[0].items)) + [False]
    assert scores[0] == scores[1] != scores[2]
    flags = iter([True, True, False])
    assert evaluate_step(model, 4, lambda _: next(flags), runs=runs, **{**options, "is_first": False}) == {}
    assert not list(flags), "the others wait until the first rank is ready"


def test_a_limit_draws_a_part_of_what_a_larger_one_draws(data: Path) -> None:
    def names(limit: int) -> set[str]:
        [one], _ = prepare([TASKS["winogender"]], data, Options(limit=limit))
        return {item.name for item in one.items}

    assert len(names(2)) == 2 and names(2) < names(3) < names(9)


def test_another_tokenizer_file_gives_the_same_scores(llama: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra dev)")
    other = shutil.copytree(llama, tmp_path / "other")
    (other / "tokenizer.model").unlink()
    options = Options(shots=(0,))
    runs, _ = prepare(select_tasks(["boolq", "piqa"]), data, options)
    found = []
    for number, folder in enumerate((llama, other)):
        source = find_model(folder)
        records = evaluate(source, lambda: open_engine(source, "cpu", "fp32"), runs, tmp_path / str(number), options)  # noqa: B023
        found.append({key: {**record, "model": ""} for key, record in records.items()})
    assert found[0] == found[1]


def test_likelihoods_that_are_not_finite_are_no_scores(llama: Path, data: Path, tmp_path: Path) -> None:
    """Otherwise no choice would be better than the first, so the first one would be chosen."""
    runs, _ = prepare(select_tasks(["piqa"]), data, Options())
    engine = open_engine(find_model(llama), "cpu", "fp32")
    with torch.no_grad():
        engine.model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="the model's likelihoods are not finite"):
        evaluate(find_model(llama), lambda: engine, runs, tmp_path, Options())
    assert not (tmp_path / ITEMS).read_bytes()


MISTAKES = {
    "unknown task": (["{llama}", "--tasks", "bolq"], "--tasks bolq is not known"),
    "no data": (["{llama}", "--data", "{nowhere}"], "holds no benchmark"),
    "missing file": (["{llama}", "--data", "{nowhere}", "--tasks", "piqa"], "has no dev.jsonl"),
    "no model": (["{nowhere}", "--data", "{data}", "--tasks", "piqa"], "holds no checkpoint"),
    "nothing": ([], "give a MODEL"),
    "no judge": (["{llama}", "--data", "{data}", "--tasks", "truthfulqa"], "give --judge truthful=PATH"),
    "too few samples": (
        ["{llama}", "--data", "{data}", "--tasks", "mbpp_80", "--run-code", "--samples", "3"],
        "give --samples 80",
    ),
    "no classifier": (["{llama}", "--data", "{data}", "--judge", "toxicity={nowhere}"], "cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_sentence(
    mistake: str, llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = MISTAKES[mistake]
    code, _, error = run(capsys, *(one.format(llama=llama, data=data, nowhere=tmp_path / "no") for one in arguments))
    assert code == 2 and expected in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"intermediate_size": 64}, "intermediate_size 64"),
        ({"rope_theta": 500_000.0}, "rotary base 500000.0"),
        ({"model_type": "mistral"}, "model_type mistral"),
        ({"hidden_size": None}, "no readable config.json"),
    ],
)
def test_models_that_are_computed_otherwise_are_refused(
    llama: Path, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    other = shutil.copytree(llama, tmp_path / "other")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(UserError, match=expected):
        find_model(other).open()


def test_heads_that_share_keys_and_values_are_computed(llama: Path, tmp_path: Path) -> None:
    shared, whole = (shutil.copytree(llama, tmp_path / name) for name in ("shared", "whole"))
    tensors = load_file(llama / "model.safetensors")
    few = {name: tensor[:16] if ".k_proj" in name or ".v_proj" in name else tensor for name, tensor in tensors.items()}
    save_file(few, shared / "model.safetensors")
    save_file(
        {name: torch.cat([few[name]] * (32 // len(few[name]))) if len(few[name]) == 16 else few[name] for name in few},
        whole / "model.safetensors",
    )
    config = json.loads((shared / "config.json").read_text(encoding="utf-8")) | {"num_key_value_heads": 1}
    (shared / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokens = torch.arange(20)[None]
    first, second = (find_model(folder).open()[0](tokens) for folder in (shared, whole))
    assert torch.equal(first, second)


@pytest.mark.skipif(bool(confine.find_obstacle()), reason=confine.find_obstacle())
def test_programs_are_run_with_their_tests(data: Path) -> None:
    humaneval, mbpp = TASKS["humaneval"], TASKS["mbpp"]
    item = load_items(humaneval.data, data)[0]
    two = replace(humaneval, decoding=replace(humaneval.decoding, samples=2))
    texts = ["    return 2 * x\n", "    return x\n"]
    assert score_texts(two, item, texts, Options()) == {"pass@1": 0.5}
    assert score_texts(mbpp, load_items(mbpp.data, data)[0], ["def add(x):\n  return x + 11\n"], Options()) == {
        "pass@1": 1.0
    }


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import fasttext

    folder = tmp_path_factory.mktemp("judges")
    (folder / "lines").write_text("__label__toxic awful\n__label__clean lovely\n" * 20, encoding="utf-8")
    model = fasttext.train_supervised(str(folder / "lines"), epoch=20, lr=1.0, dim=4, minCount=1, thread=1, verbose=0)
    model.save_model(str(folder / "judge.bin"))
    return folder / "judge.bin"


def test_a_judge_rates_and_is_named_in_the_results(
    classifier: Path, llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = judges.open_judge("toxicity", classifier)
    bad, good = judge.rate(["awful\nawful", "lovely"])
    assert bad > 0.9 and good < 0.1
    task = TASKS["realtoxicityprompts"]
    assert score_texts(task, Item({}), ["awful"], Options(judges={"toxicity": judge}))["toxicity"] > 0.9
    options = ["--data", data, "--output", tmp_path, "--tasks", "realtoxicityprompts"]
    code, out, _ = run(capsys, llama, *options, "--judge", f"toxicity={classifier}")
    assert code == 0 and "rated by a classifier of yours, not comparable with the paper" in out


def test_a_judge_without_the_label_or_that_fails_is_an_error(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="has the labels __label__toxic, __label__clean"):
        judges.open_judge("truthful", classifier)
    for rates, expected in (
        (None, "failed"),
        ([{"toxic": float("nan")}], "not probabilities"),
        ([], "not probabilities"),
    ):
        monkeypatch.setattr(judges, "_open_fasttext", lambda _: (["toxic"], lambda texts: list(rates)))  # noqa: B023
        with pytest.raises(UserError, match=expected):
            judges.open_judge("toxicity", classifier).rate(["text"])


def test_truthfulness_needs_both_judges(classifier: Path) -> None:
    def rates(value: float) -> judges.Judge:
        return judges.Judge("", lambda texts: [value] * len(texts))

    item = Item({"question": "Do kettles boil?"})
    for truthful, informative, both in ((0.9, 0.9, 1.0), (0.9, 0.1, 0.0), (0.1, 0.9, 0.0)):
        by = {"truthful": rates(truthful), "informative": rates(informative)}
        scores = score_texts(TASKS["truthfulqa"], item, [" Yes."], Options(judges=by))
        assert scores == {"truthful": float(truthful > 0.5), "truthful and informative": both}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Yield a folder and the URL at which a server publishes it."""
    (tmp_path / "published").mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "published"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield tmp_path / "published", f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("archive", ["data.zip", "data.tar.gz"])
def test_archives_are_fetched_and_only_the_files_that_are_read_are_kept(
    archive: str, server: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    published, url = server
    names = ("dev.jsonl", "dev-labels.lst", "train.jsonl", "train-labels.lst")
    members = {f"piqa-train-dev/{name}": (data / "piqa" / name).read_bytes() for name in names}
    write_archive(published / archive, {**members, "piqa-train-dev/README": b"-"})
    piqa = replace(TASKS["piqa"].data, urls=(f"{url}/{archive}",))
    assert len(download(piqa, tmp_path / "to")) == 4
    assert sorted(path.name for path in (tmp_path / "to").rglob("*") if path.is_file()) == sorted(names)
    assert [item.fields for item in load_items(piqa, tmp_path / "to")] == [
        item.fields for item in load_items(piqa, data)
    ]
    assert download(piqa, tmp_path / "to") == []


def test_an_archive_whose_unpacking_was_interrupted_is_unpacked_again(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, url = server
    names = [f"{split}/middle/{number}.txt" for split in ("test", "train") for number in range(3)]
    write_archive(published / "RACE.tar.gz", {f"RACE/{name}": b"{}" for name in names})
    race = replace(TASKS["race_middle"].data, urls=(f"{url}/RACE.tar.gz",))
    copied: list[int] = []

    def fill_disk(file: Any, copy: Any) -> None:
        copied.append(copy.write(file.read()))
        # By then the archive, all files of one pattern and a file of the other pattern have been written.
        if len(copied) == 6:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(UserError, match="No space left"):
        patched.setattr(shutil, "copyfileobj", fill_disk)
        download(race, tmp_path / "to")
    assert len(download(race, tmp_path / "to")) == len(names)
    assert download(race, tmp_path / "to") == [] and not list((tmp_path / "to").rglob("*.gz"))


def test_plain_and_gzipped_files_are_fetched(server: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    published, url = server
    content = (data / "humaneval/HumanEval.jsonl").read_bytes()
    (published / "HumanEval.jsonl.gz").write_bytes(gzip.compress(content))
    humaneval = replace(TASKS["humaneval"].data, urls=(f"{url}/HumanEval.jsonl.gz",))
    assert [path.name for path in download(humaneval, tmp_path / "to")] == ["HumanEval.jsonl.gz"]
    assert load_items(humaneval, tmp_path / "to") == load_items(humaneval, data)


def test_what_cannot_be_fetched_leaves_nothing_behind(server: tuple[Path, str], tmp_path: Path) -> None:
    published, url = server
    write_archive(published / "evil.zip", {"../../dev.jsonl": b"{}"})
    (published / "cut.zip").write_bytes(b"PK\x03\x04" + bytes(30))
    for name, expected in (("evil.zip", "outside its folder"), ("none.zip", "404"), ("cut.zip", "ReadError")):
        piqa = replace(TASKS["piqa"].data, urls=(f"{url}/{name}",))
        with pytest.raises(UserError, match=expected):
            download(piqa, tmp_path / "to")
        assert not list(tmp_path.rglob("*.jsonl"))


def test_the_list_names_files_and_where_they_are_published(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--list", "--data", data / "no")
    assert code == 0 and "missing" in out and "present" not in out and "https://" in out
    code, out, _ = run(capsys, "--list", "--data", data, "--tasks", "boolq")
    assert out.startswith("boolq ") and "present" in out and "dev.jsonl" in out


def test_a_run_is_evaluated_while_it_trains_and_afterwards(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_text_corpus(tmp_path / "corpus", 600)
    options = ["--model", "dim=32,layers=1,heads=2", "--sequence-length", "64", "--batch-tokens", "128", "--steps", "5"]
    evaluation = ["--evaluate-every", "2", "--evaluate-tasks", "boolq,mmlu", "--evaluate-data", str(data)]
    arguments = ["train", str(corpus), "--output", str(tmp_path / "run"), *options, *evaluation]
    exported: list[Path] = []
    monkeypatch.setattr(harness, "compare_with_harness", lambda folder, *_: exported.append(folder) or ([], ""))
    compare = ["evaluate", str(tmp_path / "run"), "--data", str(data), "--tasks", "boolq", "--harness"]
    for more in (["--stop-after", "3"], []):
        assert main([*arguments, *more]) == 0
        assert main([*compare, "--output", str(tmp_path / "compared")]) == 0
    assert len(set(exported)) == 2 and all((folder / "config.json").is_file() for folder in exported)
    capsys.readouterr()
    lines = (tmp_path / "run/evaluation.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in lines[1:]]
    assert [row[:3] for row in rows[::4]] == [
        ["2", "boolq", "accuracy"],
        ["4", "boolq", "accuracy"],
        ["5", "boolq", "accuracy"],
    ]
    assert {tuple(row[1:3]) for row in rows} == {
        (name, metric) for name in ("boolq", "mmlu 0-shot") for metric in ("accuracy", "bits per byte")
    }
    capsys.readouterr()
    code, _, _ = run(capsys, tmp_path / "run", "--data", data, "--tasks", "boolq")
    results = json.loads((tmp_path / "run/evaluation/results.json").read_text(encoding="utf-8"))
    assert (code, results["model"]["step"]) == (0, 5)
    assert results["model"]["manifest_sha"] == load_manifest(corpus).manifest_sha
    last = next(row for row in rows if row[:3] == ["5", "boolq", "bits per byte"])
    assert results["runs"][0]["metrics"]["bits per byte"]["value"] == pytest.approx(float(last[3]), abs=2e-6)
    assert main([*arguments, "--evaluate-every", "0"]) == 2
    assert "--evaluate-tasks does nothing without --evaluate-every" in capsys.readouterr().err
    assert main([*arguments, "--evaluate-tasks", "truthfulqa"]) == 2
    assert "give --judge truthful=PATH" in capsys.readouterr().err
