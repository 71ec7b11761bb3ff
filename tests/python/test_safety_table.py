"""docs/safety.md: every value stands in the line of code beside it, and every test that is named exists."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.]*\w)")


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    table = text[text.index("\n| what |") :].split("\n\n")[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def place(cell: str) -> tuple[Path, str]:
    found = re.fullmatch(r"`([\w./]+)`: `(.+)`", cell)
    assert found, f"{cell!r} is not `file`: `text`"
    return ROOT / found.group(1), found.group(2)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:60])
def test_a_row_is_true(row: list[str]) -> None:
    what, value, code, outcome, test = row
    assert what
    assert outcome
    path, fragment = place(code)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if fragment in line]
    assert lines, f"{path} no longer says {fragment!r}"
    number = NUMBER.match(value)
    if number:
        in_code = {float(n) for line in lines for n in NUMBER.findall(line.replace("'", ""))}
        in_code |= following_number(path, fragment)
        assert float(number.group()) in in_code, f"{value} is not what {path} says: {lines}"
    path, name = place(test)
    pattern = rf"^def {name}\(" if path.suffix == ".py" else rf"^TEST\({name}\)"
    assert re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE), f"{path} has no test {name}"


def following_number(path: Path, fragment: str) -> set[float]:
    """The first number behind a fragment, on the next line where the code was wrapped."""
    text = path.read_text(encoding="utf-8")
    found = NUMBER.search(text, text.index(fragment) + len(fragment))
    return {float(found.group())} if fragment.endswith("=") and found else set()


def test_the_table_is_read() -> None:
    assert len(rows()) > 25
    assert all(len(row) == 5 for row in rows())
