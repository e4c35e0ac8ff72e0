"""Checkpoints appear whole or not at all; bad ones are seen; a hostile index is never unpickled."""

import errno
import json
import logging
import os
import pickle
import threading

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING
from torch.distributed.checkpoint.planner import WriteItemType

from rlpt.config import CheckpointConfig, Config
from rlpt.errors import CheckpointError
from rlpt.training.checkpoint import CheckpointStore, find_latest
from rlpt.training.checkpoint_files import CheckpointMeta, check_pickle, fault

OBJECTIVES = {"text": {"algorithm": {"name": "next_token"}, "source": {"name": "corpus"}}}
META = CheckpointMeta.of(Config(tokenizer="t", objectives=OBJECTIVES), 500, "hash", {"tensor": 2})


def write(folder):
    (folder / "shard.distcp").write_bytes(b"weights" * 100)


def store(run, **options):
    return CheckpointStore(run, CheckpointConfig(**options))


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.name != ".trash")


def test_save_then_load(tmp_path):
    folder = store(tmp_path).save(5, write, {"step": 5, "x": 0.1}, META, {"rank-0.json": b"{}"})
    assert folder == tmp_path / "checkpoints" / "step-00000005" == find_latest(tmp_path)
    assert names(tmp_path) == ["latest", "step-00000005"]
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000005\n"
    assert store(tmp_path).load_state(folder, META) == {"step": 5, "x": 0.1}
    assert (folder / "ranks" / "rank-0.json").read_bytes() == b"{}"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(manifest["files"]) == ["ranks/rank-0.json", "state.json", "weights/shard.distcp"]
    assert manifest["meta"]["layout"] == {"tensor": 2}


def test_no_checkpoint_is_none_and_an_unfinished_one_is_told(tmp_path, caplog):
    assert find_latest(tmp_path) is None
    (tmp_path / "checkpoints" / "step-00000005.tmp").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert find_latest(tmp_path) is None
    assert "never finished" in caplog.text
    store(tmp_path).save(6, write, {}, META)
    assert names(tmp_path) == ["latest", "step-00000006"]


def test_keep_last_and_best(tmp_path):
    saver = store(tmp_path, keep_last=2)
    for step in range(1, 7):
        saver.save(step, write, {}, META, best_step=min(step, 2))
    assert names(tmp_path) == ["latest", "step-00000002", "step-00000005", "step-00000006"]
    saver.save(5, write, {}, META)  # the run went back to an earlier one: later ones are another time line
    assert names(tmp_path) == ["latest", "step-00000002", "step-00000005"]
    assert find_latest(tmp_path).name == "step-00000005"


