"""Tables: every getter takes what it promises and points at file, table, key and value otherwise."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wallx_edge.errors import CalibrationError, ConfigError
from wallx_edge.tables import Table, read_toml

FILE = Path("robot.toml")


def table(**values: Any) -> Table:
    return Table(FILE, "policy", values)


@pytest.mark.parametrize(
    ("get", "value", "text"),
    [
        (lambda t: t.text("k"), "", "must be a non-empty text"),
        (lambda t: t.text("k"), 3, "must be a non-empty text"),
        (lambda t: t.choice("k", ("a", "b"), "a"), "c", "must be one of a, b"),
        (lambda t: t.number("k"), "1", "must be a finite number"),
        (lambda t: t.number("k"), True, "must be a finite number"),
        (lambda t: t.number("k"), float("nan"), "must be a finite number"),
        (lambda t: t.number("k"), float("-inf"), "must be a finite number"),
        (lambda t: t.number("k"), 10**400, "must be a finite number"),
        (lambda t: t.positive("k", "s"), 0, "is 0 s, must be above 0"),
        (lambda t: t.positive("k", "s"), -0.5, "is -0.5 s, must be above 0"),
        (lambda t: t.integer("k", 1, 5), 6, "is 6, must be 1..5"),
        (lambda t: t.integer("k", 1, 5), 0, "is 0, must be 1..5"),
        (lambda t: t.integer("k", 1, 5), 2.0, "must be a whole number"),
        (lambda t: t.integer("k", 0, 5), False, "must be a whole number"),
        (lambda t: t.flag("k"), 1, "must be true or false"),
        (lambda t: t.table("k"), [1], "must be a table"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(get: Callable[[Table], object], value: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get(table(k=value))
    message = str(caught.value)
    assert message.startswith("robot.toml: policy: k is ")
    assert text in message
    assert len(message) < 200


@pytest.mark.parametrize(
    "get",
    [
        lambda t: t.text("k"),
        lambda t: t.number("k"),
        lambda t: t.positive("k", "s"),
        lambda t: t.integer("k", 1, 5),
        lambda t: t.flag("k"),
    ],
)
def test_a_key_without_default_is_required(get: Callable[[Table], object]) -> None:
    with pytest.raises(ConfigError, match="k is None"):
        get(table())


def test_good_values_come_back_in_their_type() -> None:
    t = table(text="a", number=3, integer=5, flag=False, inner={"x": 1})
    assert t.text("text") == "a"
    assert isinstance(t.number("number"), float)
    assert t.positive("number", "s") == 3
    assert t.integer("integer", 5, 5) == 5
    assert t.flag("flag") is False
    assert t.table("inner").where == "policy.inner"
    assert t.table("absent").values == {}
    assert t.text("absent", "b") == "b"
    assert t.number("absent", 0.5) == 0.5
    assert t.integer("absent", 1, 5, 2) == 2
    assert t.choice("absent", ("a", "b"), "b") == "b"


def test_keys_are_checked_both_ways() -> None:
    table(a=1, b=2).check_keys(("a",), ("b", "c"))
    with pytest.raises(ConfigError, match="policy: 'd' is not a known key; known are a, b"):
        table(a=1, d=2).check_keys(("a",), ("b",))
    with pytest.raises(ConfigError, match="policy: 'a' is missing"):
        table(b=1).check_keys(("a",), ("b",))


def test_the_error_class_is_the_owners() -> None:
    with pytest.raises(CalibrationError, match="top: k is None"):
        Table(FILE, "top", {}, CalibrationError).table("absent")
        Table(FILE, "top", {}, CalibrationError).text("k")


def test_toml_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("a = 1\n")
    assert read_toml(file) == {"a": 1}
    file.write_text("a = ")
    with pytest.raises(ConfigError, match=r"robot file .*a\.toml is not TOML"):
        read_toml(file, "robot file ")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"a\.toml cannot be read"):
        read_toml(file)
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            read_toml(path)
        assert str(path) in str(caught.value)
