# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings an image to a host through community.docker's modules: from a registry, or an archive of the control node."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.baremetal.llm.plugins.module_utils import control
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.planning import images


class ActionModule(ActionBase):
    """The action of the module of the same name."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=control.IMAGE)
        host = (task_vars or {}).get("inventory_hostname", "")
        try:
            result.update(self._bring(host, options, task_vars))
        except LlmError as error:
            result.update(error.as_result(host), failed=True)
        return result

    def _bring(self, host, options, task_vars):
        image = self._look(host, options, task_vars)
        changed = image is None
        if changed and not self._task.check_mode:
            if options["pull"]:
                self._call(host, "docker_image_pull", {"name": options["reference"]}, task_vars)
            elif options["archive"]:
                self._load(host, options, task_vars)
            image = self._look(host, options, task_vars)
        if image is None and not (self._task.check_mode and (options["pull"] or options["archive"])):
            raise LlmError(
                f"{host}: the image is not there",
                wanted=options["reference"],
                found="no such image" + (f" in {options['archive']}" if options["archive"] else ""),
                remedy="set llm_image to NAME@sha256:DIGEST of a registry, or llm_image_archive to a saved image",
            )
        shown = {"diff": {"before": "", "after": options["reference"] + "\n"}} if changed else {}
        if image is None:
            return {"changed": True, "id": "", "architecture": "", **shown}
        _check_architecture(host, options, image)
        return {"changed": changed, "id": image["Id"], "architecture": image["Architecture"], **shown}

    def _look(self, host, options, task_vars):
        told = self._call(host, "docker_image_info", {"name": [options["reference"]]}, task_vars)
        return told["images"][0] if told["images"] else None

    def _load(self, host, options, task_vars):
        """Copy the archive to the host, load it, delete the copy."""
        folder = {"path": options["staging"], "state": "directory", "mode": "0700"}
        self._call(host, "file", folder, task_vars, "ansible.builtin")
        copy = self._connection._shell.join_path(options["staging"], "image.tar")
        try:
            self._transfer_file(options["archive"], copy)
            self._call(host, "docker_image_load", {"path": copy}, task_vars)
        finally:
            self._call(host, "file", {"path": options["staging"], "state": "absent"}, task_vars, "ansible.builtin")

    def _call(self, host, module, arguments, task_vars, collection="community.docker"):
        told = self._execute_module(
            module_name=f"{collection}.{module}", module_args=arguments, task_vars=task_vars, wrap_async=False
        )
        if told.get("failed"):
            raise LlmError(
                f"{host}: {collection}.{module} failed",
                wanted=", ".join(f"{name} {value}" for name, value in arguments.items()),
                found=str(told.get("msg", "no message"))[-600:],
                remedy="see that Docker Engine runs there, and that the registry or the archive is whole",
            )
        return told


def _check_architecture(host, options, image):
    wanted = images.ARCHITECTURES.get(options["machine"], "")
    if wanted and image["Architecture"] not in ("", wanted):
        raise LlmError(
            f"{host}: the image is built for other machines",
            wanted=f"an image for {options['machine']} ({wanted})",
            found=f"{options['reference']}: {image['Architecture']}",
            remedy="take the image of the host's architecture",
        )
