# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.catalog.models import MODELS
from ansible_collections.baremetal.llm.plugins.module_utils.machine import weights
from ansible_collections.baremetal.llm.plugins.module_utils.planning import memory
from hypothesis import given
from hypothesis import strategies as st

TINY = Path(__file__).parents[5] / "models" / "deepseek-v3-tiny"
SIZES = ("experts", "mtp", "mtp_experts", "rest", "ends", "replicated")
SHAPE = {
    "layers": 3, "dense_layers": 1, "hidden": 16, "intermediate": 24, "heads": 2, "q_lora_rank": 4, "kv_lora_rank": 8,
    "qk_nope_head_dim": 6, "qk_rope_head_dim": 2, "v_head_dim": 5, "experts": 4, "shared_experts": 1,
    "expert_intermediate": 3, "vocab": 32,
}  # fmt: skip


def shapes(shape: dict, mtp: int = 0) -> dict[str, list[int]]:
    """The tensors of a model of DeepSeek's architecture, by the names of its own files."""
    hidden, heads = shape["hidden"], shape["heads"]
    head = shape["qk_nope_head_dim"] + shape["qk_rope_head_dim"]
    found = {"model.embed_tokens.weight": [shape["vocab"], hidden], "lm_head.weight": [shape["vocab"], hidden]}
    found["model.norm.weight"] = [hidden]
    for layer in range(shape["layers"] + mtp):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        found[f"model.layers.{layer}.input_layernorm.weight"] = [hidden]
        found[f"model.layers.{layer}.post_attention_layernorm.weight"] = [hidden]
        found[f"{attention}.q_a_proj.weight"] = [shape["q_lora_rank"], hidden]
        found[f"{attention}.q_a_layernorm.weight"] = [shape["q_lora_rank"]]
        found[f"{attention}.q_b_proj.weight"] = [heads * head, shape["q_lora_rank"]]
        found[f"{attention}.kv_a_proj_with_mqa.weight"] = [shape["kv_lora_rank"] + shape["qk_rope_head_dim"], hidden]
        found[f"{attention}.kv_a_layernorm.weight"] = [shape["kv_lora_rank"]]
        value = shape["qk_nope_head_dim"] + shape["v_head_dim"]
        found[f"{attention}.kv_b_proj.weight"] = [heads * value, shape["kv_lora_rank"]]
        found[f"{attention}.o_proj.weight"] = [hidden, heads * shape["v_head_dim"]]
        if layer < shape["dense_layers"]:
            found.update(gated(mlp, hidden, shape["intermediate"]))
            continue
        found[f"{mlp}.gate.weight"] = [shape["experts"], hidden]
        found[f"{mlp}.gate.e_score_correction_bias"] = [shape["experts"]]
        found.update(gated(f"{mlp}.shared_experts", hidden, shape["shared_experts"] * shape["expert_intermediate"]))
        for expert in range(shape["experts"]):
            found.update(gated(f"{mlp}.experts.{expert}", hidden, shape["expert_intermediate"]))
    for layer in range(shape["layers"], shape["layers"] + mtp):
        own = f"model.layers.{layer}"
        found[f"{own}.eh_proj.weight"] = [hidden, 2 * hidden]
        found.update({f"{own}.{norm}.weight": [hidden] for norm in ("enorm", "hnorm", "shared_head.norm")})
        found.update({f"{own}.{end}.weight": [shape["vocab"], hidden] for end in ("embed_tokens", "shared_head.head")})
    return found


def gated(name: str, hidden: int, inner: int) -> dict[str, list[int]]:
    down = {f"{name}.down_proj.weight": [hidden, inner]}
    return {**down, **{f"{name}.{kind}_proj.weight": [inner, hidden] for kind in ("gate", "up")}}


def write(folder: Path, wanted: dict[str, list[int]], shards: int = 1, layers: object = 3, index: bool = True) -> None:
    """Write sparse files: headers, and holes for data."""
    listed = {}
    for number in range(shards):
        name, header, position = f"model-{number}.safetensors", {}, 0
        for tensor in sorted(wanted)[number::shards]:
            size = 2
            for extent in wanted[tensor]:
                size *= extent
            header[tensor] = {"dtype": "BF16", "shape": wanted[tensor], "data_offsets": [position, position + size]}
            position += size
            listed[tensor] = name
        raw = json.dumps(header).encode()
        with open(folder / name, "wb") as stream:
            stream.write(struct.pack("<Q", len(raw)) + raw)
            stream.truncate(8 + len(raw) + position)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": layers}), encoding="utf-8")
    if index:
        text = json.dumps({"metadata": {"total_size": 1}, "weight_map": listed})
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def nothing(found: dict) -> bool:
    return {**found, "reason": ""} == weights.EMPTY and bool(found["reason"])


def test_the_bundled_model():
    found = weights.tensors(str(TINY))
    assert (found["reason"], found["layers"], found["tensors"]) == ("", 3, 67)
    assert found["bytes"] == found["experts"] + found["mtp"] + found["rest"] == found["dtypes"]["BF16"]
    counts = memory.parameters(MODELS["deepseek-v3-tiny"]["architecture"])
    assert found["experts"] == 2 * counts["experts"] and found["ends"] == 2 * counts["ends"]
    assert found["bytes"] == 2 * sum(count for name, count in counts.items() if not name.startswith("mtp"))


