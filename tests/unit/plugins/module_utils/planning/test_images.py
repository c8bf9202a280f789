# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.planning import images

HEX = "0123456789abcdef" * 4
ARCHIVE = {"id": f"sha256:{HEX}", "tags": ["vllm-ascend:v1"], "architecture": "arm64", "bytes": 9}


def test_an_image_by_the_digest_of_its_registry_is_pulled():
    found = images.of({"llm_image": f"registry.example:5000/a/b:v1@sha256:{HEX}"}, None, True)
    assert found["reference"] == f"registry.example:5000/a/b:v1@sha256:{HEX}"
    assert found["pull"]


def test_an_image_by_its_id_has_to_be_there():
    found = images.of({"llm_image": f"sha256:{HEX}"}, None, True)
    assert found["reference"] == found["id"] == f"sha256:{HEX}"
    assert not found["pull"]


@pytest.mark.parametrize("named", [{}, {"llm_image": "vllm-ascend:v1"}, {"llm_image": f"sha256:{HEX}"}])
def test_an_archive_is_run_by_the_id_of_its_image(named):
    found = images.of({**named, "llm_image_archive": "/srv/i.tar"}, ARCHIVE, True)
    assert found == {
        "reference": f"sha256:{HEX}",
        "id": f"sha256:{HEX}",
        "archive": "/srv/i.tar",
        "pull": False,
        "architecture": "arm64",
        "bytes": 9,
    }


def test_an_archive_of_another_image_is_refused_with_both():
    with pytest.raises(LlmError) as caught:
        images.of({"llm_image": "vllm-ascend:v2", "llm_image_archive": "/srv/i.tar"}, ARCHIVE, True)
    assert "vllm-ascend:v2" in caught.value.wanted
    assert "vllm-ascend:v1" in caught.value.found


@pytest.mark.parametrize(
    "named", ["vllm-ascend:v1", "vllm-ascend", f"vllm@sha256:{HEX[:-1]}", f"sha256:{HEX}0", "@sha256:"]
)
def test_a_name_that_can_be_moved_is_not_run(named):
    with pytest.raises(LlmError, match="can be moved") as caught:
        images.of({"llm_image": named}, None, True)
    assert caught.value.found == named
    assert images.of({"llm_image": named}, None, False)["reference"] == named


def test_no_image_is_only_refused_where_one_is_to_be_run():
    assert images.of({}, None, False) == {}
    with pytest.raises(LlmError, match="no image"):
        images.of({}, None, True)


def test_an_image_for_other_machines_names_the_host():
    image = images.of({"llm_image_archive": "/srv/i.tar"}, ARCHIVE, True)
    images.check_machines(image, [{"host": "a1", "machine": "aarch64"}, {"host": "a2", "machine": ""}])
    with pytest.raises(LlmError, match="a2") as caught:
        images.check_machines(image, [{"host": "a1", "machine": "aarch64"}, {"host": "a2", "machine": "x86_64"}])
    assert "arm64" in caught.value.found
    assert "amd64" in caught.value.wanted


@pytest.mark.parametrize("machine", ["riscv64", "ppc64le"])
def test_machines_that_are_not_known_are_left_to_the_engine(machine):
    images.check_machines({"architecture": "arm64"}, [{"host": "a1", "machine": machine}])
