"""Two hosts of two ranks, joined by one cable: a run, a rank that is killed, and the cable cut."""

import re
import sys
import time

import pytest
from helpers.faults import remains, write_short_run
from helpers.hosts import MISSING, REASON, two_hosts
from helpers.runs import metric_rows, write_run

from rlpt.config import load_config
from rlpt.launch.spec import make_spec

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(MISSING, reason=REASON)]
TIMEOUT, LIMIT = 10, 240  # seconds: of a collective, of a run


def start_both(hosts, config, run, restarts):
    """Launches of the job's two nodes, by what `rlpt launch` writes for a rendezvous of nodes that may be replaced."""
    spec = make_spec(load_config(config), 2, 2, grace=3)
    launches = []
    for number, host in enumerate(hosts):
        arguments = spec.ranks(spec.elastic_rendezvous(hosts[0].address, str(spec.port)), str(config), restarts)
        at = arguments.index("-m", 2)
        command = [sys.executable, *arguments[:at], f"--local-addr={host.address}", *arguments[at:], f"run_dir={run}"]
        name, _, value = spec.hosting(str(int(number == 0))).partition("=")
        environment = dict(spec.environment) | {name: value.strip('"')}
        launches.append(host.start(command, environment, run.with_name(f"{run.name}-{number}.log")))
    return launches


def until(is_done, launches):
    began = time.monotonic()
    while not is_done():
        assert time.monotonic() - began < LIMIT, [one.output for one in launches]
        time.sleep(0.05)
    return time.monotonic() - began


def rows(run):
    try:
        return [row["step"] for row in metric_rows(run) if "lr" in row]
    except ValueError:  # a line that is being written
        return []


def both_ended(launches):
    return lambda: all(one.process.poll() is not None for one in launches)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    overrides = ["parallel.tensor=2", "parallel.data=2", f"device.timeout_seconds={TIMEOUT}", "schedule.steps=12"]
    return write_short_run(write_run(tmp_path_factory.mktemp("hosts")), *overrides)


@pytest.fixture(scope="module")
def unbroken(config):
    run = config.parent / "unbroken"
    with two_hosts() as hosts:
        launches = start_both(hosts, config, run, restarts=0)
        until(both_ended(launches), launches)
        assert [one.process.returncode for one in launches] == [0, 0], [one.output for one in launches]
        assert [one.left_behind() for one in launches] == [[], []]
    return run


def test_four_ranks_on_two_hosts_train(unbroken):
    assert rows(unbroken) == list(range(1, 13))


def test_a_killed_rank_starts_both_hosts_anew(config, unbroken):
    run = config.parent / "killed"
    with two_hosts() as hosts:
        launches = start_both(hosts, config, run, restarts=3)
        until(lambda: 5 in rows(run), launches)
        launcher = [one for one in launches[1].alive() if "rlpt.launcher" in one.cmdline()]
        ranks = [one for one in launches[1].alive() if one.ppid() in {one.pid for one in launcher}]
        next(one for one in ranks if one.environ().get("LOCAL_RANK") == "1").kill()
        until(lambda: "resumed from" in launches[0].output, launches)
        until(both_ended(launches), launches)
        assert [one.process.returncode for one in launches] == [0, 0], [one.output for one in launches]
        assert [one.left_behind() for one in launches] == [[], []]
    assert remains(run) == remains(unbroken)


def test_a_cut_cable_ends_in_errors_that_name_the_other_host(config):
    run = config.parent / "cut"
    with two_hosts() as hosts:
        launches = start_both(hosts, config, run, restarts=0)
        until(lambda: 5 in rows(run), launches)
        hosts[1].unplug()
        seconds = until(lambda: all("does not answer" in one.output for one in launches), launches)
        for launch, other in zip(launches, reversed(hosts), strict=True):
            pattern = rf"step \d+, \w+ for \d+ s: .*missing: host {other.name} \({re.escape(other.address)}\) does not"
            assert re.search(pattern, launch.output), launch.output
        assert seconds < TIMEOUT + 8
        ended = until(lambda: any(one.process.poll() is not None for one in launches), launches)
        assert 75 in [one.process.returncode for one in launches]
        for launch in launches:
            launch.kill()
        print(f"named after {seconds:.1f} s, the first launcher ended {ended:.1f} s later")
