"""The daemon's socket: who may do what, and what garbage, half lines, endless lines and floods come to."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from live_arm import wait_for
from wallx_edge.daemon import server as module
from wallx_edge.daemon import tell
from wallx_edge.daemon.server import BURST, MAX_CLIENTS, MAX_LINE, MAX_UNREAD, RATE, Handler, Reply, Server
from wallx_edge.errors import ConfigError, DeviceError

WAIT = 20.0


class Robot(Handler):
    """Notes what it is asked."""

    verbs: ClassVar = {"status": False, "task": True, "subtask": None, "ask": True, "pause": False, "crash": False}
    moving: ClassVar = frozenset({"task", "subtask", "ask"})

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.replies: list[Reply] = []

    def handle(self, verb: str, text: str, reply: Reply) -> Mapping[str, Any] | None:
        self.done.append((verb, text))
        if verb == "crash":
            raise ZeroDivisionError("a mistake")
        if verb == "ask":
            self.replies.append(reply)
            return None
        return {"big": "x" * 40_000} if verb == "status" else {}


class Client:
    """A connection that says and hears lines."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *rest: object) -> None:
        self.file.close()
        self.socket.close()

    def say(self, line: object) -> None:
        data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
        self.socket.sendall(data)

    def hear(self) -> dict[str, Any]:
        answer = json.loads(self.file.readline())
        assert isinstance(answer, dict)
        return answer

    def ask(self, line: object) -> dict[str, Any]:
        self.say(line)
        return self.hear()

    def is_closed(self) -> bool:
        try:
            return self.file.readline() == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def robot() -> Robot:
    return Robot()


@pytest.fixture
def path(robot: Robot, tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "folder" / "x.sock"
    with Server(place, robot):
        yield place
    assert not place.exists()


def test_the_socket_is_this_users_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_second_daemon_is_refused_and_a_dead_ones_socket_is_replaced(path: Path, robot: Robot) -> None:
    with pytest.raises(ConfigError, match="another program listens"):
        Server(path, robot)
    assert "big" in tell(path, "status")
    dead = path.with_name("dead.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(dead))
    with Server(dead, robot):
        assert "big" in tell(dead, "status")
    with pytest.raises(DeviceError, match="XDG_RUNTIME_DIR"):
        Server(path.parent / ("x" * 200), robot)


def test_requests_are_done_and_answered_with_their_id(path: Path, robot: Robot) -> None:
    with Client(path) as client:
        assert client.ask({"id": 7, "verb": "task", "text": " fold the cloth "}) == {"id": 7, "ok": True}
        assert client.ask({"id": "a", "verb": "subtask"}) == {"id": "a", "ok": True}
        assert client.ask({"verb": "pause"}) == {"ok": True}
    assert robot.done == [("task", "fold the cloth"), ("subtask", ""), ("pause", "")]


def test_an_answer_that_takes_its_time_holds_up_nobody(path: Path, robot: Robot) -> None:
    with Client(path) as asking, Client(path) as looking:
        asking.say({"id": 1, "verb": "ask", "text": "what is there?"})
        wait_for(lambda: bool(robot.replies), "the question")
        assert looking.ask({"verb": "pause"})["ok"]
        assert asking.ask({"id": 2, "verb": "pause"}) == {"id": 2, "ok": True}
        threading.Thread(target=robot.replies[0], args=({"answer": "a cup"},)).start()
        assert asking.hear() == {"id": 1, "ok": True, "answer": "a cup"}
        asking.say({"id": 3, "verb": "ask", "text": "and now?"})
        wait_for(lambda: len(robot.replies) == 2, "the question")
        robot.replies[1]({"error": "no answer in time"})
        assert asking.hear() == {"id": 3, "ok": False, "error": "no answer in time"}


def test_one_client_moves_and_every_client_looks_and_stops(path: Path, robot: Robot) -> None:
    with Client(path) as second:
        with Client(path) as first:
            assert first.ask({"verb": "task", "text": "a"})["ok"]
            refused = second.ask({"verb": "task", "text": "b"})
            assert not refused["ok"]
            assert f"process {os.getpid()} has control" in refused["error"]
            assert second.ask({"verb": "pause"})["ok"]
            assert second.ask({"verb": "status"})["ok"]
        wait_for(lambda: second.ask({"verb": "task", "text": "b"})["ok"], "control to be free")
    assert [text for verb, text in robot.done if verb == "task"] == ["a", "b"]


def test_a_console_keeps_control(robot: Robot, tmp_path: Path) -> None:
    with Server(tmp_path / "x.sock", robot, owner="the console") as served:
        assert served.status["control"] == "the console"
        with Client(tmp_path / "x.sock") as client:
            assert "the console has control" in client.ask({"verb": "task", "text": "a"})["error"]
            assert client.ask({"verb": "pause"})["ok"]
    assert robot.done == [("pause", "")]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello\n", "the line is not JSON"),
        (b"\n", "the line is not JSON"),
        (b"\xff\xfe\x00\n", "the line is not JSON"),
        (b"[" * 4000 + b"\n", "the line is not JSON"),
        (b"[1]\n", "a request is an object"),
        ({"verb": "dance"}, "unknown verb 'dance'; known are status, task"),
        ({"verb": ["status"]}, "unknown verb"),
        ({}, "unknown verb None"),
        ({"verb": "status", "now": 1}, "'now' is not a known key"),
        ({"verb": "status", "text": "x"}, "'status' takes no text"),
        ({"verb": "task"}, "'task' needs a text"),
        ({"verb": "task", "text": " "}, "'task' needs a text"),
        ({"verb": "task", "text": 3}, "'task' needs a text"),
        ({"verb": "status", "id": [1]}, "'id' must be"),
        ({"verb": "status", "id": True}, "'id' must be"),
        ({"verb": "crash"}, "internal error: a mistake"),
    ],
)
def test_garbage_is_answered_and_the_connection_stays(path: Path, robot: Robot, line: object, error: str) -> None:
    with Client(path) as client:
        answer = client.ask(line)
        assert not answer["ok"]
        assert error in answer["error"]
        assert client.ask({"verb": "pause"}) == {"ok": True}
    assert [verb for verb, _ in robot.done if verb != "crash"] == ["pause"]


