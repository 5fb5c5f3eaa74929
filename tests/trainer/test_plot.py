"""Curves of a run: every number of the CSV files is drawn at its place, and the page needs no other files."""

import errno
import itertools
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from trainer_corpus import write_corpus

from filters.errors import UserError
from manifests.manifest import load_manifest
from manifests.report.svg import Chart, stack_charts, ticks
from manifests.shard import open_shard
from trainer.__main__ import main
from trainer.curves import _curve, build_charts, compute_unigram_losses, render_page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Write the files of a run in the format of the trainer."""
    corpus, folder = write_corpus(tmp_path / "corpus"), tmp_path / "<run>"
    folder.mkdir()
    plan = {"manifest_sha": load_manifest(corpus).manifest_sha}
    (folder / "run.json").write_text(json.dumps({"corpus": str(corpus), "plan": plan}), encoding="utf-8")
    lines = ["step,loss,learning_rate,gradient_norm,loss_books,loss_web"]
    for step in range(1, 11):
        books = f"{5 - step / 10}" if step % 2 else ""
        lines.append(f"{step},{4 - step / 10},{0.1 * step},{'nan' if step == 4 else step},{books},3.5")
    lines.append("11,,0.5,,,")  # a skipped step
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "validation.csv").write_text(
        "step,source,loss,windows\n5,books,3.0,8\n5,web,2.5,8\n10,web,2.0,8\n", encoding="utf-8"
    )
    return folder


def test_charts_hold_what_the_files_say(run: Path) -> None:
    loss, held_out, rate, norm = build_charts(run, {"web": 4.2})
    assert set(loss.curves) == {"all", "books", "web"} and loss.levels == {"web: unigrams": (2, 4.2)}
    assert loss.curves["all"][1] == [(step, 4 - step / 10) for step in range(1, 11)]
    assert [x for x, _ in loss.curves["books"][1]] == [1, 3, 5, 7, 9]
    assert held_out.curves == {"books": (1, [(5, 3.0)]), "web": (2, [(5, 2.5), (10, 2.0)])}
    assert rate.curves[""][1][-1] == (11, 0.5) and 4.0 not in [x for x, _ in norm.curves[""][1]]


def test_the_floor_is_the_entropy_of_the_pieces(run: Path) -> None:
    corpus = run.parent / "corpus"
    pieces = [
        token
        for entry in load_manifest(corpus).sources["web"].train
        for token in open_shard(corpus / "shards" / entry.path).tokens.tolist()
    ]
    shares = [pieces.count(piece) / len(pieces) for piece in set(pieces)]
    assert compute_unigram_losses(run, None)["web"] == pytest.approx(-sum(share * math.log(share) for share in shares))


def test_long_curves_are_means_of_neighbours() -> None:
    rows = [{"step": str(step), "loss": str(step % 2)} for step in range(100_000)]
    points = _curve(rows, "loss")
    assert len(points) == 200 and points[0] == (249.5, 0.5)


def test_points_lie_where_their_values_say() -> None:
    drawn = stack_charts([Chart("t", {"a": (0, [(0, 0.0), (5, 1.0), (10, 0.5)])})])
    path = re.search(r'<path d="M([^"]+)" class="curve c0"', drawn)
    assert path
    points = [tuple(map(float, point.split())) for point in path[1].split("L")]
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2)
    assert points[2][1] == pytest.approx((points[0][1] + points[1][1]) / 2, abs=0.11) and points[1][1] < points[0][1]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3, 9, [-2, 0, 2, 4, 6, 8]), (9.9, 10.1, [9.9, 9.95, 10, 10.05, 10.1])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_the_page_is_whole_and_escapes_names(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "curves.html")
    text = (run / "curves.html").read_text(encoding="utf-8")
    assert "<run>" not in text and "&lt;run&gt;" in text and "web: unigrams" in text and "<script" not in text
    assert not re.search(r"(src|href)=", text) and "prefers-color-scheme:dark" in text
    assert main(["plot", str(run), "--output", str(run / "x.svg")]) == 0
    tree = ElementTree.fromstring((run / "x.svg").read_text(encoding="utf-8"))
    titles = [element.text for element in tree.iter() if element.get("class") == "name"]
    assert titles == [
        "Training loss, nats per token",
        "Held-out loss, nats per token",
        "Learning rate",
        "Gradient norm before clipping",
    ]


def test_flat_and_single_values_are_drawn() -> None:
    for curve in ([(3.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)]):
        assert "nan" not in render_page("x", [Chart("t", {"a": (0, curve)})])


def test_labels_do_not_cover_each_other() -> None:
    curves = {name: (0, [(0, 0.0), (1, 0.0)]) for name in "abcdefgh"} | {"z": (1, [(0, 9.0)])}
    drawn = stack_charts([Chart("t", curves)])
    heights = [float(y) for y in re.findall(r'<text x="\d+" y="([\d.]+)" class="c\d"', drawn)]
    assert len(heights) == 9 and all(b - a >= 13.9 for a, b in itertools.pairwise(heights))
    assert max(heights) < 270


def test_mistakes_are_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["plot", str(tmp_path)], "holds no run"),
        (["plot", str(run), "--output", "x.gif"], "does not end in .html or .svg"),
        (["plot", str(run), "--corpus", str(tmp_path)], "has no manifest.json"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    (run / "metrics.csv").unlink()
    with pytest.raises(UserError, match="train first"):
        build_charts(run, {})
    (tmp_path / "corpus/manifest.json").unlink()
    assert compute_unigram_losses(run, None) == {}


def test_a_file_that_cannot_be_written_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, data: bytes) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "write_bytes", fail)
    output = tmp_path / "curves.svg"
    assert main(["plot", str(run), "--output", str(output)]) == 2
    assert f"error: {output} cannot be written (Read-only file system)" in capsys.readouterr().err
