"""Checkpoints contain the state at the call of `save`, and a kill at any time leaves a complete checkpoint."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import fork_server

from filters.errors import UserError
from manifests.files import sha256_file
from manifests.sizes import Preset
from trainer import checkpoint, parallel
from trainer.checkpoint import CheckpointWriter
from trainer.model import Llama
from trainer.step import build_optimizer

SMALL = Preset(32, 4, 2, 1e-3, multiple=8)
# The part of a run's state that `open_checkpoint` needs.
SAVED = {"training": {"model": "dim=32,layers=2,heads=4", "norm_epsilon": 1e-6}}


@pytest.fixture
def ranks() -> Iterator[parallel.Ranks]:
    yield parallel.start("cpu", 1)
    dist.destroy_process_group()


def trained(ranks: parallel.Ranks, value: float) -> tuple[Llama, torch.optim.AdamW]:
    """Return a model and its optimiser after one step. All weights are set to `value`."""
    model = parallel.build(SMALL, 16, 0, ranks)
    optimizer = build_optimizer(model, 0.0)
    model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    optimizer.step()
    fill(model, value)
    return model, optimizer


@torch.no_grad()
def fill(model: Llama, value: float) -> None:
    for parameter in model.parameters():
        parameter.fill_(value)


def values(run: Path, ranks: parallel.Ranks) -> tuple[int, set[float]]:
    """Return the step of the newest checkpoint, and the set of all values of its weights."""
    step, folder = checkpoint.list_checkpoints(run)[-1]
    model, optimizer = trained(ranks, -1.0)
    checkpoint.load(folder, model, optimizer)
    assert checkpoint.read_state(folder)["step"] == step
    return step, {float(v) for p in model.parameters() for v in p.full_tensor().detach().unique()}


def test_what_changes_after_save_is_not_in_it(
    ranks: parallel.Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(ranks, 1.0)
    go, write = threading.Event(), checkpoint.write_tensors

    def late(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, object]:
        assert go.wait(30)
        return write(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", late)
    monkeypatch.setattr(checkpoint, "WAIT_SECONDS", 0.01)
    waits: list[int] = []  # one entry per call of `note_wait`; the third call lets the write continue
    saver = CheckpointWriter(tmp_path, 2, True, lambda: waits.append(1) or (len(waits) == 3 and go.set()))
    saver.save(1, {"x": 1}, model, optimizer)
    fill(model, 2.0)
    optimizer.state.clear()
    assert not checkpoint.list_checkpoints(tmp_path), "training went on before the checkpoint was written"
    saver.close()
    assert len(waits) >= 3 and values(tmp_path, ranks) == (1, {1.0})
    state = checkpoint.read_state(checkpoint.list_checkpoints(tmp_path)[0][1])
    assert (state["x"], state["step"], list(state["files"])) == (1, 1, ["rank-00000.safetensors"])
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


def test_moments_come_back_as_they_were(ranks: parallel.Ranks, tmp_path: Path) -> None:
    model, optimizer = trained(ranks, 1.0)
    before = [state["exp_avg_sq"].full_tensor().clone() for state in optimizer.state.values()]
    saver = CheckpointWriter(tmp_path, keep=1)
    saver.save(5, {}, model, optimizer)
    saver.close()
    for state in optimizer.state.values():
        state["exp_avg_sq"].zero_()
    checkpoint.load(checkpoint.list_checkpoints(tmp_path)[-1][1], model, optimizer)
    after = [state["exp_avg_sq"].full_tensor() for state in optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) and any(a.any() for a in after)


def test_the_newest_stay(ranks: parallel.Ranks, tmp_path: Path) -> None:
    model, optimizer = trained(ranks, 1.0)
    saver = CheckpointWriter(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        saver.save(step, {}, model, optimizer)
    saver.close()
    assert [step for step, _ in checkpoint.list_checkpoints(tmp_path)] == [3, 4]
    assert len(list((tmp_path / checkpoint.FOLDER).iterdir())) == 2


def test_an_old_checkpoint_that_cannot_be_removed_does_not_end_the_run(
    ranks: parallel.Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network file system, a folder cannot be removed while a process reads one of its files."""
    model, optimizer = trained(ranks, 1.0)
    saver = CheckpointWriter(tmp_path, keep=1)

    def busy(*_: object, **__: object) -> None:
        raise OSError(39, "Directory not empty")

    saver.save(1, {}, model, optimizer)
    saver.wait()
    monkeypatch.setattr(os, "rmdir", busy)
    for step in (2, 3):
        saver.save(step, {}, model, optimizer)
    saver.close()
    assert [step for step, _ in checkpoint.list_checkpoints(tmp_path)] == [3]
    monkeypatch.undo()
    assert checkpoint.find_newest(tmp_path, str) == checkpoint.list_checkpoints(tmp_path)[-1]
    assert len(list((tmp_path / checkpoint.FOLDER).iterdir())) == 1


