# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the planner needs from the inventory, and what a node needs from the plan."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.baremetal.llm.plugins.module_utils import settings
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.planning import groups as grouping
from ansible_collections.baremetal.llm.plugins.module_utils.planning import inquiry

FACTS_VARIABLE = "__discover_facts"
# What other modules found on the host, and below which name it joins its facts.
FURTHER_VARIABLES = {"npu": "__discover_npu", "gpu": "__discover_gpu", "peers": "__preflight_peers"}


def serving_hosts(names, hostvars, groups, family=None):
    """Return [{name, replica, settings, facts, address}] for the hosts ``names``, as module serving_plan takes them.

    ``family`` holds the settings of the family's playbook; those of the inventory and of ``-e`` go before them.
    """
    replicas = {}
    for group, members in sorted(groups.items()):
        for host in members if group.startswith("replica_") else []:
            if host in replicas and host in names:
                raise AnsibleFilterError(
                    f"{host} is in two replica groups; wanted: one; found: {replicas[host]} and {group}; "
                    "remedy: take it out of one of them"
                )
            replicas[host] = group
    _check_whole(names, replicas, groups)
    return [
        {
            "name": name,
            "replica": replicas.get(name, ""),
            "settings": _settings(hostvars[name], family),
            "facts": _answer(hostvars[name]),
            "address": _reached_at(hostvars[name], name),
        }
        for name in names
    ]


def _check_whole(names, replicas, groups):
    """Refuse a run that leaves out hosts of a replica group: the others' ranks would be planned anew."""
    for host in groups.get("serving", []):
        beside = [name for name in names if replicas.get(name, "") == replicas.get(host, "")]
        if host not in names and beside:
            raise AnsibleFilterError(
                f"{host} is left out of this run; wanted: all hosts of {replicas.get(host) or 'the group serving'}, "
                f"which serve as one; found: only {', '.join(beside)}; "
                "remedy: remove --limit, or limit to whole replica groups"
            )


def _reached_at(variables, name):
    """Return the IPv4 address at which the inventory reaches a host, empty where it has only a name for it."""
    address = str(variables.get("ansible_host", name))
    return address if grouping.is_address(address) else ""


def discovered(names, hostvars):
    """Return {name: facts} of the hosts ``names``, as module preflight_verdict takes them."""
    found = {}
    for name in names:
        told = hostvars[name].get(FACTS_VARIABLE) or {}
        silent = {key: told[key] for key in ("unreachable", "failed", "msg") if key in told}
        found[name] = _answer(hostvars[name]) or silent
    return found


def _answer(variables):
    """Return the facts of one host, empty when it did not answer."""
    facts = variables.get(FACTS_VARIABLE) or {}
    if facts.get("unreachable") or facts.get("failed"):
        return {}
    further = {key: variables.get(name) or {} for key, name in FURTHER_VARIABLES.items()}
    # What was not run, or did not end, is nothing that was found.
    there = {key: result for key, result in further.items() if "problems" in result}
    return {**facts, **there}


def discovery(hostvars, names, groups, collection_dir, family=None):
    """Return {host: what discovery looks at there} for the play's hosts ``names``; see planning/inquiry.py.

    ``peer`` is the address of another node of its replica group, by which the route tells the interface between them.
    """
    found = {}
    for host in names:
        variables = hostvars[host]
        try:
            own = settings.convert(host, _settings(variables, family))
        except LlmError as error:
            raise AnsibleFilterError(str(error)) from error
        peer = _peer(hostvars, host, variables, names, groups)
        found[host] = {**inquiry.discovery(own, collection_dir), "peer": peer}
    return found


def _peer(hostvars, host, variables, names, groups):
    replicas = [members for group, members in groups.items() if group.startswith("replica_") and host in members]
    nodes = [name for name in names if not replicas or name in replicas[0]]
    # The head is what the others meet at.
    others = [name for name in nodes if name != host]
    if not others or variables.get("ansible_connection") == "local":
        return ""
    return str(hostvars[others[0]].get("ansible_host", others[0]))


def probes(plan):
    """Return {host: what module peer_probe needs there} for every host of ``plan``; see planning/inquiry.py."""
    return {node["host"]: inquiry.probe(plan, node["host"]) for node in inquiry.nodes_of(plan)}


def _settings(variables, family):
    found = dict(family or {})
    found.update({name: variables[name] for name in variables if name.startswith("llm_")})
    if "llm_api_keys" in found:
        keys = found["llm_api_keys"] or []
        if not isinstance(keys, list):
            # The length of a text would pass for a number of keys, and its first letter for the key.
            raise AnsibleFilterError(
                "llm_api_keys has the wrong form; wanted: a list with one key an entry; found: no list"
            )
        # Secrets stay where they are; the plan is printed and saved.
        found["llm_api_keys"] = len(keys)
    for name in settings.SECRETS:
        if name in found and name != "llm_api_keys":
            found[name] = "given" if found[name] else None
    return found


def places(variables, host, collection_dir, family=None):
    """Return the paths that belong to one host, from its variables; see planning/inquiry.py."""
    try:
        return inquiry.places(settings.convert(host, _settings(variables, family)), collection_dir)
    except LlmError as error:
        raise AnsibleFilterError(str(error)) from error


def stage_error(names, hostvars):
    """Return {host, task, msg, wanted, found, remedy} of the first of the hosts ``names`` on which a stage failed.

    Where one host fails, all end their stage; only those that failed by themselves know why.
    """
    for name in names:
        result = hostvars[name].get("ansible_failed_result")
        if result:
            task = getattr(hostvars[name].get("ansible_failed_task"), "name", "")
            found = {key: str(result.get(key, "")) for key in ("wanted", "found", "remedy")}
            return {"host": name, "task": str(task), "msg": str(result.get("msg", "no message")), **found}
    return {"host": names[0], "task": "", "msg": "no message", "wanted": "", "found": "", "remedy": ""}


def plan_node(plan, host):
    """Return the node of ``host`` in ``plan``."""
    found = [node for node in inquiry.nodes_of(plan) if node["host"] == host]
    if not found:
        raise AnsibleFilterError(f"{host} has no place in the plan of deployment {plan.get('deployment')}")
    return found[0]


def pick(variables, names):
    """Return {key: variables[name]} for those of ``names`` {key: name} that are there."""
    return {key: variables[name] for key, name in names.items() if name in variables}


class FilterModule:
    def filters(self):
        return {
            "discovered": discovered,
            "discovery": discovery,
            "pick": pick,
            "places": places,
            "plan_node": plan_node,
            "probes": probes,
            "serving_hosts": serving_hosts,
            "stage_error": stage_error,
        }
