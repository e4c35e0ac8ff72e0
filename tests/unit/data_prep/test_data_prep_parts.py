"""The plan of a source: the same for everyone, and what is read in parts is what is read at once."""

import pickle
import sysconfig

import pytest

from data_prep.config import SourceConfig, fingerprint
from data_prep.sources.bad_records import BadRecords
from data_prep.sources.readers import (
    Part,
    inputs_fingerprint,
    list_files,
    part_fingerprint,
    parts,
    read_part,
    read_source,
)
from rlpt.errors import DataError


def config(**options):
    return SourceConfig.model_validate({"name": "text"} | options)


def test_files_follow_each_other_until_a_part_is_full(tmp_path):
    for name, size in (("a", 5), ("b", 5), ("c", 30), ("d", 1), ("e", 9), ("f", 1)):
        (tmp_path / f"{name}.txt").write_text("x" * size)
    source = config(paths=[str(tmp_path)], part_bytes=10)
    plan = parts(source)
    assert ["".join(path.stem for path in part.files) for part in plan] == ["ab", "c", "de", "f"]
    assert [part.index for part in plan] == [0, 1, 2, 3]
    assert pickle.loads(pickle.dumps(plan)) == plan
    together = [document for part in plan for document in read_part(source, part, BadRecords())]
    assert together == list(read_source(config(paths=[str(tmp_path)])))
    assert len(parts(config(paths=[str(tmp_path)], part_bytes=10, max_bytes=20))) == 1, "a limit counts over all"
    assert parts(config(hub="somewhere")) == [Part(0)]


def test_look_ups_are_ranges_that_make_up_the_whole():
    source = config(look_ups={"ask": "one_hop", "documents": 120_000})
    assert [(part.start, part.stop) for part in parts(source)] == [(0, 50_000), (50_000, 100_000), (100_000, 120_000)]
    short = config(look_ups={"ask": "one_hop", "documents": 30})
    halves = [list(read_part(short, part, BadRecords())) for part in (Part(0, (), 0, 11), Part(1, (), 11, 30))]
    assert halves[0] + halves[1] == list(read_source(short))
    assert len(parts(config(look_ups={"ask": "one_hop", "documents": 120_000}, max_bytes=5))) == 1


def test_the_library_is_read_by_hash_of_its_names():
    source = config(python_library=True, part_bytes=1 << 20)
    plan = parts(source)
    assert len(plan) > 5
    root = sysconfig.get_paths()["stdlib"]
    order = [path for part in plan for path in part.files]
    assert order == sorted(list_files(source), key=lambda path: fingerprint(path.relative_to(root).as_posix()))


def test_a_part_s_fingerprint_is_of_its_own_files(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name * 10)
    source = config(paths=[str(tmp_path)], part_bytes=10)
    first, second = parts(source)
    before = [part_fingerprint(source, part) for part in (first, second)]
    whole = inputs_fingerprint(source)
    (tmp_path / "b.txt").write_text("b" * 11)
    assert part_fingerprint(source, first) == before[0]
    assert part_fingerprint(source, second) != before[1]
    assert inputs_fingerprint(source) != whole
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt: No such file"):
        part_fingerprint(source, second)
