"""Answers that try to do harm, and what reasoning-gym's verifiers say of them behind confinement.

python -m helpers.hostile_answers CANARY  ->  {data set: [how the child ended, scores]} as JSON
"""

import json
import sys

from rlpt.tasks.confinement import Fate, Limits, refusals, run_confined

_SHELL = "__import__('os')"
_LIMITS = Limits(cpu_seconds=1)
EVALUATED = ("binary_matrix", "n_queens", "simple_integration", "spiral_matrix", "string_insertion")


def harmful(canary: str) -> list[str]:
    """Expressions that would leave the file `canary`, or take something, or kill something."""
    return [
        f"{_SHELL}.system('touch {canary}')",
        f"open('{canary}', 'w').write('x')",
        "open('/etc/passwd').read()",
        "__import__('socket').socket().connect(('127.0.0.1', 9))",
        f"[{_SHELL}.fork() for _ in range(64)]",
        f"{_SHELL}.execv('/bin/sh', ['sh', '-c', 'touch {canary}'])",
        f"{_SHELL}.kill({_SHELL}.getppid(), 9)",
        "[open('/proc/self/environ').read(), open('/proc/1/environ').read()]",
        f"{_SHELL}.unlink('{canary}.kept')",
        f"{_SHELL}.mkdir('{canary}')",
        f"{_SHELL}.write(1, b'1.0') and 1",
        "bytearray(10 << 30)",
        f"__import__('subprocess').run(['touch', '{canary}'])",
        f"[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['touch', '{canary}'])",
        f"__import__('ctypes').CDLL(None).system(b'touch {canary}')",
    ]


ENDLESS = ["sum(0 for _ in iter(int, 1))", "9**9**9**9", "(lambda f: f(f))(lambda f: f(f))", f"{_SHELL}._exit(0)"]


def main(canary: str) -> None:
    """Every verifier scores all harmful answers in one child; two score the endless ones, each in its own."""
    from rlpt.tasks.reasoning_gym import items
    from rlpt.tasks.reasoning_gym.catalogue import DATA_SETS

    assert refusals() == []
    results = {}
    for name in DATA_SETS:
        data_set, entry = items.item(name, 0, 5)

        def scores(answers):
            given = []
            for answer in answers:
                try:
                    given.append(data_set.score_answer(answer, entry))  # noqa: B023
                except BaseException:
                    given.append(0.0)
            return json.dumps(given).encode()

        fate, text = run_confined(lambda: scores(harmful(canary)), _LIMITS)
        results[name] = [fate, json.loads(text) if fate is Fate.RETURNED else []]
    for name in ("simple_integration", "spiral_matrix"):
        data_set, entry = items.item(name, 0, 5)
        for answer in ENDLESS:
            fate, text = run_confined(lambda: scores([answer]), _LIMITS)  # noqa: B023
            results[f"{name} {answer}"] = [fate, json.loads(text) if fate is Fate.RETURNED else []]
    print("\n" + json.dumps(results))  # after what data sets print


if __name__ == "__main__":
    main(sys.argv[1])
