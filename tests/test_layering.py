"""The C++ layering rule: which room may include which. The shortest architecture document."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# room -> the rooms it may include besides itself
TABLE: dict[str, set[str]] = {
    "cpp/base": set(),
    "cpp/backend": {"base"},
    "cpp/model": {"base", "backend"},
    "cpp/engine": {"base", "backend", "model"},
    "cpp/runtime": {"base", "backend", "model", "engine"},
    "cpp/hardware": {"base"},
    "cpp/control": {"base", "hardware"},
    "cpp/emulator": {"base"},
    "drivers": {"base", "hardware"},
    "cpp/tools": {"base", "hardware", "drivers"},
    "bindings/core": {"base", "backend", "model", "engine", "runtime", "hardware", "control", "drivers"},
    "bindings/emulator": {"base", "emulator"},
}

SOURCES = {".cpp", ".hpp", ".cc", ".cxx", ".h", ".hh", ".inl", ".cu", ".cuh"}
INCLUDE = re.compile(r"^\s*#\s*include\b\s*(.*?)\s*$")
NAMED = re.compile(r'^(?:"([^"]+)"|<([^>]+)>)')
LAYERS = {room.rsplit("/", 1)[-1] if room.startswith("cpp/") else room.split("/")[0] for room in TABLE}


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in SOURCES)


def rooms_with_files(root: Path) -> set[str]:
    """Every folder below cpp/ and bindings/ with sources in it, and drivers/ as a whole."""
    rooms = set()
    for top in ("cpp", "bindings", "drivers"):
        for path in sources(root / top):
            parts = path.relative_to(root).parts
            rooms.add(top if top == "drivers" else "/".join(parts[: min(2, len(parts) - 1)]))
    return rooms


def violations(root: Path) -> list[str]:
    """Every include below ``root`` that the table forbids, and every room and row without the other."""
    open_rooms = rooms_with_files(root)
    found = [f"{room}: has files but no row in the table" for room in sorted(open_rooms - set(TABLE))]
    found += [f"{room}: is empty" for room in sorted(set(TABLE) - open_rooms)]
    for room in sorted(open_rooms & set(TABLE)):
        for path in sources(root / room):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                include = INCLUDE.match(line)
                problem = include and forbidden(room, include.group(1))
                if problem:
                    found.append(f"{path.relative_to(root)}:{number}: {problem}")
    return found


def forbidden(room: str, what: str) -> str | None:
    """Why a room may not include this; None if it may."""
    named = NAMED.match(what)
    if not named:
        return f"includes {what}, expected a name in quotes or angle brackets"
    name = named.group(1) or named.group(2)
    layer = name.split("/")[0]
    if named.group(2):
        # angle brackets are for what is not ours
        return f"includes <{name}>, expected quotes for a file of this tree" if layer in LAYERS else None
    own = room if room.startswith("bindings/") else room.rsplit("/", 1)[-1]
    if name.startswith(f"{own}/") and ".." not in name:
        return None
    if "/" not in name or ".." in name or layer not in LAYERS:
        return f'includes "{name}", expected "layer/noun.hpp"'
    return None if layer in TABLE[room] else f'includes "{name}", which {room} may not see'


def cmake_layers(text: str) -> dict[str, set[str]]:
    """Folder -> every layer it is linked to, directly or through another, as ``wallx_layer`` is called."""
    calls = re.findall(r"^wallx_layer\((\w+)\s+(\S+?)(?:\s+USES\s+([\w\s]+))?\)", text, re.MULTILINE)
    direct = {name: set(uses.split()) for name, _, uses in calls}

    def reach(name: str) -> set[str]:
        return direct[name].union(*(reach(used) for used in direct[name]))

    return {folder: reach(name) for name, folder, _ in calls}


def test_every_include_is_allowed() -> None:
    assert violations(ROOT) == []


def test_cmake_links_what_the_table_allows() -> None:
    linked = cmake_layers((ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert linked == {room: seen for room, seen in TABLE.items() if not room.startswith("bindings/")}


def a_tree(root: Path, **includes: str) -> Path:
    """A tree in which every room has one harmless file, and some rooms one more line."""
    for room in set(TABLE) | {name.replace("__", "/") for name in includes}:
        (root / room / "deeper").mkdir(parents=True)
        line = includes.get(room.replace("/", "__"), "#include <vector>")
        (root / room / "deeper" / "noun.hpp").write_text(f"// Noun: a test.\n{line}\n")
    return root


def test_a_harmless_tree_passes(tmp_path: Path) -> None:
    tree = a_tree(
        tmp_path,
        cpp__hardware='#include "base/errors.hpp"  // and a remark',
        cpp__base='// #include "hardware/bus.hpp"',
        bindings__core='#include "bindings/core/register.hpp"',
    )
    assert violations(tree) == []


@pytest.mark.parametrize(
    ("room", "line", "message"),
    [
        (
            "cpp__base",
            '#include "hardware/bus.hpp"',
            'includes "hardware/bus.hpp", which cpp/base may not see',
        ),
        ("cpp__hardware", '#include "control/plan.hpp"', "which cpp/hardware may not see"),
        ("cpp__hardware", '  #  include "engine/x.hpp"', "which cpp/hardware may not see"),
        ("cpp__hardware", "#include <engine/x.hpp>", "expected quotes"),
        ("cpp__hardware", '#include "bus.hpp"', 'expected "layer/noun.hpp"'),
        ("cpp__hardware", '#include "../control/plan.hpp"', 'expected "layer/noun.hpp"'),
        ("cpp__hardware", '#include "hardware/../control/plan.hpp"', 'expected "layer/noun.hpp"'),
        ("cpp__hardware", '#include "cpp/control/plan.hpp"', 'expected "layer/noun.hpp"'),
        ("cpp__hardware", "#include HEADER", "expected a name in quotes"),
        ("bindings__emulator", '#include "drivers/registry.hpp"', "which bindings/emulator may not see"),
        (
            "bindings__emulator",
            '#include "bindings/core/register.hpp"',
            "which bindings/emulator may not see",
        ),
        ("bindings__core", '#include "emulator/servo.hpp"', "which bindings/core may not see"),
    ],
)
def test_a_forbidden_include_is_caught(tmp_path: Path, room: str, line: str, message: str) -> None:
    found = violations(a_tree(tmp_path, **{room: line}))
    assert len(found) == 1
    assert found[0].startswith(f"{room.replace('__', '/')}/deeper/noun.hpp:2: ")
    assert message in found[0]


def test_an_emptied_room_is_caught(tmp_path: Path) -> None:
    tree = a_tree(tmp_path)
    (tree / "cpp" / "base" / "deeper" / "noun.hpp").unlink()
    assert violations(tree) == ["cpp/base: is empty"]


def test_a_room_without_a_row_is_caught(tmp_path: Path) -> None:
    assert violations(a_tree(tmp_path, cpp__gossip="")) == ["cpp/gossip: has files but no row in the table"]


def test_a_file_outside_every_room_is_caught(tmp_path: Path) -> None:
    tree = a_tree(tmp_path)
    (tree / "cpp" / "stray.hpp").write_text("")
    assert violations(tree) == ["cpp: has files but no row in the table"]


def test_cmake_links_are_followed_through() -> None:
    text = "wallx_layer(a cpp/a)\nwallx_layer(b cpp/b USES a)\nwallx_layer(c cpp/c USES b)\n"
    assert cmake_layers(text) == {"cpp/a": set(), "cpp/b": {"a"}, "cpp/c": {"a", "b"}}
