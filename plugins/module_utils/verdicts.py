# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds the requirements of a plan against discovered facts and returns every verdict at once. Pure."""

from __future__ import annotations

from typing import Callable

from .checks import devices, gpu, group, machine, npu
from .checks.levels import FAIL, OK, WARN, HostVerdict, Verdict, listed

_HOST_CHECKS = {**machine.CHECKS, **devices.CHECKS, **npu.CHECKS, **gpu.CHECKS}
_GROUP_CHECKS = group.CHECKS
# What a program could not read on a host: (part of the facts, checks that tell of it when they fail there).
_SUBJECTS = (("", ()), ("npu", ("devices", "npu_network")), ("gpu", ("devices",)))
# What stands in the way of the probe between hosts, on whichever of them.
_CARRIERS_OF_PROBE = ("devices", "npu_network", "connections", "interface")


def judge(document: dict, facts_by_host: dict[str, dict]) -> list[dict]:
    """Return [{host, check, level, wanted, found, remedy}] for every requirement of the plan, in the plan's order."""
    facts_of = {host: facts for host, facts in facts_by_host.items() if _answered(facts)}
    verdicts = [_silent(host, facts_by_host.get(host)) for host in _hosts(document) if host not in facts_of]
    for requirement in document["requirements"]:
        host = requirement.get("host")
        if host in facts_of:
            judged = _judged(requirement, _HOST_CHECKS, facts_of[host])
            verdicts += [_verdict(host, requirement, one) for one in judged]
    ill = _not_well(verdicts)
    for requirement in document["requirements"]:
        hosts = [host for host in requirement.get("hosts", []) if host in facts_of]
        if len(hosts) > 1:
            judged = _judged(requirement, _GROUP_CHECKS, facts_of, ill)
            found = [_verdict(getattr(one, "host", hosts[0]), requirement, one) for one in judged]
            verdicts += found
            ill |= _not_well(found)
    return verdicts + _problems(facts_of, ill)


def passed(verdicts: list[dict], fail_on: str = FAIL) -> bool:
    """True when no verdict is a fail; with ``fail_on`` warn, when none is a fail or a warning."""
    return all(verdict["level"] not in ((FAIL,) if fail_on == FAIL else (FAIL, WARN)) for verdict in verdicts)


def table(verdicts: list[dict]) -> str:
    """Return the verdicts as lines for a person: what is wrong in full, the worst first; what is well by its number."""
    lines = []
    for level in (FAIL, WARN):
        for verdict in verdicts:
            if verdict["level"] == level:
                line = f"{level:4} {verdict['host']} {verdict['check']}: "
                line += f"wanted {verdict['wanted']}; found {verdict['found']}; remedy: {verdict['remedy']}"
                lines.append(line)
    well = [verdict for verdict in verdicts if verdict["level"] == OK]
    if not well:
        return "\n".join(lines)
    hosts = list(dict.fromkeys(verdict["host"] for verdict in verdicts))
    checks = list(dict.fromkeys(verdict["check"] for verdict in well))
    lines.append(f"{OK:4} {len(well)} of {len(verdicts)} on {listed(hosts)}: {listed(checks, 40)}")
    return "\n".join(lines)


def _not_well(verdicts: list[dict]) -> set[tuple[str, str]]:
    return {(verdict["host"], verdict["check"]) for verdict in verdicts if verdict["level"] != OK}


def _answered(facts: object) -> bool:
    return isinstance(facts, dict) and bool(facts) and not facts.get("unreachable") and not facts.get("failed")


def _hosts(document: dict) -> list[str]:
    named = [
        [requirement["host"]] if "host" in requirement else requirement["hosts"]
        for requirement in document["requirements"]
    ]
    return list(dict.fromkeys(host for hosts in named for host in hosts))


def _silent(host: str, facts: object) -> dict:
    reason = str(facts.get("msg", "")).strip() if isinstance(facts, dict) else ""
    return {
        "host": host,
        "check": "facts",
        "level": FAIL,
        "wanted": "facts of this host",
        "found": reason or "none",
        "remedy": "make the host reachable: ansible -m ping " + host,
    }


def _verdict(host: str, requirement: dict, one: Verdict | HostVerdict) -> dict:
    return {
        "host": host,
        "check": requirement["what"] if requirement["check"] == "equal" else requirement["check"],
        "level": one.level,
        "wanted": one.wanted,
        "found": one.found,
        "remedy": one.remedy,
    }


def _judged(requirement: dict, checks: dict[str, Callable], *evidence: object) -> list:
    """Return the verdicts of one check; facts that lack what it needs are a failure of their own."""
    try:
        return checks[requirement["check"]](requirement, *evidence)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        return [
            Verdict(
                FAIL,
                f"facts that the check {requirement['check']} can be held against",
                f"facts or a plan that lack a part ({type(error).__name__}: {error})",
                "run plan.yml again with the collection's version of now; it discovers the host anew",
            )
        ]


def _problems(facts_of: dict[str, dict], ill: set) -> list[dict]:
    """Return a warning for each thing that could not be read, unless a check has failed for that very reason."""
    found = []
    probed = not any(check in _CARRIERS_OF_PROBE for _host, check in ill)
    for host, facts in facts_of.items():
        subjects = [part for part, carriers in _SUBJECTS if not any((host, check) in ill for check in carriers)]
        for part in [*subjects, "peers"] if probed else subjects:
            told = facts.get(part) if part else facts
            problems = told.get("problems") if isinstance(told, dict) else []
            if not isinstance(problems, list):
                continue
            found += [
                {
                    "host": host,
                    "check": "discovery",
                    "level": WARN,
                    "wanted": "every fact of the host",
                    "found": str(problem),
                    "remedy": "see to it where a later check depends on it",
                }
                for problem in problems
            ]
    return found
