"""Bench: what `wallx-edge bench` measures; every number with what it is compared to, from the same run."""
# SPDX-License-Identifier: Apache-2.0
