"""Confined children, the worker's protocol, and answers that try to do harm."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.hostile_answers import ENDLESS, EVALUATED, harmful

from rlpt.errors import ConfigError
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.confinement import ConfinementError, Fate, Limits, refusals, run_confined
from rlpt.tasks.reasoning_gym.catalogue import ARITHMETIC, DATA_SETS, DURATION, NUMBERS, POLYNOMIAL, PRIMITIVE
from rlpt.tasks.reasoning_gym.client import CLIENT, WorkerError, environment, start

pytest.importorskip("reasoning_gym")
SHORT = Limits(cpu_seconds=1)
TESTS = Path(__file__).parents[2]


def children(pid: int) -> list[str]:
    """Process ids of the children of `pid`."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_confined_child_is_refused_all_that_it_tries():
    assert refusals() == []


def test_fates_of_children():
    assert run_confined(lambda: b"42", SHORT) == (Fate.RETURNED, b"42")
    assert run_confined(lambda: b"", SHORT) == (Fate.RETURNED, b"")
    assert run_confined(lambda: 1 / 0, SHORT) == (Fate.RAISED, b"")
    assert run_confined(lambda: "no bytes", SHORT)[0] is Fate.DIED
    assert run_confined(lambda: sys.exit(0), SHORT) == (Fate.RAISED, b"")
    assert run_confined(lambda: os._exit(0), SHORT) == (Fate.DIED, b"")
    assert run_confined(lambda: ctypes.string_at(0), SHORT) == (Fate.DIED, b"")
    assert run_confined(lambda: bytes(2 << 20), SHORT) == (Fate.DIED, b"")  # longer than a result may be
    assert run_confined(lambda: bytes(10 << 30), SHORT) == (Fate.RAISED, b"")
    assert run_confined(lambda: sum(0 for _ in iter(int, 1)), Limits(wall_seconds=0.3)) == (Fate.TIMED_OUT, b"")
    assert run_confined(lambda: sum(0 for _ in iter(int, 1)), SHORT)[0] is Fate.DIED  # out of processor time


def test_no_child_is_left_and_none_changes_its_parent():
    state = {"score": 0.0}
    before = children(os.getpid())
    assert run_confined(lambda: state.update(score=1.0) or b"done", SHORT) == (Fate.RETURNED, b"done")
    run_confined(lambda: sum(0 for _ in iter(int, 1)), Limits(wall_seconds=0.1))
    assert state == {"score": 0.0}
    assert children(os.getpid()) == before


def test_unconfined_children_run_nothing(tmp_path):
    touched = tmp_path / "touched"
    with pytest.raises(ConfinementError, match="could not be confined: !TypeError"):
        run_confined(lambda: touched.write_text("x"), Limits(cpu_seconds="forever"))
    assert not touched.exists()
    assert "could not be confined" in refusals(Limits(cpu_seconds="forever"))[0]


def test_worker_that_can_not_confine_is_refused():
    script = (
        "from rlpt.tasks.reasoning_gym.messages import write_message; write_message(1, {'refusals': ['no seccomp']})"
    )
    with pytest.raises(ConfigError, match="can't be scored safely here, and are not scored otherwise: no seccomp"):
        start(["-c", script])
    with pytest.raises(WorkerError, match="did not start, exit code 3"):
        start(["-c", "raise SystemExit(3)"])


def test_item_and_score():
    item = CLIENT.item("gcd", 0, 5)
    assert "Greatest Common Divisor" in item["question"]
    assert CLIENT.item("gcd", 0, 5) == item != CLIENT.item("gcd", 0, 6)
    assert CLIENT.score("gcd", 0, 5, item["answer"]) == 1
    assert CLIENT.score("gcd", 0, 5, "banana\ud800\0") == 0
    before = CLIENT.fates["raised"]
    assert CLIENT.score("prime_factorization", 0, 5, "banana") == 0
    assert CLIENT.fates["raised"] == before + 1


def test_failure_of_the_worker_is_an_error():
    with pytest.raises(WorkerError, match="No curriculum registered for dataset 'nonsense'"):
        CLIENT.item("nonsense", 0, 5)
    with pytest.raises(WorkerError, match="KeyError"):
        CLIENT._ask({"ask": "dance"})
    assert CLIENT.item("gcd", 0, 5)["answer"]


def test_worker_is_restarted_after_its_death():
    item, pid = CLIENT.item("lcm", 0, 5), CLIENT.pid
    os.kill(pid, signal.SIGKILL)
    assert CLIENT.item("lcm", 0, 5) == item
    assert CLIENT.pid != pid


