# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the planner needs from the inventory, and what a node needs from the plan."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.baremetal.llm.plugins.module_utils import planning, settings
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError

FACTS_VARIABLE = "__discover_facts"


def serving_hosts(names, hostvars, groups, family=None):
    """Return [{name, replica, settings, facts}] for the hosts ``names``, as module serving_plan takes them.

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
    return [
        {
            "name": name,
            "replica": replicas.get(name, ""),
            "settings": _settings(hostvars[name], family),
            "facts": hostvars[name].get(FACTS_VARIABLE) or {},
        }
        for name in names
    ]


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
    return found


def places(variables, host, collection_dir, family=None):
    """Return the paths that belong to one host, from its variables; see planning.places."""
    try:
        return planning.places(settings.convert(host, _settings(variables, family)), collection_dir)
    except LlmError as error:
        raise AnsibleFilterError(str(error)) from error


def plan_node(plan, host):
    """Return the node of ``host`` in ``plan``."""
    found = [node for node in planning.nodes_of(plan) if node["host"] == host]
    if not found:
        raise AnsibleFilterError(f"{host} has no place in the plan of deployment {plan.get('deployment')}")
    return found[0]


def pick(variables, names):
    """Return {key: variables[name]} for those of ``names`` {key: name} that are there."""
    return {key: variables[name] for key, name in names.items() if name in variables}


class FilterModule:
    def filters(self):
        return {"serving_hosts": serving_hosts, "places": places, "plan_node": plan_node, "pick": pick}
