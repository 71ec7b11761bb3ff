"""Daemon: one program owns bus, loop, policy and a socket; others look, tell and stop."""
# SPDX-License-Identifier: Apache-2.0

from wallx_edge.daemon.client import tell
from wallx_edge.daemon.daemon import Daemon
from wallx_edge.daemon.notify import Notifier
from wallx_edge.daemon.server import Server

__all__ = ["Daemon", "Notifier", "Server", "tell"]
