# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.llm.plugins.module_utils.nvidia.topology import parse_topology
from hypothesis import assume, given
from hypothesis import strategies as st

LEGEND = "\nLegend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n"
WORDS = st.sampled_from(["NV18", "NV12", "PIX", "PXB", "PHB", "NODE", "SYS"])


@st.composite
def topologies(draw):
    """What parse_topology should return, without its problems."""
    gpus = [f"GPU{number}" for number in draw(st.lists(st.integers(0, 15), min_size=1, max_size=5, unique=True))]
    nics = [f"NIC{number}" for number in range(draw(st.integers(0, 3)))]
    names = gpus + nics
    links: dict[str, dict[str, str]] = {}
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            word = draw(WORDS)
            links.setdefault(name, {})[other] = word
            links.setdefault(other, {})[name] = word
    cpus = draw(st.sampled_from(["0-47,96-143", "0-19", "3"]))
    return {
        "links": links,
        "nics": {name: f"mlx5_{number}" for number, name in enumerate(nics)},
        "cpu_affinity": dict.fromkeys(gpus, cpus),
        "numa_affinity": dict.fromkeys(gpus, draw(st.sampled_from(["0", "0-1"]))),
    }


def write(topology: dict, tabs: bool = True) -> str:
    """Return what the tool prints, or with tabs=False what is left of it in a copy."""
    gpus = list(topology["cpu_affinity"])
    names = gpus + list(topology["nics"])
    rows = [["", *names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]]
    for name in names:
        cells = [" X " if other == name else topology["links"].get(name, {}).get(other, "") for other in names]
        extra = [topology["cpu_affinity"][name], topology["numa_affinity"][name], "", "N/A"] if name in gpus else []
        rows.append([name, *cells, *extra])
    lines = [
        "\t".join(row) if tabs else "".join(cell.ljust(16) for cell in row if row is rows[0] or cell) for row in rows
    ]
    if tabs:
        lines[0] = "\t\x1b[4m" + lines[0][1:] + "\x1b[0m"
    legend = "\nNIC Legend:\n\n" + "".join(f"  {name}: {device}\n" for name, device in topology["nics"].items())
    return "\n".join(lines) + "\n" + LEGEND + (legend if topology["nics"] else "")


def is_part_of(told: dict, topology: dict) -> None:
    """Assert that nothing is told that is not so."""
    for name, row in told["links"].items():
        assert row.items() <= topology["links"][name].items()
    for key in ("cpu_affinity", "numa_affinity"):
        assert told[key].items() <= topology[key].items()


@given(topology=topologies(), tabs=st.booleans())
def test_a_matrix_is_read_as_it_was_written(topology, tabs):
    assert parse_topology(write(topology, tabs)) == dict(topology, problems=[])


@given(topology=topologies(), tabs=st.booleans(), data=st.data())
def test_a_matrix_that_is_cut_short(topology, tabs, data):
    text = write(topology, tabs)
    end = text.index("\nLegend:")
    told = parse_topology(text[: data.draw(st.integers(0, end - 1))])
    is_part_of(told, topology)
    assert told["problems"]


@given(topology=topologies(), tabs=st.booleans(), data=st.data())
def test_a_link_that_flips_is_not_told(topology, tabs, data):
    text = write(topology, tabs)
    assume(topology["links"])
    start = text.index("\n") + 1
    places = [
        place
        for place in range(start, text.index("\nLegend:"))
        if text[place : place + 3] in ("NV1", "PIX", "PXB", "PHB", "NOD", "SYS")
    ]
    place = data.draw(st.sampled_from(places))
    letter = data.draw(st.sampled_from("NVPSX019 \t\x00\xe9"))
    assume(letter != text[place])
    told = parse_topology(text[:place] + letter + text[place + 1 :])
    for name, row in told["links"].items():
        assert row.items() <= topology["links"][name].items()
    assert told["links"] != topology["links"]
    assert told["problems"]


@given(topology=topologies(), tabs=st.booleans(), data=st.data())
def test_a_row_that_is_lost(topology, tabs, data):
    lines = write(topology, tabs).splitlines(keepends=True)
    count = len(topology["cpu_affinity"]) + len(topology["nics"])
    del lines[data.draw(st.integers(0, count))]
    told = parse_topology("".join(lines))
    is_part_of(told, topology)
    assert told["problems"]


