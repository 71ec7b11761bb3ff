"""Operator: the line that is typed below the live view, and what comes of it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import codecs
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from wallx_edge import _core
from wallx_edge.daemon.server import Handler
from wallx_edge.errors import WallxError

__all__ = ["COMMANDS", "Operator", "estop_key", "operate"]

# command -> what it does
COMMANDS = {
    "/task": "TEXT: another instruction",
    "/subtask": "TEXT: overrides the reasoner; without a text it has its turn again",
    "/ask": "TEXT: a question about the newest pictures",
    "/pause": "brakes and holds",
    "/resume": "goes on",
    "/stop": "brakes, holds and ends",
}
MAX_LETTERS = 2000  # of a command
HELP = "space: e-stop (twice while a command is typed)   Ctrl-C: hold and end   " + " ".join(COMMANDS)


class Operator:
    """Edits one line and gives commands. The e-stop is not here: the C++ listener looks at every key first.

    Keys and answers come on other threads than the one that draws.
    """

    def __init__(self, handler: Handler) -> None:
        """Nothing typed yet.

        Args:
            handler: takes the commands.
        """
        self._handler = handler
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lock = threading.Lock()
        self._line = ""
        self._said = ""

    def __call__(self) -> RenderableType:
        """What stands below the tables."""
        with self._lock:
            typed = Text(f"> {self._line}_") if self._line else Text(HELP, "dim")
            return Group(Text(self._said, "cyan"), typed)

    def take(self, keys: bytes) -> None:
        """Takes keys as a terminal gives them. Blocks no longer than a command takes to be given."""
        for key in self._decoder.decode(keys):
            command = self._edit(key)
            if command is not None:
                self._give(command)

    def _edit(self, key: str) -> str | None:
        """The command, when it is finished. The same rules as those of EstopKeys in the core."""
        with self._lock:
            if key in "\r\n":
                command, self._line = self._line, ""
                return command or None
            if key == "\x1b":
                self._line = ""
            elif key in "\x7f\b":
                self._line = self._line[:-1]
            elif (self._line or key == "/") and len(self._line) < MAX_LETTERS and key.isprintable():
                self._line += key
            return None

    def _give(self, command: str) -> None:
        word, _, text = command.partition(" ")
        self._say(f"{command} ...")
        try:
            if word not in COMMANDS:
                raise WallxError(f"unknown command {word}; known are {', '.join(COMMANDS)}")
            needs = self._handler.verbs[word[1:]]
            if needs not in (None, bool(text.strip())):
                raise WallxError(f"{word} {'takes no' if needs is False else 'needs a'} text")
            answer = self._handler.handle(word[1:], text.strip(), self._hear)
        except WallxError as error:
            self._say(str(error))
            return
        if answer is not None:
            self._say(f"{command}: done")

    def _hear(self, answer: Mapping[str, Any]) -> None:
        self._say(str(answer.get("answer", answer.get("error"))))

    def _say(self, text: str) -> None:
        with self._lock:
            self._said = text


@contextmanager
def estop_key(sink: int = -1) -> Iterator[bool]:
    """While it lasts, a space on the terminal is an e-stop; whether there is a terminal.

    Args:
        sink: descriptor of a socket that is sent every key; -1: none.
    """
    file = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
    if file < 0:
        yield False
        return
    before = termios.tcgetattr(file)
    tty.setcbreak(file)
    listener = _core.EstopListener(key_descriptor=file, key_sink=sink)
    try:
        yield True
    finally:
        del listener
        termios.tcsetattr(file, termios.TCSADRAIN, before)


@contextmanager
def operate(operator: Operator) -> Iterator[bool]:
    """While it lasts, keys of the terminal are the operator's, and the e-stop's; whether there is a terminal."""
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())

        def work() -> None:
            while keys := ours.recv(4096):
                operator.take(keys)

        thread = threading.Thread(target=work, name="operator")
        thread.start()
        stack.callback(thread.join)
        stack.callback(ours.shutdown, socket.SHUT_RDWR)
        yield stack.enter_context(estop_key(theirs.fileno()))
