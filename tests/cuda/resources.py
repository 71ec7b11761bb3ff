"""What each CUDA kernel takes of a GPU, from ptxas's own words; a spill, or a kernel not compiled, is a failure."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import sys
from pathlib import Path

TILINGS = {"2, 4": "many rows", "1, 4": "few rows", "1, 1": "one row"}  # by pairs and tiles of a warp
NUM_KERNELS = 17


def kernel_name(mangled: str) -> str:
    """``ProductKernel<...>`` as int8 or bf16 and its tiling; others by their own name."""
    numbers = re.findall(r"Li(\d+)E", mangled)
    name = next(word for word in ("Product", "Attention", "Combine", "Cache", "Norm") if f"{word}Kernel" in mangled)
    if name == "Attention":
        return f"attention, {numbers[0]} dims"
    if name != "Product":
        return name.lower()
    kind = re.search(r"EE([if])Lb([01])E", mangled)
    assert kind, mangled
    gated = "gated product" if kind.group(2) == "1" else "product"
    return f"{gated}, {'int8' if kind.group(1) == 'i' else 'bf16'}, {TILINGS[', '.join(numbers[:2])]}"


def kernels(log: str) -> list[tuple[str, str, int, int]]:
    """Architecture, kernel, registers a thread and bytes spilled, in the order of the log."""
    found = []
    for part in log.split("Compiling entry function '")[1:]:
        mangled, arch = re.findall(r"^(\w+)' for '(\w+)'", part)[0]
        (spilled,) = re.findall(r"(\d+) bytes spill stores", part)
        (registers,) = re.findall(r"Used (\d+) registers", part)
        found.append((arch, kernel_name(mangled), int(registers), int(spilled)))
    return found


def main() -> int:
    found = kernels(Path(sys.argv[1]).read_text(encoding="utf-8"))
    archs = ["sm_" + name.partition("-")[0] for name in sys.argv[2].split(";")]
    table = {(kernel, arch): (registers, spilled) for arch, kernel, registers, spilled in found}
    names = sorted({kernel for kernel, _ in table})
    print(f"{'registers a thread':<32}" + "".join(f"{arch:>9}" for arch in archs))
    for name in names:
        print(f"{name:<32}" + "".join(f"{table[name, arch][0]:>9}" for arch in archs))
    spills = [f"{name} spills {spilled} bytes on {arch}" for (name, arch), (_, spilled) in table.items() if spilled]
    print("\n".join(spills) if spills else "no kernel spills")
    missing = len(archs) * NUM_KERNELS - len(table)
    if missing:
        print(f"{missing} kernels are missing: {len(table)} compiled, expected {NUM_KERNELS} for each architecture")
    return 1 if spills or missing else 0


if __name__ == "__main__":
    sys.exit(main())
