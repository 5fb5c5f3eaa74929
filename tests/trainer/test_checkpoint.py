"""Checkpoints: the copy is of the moment of asking, and a kill at any time leaves a whole one."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from processes import fork_server

from filters.errors import UserError
from trainer import checkpoint, parallel
from trainer.checkpoint import CheckpointWriter
from trainer.model import Llama
from trainer.sizes import Preset
from trainer.step import build_optimizer

SMALL = Preset(32, 4, 2, 1e-3, multiple=8)


@pytest.fixture
def ranks() -> Iterator[parallel.Ranks]:
    yield parallel.start("cpu", 1)
    dist.destroy_process_group()


def trained(ranks: parallel.Ranks, value: float) -> tuple[Llama, torch.optim.AdamW]:
    """A model and its optimiser after one step, all weights equal."""
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
    """The step of the newest checkpoint and all values its weights have."""
    step, folder = checkpoint.list_checkpoints(run)[-1]
    model, optimizer = trained(ranks, -1.0)
    checkpoint.load(folder, model, optimizer)
    assert checkpoint.read_state(folder)["step"] == step
    return step, {float(v) for p in model.parameters() for v in p.full_tensor().detach().unique()}


def test_what_changes_after_save_is_not_in_it(
    ranks: parallel.Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(ranks, 1.0)
    go, write = threading.Event(), dcp.save

    def late(*arguments: object, **named: object) -> None:
        assert go.wait(30)
        write(*arguments, **named)

    monkeypatch.setattr(dcp, "save", late)
    saver = CheckpointWriter(tmp_path, keep=2)
    saver.save(1, {"x": 1}, model, optimizer)
    fill(model, 2.0)
    optimizer.state.clear()
    assert not checkpoint.list_checkpoints(tmp_path), "training went on before the checkpoint was written"
    go.set()
    saver.close()
    assert values(tmp_path, ranks) == (1, {1.0})
    assert checkpoint.read_state(checkpoint.list_checkpoints(tmp_path)[0][1]) == {"x": 1, "step": 1}
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


def test_the_newest_stay_and_leftovers_go(ranks: parallel.Ranks, tmp_path: Path) -> None:
    model, optimizer = trained(ranks, 1.0)
    left = tmp_path / checkpoint.FOLDER / ".step-00000009.tmp"
    left.mkdir(parents=True)
    (left / checkpoint.STATE).write_text("{}", encoding="utf-8")
    saver = CheckpointWriter(tmp_path, keep=2)
    assert not left.exists()
    for step in (1, 2, 3, 4):
        saver.save(step, {}, model, optimizer)
    saver.close()
    assert [step for step, _ in checkpoint.list_checkpoints(tmp_path)] == [3, 4]
    assert len(list((tmp_path / checkpoint.FOLDER).iterdir())) == 2


def test_a_failed_write_is_raised_and_leaves_the_one_before(
    ranks: parallel.Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(ranks, 1.0)
    saver = CheckpointWriter(tmp_path, keep=1)
    saver.save(1, {}, model, optimizer)
    saver.wait()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dcp, "save", full)
    saver.save(2, {}, model, optimizer)
    with pytest.raises(OSError, match="No space left"):
        saver.save(3, {}, model, optimizer)
    saver.close()
    assert values(tmp_path, ranks) == (1, {1.0})


def save_for_ever(run: Path) -> None:
    """Each checkpoint's weights all equal its step."""
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
        time.sleep(seconds / 4)  # somewhere within a write, which takes some 20 ms
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


def test_a_checkpoint_without_its_state_is_none(tmp_path: Path) -> None:
    folder = tmp_path / checkpoint.FOLDER / "step-00000001"
    folder.mkdir(parents=True)
    assert checkpoint.list_checkpoints(tmp_path) == []
    (folder / checkpoint.STATE).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.read_state(folder)
