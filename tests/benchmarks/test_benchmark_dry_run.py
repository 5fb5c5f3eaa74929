"""The benchmark `train --dry-run`: its bytes follow the formulas, and its table says that nothing was measured."""

import pytest

from benchmarks import dry_run
from benchmarks.training import main
from manifests.sizes import Preset


def test_it_counts_what_eight_ranks_would_hold_and_send() -> None:
    size, vocabulary = Preset(64, 2, 2, 1e-3, 32, 8 * 4 * 32, multiple=64), 128
    need = dry_run.measure(size, 8, "none", vocabulary)
    parameters, head = size.count_parameters(vocabulary), (vocabulary + 1) * 64
    assert (need.micro_batch, need.micro_batches) == (4, 1)
    assert need.built == {"weights": parameters // 2, "gradients": parameters // 2, "moments": parameters}
    assert {part: need.memory[part] for part in need.built} == need.built
    assert need.collectives["allgather_base"] == 2 * (2 * parameters - head), "in bfloat16; the head is gathered once"
    assert need.collectives["reduce_scatter_base"] == 4 * parameters


def test_the_command_prints_derived_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "RUNS", (("demo", 2, "full"),))
    assert main(["--device", "cuda", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert (
        said.startswith("Derived, not measured")
        and "| per rank | demo on 2 |" in said
        and "lower bound by FLOP" in said
    )
