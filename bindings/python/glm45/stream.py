"""The events of a turn, for `for` and for `async for`: the one steps the session, the other leaves it to the model's
worker and waits in the event loop until there is something to take."""
from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generator, List, Optional, Type

from . import _ffi
from .events import (Answer, Error, Event, Loop, Paused, Prefill, Ready, Reasoning, Text, ThinkCut, ToolCall,
                     ToolCallBegin, ToolCallDelta, TurnEnd)

if TYPE_CHECKING:
    from .session import Session

# Without a budget of the caller's, a stream looks up this often: it lets Ctrl-C in. Answers do not depend on it.
LOOK_UP_NS = 50_000_000

_NEW, _STEPPING, _STARTED, _OVER = range(4)


def as_event(session: "Session", ev: _ffi.EventRecord) -> Event:
    """The library's event as an object of its own: nothing of it lives in the library's memory."""
    kind = _ffi.name_of(ev.type, _ffi.EVENTS)
    if kind == "text":
        return Text(_ffi.text_at(ev.text, ev.text_size))
    if kind == "reasoning":
        return Reasoning(_ffi.text_at(ev.text, ev.text_size))
    if kind == "prefill":
        return Prefill(ev.rows_done, ev.rows_total)
    if kind == "think_cut":
        return ThinkCut(ev.n_think)
    if kind == "loop":
        return Loop(ev.rows_done, ev.rows_total)
    if kind == "tool_call_begin":
        return ToolCallBegin(ev.call_id, _ffi.text_at(ev.name, ev.name_size))
    if kind == "tool_call_delta":
        return ToolCallDelta(ev.call_id, _ffi.text_at(ev.text, ev.text_size))
    if kind == "tool_call":
        return ToolCall(ev.call_id, _ffi.text_at(ev.name, ev.name_size),
                        _ffi.text_at(ev.arguments, ev.arguments_size), session)
    if kind == "turn_end":
        return TurnEnd(_ffi.name_of(ev.end_reason, _ffi.END_REASONS), ev.n_prompt, ev.n_reused, ev.n_think,
                       ev.n_answer, ev.prefill_ns, ev.decode_ns)
    if kind == "error":
        return Error(_ffi.GlmError(ev.status, "", 0, _ffi.text_at(ev.text, ev.text_size)))
    if kind == "ready":
        return Ready()
    return Paused(ev.rows_done, ev.rows_total)


async def readable(fd: int) -> None:
    """Waits until something can be read from a file descriptor."""
    loop = asyncio.get_running_loop()
    ready: "asyncio.Future[None]" = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        loop.add_reader(fd, wake)
    except NotImplementedError:  # an event loop that cannot watch descriptors
        await asyncio.sleep(0.005)
        return
    try:
        await ready
    finally:
        loop.remove_reader(fd)


class _Gathering:
    """The answer that a stream's events make."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._said: List[str] = []
        self._thought: List[str] = []
        self._calls: List[ToolCall] = []

    def take(self, event: Event) -> Optional[ToolCall]:
        """Adds an event. A call that is to be carried out with a function of the host's is given back."""
        if isinstance(event, Text):
            self._said.append(event.text)
        elif isinstance(event, Reasoning):
            self._thought.append(event.text)
        elif isinstance(event, ToolCall):
            self._calls.append(event)
            return event if self._session._carries_out(event.name) else None
        return None

    def answer(self, end: TurnEnd) -> Answer:
        waiting = self._session._waiting
        return Answer("".join(self._said), "".join(self._thought), self._calls, end,
                      [c for c in self._calls if c.call_id in waiting])


class Stream:
    """The events of a turn up to its TurnEnd.

        for event in chat.stream("Hello!"): ...             # steps, as the loop asks for events
        async for event in chat.stream("Hello!"): ...       # the model's worker computes; the event loop goes on
        answer = chat.stream("Hello!").answer()             # all of it
        answer = await chat.stream("Hello!")

    Leaving a loop early, an exception in it and the task's cancellation all cancel the turn: what was delivered stays
    in the conversation. So does close(), or the end of a `with` block, for a stream that is kept in a variable.
    """

    def __init__(self, session: "Session", budget_ns: Optional[int] = None) -> None:
        self._session = session
        self._budget_ns = budget_ns
        self._state = _NEW
        self._number = 0  # of the session's streams, once it has begun

    # ---- for

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Event:
        if self._state == _OVER:
            raise StopIteration
        if self._state == _STARTED:
            raise RuntimeError("the stream was begun with `async for`")
        if self._state == _NEW:
            self._number = self._session._next_stream()
        try:
            return self._step()
        except _ffi.GlmError:  # the turn is over already, or not ours
            self._state = _OVER
            raise
        except BaseException:  # Ctrl-C
            self.close()
            raise

    def _step(self) -> Event:
        while True:
            self._state = _STEPPING
            event = self._session._step(LOOK_UP_NS if self._budget_ns is None else self._budget_ns)
            if isinstance(event, (TurnEnd, Ready)):
                self._state = _OVER
            if self._budget_ns is not None or not isinstance(event, Paused):
                return event

    def answer(self) -> Answer:
        """Takes all events and returns what they say together. Calls are carried out with the functions that
        Session.tools was given; those without one are left in Answer.pending."""
        gathering = _Gathering(self._session)
        with self:
            for event in self:
                call = gathering.take(event)
                if call is not None:
                    call.run()
                if isinstance(event, TurnEnd):
                    return gathering.answer(event)
        raise RuntimeError("the stream is over already")

    def text(self) -> str:
        """Takes all events and returns the answer's text."""
        return self.answer().text

    # ---- async for

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Event:
        if self._state == _OVER:
            raise StopAsyncIteration
        if self._state == _STEPPING:
            raise RuntimeError("the stream was begun with `for`")
        try:
            if self._state == _NEW:
                await self._session._settle_async()
                self._session._start()
                self._state = _STARTED
            else:
                await asyncio.sleep(0)  # where events wait already, others have their turn too
            return await self._poll()
        except _ffi.GlmError:
            self._state = _OVER
            raise
        except BaseException:  # the task is cancelled
            self.close()
            raise

    async def _poll(self) -> Event:
        while True:
            event = await self._session._poll_async()
            if isinstance(event, Error):
                raise event.error
            if isinstance(event, TurnEnd):
                if event.reason == "tools" and not self._session._waiting:  # the last reply came after the message's end
                    self._session._start()
                    continue
            if isinstance(event, (TurnEnd, Ready)):
                self._state = _OVER
            return event

    async def _answer(self) -> Answer:
        gathering = _Gathering(self._session)
        async with self:
            async for event in self:
                call = gathering.take(event)
                if call is not None:
                    await call.arun()
                if isinstance(event, TurnEnd):
                    return gathering.answer(event)
        raise RuntimeError("the stream is over already")

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._answer().__await__()

    # ---- the end

    def close(self) -> None:
        """Cancels the turn, if it is not over. Again is fine."""
        state, self._state = self._state, _OVER
        if state == _STEPPING:
            self._session._abandon(self._number)
        elif state == _STARTED:
            self._session._leave()

    async def aclose(self) -> None:
        """As close, and waits until the worker has let go of the session."""
        self.close()
        await self._session._settle_async()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self.close()
