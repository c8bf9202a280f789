# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hosts of a deployment found out about weights, put together."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.baremetal.llm.plugins.module_utils.weights import equality

READY_VARIABLE = "__weights_ready"
FOUND_VARIABLE = "__weights_found"
# Best first: libtorrent proves every piece on its way, rsync every file.
ENGINES = ("libtorrent", "rsync")


def share_engine(names, hostvars, wanted="auto"):
    """Return the engine that all of the hosts ``names`` can run; ``wanted`` is auto or the only one to be taken."""
    candidates = ENGINES if wanted == "auto" else (wanted,)
    lacking = {}
    for engine in candidates:
        reasons = {name: _reason(hostvars[name], engine) for name in names}
        lacking[engine] = {name: reason for name, reason in reasons.items() if reason}
        if not lacking[engine]:
            return engine
    told = [f"{engine} on {name}: {reason}" for engine, by_host in lacking.items() for name, reason in by_host.items()]
    raise AnsibleFilterError(
        "nothing can share the weights between these hosts; wanted: "
        + " or ".join(candidates)
        + " on every one of them; found: "
        + "; ".join(told)
        + "; remedy: install rsync on all of them, or put the wheels of libtorrent on the control node into the folder "
        "llm_weights_wheels"
    )


def _reason(variables, engine):
    ready = variables.get(READY_VARIABLE) or {}
    return (ready.get("engines") or {}).get(engine, "the host did not say")


def weights_chain(weights, names, hostvars):
    """Return the chain of the plan, [{host, address}], with the host at its head that gives the weights to the others.

    That is the seed of the plan; where it has lost or damaged files that another host still has, the first such host:
    what is wrong then comes from a neighbour and not from far away, and no source is needed.

    :param weights: of the plan; ``seed``, ``chain`` and ``patch`` are read
    """
    whole = [link["host"] for link in weights["chain"] if link["host"] in names]
    whole = [name for name in whole if _is_whole(hostvars[name].get(FOUND_VARIABLE), weights["patch"])]
    giver = whole[0] if whole and weights["seed"] not in whole else weights["seed"]
    if giver not in names:
        raise AnsibleFilterError(
            f"{giver}, which is to fetch the weights, did not answer; wanted: {giver}, or another host that has all of "
            f"them; found: {', '.join(names)}; remedy: see what is wrong with {giver}, or change llm_weights_seed"
        )
    head = [link for link in weights["chain"] if link["host"] == giver]
    return head + [link for link in weights["chain"] if link["host"] != giver]


def _is_whole(found, changed):
    """True when a host has every file, those that the plan changes in whichever form."""
    if not isinstance(found, dict) or "tree" not in found:
        return False
    wrong = {problem["path"] for problem in found["corrupt"]} - set(changed)
    return not (wrong or found["missing"] or found["unexpected"])


def weights_table(found):
    """Return {equal, rows, text} over what the hosts hold; see equality.table.

    ``found`` has by host what weights_verify returned as ``verified`` and what weights_share returned as ``shared``.
    """
    results = {name: _of_host(one) for name, one in found.items()}
    proved = [result for result in results.values() if "tree" in result]
    for name, one in found.items():
        # It sees the file system of the seed, which has proved the files.
        if (one.get("shared") or {}).get("shared") and proved:
            results[name] = proved[0]
    return equality.table(results)


def _of_host(results):
    verified = results.get("verified") or {}
    return verified if "tree" in verified else {"msg": str(verified.get("msg") or "not verified")}


class FilterModule:
    def filters(self):
        return {"share_engine": share_engine, "weights_chain": weights_chain, "weights_table": weights_table}
