"""Files of sorted records: order, ranges, bounded memory, broken files."""

import tracemalloc

import numpy as np
import pytest

from data_prep.overlap.records import Sorter, in_order, keys_between, merge, whole_file
from rlpt.errors import DataError


def random_records(count, keys, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, keys, (count, 2), dtype=np.uint64)


def write(path, records, budget=100, **options):
    with Sorter(path, budget) as sorter:
        for begin in range(0, len(records), 37):
            sorter.add(records[begin : begin + 37, 0], records[begin : begin + 37, 1])
        assert sorter.write(**options) == path.stat().st_size // 16
    return path


@pytest.mark.parametrize("keys", [1, 3, 1 << 62])
def test_records_come_back_in_order_whatever_the_budget(tmp_path, keys):
    records = random_records(5000, keys)
    for budget in (10, 1000, 10_000):
        path = write(tmp_path / "records", records, budget)
        assert np.array_equal(np.fromfile(path, "<u8").reshape(-1, 2), in_order(records))
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


def test_merging_ranges_of_several_files_is_sorting_their_records(tmp_path):
    parts = [random_records(size, 50, size) for size in (0, 1, 999, 400)]
    paths = [write(tmp_path / str(index), part) for index, part in enumerate(parts)]
    everything = in_order(np.concatenate(parts))
    for low, high in ((0, 1 << 64), (7, 20), (20, 20), (49, 51)):
        wanted = everything[(everything[:, 0] >= low) & (everything[:, 0] < high)]
        found = list(merge([keys_between(path, low, high) for path in paths], 200))
        assert np.array_equal(np.concatenate([np.zeros((0, 2), np.uint64), *found]), wanted)


def test_the_largest_keys_and_values_are_kept(tmp_path):
    top = (1 << 64) - 1
    records = np.array([[top, top], [0, top], [top, 0]], dtype=np.uint64)
    path = write(tmp_path / "records", records)
    assert keys_between(path, top, 1 << 64).stop == 3
    assert np.concatenate(list(merge([whole_file(path)]))).tolist() == [[0, top], [top, 0], [top, top]]


def test_one_a_key_keeps_the_smallest_value_across_blocks(tmp_path):
    records = random_records(5000, 40)
    path = write(tmp_path / "records", records, 100, one_a_key=True)
    smallest = {key: records[records[:, 0] == key, 1].min() for key in np.unique(records[:, 0])}
    assert dict(np.fromfile(path, "<u8").reshape(-1, 2).tolist()) == smallest


def test_memory_is_that_of_the_budget_and_not_of_the_records(tmp_path):
    records = random_records(400_000, 1000)
    tracemalloc.start()
    with Sorter(tmp_path / "records", 10_000) as sorter:
        for begin in range(0, len(records), 1000):
            sorter.add(records[begin : begin + 1000, 0], records[begin : begin + 1000, 1])
        sorter.write()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000 * 16 * 8 < records.nbytes / 4


def test_a_file_that_ends_within_a_record_is_refused(tmp_path):
    path = write(tmp_path / "records", random_records(10, 5))
    with open(path, "r+b") as file:
        file.truncate(150)
    with pytest.raises(DataError, match=r"records: 150 bytes are not whole records of 16; delete it"):
        whole_file(path)
