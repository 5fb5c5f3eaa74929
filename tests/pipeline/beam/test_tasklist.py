"""Task lists: a job's graph stays small at any number of tasks, and every task is in it once."""

import itertools
from pathlib import Path

import apache_beam as beam
import pytest

from manifests.mirror import open_mirror
from pipeline.beam.tasklist import FOLDER, GROUPS, Group, TaskList, read_all, remove_task_lists, task_list

MEGABYTE = 1 << 20


@pytest.mark.parametrize("count", [0, 1, GROUPS - 1, GROUPS, 3 * GROUPS + 7])
def test_every_task_is_in_one_group_and_the_first_come_first(tmp_path: Path, count: int) -> None:
    tasks = [f"task {number}" for number in range(count)]
    with task_list(tmp_path) as writer:
        places = writer.add(tasks)
        listed = writer.close({"shared": True})
        groups = [listed.read(place) for place in places]
        assert len(groups) <= GROUPS and sorted(itertools.chain(*groups)) == sorted(tasks)
        assert [group[0] for group in groups] == tasks[: len(groups)]
        assert max(map(len, groups), default=0) - min(map(len, groups), default=0) <= 1
        assert listed.read_shared() == {"shared": True}
        assert list(read_all(tmp_path)) == [*groups, {"shared": True}]
    assert not list((tmp_path / FOLDER).iterdir())


def test_the_graph_of_a_job_of_many_tasks_is_small(tmp_path: Path) -> None:
    tasks = [{"name": f"a name of some length {number:07d}", "number": number} for number in range(100_000)]
    with task_list(tmp_path) as writer:
        groups = writer.add(tasks)
        listed = writer.close("shared")
        pipeline = beam.Pipeline()
        _ = pipeline | beam.Create(groups).with_output_types(Group) | beam.Map(Reader(listed))
        assert pipeline.to_runner_api().ByteSize() < MEGABYTE / 2


class Reader:
    """What a job's function holds of its task list."""

    def __init__(self, listed: TaskList) -> None:
        self.listed = listed

    def __call__(self, group: Group) -> list[dict[str, object]]:
        return self.listed.read(group)


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "left").write_bytes(b"x")
    remove_task_lists(tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_a_disk_without_room_for_a_task_list_is_named(tmp_path: Path) -> None:
    corpus = open_mirror(tmp_path / "mirror", (tmp_path / "store").as_uri()).folder
    (corpus / FOLDER).parent.mkdir()
    (corpus / FOLDER).symlink_to("/proc/self/fdinfo")  # where no file can be made
    with pytest.raises(OSError) as caught, task_list(corpus):
        pass
    assert caught.value.filename is not None
