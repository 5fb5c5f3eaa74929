"""Memory of a rank with a sharded model, and initial rows of each rank, with fake process groups of 8 ranks."""

import gc
import warnings

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from manifests.sizes import Preset
from trainer import parallel
from trainer.data import Batch
from trainer.parallel import draw_rows
from trainer.step import OutlierDetector, Stepper, build_optimizer

SIZE, VOCABULARY = Preset(256, 4, 4, 1e-3, multiple=64), 1_000
PARAMETERS = SIZE.count_parameters(VOCABULARY)


@pytest.fixture(params=[1, 2], ids=["sharded", "hybrid"])
def ranks(request: pytest.FixtureRequest) -> parallel.Ranks:
    replicas = request.param
    gc.freeze()  # Objects of other tests are not counted, and are not traversed again and again.
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    shape, names = ((8,), ("shard",)) if replicas == 1 else ((2, 4), ("replicate", "shard"))
    yield parallel.Ranks(0, 8, torch.device("cpu"), init_device_mesh("cpu", shape, mesh_dim_names=names))
    dist.destroy_process_group()
    gc.unfreeze()


def bytes_held() -> int:
    """Return the bytes of all tensors that this process can reach."""
    gc.collect()
    sizes = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    for tensor in tensors:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def test_a_rank_holds_its_own_rows_of_weights_and_gradients_between_micro_batches(
    ranks: parallel.Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bytes_held()
    model = parallel.build(SIZE, VOCABULARY, 0, ranks)
    share = 4 * PARAMETERS / ranks.shards
    assert bytes_held() - start == pytest.approx(share, rel=0.02)
    stepper = Stepper(
        model, build_optimizer(model, 1e-3), OutlierDetector(0, 4, ranks.device), ranks, 8 * 4 * 16, 1, None, None
    )
    held, losses = [], Stepper.losses

    def watched(self: Stepper, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        held.append(bytes_held() - start)
        return losses(self, *given)

    monkeypatch.setattr(Stepper, "losses", watched)
    tokens = torch.randint(0, VOCABULARY, (4, 17), dtype=torch.int32)
    stepper.step(Batch(tokens, torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)), 1e-3)
    assert len(held) == 4
    for each in held[1:]:
        assert each == pytest.approx(2 * share, rel=0.05), "weights and gradients, not 4 bytes for each parameter"


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([1, 7, 20_000]))
@settings(max_examples=30, deadline=None)
def test_any_rows_drawn_alone_are_those_of_the_whole(one: int, other: int, columns: int) -> None:
    begin, end = min(one, other), max(one, other)
    part = draw_rows("key", begin, end, columns)
    assert part.shape == (end - begin, columns)
    assert torch.equal(part, draw_rows("key", 0, 41, columns)[begin:end])


def test_initial_numbers_are_normal_and_differ_by_key_and_block() -> None:
    drawn = draw_rows("a", 0, 400, 1_000)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.01) and float(drawn.std()) == pytest.approx(1, abs=0.01)
    assert len(torch.unique(drawn[:, 0])) == 400
    assert not torch.equal(drawn, draw_rows("b", 0, 400, 1_000))
