# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.catalog import hardware
from ansible_collections.baremetal.llm.plugins.module_utils.catalog.models import MODELS
from ansible_collections.baremetal.llm.plugins.module_utils.errors import LlmError
from ansible_collections.baremetal.llm.plugins.module_utils.planning import memory
from ansible_collections.baremetal.llm.plugins.module_utils.planning.memory import kv_bytes_per_token
from hypothesis import given
from hypothesis import strategies as st

R1 = MODELS["deepseek-r1-w8a8"]["architecture"]
NPU = {"overhead_bytes": 6_000_000_000, "memory_share": 0.92, "source": "a test"}
GPU = {**NPU, "overhead_bytes": 4_000_000_000}
# MiB as the vendors' tools print them.
A2_64, A2_32, A2_DUO, A100, H100, H200 = 65536, 32768, 43693, 81251, 81559, 143771


def sizes(tensor: int = 1, pipeline: int = 1, data: int = 1, experts: bool = False) -> dict:
    return {
        "tensor_parallel": tensor,
        "pipeline_parallel": pipeline,
        "data_parallel": data,
        "expert_parallel": experts,
    }


def need(name: str, split: dict, release: dict, length: int = 16384, mtp: bool = False) -> dict:
    model = MODELS[name]
    made_of = memory.parts(model, model["bytes"])
    total = split["tensor_parallel"] * split["pipeline_parallel"] * split["data_parallel"]
    return memory.of_device(made_of, kv_bytes_per_token(model), length, split, total, release, mtp)


def fit(name: str, split: dict, release: dict, mib: int, **more) -> dict:
    return memory.fit(need(name, split, release, **more), mib)


def test_the_parameters_of_deepseek_r1():
    counts = memory.parameters(R1)
    whole = sum(count for name, count in counts.items() if not name.startswith("mtp"))
    mtp = sum(count for name, count in counts.items() if name.startswith("mtp"))
    # 671 B by its makers; with the MTP layer, 684.5 B by the hub that counts the tensors.
    assert whole == 671_026_419_200
    assert round((whole + mtp) / 1e9, 1) == 684.5
    assert round(mtp / 1e9) in (13, 14)
    # 37 B of them are at work for one token.
    idle = counts["experts"] * (R1["experts"] - R1["active_experts"]) // R1["experts"]
    assert round((whole - idle) / 1e9, 1) == 37.6


@pytest.mark.parametrize(
    ("name", "within"),
    # Without scales, which blocks of 128 x 128 hardly have; the others' sizes are those that their guides ask for.
    [("deepseek-r1-fp8", 0.001), ("deepseek-r1-bf16", 0.001), ("deepseek-r1-w8a8", 0.02), ("deepseek-r1-int8", 0.04),
     ("deepseek-r1-awq", 0.04), ("deepseek-r1-a8w4", 0.15)],
)  # fmt: skip
def test_sizes_of_the_catalog_follow_from_the_architecture(name, within):
    model = MODELS[name]
    size = sum(memory._sizes(model)[part] for part in ("experts", "mtp", "rest"))
    assert size == pytest.approx(model["bytes"], rel=within)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("size", [1, 999, 7_375_176, 688_586_727_753])
def test_parts_add_up(name, size):
    made_of = memory.parts(MODELS[name], size)
    assert made_of["experts"] + made_of["mtp"] + made_of["rest"] == size
    assert made_of["ends"] + made_of["replicated"] <= made_of["rest"]
    assert made_of["mtp_experts"] <= made_of["mtp"]
    assert min(value for value in made_of.values() if isinstance(value, int)) >= 0


HEADERS = {"tensors": 5, "bytes": 100, "experts": 70, "mtp": 10, "mtp_experts": 8, "rest": 20, "ends": 6,
           "replicated": 2, "layers": 61, "dtypes": {}, "reason": ""}  # fmt: skip


def test_headers_go_before_the_catalog():
    made_of = memory.parts(MODELS["deepseek-r1-w8a8"], 700, HEADERS)
    assert (made_of["experts"], made_of["mtp"], made_of["rest"], made_of["ends"]) == (70, 10, 20, 6)
    assert made_of["source"] == "headers of 5 tensors"
    assert (made_of["layers"], made_of["dense_layers"], made_of["expert_count"]) == (61, 3, 256)
    for told in ({**HEADERS, "reason": "no index"}, {**HEADERS, "bytes": 0}, {}, None):
        made_of = memory.parts(MODELS["deepseek-r1-w8a8"], 700, told)
        assert made_of["experts"] + made_of["mtp"] + made_of["rest"] == 700
        assert "catalog" in made_of["source"]


