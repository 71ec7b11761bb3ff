"""Datasets: LeRobotDataset v3 folders written and read, without lerobot."""
# SPDX-License-Identifier: Apache-2.0

from wallx_edge.dataset.reader import Dataset
from wallx_edge.dataset.writer import DatasetWriter

__all__ = ["Dataset", "DatasetWriter"]
