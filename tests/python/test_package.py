"""The package's face: what `import wallx_edge` offers, and that it loads only what is used."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys

import pytest

import wallx_edge
from wallx_edge._core import cuda_status


def test_every_public_name_is_there() -> None:
    for name in wallx_edge.__all__:
        assert getattr(wallx_edge, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = wallx_edge.nothing


def test_importing_the_package_loads_no_part_of_it() -> None:
    code = "import sys, wallx_edge; print([m for m in sys.modules if m.startswith('wallx_edge.')])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [m for m in eval(shown) if not m.endswith("__init__")] == []


def test_no_training_framework_is_needed() -> None:
    code = (
        "import sys, wallx_edge, wallx_edge.session, wallx_edge.cli.run\n"
        "print([m for m in ('torch', 'transformers', 'lerobot', 'cv2', 'matplotlib') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_a_machine_without_a_gpu_says_so_in_one_line() -> None:
    status = cuda_status()
    assert len(status.splitlines()) == 1
    assert status.startswith("no GPU: ") or " sm_" in status