def test_one_device_by_hand():
    made_of = {
        "experts": 5800, "mtp": 120, "mtp_experts": 100, "rest": 1000, "ends": 200, "replicated": 61,
        "layers": 61, "dense_layers": 3, "expert_count": 10, "source": "a test",
    }  # fmt: skip
    release = {"overhead_bytes": 7, "memory_share": 0.5, "source": "measured"}
    alone = memory.of_device(made_of, 122, 10, sizes(), 1, release, mtp=True)
    assert [row["bytes"] for row in alone["rows"]] == [5800, 1000, 120, (122 + 2) * 10, 7]
    assert (alone["bytes"], alone["weight_bytes"], alone["share"]) == (8167, 6920, 0.5)
    # Ten experts over eight devices: two on some. The rest over four, what is replicated whole: (1000 - 61) / 4 + 61.
    spread = memory.of_device(made_of, 122, 10, sizes(4, 1, 2, True), 8, release)
    assert [row["bytes"] for row in spread["rows"]] == [5800 * 2 // 10, 235 + 61, 1220, 7]
    assert spread["rows"][0]["what"] == "experts over 8 of 8 devices"
    # Without expert parallelism each data parallel rank has all experts.
    apart = memory.of_device(made_of, 122, 10, sizes(4, 1, 2), 8, release)
    assert apart["rows"][0]["bytes"] == 5800 // 4
    # 61 layers over 4 stages: 16 in the largest, with one end.
    staged = memory.of_device(made_of, 122, 10, sizes(1, 4), 4, release)
    split = -(-739 * 16 // 61)
    assert [row["bytes"] for row in staged["rows"]] == [1600, split + 100 + 16, 32 * 10, 7]
    assert staged["kv_bytes_per_token"] == 32 and "of 16 layers" in staged["rows"][0]["what"]


def test_fit_by_hand():
    wanted = {"bytes": 60 * memory.MIB, "share": 0.9, "kv_bytes_per_request": 10 * memory.MIB, "max_model_len": 512,
              "data_parallel": 4}  # fmt: skip
    found = memory.fit(wanted, 100)
    assert (found["fits"], found["sequences"], found["spare_bytes"]) == (True, 4 * 4, 30 * memory.MIB)
    assert found["text"] == "fits, with 16 concurrent sequences of 512 tokens"
    found = memory.fit(wanted, 66)
    assert found["fits"] is False and found["sequences"] == 0 and found["spare_bytes"] < 0
    assert found["text"] == "does not fit: a device needs 0.1 GB and gives 0.1 GB of its 0.1 GB"
    found = memory.fit(wanted, 0)
    text = "memory of the devices is not known; each of them has to give 0.1 GB"
    assert found == {"fits": None, "sequences": 0, "spare_bytes": 0, "text": text}
    exactly = {**wanted, "share": 1.0}
    assert memory.fit(exactly, 60)["sequences"] == 4 and not memory.fit(exactly, 59)["fits"]


# What is published to work, or not to: guides of the engines, and the tables of their documentation.
REALITY = [
    ("deepseek-r1-w8a8", sizes(4, 1, 4, True), NPU, A2_64, True, "2 x A2 64 GB, DP4 TP4"),
    ("deepseek-r1-w8a8", sizes(8, 1, 2, True), NPU, A2_64, True, "2 x A2 64 GB, DP2 TP8"),
    ("deepseek-r1-w8a8", sizes(8), NPU, A2_64, False, "1 x A2 64 GB"),
    ("deepseek-r1-w8a8", sizes(4, 1, 4, True), NPU, A2_32, False, "2 x A2 32 GB"),
    ("deepseek-r1-bf16", sizes(4, 1, 8, True), NPU, A2_64, True, "4 x A2 64 GB"),
    ("deepseek-r1-bf16", sizes(8, 4), NPU, A2_64, True, "4 x A2 64 GB, stages"),
    ("deepseek-r1-bf16", sizes(4, 1, 6, True), NPU, A2_64, False, "3 x A2 64 GB"),
    ("deepseek-r1-bf16", sizes(8, 4), GPU, A100, True, "4 x DGX A100-80"),
    ("deepseek-r1-bf16", sizes(8, 2), GPU, A100, False, "2 x DGX A100-80"),
    ("deepseek-r1-bf16", sizes(8, 2), GPU, H200, True, "2 x 8 H200"),
    ("deepseek-r1-bf16", sizes(8), GPU, H200, False, "8 x H200, BF16"),
    ("deepseek-r1-fp8", sizes(8), GPU, H100, False, "8 x H100-80"),
    ("deepseek-r1-fp8", sizes(1, 1, 8, True), GPU, H100, False, "8 x H100-80, DP8"),
    ("deepseek-r1-fp8", sizes(8, 2), GPU, H100, True, "16 x H100-80"),
    ("deepseek-r1-fp8", sizes(16, 1, 1, True), GPU, H100, True, "16 x H100-80, TP16"),
    ("deepseek-r1-fp8", sizes(8, 1, 1, True), GPU, H200, True, "8 x H200, TP8"),
    ("deepseek-r1-fp8", sizes(1, 1, 8, True), GPU, H200, True, "8 x H200, DP8"),
    ("deepseek-r1-int8", sizes(8, 2), GPU, A100, True, "2 x DGX A100-80"),
    ("deepseek-r1-int8", sizes(8), GPU, A100, False, "1 x DGX A100-80"),
    ("deepseek-r1-awq", sizes(8), GPU, A100, True, "8 x A100-80"),
    ("deepseek-r1-awq", sizes(8), GPU, H100, True, "8 x H100-80"),
    ("deepseek-r1-a8w8", sizes(8, 3), NPU, A2_DUO, True, "3 x four 300I Duo"),
    ("deepseek-r1-a8w8", sizes(16), NPU, A2_DUO, False, "2 x four 300I Duo"),
    ("deepseek-r1-a8w4", sizes(16), NPU, A2_DUO, True, "2 x four 300I Duo"),
    ("deepseek-r1-a8w4", sizes(8), NPU, A2_DUO, False, "1 x four 300I Duo"),
]


@pytest.mark.parametrize(("name", "split", "release", "mib", "fits", "what"), REALITY, ids=[row[-1] for row in REALITY])
def test_reality(name, split, release, mib, fits, what):
    found = fit(name, split, release, mib)
    assert found["fits"] is fits, f"{what}: {found['text']}"


def test_the_published_split_serves_what_its_guide_asks_for():
    # --max-num-seqs 16 a rank, of 16384 tokens: not all of full length at once, with the MTP layer loaded.
    found = fit("deepseek-r1-w8a8", sizes(4, 1, 4, True), NPU, A2_64, mtp=True)
    assert 4 <= found["sequences"] <= 4 * 16
    assert found["text"] == f"fits, with {found['sequences']} concurrent sequences of 16384 tokens"
    assert fit("deepseek-r1-w8a8", sizes(4, 1, 4, True), NPU, A2_64)["sequences"] > found["sequences"]


def test_what_is_told_of_a_real_case():
    found = fit("deepseek-r1-w8a8", sizes(8), NPU, A2_64)
    assert found["text"].endswith(" and gives 63.2 GB of its 68.7 GB")
    rows = need("deepseek-r1-a8w8", sizes(8, 2), NPU)["rows"]
    assert [row["what"] for row in rows] == [
        "experts of 31 layers over 8 of 16 devices",
        "other weights of 31 layers over 8 devices",
        "KV cache of one request",
        "engine",
    ]
    assert rows[2]["source"] == "35712 bytes a token (MLA), 16384 tokens"


def test_only_sets_that_have_the_mtp_layer_count_it():
    mtp = {name: memory.parts(model, 10**12)["mtp"] > 0 for name, model in MODELS.items()}
    assert [name for name, has in mtp.items() if has] == ["deepseek-r1-fp8", "deepseek-r1-w8a8"]
    assert memory.parts(MODELS["deepseek-r1-awq"], 10**12)["mtp_experts"] == 0


def test_the_catalog_knows_these_cards():
    for chip, mib in (("910B4-1", A2_64), ("910B4", A2_32), ("310P3", A2_DUO), ("NVIDIA A100-SXM4-80GB", A100),
                      ("NVIDIA H100 80GB HBM3", H100), ("NVIDIA H200", H200)):  # fmt: skip
        low, high = hardware.chip(chip)["memory_mib"]
        assert low <= mib <= high


names = st.sampled_from([name for name in MODELS if "r1" in name])
powers = st.sampled_from([1, 2, 4, 8, 16])
splits = st.builds(sizes, powers, st.integers(1, 9), st.integers(1, 9), st.booleans())


@given(name=names, split=splits, kind=st.sampled_from(["tensor", "pipeline", "data"]), mtp=st.booleans())
def test_more_devices_never_need_more_memory_each(name, split, kind, mtp):
    more = {**split, f"{kind}_parallel": split[f"{kind}_parallel"] * 2}
    fewer, many = need(name, split, NPU, mtp=mtp), need(name, more, NPU, mtp=mtp)
    assert many["bytes"] <= fewer["bytes"] and many["kv_bytes_per_request"] <= fewer["kv_bytes_per_request"]


@given(name=names, split=splits)
def test_spreading_experts_never_needs_more(name, split):
    spread = {**split, "expert_parallel": True}
    # Where the experts do not divide, a device that holds whole ones has at most one more.
    one_more = MODELS[name]["bytes"] // 256
    assert need(name, spread, NPU)["bytes"] <= need(name, split, NPU)["bytes"] + one_more


@given(name=names, split=splits, mtp=st.booleans())
def test_all_devices_together_hold_all_weights(name, split, mtp):
    made_of = memory.parts(MODELS[name], MODELS[name]["bytes"])
    total = split["tensor_parallel"] * split["pipeline_parallel"] * split["data_parallel"]
    held = need(name, split, NPU, mtp=mtp)["weight_bytes"] * total
    # The MTP layer is on one stage, so it is left out of what must be held.
    assert held >= (made_of["experts"] + made_of["rest"]) * 0.999


@given(
    name=names, split=splits, mib=st.integers(1, 200_000), more=st.integers(0, 100_000), length=st.integers(1, 163_840)
)
def test_more_memory_never_serves_less(name, split, mib, more, length):
    wanted = need(name, split, NPU, length)
    smaller, larger = memory.fit(wanted, mib), memory.fit(wanted, mib + more)
    assert larger["sequences"] >= smaller["sequences"] and larger["fits"] >= smaller["fits"]
    assert smaller["fits"] == (smaller["spare_bytes"] >= 0) == (smaller["sequences"] >= split["data_parallel"])
    shorter = memory.fit(need(name, split, NPU, max(1, length // 2)), mib)
    assert shorter["sequences"] >= smaller["sequences"]


@given(name=names, split=splits, mib=st.integers(1, 200_000))
def test_what_is_said_to_fit_fits(name, split, mib):
    wanted = need(name, split, GPU)
    found = memory.fit(wanted, mib)
    if found["fits"]:
        held = found["sequences"] // split["data_parallel"] - 1
        used = wanted["bytes"] + held * wanted["kv_bytes_per_request"]
        assert used <= mib * memory.MIB * GPU["memory_share"] < used + wanted["kv_bytes_per_request"] + 1
    assert wanted["bytes"] == sum(row["bytes"] for row in wanted["rows"])


@pytest.mark.parametrize(
    ("least", "present", "nodes", "text"),
    [
        (2, 2, 2, ""),
        (2, 1, 2, "needs one more node"),
        (4, 2, 4, "needs two more nodes"),
        (20, 2, 20, "needs 18 more nodes"),
        (99, 2, 0, "not even 64 such nodes hold it"),
    ],
)
def test_nodes_needed(least, present, nodes, text):
    assert memory.nodes_needed(lambda count: count >= least, present) == {"nodes": nodes, "text": text}


def test_nodes_needed_of_a_real_case():
    def holds(count: int) -> bool:
        if 128 % (count * 8 // 4):
            raise LlmError("cannot be split so")
        return fit("deepseek-r1-bf16", sizes(4, 1, count * 2, True), NPU, A2_64)["fits"]

    assert memory.nodes_needed(holds, 2)["text"] == "needs two more nodes"


def test_a_dense_model_has_no_experts():
    shape = {key: value for key, value in R1.items() if key not in ("experts", "dense_layers")}
    model = {"architecture": shape, "dtype": "bfloat16"}
    made_of = memory.parts(model, 1000)
    assert (made_of["experts"], made_of["rest"]) == (0, 1000)
    found = memory.of_device(made_of, 1, 1, sizes(2, 2, 2, True), 8, NPU)
    assert not any("experts" in row["what"] for row in found["rows"])
