"""Thinking: the Reasoner's desk: subtasks, reasoning and the operator's questions, one at a time."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from wallx_edge.errors import AnswerError
from wallx_edge.generation import GenerationConfig
from wallx_edge.session.pace import Desk
from wallx_edge.session.parts import Thinker
from wallx_edge.session.subtask import Instruction, subtask_problem
from wallx_edge.session_config import SessionConfig
from wallx_edge.types import Observation

__all__ = ["Question", "Thought", "Thoughts"]


@dataclass(frozen=True, eq=False)
class Question:
    """One of the operator, and where its answer goes."""

    text: str
    answer: Future[str]


@dataclass(frozen=True, eq=False)
class Thought:
    """What came of asking.

    Attributes:
        kind: what was asked for.
        instruction: in force then.
        observed_at: of its pictures [s].
        began_at: when it was asked [s].
        text: the subtask, or the answer; empty when there is none.
        reasoning: what was said before.
        problem: why there is no subtask; empty: there is one.
        question: of the operator.
        tokens_per_s: of the last text.
    """

    kind: Literal["subtask", "ask"]
    instruction: Instruction
    observed_at: float
    began_at: float
    text: str = ""
    reasoning: str = ""
    problem: str = ""
    question: Question | None = None
    tokens_per_s: float = 0.0


class Thoughts:
    """Asks the Reasoner on a desk of its own; knows nothing of chunks."""

    def __init__(self, reasoner: Thinker, desk: Desk, config: SessionConfig) -> None:
        """Asks nothing yet.

        Args:
            reasoner: what answers.
            desk: where it is asked.
            config: budget, and whether reasoning comes first.
        """
        self._reasoner = reasoner
        self._desk = desk
        self._config = config
        self._questions: deque[Question] = deque()
        self._is_cancelled = threading.Event()
        self._is_closed = False
        self._asked: Thought | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it is being asked."""
        return self._desk.is_busy

    @property
    def has_questions(self) -> bool:
        """Whether the operator waits for an answer that was not begun."""
        return bool(self._questions)

    def put(self, question: Question) -> None:
        """One more of the operator, from any thread; answered in order, before the next subtask."""
        self._questions.append(question)
        if self._is_closed:
            self._refuse_all()

    def begin(
        self, context: Any, observation: Observation, instruction: Instruction, resolution: int, now: float
    ) -> Thought:
        """Asks: the operator's oldest question, or else for the next subtask. Does not block; not while busy.

        Args:
            context: a fork of the policy's, which holds the observation's pictures.
            observation: that the answer is about.
            instruction: in force.
            resolution: of the pictures, as the policy looks at them [px].
            now: [s]
        """
        self._is_cancelled.clear()
        self._reasoner.context = context
        question = None
        while self._questions and question is None:
            waiting = self._questions.popleft()
            question = waiting if waiting.answer.set_running_or_notify_cancel() else None
        kind: Literal["subtask", "ask"] = "subtask" if question is None else "ask"
        asked = Thought(kind, instruction, observation.captured_at, now, question=question)
        self._asked = asked
        self._desk.begin(lambda: self._think(asked, observation, resolution), now)
        return asked

    def take(self, now: float) -> Thought | None:
        """What came of it, once; ``None``: nothing yet. Raises what the Reasoner failed with."""
        outcome = self._desk.take(now)
        if outcome is None:
            return None
        asked, self._asked = self._asked, None
        if outcome.error is not None:
            if asked is not None and asked.question is not None:
                asked.question.answer.set_exception(outcome.error)
            if asked is not None and self._is_cancelled.is_set():
                return replace(asked, problem="it was cancelled")
            raise outcome.error
        thought: Thought = outcome.result
        if thought.question is not None:
            if thought.problem:
                thought.question.answer.set_exception(AnswerError(thought.problem))
            else:
                thought.question.answer.set_result(thought.text)
        return thought

    def cancel(self) -> None:
        """Ends a text under way; its thought says so. Does not wait."""
        self._is_cancelled.set()
        self._reasoner.cancel()

    def close(self) -> None:
        """Cancels, waits for the desk, and lets nobody wait for an answer that will not come."""
        self.cancel()
        self._desk.close()
        asked = self._asked
        if asked is not None and asked.question is not None and not asked.question.answer.done():
            asked.question.answer.set_exception(AnswerError("the session has ended"))
        self._is_closed = True
        self._refuse_all()

    def _refuse_all(self) -> None:
        with suppress(IndexError):  # two threads may empty it
            while True:
                question = self._questions.popleft()
                if question.answer.set_running_or_notify_cancel():
                    question.answer.set_exception(AnswerError("the session has ended"))

    def _think(self, asked: Thought, observation: Observation, resolution: int) -> Thought:
        budget = GenerationConfig(max_tokens=self._config.max_tokens)
        on_text: Callable[[str], bool] = lambda text: not self._is_cancelled.is_set()  # noqa: E731
        images = list(observation.images.values())
        reasoning = ""
        try:
            if asked.question is not None:
                said = self._reasoner.ask(images, asked.question.text, budget, on_text, resolution=resolution)
                problem = "" if said.text else "the model wrote nothing"
                return replace(asked, text=said.text, problem=problem, tokens_per_s=said.generated.tokens_per_s)
            if self._config.reason == "full":
                said = self._reasoner.reason(images, asked.instruction.task, budget, on_text, resolution=resolution)
                reasoning = said.text
            task = replace(observation, instruction=asked.instruction.task)
            said = self._reasoner.subtask(task, budget, on_text)
        except AnswerError as error:
            return replace(asked, reasoning=reasoning, problem=str(error))
        problem = "it was cancelled" if said.generated.ended == "cancelled" else subtask_problem(said.text)
        return replace(
            asked,
            text=said.text,
            reasoning=reasoning,
            problem=problem,
            tokens_per_s=said.generated.tokens_per_s,
        )