def test_forked_process_gets_a_worker_of_its_own():
    item, pid = CLIENT.item("lcm", 0, 5), CLIENT.pid
    child = os.fork()
    if child == 0:
        own = CLIENT.pid is None and CLIENT.item("lcm", 0, 5) == item and CLIENT.pid != pid
        CLIENT.close()
        os._exit(0 if own else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert CLIENT.item("lcm", 0, 5) == item
    assert CLIENT.pid == pid


def test_worker_knows_no_secret_and_ends_with_its_parent(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert "secret" not in environment().values()
    assert environment()["PYTHONHASHSEED"] == "0"
    script = (
        "from rlpt.tasks.reasoning_gym.client import CLIENT\n"
        "CLIENT.item('gcd', 0, 5); print(CLIENT.pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        worker = int(parent.stdout.readline())
        assert b"secret" not in Path(f"/proc/{worker}/environ").read_bytes()
        parent.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_answers_that_can_not_be_right_are_not_sent():
    task = create_task({"name": "reasoning_gym.countdown"})
    problem = task.sample(train_seed(0, 0), 0)
    assert task.verify(problem, problem.answer) == 1
    before = sum(CLIENT.fates.values())
    limit = task.answer_limit(0)
    for answer in ("", "1" * (limit + 1), "x", "__import__('os')", "9**9**9", "9" * 7):
        assert task.verify(problem, answer) == 0
    assert sum(CLIENT.fates.values()) == before
    assert task.verify(problem, "1+1") == 0
    assert sum(CLIENT.fates.values()) == before + 1


def test_forms_let_no_name_attribute_or_tower_through():
    for form, right in (
        (ARITHMETIC, ["99*45 - 3", "(1+2)*3/4", "7"]),
        (POLYNOMIAL, ["23712*y**5 - 52960*y**3 + 2", "x", "x*y**2"]),
        (
            PRIMITIVE,
            ["-2*(4*x + 1)**(3/2) + C", "3*x*asin(2*x) + sqrt(1 - 4*x**2)/2 + C", "-5*X**9 + C", "exp(x)*cos(x)"],
        ),
    ):
        for text in right:
            assert re.fullmatch(form, text), text
        wrong = [
            "9**9**9",
            "9** 9",
            "x**9**9",
            "x**99 **99",
            "x.y",
            "Integral(x, x)",
            "S('x')",
            "x(3)",
            "C(1)",
            "E",
            "a",
        ]
        for text in [*wrong, "lambda: x", "x if x else x", "[x]", "x;x", "_", "exec(x)", "xC", "evalf", "1,2", "x\n"]:
            assert re.fullmatch(form, text) is None, text


def test_forms_of_numbers_and_durations():
    for form, right, wrong in (
        (
            NUMBERS,
            ["0.0", "-0.9531, 0.0", "5", "-0.05,3"],
            ["-0", "-0.0", "1.0, -0", "1e3", "nan", "1.0, ", "1.0 x", ".5"],
        ),
        (DURATION, ["0 days", "12 days, 03:04", "00:00:49", "5:10.250"], ["-0", "0", "0 days or more", "5", "days"]),
    ):
        assert all(re.fullmatch(form, text) for text in right)
        assert not any(re.fullmatch(form, text) for text in wrong)


def test_hostile_answers_do_nothing_and_score_nothing(tmp_path):
    canary = tmp_path / "canary"
    kept = tmp_path / "canary.kept"
    kept.write_text("kept")
    for name in DATA_SETS:
        task = create_task({"name": f"reasoning_gym.{name}"})
        problem = task.sample(train_seed(1, 0), 0)
        for answer in [*harmful(str(canary)), *harmful("c"), *ENDLESS]:
            assert task.verify(problem, answer) == 0, (name, answer)
    assert children(CLIENT.pid) == []
    run = subprocess.run(
        [sys.executable, "-m", "helpers.hostile_answers", str(canary)],
        cwd=TESTS,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(run.stdout.splitlines()[-1])
    for name, traits in DATA_SETS.items():
        fate, scores = results.pop(name)
        assert fate == "returned" or name in EVALUATED, (name, fate)
        # The verifier of quantum_lock reads an A, B or C out of any text; the form keeps such texts from it.
        assert traits.exact or 1.0 not in scores or name == "quantum_lock", name
    assert {fate for fate, _ in results.values()} == {"returned", "died"}
    assert not any(1.0 in scores for _, scores in results.values())
    assert os.listdir(tmp_path) == ["canary.kept"]
    for name in ("gcd", "countdown", "spiral_matrix", "simple_integration"):
        task = create_task({"name": f"reasoning_gym.{name}"})
        problem = task.sample(train_seed(1, 1), 0)
        assert task.verify(problem, problem.answer) == 1
        assert CLIENT.score(name, 0, problem.meta["seed"], problem.answer) == 1
