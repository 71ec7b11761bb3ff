"""Quantize: a checkpoint in the formats that a precision computes in, packed once, and what that costs in quality."""
# SPDX-License-Identifier: Apache-2.0
