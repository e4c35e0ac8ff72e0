"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """How bad it is; larger is worse."""

    OK = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True)
class Finding:
    """One check on one host, or on all ranks together."""

    what: str
    status: Status
    said: str
    remedy: str = ""  # what to do about it


def merged(findings: Iterable[tuple[str, Finding]]) -> list[Finding]:
    """Findings of (host, finding) pairs: one that all hosts share is said once, others are named by their host."""
    by_finding: dict[Finding, list[str]] = {}
    hosts: set[str] = set()
    for host, one in findings:
        hosts.add(host)
        known = by_finding.setdefault(one, [])
        if host not in known:
            known.append(host)
    merged_ones = []
    for one, where in by_finding.items():
        said = one.said if len(where) == len(hosts) else f"{one.said} ({', '.join(where)})"
        merged_ones.append(Finding(one.what, one.status, said, one.remedy))
    return merged_ones


def worst(findings: Iterable[Finding]) -> Status:
    """The worst status among them."""
    return max((one.status for one in findings), default=Status.OK)
