"""Recording: what a run saw, decided, commanded and felt, in MCAP files that any reader of that format opens."""
# SPDX-License-Identifier: Apache-2.0

from wallx_edge.recording.description import Description
from wallx_edge.recording.mcap import McapWriter, Message, read_mcap
from wallx_edge.recording.recorder import Recorder
from wallx_edge.recording.segments import Segments, segments_of
from wallx_edge.recording.topics import LOOP, loop_messages

__all__ = [
    "LOOP",
    "Description",
    "McapWriter",
    "Message",
    "Recorder",
    "Segments",
    "loop_messages",
    "read_mcap",
    "segments_of",
]
