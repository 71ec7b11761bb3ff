"""Server: JSON lines on a Unix socket; one client may move things, every client may look and stop."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from wallx_edge.errors import ConfigError, DeviceError, WallxError

__all__ = ["HALF_LINE", "MAX_CLIENTS", "MAX_LINE", "MAX_UNREAD", "RATE", "Handler", "Reply", "Server"]

log = logging.getLogger(__name__)

MAX_CLIENTS = 16  # more are told so and closed
MAX_LINE = 8192  # of a request with its newline; a client that sends more is told so and closed [bytes]
MAX_UNREAD = 1 << 18  # of answers that a client does not read; then it is closed [bytes]
HALF_LINE = 10.0  # a line that is not finished by then: the client is told so and closed [s]
RATE = 20.0  # requests of one client [1/s]; beyond it the client waits, nobody else does
BURST = 40.0  # that may come at once
BACKLOG = 128  # that may wait to be taken
REST = 0.5  # before the next client is taken, when the system has no descriptors left [s]

Reply = Callable[[Mapping[str, Any]], None]


class Handler:
    """What the server does with a request; a daemon is one."""

    # verb -> whether it needs a text; None: it may have one
    verbs: ClassVar[Mapping[str, bool | None]] = {}
    moving: ClassVar[frozenset[str]] = frozenset()  # only the client that has control may send these

    def handle(self, verb: str, text: str, reply: Reply) -> Mapping[str, Any] | None:
        """Does it, without waiting: on the server's thread.

        Args:
            verb: one of ``verbs``.
            text: empty for a verb that takes none.
            reply: for an answer that comes later; from any thread, at most once.

        Returns:
            the answer, or None when ``reply`` will be called.

        Raises:
            WallxError: it cannot be done; the client is told.
        """
        raise NotImplementedError


@dataclass(eq=False)
class _Client:
    connection: socket.socket
    name: str
    inbox: bytearray = field(default_factory=bytearray)
    outbox: bytearray = field(default_factory=bytearray)
    tokens: float = BURST
    refilled_at: float = field(default_factory=time.monotonic)
    half_since: float | None = None  # when the line that is not finished began [s]

    def refill(self, now: float) -> None:
        self.tokens = min(BURST, self.tokens + (now - self.refilled_at) * RATE)
        self.refilled_at = now


class Server:
    """Owns the socket and a thread; nothing a client does takes more than this thread's time.

    Whoever sends a moving verb first has control until it disconnects; others are told who has it.
    """

    def __init__(self, path: Path, handler: Handler, owner: str = "") -> None:
        """Takes the path; clients are answered once it is entered.

        Args:
            path: of the socket; its folder is made for this user alone.
            handler: of the requests.
            owner: who has control from the start and keeps it, such as a console; empty: the first client that asks.

        Raises:
            ConfigError: another program listens there, or the path is too long.
            DeviceError: the system refuses.
        """
        self._path = path
        self._handler = handler
        self._owner = owner
        self._writer: _Client | None = None
        self._clients: set[_Client] = set()
        self._late: deque[tuple[_Client, dict[str, Any]]] = deque()
        self._lock = threading.Lock()
        self._is_closing = False
        self._accept_at: float | None = None
        self._listener = _listen(path)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._work, name="socket")

    def __enter__(self) -> Server:
        """Starts to answer."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    @property
    def status(self) -> dict[str, Any]:
        """How many clients there are and who has control. Does not wait."""
        writer = self._writer
        return {"clients": len(self._clients), "control": self._owner or (writer.name if writer else "")}

    def close(self) -> None:
        """Closes every client and removes the socket. Blocks until the thread has ended. Idempotent."""
        if self._wake < 0:
            return
        self._is_closing = True
        self._ring()
        self._thread.join()
        os.close(self._wake)
        self._wake = -1

    def _ring(self) -> None:
        if self._wake >= 0:  # an answer may come too late
            os.eventfd_write(self._wake, 1)

    def _work(self) -> None:
        try:
            while not self._is_closing:
                for key, events in self._selector.select(self._timeout()):
                    self._take(key, events)
                self._answer_late()
                self._look_after(time.monotonic())
            self._answer_late()  # the answer to whatever ended this
        finally:
            for client in list(self._clients):
                self._write(client)
                self._drop(client)
            self._selector.close()
            self._listener.close()
            self._path.unlink(missing_ok=True)

    def _take(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.fileobj == self._wake:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        elif key.data in self._clients:
            if events & selectors.EVENT_WRITE:
                self._write(key.data)
            if events & selectors.EVENT_READ and key.data in self._clients:
                self._read(key.data)

    def _timeout(self) -> float | None:
        """Until something must be done without an event [s]."""
        times = [] if self._accept_at is None else [self._accept_at]
        for client in self._clients:
            if client.half_since is not None:
                times.append(client.half_since + HALF_LINE)
            if client.tokens < 1:
                times.append(client.refilled_at + (1 - client.tokens) / RATE)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._selector.unregister(self._listener)  # or it would be tried without a pause
                self._accept_at = time.monotonic() + REST
            return
        connection.setblocking(False)
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        client = _Client(connection, f"process {pid}")
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, client)
        if uid not in (0, os.getuid()):  # the permissions say so already
            self._end(client, "this socket is another user's")
        elif len(self._clients) > MAX_CLIENTS:
            self._end(client, f"{MAX_CLIENTS} clients are connected, more are not taken: close one")

    def _read(self, client: _Client) -> None:
        try:
            data = client.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.inbox += data
        self._serve(client)

    def _serve(self, client: _Client) -> None:
        """Answers the whole lines that have come, as fast as the client may ask."""
        client.refill(time.monotonic())
        while client in self._clients:
            end = client.inbox.find(b"\n")
            if (end < 0 and len(client.inbox) >= MAX_LINE) or end >= MAX_LINE:
                self._end(client, f"a line of more than {MAX_LINE} bytes")
                return
            if end < 0 or client.tokens < 1:
                break
            client.tokens -= 1
            line = bytes(client.inbox[:end])
            del client.inbox[: end + 1]
            self._say(client, self._answer(client, line))
        if client not in self._clients:
            return
        is_half = bool(client.inbox) and b"\n" not in client.inbox
        client.half_since = (client.half_since or time.monotonic()) if is_half else None
        self._watch(client)

    def _answer(self, client: _Client, line: bytes) -> dict[str, Any] | None:
        number: Any = None
        try:
            try:
                request = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"the line is not JSON: {error!s:.80}") from error
            if not isinstance(request, dict):
                raise ConfigError('a request is an object, such as {"verb": "status"}')
            number = request.get("id")
            if number is not None and (isinstance(number, bool) or not isinstance(number, (int, str))):
                number = None
                raise ConfigError("'id' must be a whole number or a text")
            verb, text = request.get("verb"), request.get("text", "")
            if not isinstance(verb, str) or verb not in self._handler.verbs:
                raise ConfigError(f"unknown verb {verb!r:.40}; known are {', '.join(self._handler.verbs)}")
            unknown = [key for key in request if key not in ("id", "verb", "text")]
            if unknown:
                raise ConfigError(f"{unknown[0]!r:.40} is not a known key; known are id, verb, text")
            needs = self._handler.verbs[verb]
            if not isinstance(text, str) or needs not in (None, bool(text.strip())):
                raise ConfigError(f"{verb!r} {'takes no' if needs is False else 'needs a'} text")
            if verb in self._handler.moving:
                self._take_control(client)
            answer = self._handler.handle(verb, text.strip(), lambda late: self._reply(client, number, late))
            return None if answer is None else _with_id(number, {"ok": True, **answer})
        except WallxError as error:
            return _with_id(number, {"ok": False, "error": str(error)})
        except Exception as error:  # a mistake of ours must not end the thread that takes a stop
            log.exception("request %r", line[:200])
            return _with_id(number, {"ok": False, "error": f"internal error: {error}"})

    def _take_control(self, client: _Client) -> None:
        if self._owner:
            raise ConfigError(f"{self._owner} has control; from here only looking, pausing and stopping are taken")
        if self._writer is None:
            self._writer = client
            log.info("%s has control", client.name)
        if self._writer is not client:
            raise ConfigError(
                f"{self._writer.name} has control until it disconnects; only looking, pausing and stopping are taken"
            )

    def _reply(self, client: _Client, number: Any, answer: Mapping[str, Any]) -> None:
        self._late.append((client, _with_id(number, {"ok": "error" not in answer, **answer})))
        self._ring()

    def _answer_late(self) -> None:
        while self._late:
            client, answer = self._late.popleft()
            if client in self._clients:
                self._say(client, answer)

    def _look_after(self, now: float) -> None:
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        for client in list(self._clients):
            if client.half_since is not None and now >= client.half_since + HALF_LINE:
                self._end(client, f"a line that was not finished within {HALF_LINE:g} s")
            elif client.tokens < 1:
                self._serve(client)

    def _end(self, client: _Client, why: str) -> None:
        """Tells a client why, if it listens, and closes it."""
        log.info("%s is closed: %s", client.name, why)
        self._say(client, {"ok": False, "error": f"{why}; this connection is closed"})
        self._drop(client)

    def _say(self, client: _Client, answer: Mapping[str, Any] | None) -> None:
        if answer is None:
            return
        client.outbox += json.dumps(answer).encode() + b"\n"
        if len(client.outbox) > MAX_UNREAD:
            log.info("%s is closed: it does not read its answers", client.name)
            self._drop(client)
            return
        self._write(client)

    def _write(self, client: _Client) -> None:
        try:
            while client.outbox:
                del client.outbox[: client.connection.send(client.outbox)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        self._watch(client)

    def _watch(self, client: _Client) -> None:
        # who has used up its rate is not read: its own writes wait
        events = (selectors.EVENT_READ if client.tokens >= 1 else 0) | (selectors.EVENT_WRITE if client.outbox else 0)
        is_registered = client.connection in self._selector.get_map()
        if events and is_registered:
            self._selector.modify(client.connection, events, client)
        elif events:
            self._selector.register(client.connection, events, client)
        elif is_registered:
            self._selector.unregister(client.connection)

    def _drop(self, client: _Client) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        if client.connection in self._selector.get_map():
            self._selector.unregister(client.connection)
        client.connection.close()
        if self._writer is client:
            self._writer = None
            log.info("%s has left, control is free", client.name)


def _with_id(number: Any, answer: dict[str, Any]) -> dict[str, Any]:
    return answer if number is None else {"id": number, **answer}


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise DeviceError(f"the socket's folder {path.parent} belongs to another user; set XDG_RUNTIME_DIR")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            is_served = probe.connect_ex(str(path)) == 0
        if is_served:
            raise ConfigError(f"another program listens on {path}; stop it first: one program drives a robot")
        path.unlink(missing_ok=True)  # of one that died
        os.fchmod(listener.fileno(), 0o600)  # before bind: there must be no moment at which others may connect
        listener.bind(str(path))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise DeviceError(f"cannot listen on {path}: {error}; set XDG_RUNTIME_DIR to a shorter folder") from error
    except WallxError:
        listener.close()
        raise
    return listener