small = st.integers(1, 5)
architectures = st.fixed_dictionaries({**dict.fromkeys(SHAPE, small), "experts": st.integers(1, 3)}).map(
    lambda shape: {**shape, "dense_layers": min(shape["dense_layers"], shape["layers"])}
)


@given(shape=architectures, mtp=st.integers(0, 1), shards=st.integers(1, 4))
def test_headers_and_architecture_say_the_same(tmp_path_factory, shape, mtp, shards):
    folder = tmp_path_factory.mktemp("weights")
    write(folder, shapes(shape, mtp), shards, shape["layers"])
    found = weights.tensors(str(folder))
    counts = memory.parameters(shape)
    assert found["reason"] == "" and found["layers"] == shape["layers"]
    assert found["experts"] == 2 * counts["experts"]
    assert found["replicated"] == 2 * (counts["compressing"] + counts["routers"])
    assert found["ends"] == 2 * counts["ends"]
    assert found["rest"] == 2 * counts["split"] + found["ends"] + found["replicated"]
    assert found["mtp_experts"] == 2 * mtp * counts["mtp_experts"]
    assert found["mtp"] == found["mtp_experts"] + 2 * mtp * (counts["mtp_split"] + counts["mtp_ends"])
    model = {"architecture": shape, "dtype": "bfloat16", "mtp": bool(mtp)}
    headers, catalog = memory.parts(model, 0, found), memory.parts(model, found["bytes"])
    assert {name: headers[name] for name in SIZES} == {name: catalog[name] for name in SIZES}


def test_more_kinds_of_experts_and_types(tmp_path):
    write(tmp_path, {"model.layers.1.mlp.routed_experts.ffn.w1": [4], "model.layers.1.mlp.shared_experts.w1": [8]})
    found = weights.tensors(str(tmp_path))
    assert (found["experts"], found["rest"], found["dtypes"]) == (8, 16, {"BF16": 24})


@pytest.mark.parametrize("layers", [None, "3", True, 0, [3]])
def test_without_a_number_of_layers_nothing_is_mtp(tmp_path, layers):
    write(tmp_path, shapes(SHAPE, 1), layers=layers)
    found = weights.tensors(str(tmp_path))
    assert (found["mtp"], found["layers"], found["reason"]) == (0, 4, "")


def test_without_config_and_index(tmp_path):
    write(tmp_path, shapes(SHAPE), 3, index=False)
    (tmp_path / "config.json").unlink()
    assert weights.tensors(str(tmp_path))["bytes"] > 0


def test_an_index_of_another_set_does_not_matter(tmp_path):
    write(tmp_path, shapes(SHAPE), 2)
    expected = weights.tensors(str(tmp_path))
    for name in ("a.safetensors.index.json", "z.safetensors.index.json"):
        (tmp_path / name).write_text('{"weight_map": {"x": "other.safetensors"}}', encoding="utf-8")
    (tmp_path / "stray.safetensors").write_bytes(b"not of the set")
    assert weights.tensors(str(tmp_path)) == expected


def test_a_missing_shard(tmp_path):
    write(tmp_path, shapes(SHAPE), 3)
    (tmp_path / "model-1.safetensors").unlink()
    found = weights.tensors(str(tmp_path))
    assert nothing(found)
    assert "1 of 3 files of model.safetensors.index.json are missing, such as model-1.safetensors" in found["reason"]


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 16, b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_shard(tmp_path, content):
    write(tmp_path, shapes(SHAPE), 2)
    (tmp_path / "model-1.safetensors").write_bytes(content)
    found = weights.tensors(str(tmp_path))
    assert nothing(found) and found["reason"].startswith("model-1.safetensors: ")


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", "nothing", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": "../x.safetensors"}}'],
)
def test_an_index_that_is_none(tmp_path, index):
    write(tmp_path, shapes(SHAPE))
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    found = weights.tensors(str(tmp_path))
    assert nothing(found) and "model.safetensors.index.json" in found["reason"]


def test_no_weights(tmp_path):
    assert nothing(weights.tensors(str(tmp_path)))
    assert "no safetensors files" in weights.tensors(str(tmp_path))["reason"]
    assert nothing(weights.tensors(str(tmp_path / "nowhere")))


def test_pipes_in_the_place_of_files_do_not_hold_it(tmp_path):
    write(tmp_path, shapes(SHAPE))
    os.unlink(tmp_path / "config.json")
    for name in ("config.json", "other.safetensors", "a.safetensors.index.json"):
        os.mkfifo(tmp_path / name)
    found = weights.tensors(str(tmp_path), 10)
    assert nothing(found) and "a.safetensors.index.json is no file" in found["reason"]
    os.unlink(tmp_path / "a.safetensors.index.json")
    assert weights.tensors(str(tmp_path), 10)["bytes"] > 0


def test_a_folder_that_does_not_answer_in_time(tmp_path, monkeypatch):
    write(tmp_path, shapes(SHAPE), 2)
    monkeypatch.setattr(weights, "in_time", lambda calls, _seconds: {key: call() for key, call in calls.items()})
    assert weights.tensors(str(tmp_path), -1)["reason"] == f"the 2 files of {tmp_path} were not all read in time"
    monkeypatch.setattr(weights, "in_time", lambda _calls, _seconds: {})
    assert weights.tensors(str(tmp_path), 20)["reason"] == f"{tmp_path} did not answer within 20 s"


def test_two_answers_share_nothing(tmp_path):
    first = weights.tensors(str(tmp_path))
    first["dtypes"]["BF16"] = 1
    assert weights.tensors(str(tmp_path))["dtypes"] == {}
