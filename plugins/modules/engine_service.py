#!/usr/bin/python

# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_service
short_description: Run an engine under a supervisor
version_added: 0.1.0
description:
  - Starts the engine under supervisord, which outlives the playbook, keeps the logs and starts the engine
    again when it crashes.
  - An engine that already runs as described is left alone; any difference restarts it once.
author:
  - The baremetal.llm authors (@baremetal-llm)
extends_documentation_fragment:
  - baremetal.llm.attributes
options:
  run_dir:
    description:
      - Folder of this service; configuration, logs, the engine's home.
    type: path
    required: true
  python:
    description:
      - Interpreter of the environment that supervisord is installed in.
    type: path
  launch:
    description:
      - The plan's LaunchSpec, with C(argv), C(env), C(workdir), C(port), C(stop_seconds).
    type: dict
  inputs:
    description:
      - What the engine is started on (environment, weights); a difference restarts it.
    type: dict
    default: {}
  secret_env:
    description:
      - Further environment variables, kept in a file of mode 0600 and out of every output.
    type: dict
    default: {}
  state:
    description:
      - V(stopped) ends it and leaves the logs; V(absent) also deletes what it wrote.
    type: str
    choices: [started, stopped, absent]
    default: started
"""

EXAMPLES = r"""
- name: Stop the engine
  baremetal.llm.engine_service:
    run_dir: /var/lib/baremetal-llm/deployments/local
    state: stopped
"""

RETURN = r"""
action:
  description: What was done, or would be in check mode; V(none), V(start), V(restart), V(stop) or V(remove).
  returned: success
  type: str
exits:
  description: How often the engine has ended since it was started; restarts after a crash.
  returned: success
  type: int
stopped_pids:
  description: Processes that were there and were ended.
  returned: success
  type: list
  elements: int
removed:
  description: Paths that were deleted.
  returned: success
  type: list
  elements: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.llm.plugins.module_utils import atomic
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.runtime.service import Service, digest_of


def started(module, service):
    params = module.params
    launch = {key: params["launch"][key] for key in ("argv", "env", "workdir", "port")}
    full = dict(launch, env=dict(launch["env"], **params["secret_env"]))
    digest = digest_of(full, params["inputs"])
    if service.is_running(digest):
        return {"changed": False, "action": "none", "stopped_pids": []}
    there = service.processes()
    shown = public(service, set(params["secret_env"]))
    if not module.check_mode:
        service.stop()
        service.start(full, digest, params["inputs"])
    after = json.dumps(dict(launch, inputs=params["inputs"]), indent=2, sort_keys=True) + "\n"
    return {
        "changed": True,
        "action": "restart" if there else "start",
        "stopped_pids": there,
        "diff": {"before": shown, "after": after},
    }


def public(service, secret_names):
    """Return the launch that is there as text, without secrets and without what the service adds itself."""
    launch = atomic.read_json(service.path("launch.json"))
    if launch is None:
        return ""
    hidden = secret_names | set(service.own_variables())
    launch["env"] = {name: value for name, value in launch["env"].items() if name not in hidden and "KEY" not in name}
    return json.dumps(dict(launch, inputs=service.started().get("inputs", {})), indent=2, sort_keys=True) + "\n"


def ended(module, service):
    there = service.processes()
    gone = []
    if not module.check_mode:
        service.stop()
    if module.params["state"] == "absent":
        gone = service.remove(check=module.check_mode)
    action = "remove" if gone else "stop" if there else "none"
    return {"changed": bool(there or gone), "action": action, "stopped_pids": there, "removed": gone}


def main():
    module = AnsibleModule(
        argument_spec={
            "run_dir": {"type": "path", "required": True},
            "python": {"type": "path"},
            "launch": {"type": "dict"},
            "inputs": {"type": "dict", "default": {}},
            "secret_env": {"type": "dict", "default": {}, "no_log": True},
            "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
        },
        required_if=[("state", "started", ("python", "launch"))],
        supports_check_mode=True,
    )
    params = module.params
    try:
        service = Service(
            os.path.realpath(params["run_dir"]),
            params["python"] or "",
            (params["launch"] or {}).get("stop_seconds", 30),
        )
        result = (started if params["state"] == "started" else ended)(module, service)
    except LlmError as error:
        module.fail_json(**error.as_result(os.uname().nodename))
    except OSError as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error.filename}: {error.strerror}")
    module.exit_json(**dict({"removed": []}, exits=len(service.exits()), **result))


if __name__ == "__main__":
    main()