@given(text=st.text("\t\n GPUNIC01X:mlx_\x1b[4mSYS", max_size=200))
def test_any_text(text):
    told = parse_topology(text)
    assert set(told) == {"links", "nics", "cpu_affinity", "numa_affinity", "problems"}
    for name, row in told["links"].items():
        for other, word in row.items():
            assert told["links"][other][name] == word


@pytest.mark.parametrize(
    "text", ["", "No devices were found\n", "GPU0\tX\n", LEGEND, "\n" * 5000 + "\tGPU0\nGPU0\tX\n"]
)
def test_no_matrix(text):
    told = parse_topology(text)
    assert told["problems"] == ["nvidia-smi topo -m printed no matrix"]
    assert (told["links"], told["nics"], told["cpu_affinity"]) == ({}, {}, {})


def test_matrix_of_an_older_driver():
    text = (
        "\t\x1b[4mGPU0\tGPU1\tmlx5_0\tCPU Affinity\tNUMA Affinity\x1b[0m\n"
        "GPU0\t X \tNV12\tPXB\t0-31\t0\nGPU1\tNV12\t X \tSYS\t\t\nmlx5_0\tPXB\tSYS\t X \t\t\n\nLegend:\n"
    )
    assert parse_topology(text) == {
        "links": {
            "GPU0": {"GPU1": "NV12", "mlx5_0": "PXB"},
            "GPU1": {"GPU0": "NV12", "mlx5_0": "SYS"},
            "mlx5_0": {"GPU0": "PXB", "GPU1": "SYS"},
        },
        "nics": {},
        "cpu_affinity": {"GPU0": "0-31"},
        "numa_affinity": {"GPU0": "0"},
        "problems": [],
    }


def test_a_link_needs_the_rows_of_both():
    whole = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-9\nGPU1\tNV18\t X \t0-9\n\n"
    assert parse_topology(whole)["links"] == {"GPU0": {"GPU1": "NV18"}, "GPU1": {"GPU0": "NV18"}}
    for damaged in (whole.replace("\tGPU1", "\tGPU7"), whole[: whole.rindex("GPU1")] + "\n"):
        told = parse_topology(damaged)
        assert told["links"] == {}
        assert told["problems"]


def test_a_last_cell_that_is_cut_off_is_not_told():
    whole = "\tGPU0\tCPU Affinity\nGPU0\t X \t0-31\n"
    assert parse_topology(whole)["cpu_affinity"] == {"GPU0": "0-31"}
    told = parse_topology(whole[:-2])
    assert told["cpu_affinity"] == {}
    assert told["problems"] == ["topo -m ends in the row of GPU0", "topo -m has no row for GPU0"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("NV18\tPIX", "NV17\tPIX", "tells NV17 for GPU0 and GPU1, but NV18 the other way round"),
        ("NV18\tPIX", "WIFI\tPIX", "tells 'WIFI' for GPU0 and GPU1, which is not known here"),
        ("GPU1\tNV18\t X ", "GPU1\t X \tNV18", "the row of GPU1 in topo -m is damaged"),
        ("GPU1\tNV18", "GPU0\tNV18", "a row for GPU0 that its header does not announce once"),
        ("NIC Legend", "Legend", "does not tell which devices NIC0 are"),
        ("0-9\t0\t\tN/A\nGPU1", "0-9\nGPU1", "does not tell the affinity of GPU0 in full"),
    ],
)
def test_what_is_wrong_is_told(old, new, problem):
    text = (
        "\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \tNV18\tPIX\t0-9\t0\t\tN/A\n"
        "GPU1\tNV18\t X \tSYS\t0-9\t0\t\tN/A\nNIC0\tPIX\tSYS\t X \n\nNIC Legend:\n\n  NIC0: mlx5_0\n"
    )
    assert parse_topology(text)["problems"] == []
    assert old in text
    assert problem in parse_topology(text.replace(old, new))["problems"][0]


@pytest.mark.parametrize("filler", ["\t", "GPU0 ", "\x1b[4m", "\x1b[", "GPU0\tX\n", "NIC0: mlx5_0\n", "0-1,"])
def test_output_without_end(filler):
    told = parse_topology("\tGPU0\tCPU Affinity\nGPU0\tX\t" + filler * (1_000_000 // len(filler)))
    assert told["links"] == {}
    assert len(told["problems"]) <= 20