def test_random_bytes_never_end_the_server(path: Path, robot: Robot) -> None:
    random.seed(5)
    for _ in range(60):
        with contextlib.suppress(OSError), Client(path) as client:
            for _ in range(4):
                client.say(random.randbytes(random.randrange(1, 3000)))
    assert "big" in tell(path, "status")
    assert [verb for verb, _ in robot.done] == ["status"]


@pytest.mark.parametrize("has_end", [False, True])
def test_an_endless_line_is_told_and_closed(path: Path, robot: Robot, has_end: bool) -> None:
    with Client(path) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.say(b"x" * MAX_LINE + (b"\n" if has_end else b""))
        assert f"more than {MAX_LINE} bytes" in client.hear()["error"]
        assert client.is_closed()
    with Client(path) as client:  # the longest that is taken
        text = "x" * (MAX_LINE - 1 - len(json.dumps({"verb": "task", "text": ""})))
        assert client.ask({"verb": "task", "text": text})["ok"]
    assert robot.done == [("task", text)]


def test_half_a_line_is_waited_for_and_then_closed(path: Path, robot: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(path) as client:
        client.say(b'{"verb": "pa')
        assert tell(path, "status")["big"]
        client.say(b'use"}\n{"ver')
        assert client.hear() == {"ok": True}
        monkeypatch.setattr(module, "HALF_LINE", 0.05)
        assert tell(path, "status")["big"]  # wakes the thread, which then counts anew
        assert "not finished within" in client.hear()["error"]
        assert client.is_closed()


def test_a_flood_makes_the_flooding_client_wait_and_nobody_else(path: Path, robot: Robot) -> None:
    total = 4 * int(BURST)
    with Client(path) as flooding, Client(path) as polite:
        for number in range(total):
            flooding.say({"id": number, "verb": "pause"})
        assert polite.ask({"verb": "task", "text": "in between"})["ok"]
        before = len(robot.done)
        assert before <= BURST + 1 + RATE * WAIT
        assert before < total
        assert [flooding.hear()["id"] for _ in range(total)] == list(range(total))


def test_who_does_not_read_its_answers_is_closed(path: Path) -> None:
    with Client(path) as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(OSError):
            for _ in range(int(BURST)):  # 40 kB of answer each
                deaf.say({"verb": "status"})
        assert MAX_UNREAD < BURST * 40_000
        poll = select.poll()
        poll.register(deaf.socket, 0)  # only the hang-up: nothing is read before it
        assert poll.poll(WAIT * 1e3)
        heard = 0
        with contextlib.suppress(ConnectionResetError):
            while part := deaf.socket.recv(65536):
                heard += len(part)
        assert heard < BURST * 40_000
    assert "big" in tell(path, "status")


def test_more_clients_than_allowed_are_told_and_closed(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(path)) for _ in range(MAX_CLIENTS)]
        assert all(client.ask({"verb": "pause"})["ok"] for client in clients)
        with Client(path) as more:
            assert f"{MAX_CLIENTS} clients are connected" in more.hear()["error"]
            assert more.is_closed()
        assert all(client.ask({"verb": "pause"})["ok"] for client in clients)
        stack.close()
        wait_for(lambda: answers(path), "room")


def answers(path: Path) -> bool:
    with contextlib.suppress(DeviceError):
        return "big" in tell(path, "status")
    return False


def test_a_client_that_hangs_up_in_the_middle_is_forgotten(path: Path, robot: Robot) -> None:
    for _ in range(3 * MAX_CLIENTS):
        with Client(path) as client:
            client.say(b'{"verb": "ask", "text": "?"}\n{"verb"')
    wait_for(lambda: answers(path), "room")
    for reply in robot.replies:
        reply({"answer": "to nobody"})
    assert answers(path)


def test_closing_answers_what_ended_it(robot: Robot, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    served = Server(path, robot)
    with served, Client(path) as client:
        client.say({"verb": "ask", "text": "?"})
        wait_for(lambda: bool(robot.replies), "the question")
        robot.replies[0]({"answer": "yes"})
        served.close()
        assert client.hear()["answer"] == "yes"
        assert client.is_closed()
        robot.replies[0]({"answer": "too late"})
