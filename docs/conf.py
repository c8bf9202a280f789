# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Sphinx. The pages are put together by tools/docs.py."""

from __future__ import annotations

from pathlib import Path

import yaml
from docutils import nodes

_GALAXY = yaml.safe_load((Path(__file__).parent.parent / "galaxy.yml").read_text())

project = f"{_GALAXY['namespace']}.{_GALAXY['name']}"
author = _GALAXY["authors"][0]
project_copyright = f"2026 {author}"
version = release = _GALAXY["version"]

extensions = ["myst_parser", "sphinx_antsibull_ext"]
myst_enable_extensions = ["colon_fence", "deflist"]
# Headings down to the third level can be linked to by their text.
myst_heading_anchors = 3

html_theme = "sphinx_rtd_theme"
html_title = f"{project} {release}"
html_copy_source = False

_ANSIBLE = "https://docs.ansible.com/projects/ansible/latest"
# The labels that antsibull-docs puts into the pages it makes.
_ANSIBLE_PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "callback_plugins": "plugins/callback.html",
    "collections_keyword": "collections_guide/collections_using_playbooks.html",
    "common_return_values": "reference_appendices/common_return_values.html",
    "list_of_callback_plugins": "collections/index_callback.html",
    "list_of_collections": "collections/index.html",
}


def _ansible_url(kind: str, target: str) -> str | None:
    """Where Ansible's own documentation has what is referred to here; None for what should be in these pages."""
    if kind == "envvar":
        return f"{_ANSIBLE}/reference_appendices/config.html#envvar-{target}"
    if target in _ANSIBLE_PAGES:
        return f"{_ANSIBLE}/{_ANSIBLE_PAGES[target]}"
    label = target.removeprefix("ansible_collections.")
    if label == target or label.startswith(f"{project}."):
        return None
    page, *anchor = label.split("__", 1)
    namespace, collection, plugin = page.split(".", 2)
    return "#".join([f"{_ANSIBLE}/collections/{namespace}/{collection}/{plugin}.html", *anchor])


def _link_to_ansible(app, env, node, content):
    """In place of intersphinx, which would fetch an index of those pages at every build."""
    url = _ansible_url(node.get("reftype"), node.get("reftarget", ""))
    return nodes.reference("", "", content, internal=False, refuri=url) if url else None


def setup(app):
    app.connect("missing-reference", _link_to_ansible)