def test_the_rows_of_its_steps_are_on_the_disk_before_a_checkpoint_has_its_name(
    ranks: parallel.Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, after a power failure, a resumed run would lack rows of steps before its checkpoint."""
    model, optimizer = trained(ranks, 1.0)
    (tmp_path / "metrics.csv").write_text("step\n1\n", encoding="utf-8")
    synced: list[tuple[str, int]] = []

    def sync(path: Path) -> None:
        synced.append((path.name, len(checkpoint.list_checkpoints(tmp_path))))

    monkeypatch.setattr(checkpoint, "sync_path", sync)
    saver = CheckpointWriter(tmp_path, keep=1)
    saver.save(1, {}, model, optimizer)
    saver.close()
    assert synced == [("metrics.csv", 0), (".step-00000001.tmp", 0), (checkpoint.FOLDER, 1)]


def test_a_file_that_a_checkpoint_does_not_name_is_not_read(ranks: parallel.Ranks, tmp_path: Path) -> None:
    model, optimizer = trained(ranks, 1.0)
    saver = CheckpointWriter(tmp_path, keep=1)
    saver.save(1, SAVED, model, optimizer)
    saver.close()
    file = next(checkpoint.list_checkpoints(tmp_path)[0][1].glob("rank-*"))
    file.with_name(f"{file.name}.copy").write_bytes(file.read_bytes())
    assert checkpoint.open_checkpoint(tmp_path).shapes["head.weight"] == (16, 32)
    assert values(tmp_path, ranks) == (1, {1.0})


def test_a_failed_write_is_raised_and_leaves_the_one_before(
    ranks: parallel.Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(ranks, 1.0)
    saver = CheckpointWriter(tmp_path, keep=1)
    saver.save(1, {}, model, optimizer)
    saver.wait()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    saver.save(2, {}, model, optimizer)
    words = r"checkpoint of step 2 cannot be written to .*No space left on device\): make room there"
    with pytest.raises(UserError, match=words):
        saver.save(3, {}, model, optimizer)
    saver.close()
    assert values(tmp_path, ranks) == (1, {1.0})


def save_for_ever(run: Path) -> None:
    """Write checkpoints until killed. All weights of a checkpoint are equal to its step."""
    ranks = parallel.start("cpu", 1)
    done = checkpoint.list_checkpoints(run)
    step = done[-1][0] if done else 0
    model, optimizer = trained(ranks, 0.0)
    saver = CheckpointWriter(run, keep=2)
    while True:
        step += 1
        fill(model, float(step))
        saver.save(step, {}, model, optimizer)


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    newest = []
    for seconds in (0.35, 0.47, 0.59, 0.65):
        child = fork_server().Process(target=save_for_ever, args=(tmp_path,))
        before = len(newest) and newest[-1]
        child.start()
        patience = time.monotonic() + 600
        while not (done := checkpoint.list_checkpoints(tmp_path)) or done[-1][0] <= before:
            assert child.is_alive() and time.monotonic() < patience
            time.sleep(0.01)
        time.sleep(seconds / 4)  # A write takes about 20 ms, so the kill comes at some moment during a write.
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        ranks = parallel.start("cpu", 1)
        try:
            step, found = values(tmp_path, ranks)
        finally:
            dist.destroy_process_group()
        assert found == {float(step)}
        newest.append(step)
    assert newest == sorted(set(newest)), "each process went on from the last whole one"


def damage_byte(folder: Path) -> None:
    path = next(folder.glob("rank-*"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def damage_state(folder: Path) -> None:
    path = folder / checkpoint.STATE
    path.write_bytes(path.read_bytes().replace(b'"x":1', b'"x":2'))


DAMAGES = {
    "the bytes of rank-00000.safetensors have changed": damage_byte,
    "rank-00000.safetensors is missing": lambda folder: next(folder.glob("rank-*")).unlink(),
    "rank-00000.safetensors has 100 bytes of ": lambda folder: os.truncate(next(folder.glob("rank-*")), 100),
    "state.json is missing": lambda folder: (folder / checkpoint.STATE).unlink(),
    "state.json cannot be read": lambda folder: os.truncate(folder / checkpoint.STATE, 20),
    "the bytes of state.json have changed": damage_state,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    ranks: parallel.Ranks, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, optimizer = trained(ranks, 1.0)
    saver = CheckpointWriter(tmp_path, keep=2)
    for step in (1, 2):
        fill(model, float(step))
        saver.save(step, {"x": 1, **SAVED}, model, optimizer)
    saver.close()
    half = tmp_path / checkpoint.FOLDER / ".step-00000003.tmp"
    half.mkdir()
    assert checkpoint.find_newest(tmp_path, str) == checkpoint.list_checkpoints(tmp_path)[-1]
    assert f"removed {half}, which was not written to its end" in capsys.readouterr().err and not half.exists()
    newest = checkpoint.list_checkpoints(tmp_path)[-1][1]
    DAMAGES[damage](newest)
    assert checkpoint.find_damage(newest).startswith(damage)
    refused = re.escape(f"{newest} is damaged ({damage}") + ".*step-00000001 is complete: give this checkpoint"
    for path in (tmp_path, newest):
        with pytest.raises(UserError, match=refused):
            checkpoint.open_checkpoint(path).check()
    found = checkpoint.find_newest(tmp_path, str)
    assert found == (1, tmp_path / checkpoint.FOLDER / "step-00000001")
    assert f"{newest} is damaged ({damage}" in capsys.readouterr().err
    assert (newest.with_name(newest.name + checkpoint.DAMAGED)).is_dir(), "kept for inspection"
    assert values(tmp_path, ranks) == (1, {1.0})
    DAMAGES[damage](found[1])
    capsys.readouterr()
    for _ in range(2):  # The second attempt must not train from the start either.
        with pytest.raises(UserError, match="has no complete checkpoint " + re.escape(f"(step-00000001: {damage}")):
            checkpoint.find_newest(tmp_path, str)
    assert "is used" not in capsys.readouterr().err


def test_weights_are_hashed_once_and_only_to_be_read(
    ranks: parallel.Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint may have hundreds of gigabytes. Reading its step or its hash must not read the weights."""
    model, optimizer = trained(ranks, 1.0)
    saver = CheckpointWriter(tmp_path, keep=1)
    saver.save(1, SAVED, model, optimizer)
    saver.close()
    hashed = []
    monkeypatch.setattr(checkpoint, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    saved = checkpoint.open_checkpoint(tmp_path)
    assert saved.state["step"] == 1 and saved.shapes["head.weight"] == (16, 32) and not hashed
    saved.check()
    assert hashed == ["rank-00000.safetensors"]


def test_a_checkpoint_is_due_by_the_clock(ranks: parallel.Ranks, tmp_path: Path) -> None:
    saver = CheckpointWriter(tmp_path, keep=1)
    saver.saved -= 100
    assert saver.is_due(1.5) and not saver.is_due(2) and not saver.is_due(0)
    saver.close()


def test_rows_are_read_from_the_files_of_any_number_of_ranks(tmp_path: Path) -> None:
    whole, files = torch.arange(14.0).view(7, 2), {}
    for number, rows in enumerate(whole.split(3)):
        tensors = {"model.a": rows, "step.a": torch.tensor(4.0)}
        files[f"rank-{number}"] = checkpoint.write_tensors(tmp_path / f"rank-{number}", tensors)
    reader = checkpoint.CheckpointReader(tmp_path, files)
    assert reader.shape("model.a") == (7, 2) and float(reader.rows("step.a", 0, 1)) == 4
    for begin in range(8):
        for end in range(begin, 8):
            assert torch.equal(reader.rows("model.a", begin, end).view(-1, 2), whole[begin:end])
    assert files["rank-0"]["sha256"] == sha256_file(tmp_path / "rank-0")