def test_a_killed_run_between_rename_and_latest_resumes_from_the_newest(tmp_path):
    saver = store(tmp_path)
    saver.save(1, write, {}, META)
    saver.save(2, write, {}, META)
    (tmp_path / "checkpoints" / "latest").write_text("step-00000001\n")
    assert find_latest(tmp_path).name == "step-00000002"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped byte": lambda folder: flip(folder / "weights" / "shard.distcp"),
    "truncated": lambda folder: os.truncate(folder / "weights" / "shard.distcp", 10),
    "missing": lambda folder: (folder / "weights" / "shard.distcp").unlink(),
    "state": lambda folder: flip(folder / "state.json"),
    "manifest": lambda folder: (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace("500", "501")
    ),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "empty manifest": lambda folder: (folder / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_and_never_a_fresh_start(tmp_path, caplog, damage):
    saver = store(tmp_path)
    old, new = (saver.save(step, write, {"step": step}, META) for step in (1, 2))
    DAMAGE[damage](new)
    with caplog.at_level(logging.WARNING):
        assert find_latest(tmp_path) == old
    assert "step-00000002 is passed over" in caplog.text
    DAMAGE[damage](old)
    with pytest.raises(CheckpointError, match="no checkpoint is good") as raised:
        find_latest(tmp_path)
    assert str(old) in str(raised.value)
    assert str(new) in str(raised.value)


def test_latest_without_its_folder_is_an_error(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step-00000001\n")
    with pytest.raises(CheckpointError, match="not there"):
        find_latest(tmp_path)


def test_resume_with_another_model_names_each_key(tmp_path):
    folder = store(tmp_path).save(1, write, {}, META)
    other = Config(tokenizer="t", objectives=OBJECTIVES, model={"hidden_size": 64, "init_std": 0.5})
    with pytest.raises(CheckpointError) as raised:
        store(tmp_path).load_state(folder, CheckpointMeta.of(other, 600, "hash", {"tensor": 1}))
    message = str(raised.value)
    assert "model.hidden_size: was 128, is 64" in message
    assert "vocabulary: was 500, is 600" in message
    assert "tokenizer" not in message.replace("model, tokenizer or optimizer", "")
    assert "init_std" not in message


def test_resume_with_another_form_of_the_optimizer_names_each_key(tmp_path):
    def meta(distributed, heads):
        config = Config(tokenizer="t", objectives=OBJECTIVES, parallel={"distributed_optimizer": distributed})
        return CheckpointMeta.of(config, 500, "hash", {}, heads)

    folder = store(tmp_path).save(1, write, {"step": 1}, meta(True, ["value"]))
    with pytest.raises(CheckpointError) as raised:
        store(tmp_path).load_state(folder, meta(False, []))
    assert "parallel.distributed_optimizer: was True, is False" in str(raised.value)
    assert "heads that the objectives train: was ['value'], is []" in str(raised.value)
    for same in (meta(True, ["value"]), meta(False, None)):  # the second reads weights alone
        assert store(tmp_path).load_state(folder, same) == {"step": 1}


def full(folder):
    (folder / "part").write_bytes(b"x")
    raise OSError(errno.ENOSPC, "No space left on device")


def odd(folder):
    raise RuntimeError("unexpected pos 704 vs 598")


@pytest.mark.parametrize("failing", [full, odd])
def test_a_failed_write_is_named_and_leaves_the_older_one(tmp_path, failing):
    saver = store(tmp_path)
    old = saver.save(1, write, {}, META)
    with pytest.raises(CheckpointError, match=r"step-00000002\.tmp: can't be written .* intact"):
        saver.save(2, failing, {}, META)
    assert names(tmp_path) == ["latest", "step-00000001"]
    assert fault(old) is None


def test_too_little_space_is_seen_before_writing(tmp_path):
    with pytest.raises(CheckpointError, match=r"needs .* MB, has .* MB at .*checkpoints") as raised:
        store(tmp_path).save(1, write, {}, META, weights_bytes=10**18)
    assert "1,200,000,0" in str(raised.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("failing_rank", [0, 1])
def test_all_ranks_leave_together_when_one_fails(tmp_path, failing_rank):
    barrier = threading.Barrier(2, timeout=10)
    votes = [True, True]
    raised = {}

    def run(rank):
        def agree(ok):
            votes[rank] = ok
            barrier.wait()
            agreed = all(votes)
            barrier.wait()
            return agreed

        saver = CheckpointStore(tmp_path, CheckpointConfig(), rank == 0, barrier.wait, agree)

        def write_weights(folder):
            (folder / f"shard-{rank}").write_bytes(b"x")
            if rank == failing_rank:
                raise OSError(errno.EFBIG, "File too large")

        try:
            saver.save(1, write_weights, {}, META, {f"rank-{rank}": b""})
        except CheckpointError as error:
            raised[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "File too large" in raised[failing_rank]
    assert "another rank failed" in raised[1 - failing_rank]
    assert names(tmp_path) == []


class Slow:
    """A plan whose files are written when `may_write` is set."""

    def __init__(self, failing=None):
        self.may_write, self.failing, self.finished, self.threads = threading.Event(), failing, 0, []

    def __call__(self, folder):
        self.folder = folder
        return self

    def write(self):
        self.threads.append(threading.current_thread())
        assert self.may_write.wait(10)
        if self.failing is not None:
            self.failing(self.folder)
        write(self.folder)
        return [self.folder / "shard.distcp"]

    def finish(self):
        self.finished += 1
        (self.folder / "index").write_text("all")


def test_a_save_in_the_background_is_a_checkpoint_when_it_is_finished(tmp_path):
    saver, slow, state = store(tmp_path), Slow(), {"step": 1, "numbers": [1]}
    saver.save(1, slow, state, META, {"rank-0.json": b"{}"}, in_background=True)
    state["numbers"].append(2)
    assert saver.is_writing
    assert find_latest(tmp_path) is None
    slow.may_write.set()
    saver.finish()
    folder = find_latest(tmp_path)
    assert fault(folder) is None
    assert slow.finished == 1
    assert slow.threads != [threading.main_thread()]
    assert store(tmp_path).load_state(folder, META) == {"step": 1, "numbers": [1]}
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert sorted(files) == ["ranks/rank-0.json", "state.json", "weights/index", "weights/shard.distcp"]
    saver.finish()  # nothing is left to do
    assert (saver.is_writing, slow.finished) == (False, 1)


def test_a_save_begins_when_the_one_before_is_finished(tmp_path):
    saver, first = store(tmp_path, keep_last=3), Slow()
    saver.save(1, first, {}, META, in_background=True)
    threading.Timer(0.2, first.may_write.set).start()
    saver.save(2, write, {}, META)
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000002"]
    assert find_latest(tmp_path).name == "step-00000002"


def test_a_failure_in_the_background_is_raised_by_the_next_call(tmp_path):
    saver, slow = store(tmp_path), Slow(full)
    old = saver.save(1, write, {}, META)
    saver.save(2, slow, {}, META, in_background=True)
    slow.may_write.set()
    with pytest.raises(CheckpointError, match=r"step-00000002\.tmp: can't be written .*No space left.* intact"):
        saver.save(3, write, {}, META)
    assert names(tmp_path) == ["latest", "step-00000001"]
    assert (fault(old), slow.finished) == (None, 0)
    saver.save(3, write, {}, META)
    assert find_latest(tmp_path).name == "step-00000003"


def test_a_file_that_changes_between_its_writer_and_the_manifest_is_found(tmp_path):
    """What the manifest says of a file comes from the rank that wrote it."""
    slow = Slow()
    slow.may_write.set()
    slow.finish = lambda: flip(slow.folder / "shard.distcp")
    folder = store(tmp_path).save(1, slow, {}, META)
    assert "sha256 differs" in fault(folder)


def test_torchs_own_index_is_allowed(tmp_path):
    state = {
        f"w{i}": torch.zeros(3, dtype=dtype) for i, dtype in enumerate([torch.float32, torch.bfloat16, torch.int64])
    }
    dcp.save(state | {"step": 3, "nested": {"a": [1, "x"]}}, checkpoint_id=str(tmp_path), no_dist=True)
    check_pickle(tmp_path / ".metadata")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_index_is_refused_and_nothing_runs(tmp_path, protocol):
    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps({"weights": Hostile(tmp_path / "made")}, protocol))
    with pytest.raises(CheckpointError, match=r"\.metadata: "):
        check_pickle(path)
    assert not (tmp_path / "made").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "made").exists()  # it is hostile indeed


def test_names_hidden_in_the_memo_or_behind_dots_are_seen(tmp_path):
    path = tmp_path / ".metadata"
    short = lambda text: b"\x8c" + bytes([len(text)]) + text  # noqa: E731
    evil = short(b"os") + b"\x94" + short(b"system") + b"\x94" + b"0" * 2  # memoize both, pop both
    through_memo = b"\x80\x04" + evil + short(b"torch") + b"0" + b"h\x00" + b"h\x01" + b"\x93."
    dotted = b"\x80\x04" + short(b"torch.distributed.checkpoint.planner") + short(b"SavePlan.__init__") + b"\x93."
    computed = b"\x80\x04" + short(b"torch") + b"\x85" + short(b"Size") + b"\x93."
    for data, message in ((through_memo, "os.system"), (dotted, "SavePlan.__init__"), (computed, "computed")):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            check_pickle(path)


class Looked:
    """Pickles as `getattr(owner, name)`: as Python 3.11.0 to 3.11.3 pickle members of enumerations."""

    def __init__(self, owner, name):
        self.call = getattr, (owner, name)

    def __reduce__(self):
        return self.call


def test_members_of_our_enumerations_may_be_looked_up_by_name(tmp_path):
    path = tmp_path / ".metadata"
    members = [
        Looked(_MEM_FORMAT_ENCODING, "TORCH_CONTIGUOUS_FORMAT"),
        Looked(_MEM_FORMAT_ENCODING, "TORCH_PRESERVE_FORMAT"),
        Looked(WriteItemType, "TENSOR"),
    ]
    path.write_bytes(pickle.dumps([*members, *members]))
    check_pickle(path)
    assert pickle.loads(path.read_bytes())[0] is _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT


@pytest.mark.parametrize(
    "looked",
    [
        Looked(_MEM_FORMAT_ENCODING, "__reduce_ex__"),
        Looked(_MEM_FORMAT_ENCODING, "mro"),
        Looked(torch.Size, "NUMEL"),
        Looked(Looked(WriteItemType, "TENSOR"), "TENSOR"),
        getattr,
    ],
    ids=["dunder", "method", "no enumeration", "nested", "kept"],
)
def test_getattr_for_anything_else_is_refused(tmp_path, looked):
    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps([Looked(WriteItemType, "TENSOR"), looked]))
    with pytest.raises(CheckpointError, match=r"names builtins\.getattr"):
        check_pickle(path)


@pytest.mark.parametrize("data", [b"", b"junk", b"\x80\x04", b"\x80\x04\x8c\xff"])
def test_a_torn_index_is_refused(tmp_path, data):
    (tmp_path / ".metadata").write_bytes(data)
    with pytest.raises(CheckpointError, match="not a readable checkpoint index"):
        check_pickle(tmp_path / ".metadata")
