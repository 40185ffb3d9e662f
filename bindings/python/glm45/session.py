"""Sessions: conversations as streams of typed events, steering them, code, and the token level beneath."""
from __future__ import annotations

import selectors
import weakref
from array import array
from contextlib import contextmanager
from ctypes import POINTER, byref, c_float, c_int32, c_uint32, c_uint64, c_void_p, string_at
from dataclasses import dataclass
from types import TracebackType
from typing import (TYPE_CHECKING, Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Set, Type, Union)

from . import _ffi, snapshot
from .events import Answer, Error, Event, Paused, Ready, ToolCall, TurnEnd
from .model import Model, as_ids
from .options import nanoseconds, session_options, turn_options
from .stream import LOOK_UP_NS, Stream, as_event, readable
from .tools import Function, ToolLike, declare, to_json

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import SessionKeywords, TurnKeywords

JsonArray = Union[str, bytes, Sequence[Mapping[str, Any]]]

# What may be called while the worker runs a turn.
_ANY_TIME = ("glm_session_poll", "glm_tool_result", "glm_session_end_thought", "glm_session_stats")


@dataclass(frozen=True)
class Stats:
    """Totals since the session was opened. kv_shared_bytes: of kv_bytes, what forks share. draft_speedup: time of a token
    without drafts over that with them; 0: not measured. The last six: of the model's cache of experts (Model's
    expert_cache_bytes), for all of its sessions; 0 without one."""
    n_prompt: int
    n_reused: int
    n_generated: int
    n_drafted: int
    n_accepted: int
    kv_bytes: int
    kv_shared_bytes: int
    draft_speedup: float
    n_expert_hit: int
    n_expert_miss: int
    n_expert_foreseen: int
    n_foreseen_used: int
    expert_bytes_read: int
    expert_wait_ns: int


def _json(value: object) -> bytes:
    """JSON for the library: text as it is, anything else encoded."""
    return _ffi.utf8(value if isinstance(value, (str, bytes)) else to_json(value))


class Session:
    """A conversation, or a sequence of tokens. One thread at a time; cancel() and close() from any.

        with model.session() as chat:
            for event in chat.stream("Hello!"):
                ...
    """

    def __init__(self, model: Model, **options: "Unpack[SessionKeywords]") -> None:
        record, out = session_options(**options), c_void_p()
        with model._handle as handle:
            model.library.call("glm_session_open", handle, byref(record), byref(out))
        self._take(model, out, {})

    @classmethod
    def _of(cls, model: Model, pointer: c_void_p, functions: Mapping[str, Function]) -> "Session":
        """A session that the library made by itself."""
        self = cls.__new__(cls)
        self._take(model, pointer, functions)
        return self

    def _take(self, model: Model, pointer: c_void_p, functions: Mapping[str, Function]) -> None:
        self.model = model
        self.library = model.library
        self._handle = _ffi.Handle("session", pointer.value or 0, self.library.cdll.glm_session_close, model._keep)
        self._finalizer = weakref.finalize(self, self._handle.close)
        self._functions: Dict[str, Function] = dict(functions)
        self._waiting: Set[int] = set()  # calls that were delivered and have no reply
        self._n_stream = 0
        self._left = False  # the worker has a turn whose end nobody waited for

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session; a turn that another thread or task computes is cancelled. Again is fine."""
        self.cancel()
        self._finalizer()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def _call(self, name: str, *arguments: Any) -> None:
        if name not in _ANY_TIME:
            self._settle_if_left()
        with self._handle as handle:
            self.library.call(name, handle, *arguments)

    # ---- conversation

    def say(self, text: Union[str, bytes], role: str = "user") -> None:
        """Adds a message. role: "system", "user", "assistant" or "tool". The text is data: special tokens spelled out
        in it are ordinary text."""
        data = _ffi.utf8(text)
        self._call("glm_session_say", _ffi.code_of(role, _ffi.ROLES, "role"), data, len(data))

    def add(self, role: str, text: Union[str, bytes] = "", *, reasoning: Union[None, str, bytes] = None,
            calls: Optional[JsonArray] = None, specials: bool = False) -> None:
        """Adds a message in full, for a conversation's past. calls: [{"name": ..., "arguments": {...}}, ...];
        specials: special tokens spelled out in the text are meant as such (only for text that you trust)."""
        data = _ffi.utf8(text)
        thought = None if reasoning is None else _ffi.utf8(reasoning)
        calls_json = None if calls is None else _json(calls)
        message = _ffi.Message(role=_ffi.code_of(role, _ffi.ROLES, "role"), text=data, text_size=len(data),
                               reasoning=thought, reasoning_size=len(thought or b""), calls_json=calls_json,
                               calls_size=len(calls_json or b""), flags=_ffi.MESSAGE_SPECIALS if specials else 0)
        self._call("glm_session_add", byref(message))

    def messages(self, messages: JsonArray) -> int:
        """Replaces the conversation by an OpenAI-style array of messages (objects or JSON text). Returns how many
        tokens of the cache the new prompt begins with: they are not computed again."""
        data, n_common = _json(messages), c_uint64()
        self._call("glm_session_messages", data, len(data), byref(n_common))
        self._waiting.clear()
        return n_common.value

    def tools(self, *tools: ToolLike) -> None:
        """Declares the tools of turns to come, in place of those before: Python functions (see glm45.tool), and
        OpenAI-style declarations as objects, arrays or JSON text. Calls of functions are carried out by chat(), await
        and ToolCall.run; the others are for you to reply to. tools() takes all back."""
        data, functions = declare(tools)
        self._call("glm_session_tools", data, len(data))
        self._functions = functions

    def turn(self, **options: "Unpack[TurnKeywords]") -> None:
        """Sets the options of turns to come (and of sample) until they are replaced. turn() gives the defaults again.

        thinking: True, False, or a number of tokens after which the thought is closed (ThinkCut); think_close: text
        that ends a thought which is closed early; keep_thoughts: past thoughts stay in the prompt (4.7 only).
        max_tokens: the thought included, 0 for 8192 or what the context holds; max_seconds: of computing.
        stop: strings at which the answer ends; stop_lines: it ends after so many lines; stop_dedent: before a line that
        is indented less than its first.
        seed, temperature (0 is greedy), top_p, min_p, repeat_penalty (1 is off), top_k (0 is off); None: as the
        checkpoint says. tool_choice: "auto", "none", "required", or "named" with tool_name; answer_schema: JSON Schema
        of the answer; answer_pattern: an ECMA-262 pattern of the answer. Both bind what is drawn by sample(), too.
        """
        self._call("glm_session_turn", byref(turn_options(**options)))

    def step(self, budget_ms: Optional[float] = None) -> Event:
        """Goes on with the turn until there is an event, or about budget_ms are spent (Paused)."""
        return self._step(0 if budget_ms is None else nanoseconds(budget_ms / 1e3, "budget_ms"))

    def _step(self, budget_ns: int) -> Event:
        how, ev = _ffi.Step(budget_ns=budget_ns), _ffi.EventRecord()
        self._settle_if_left()
        with self._handle as handle:  # until the event's strings are copied
            self.library.call("glm_session_step", handle, byref(how), byref(ev))
            return self._taken(as_event(self, ev))

    def _taken(self, event: Event) -> Event:
        """Keeps account of an event that the library gave."""
        if isinstance(event, ToolCall):
            self._waiting.add(event.call_id)
        elif isinstance(event, Error) or (isinstance(event, TurnEnd) and event.reason != "tools"):
            self._waiting.clear()
        return event

    def stream(self, text: Union[None, str, bytes] = None, *, budget_ms: Optional[float] = None,
               **options: "Unpack[TurnKeywords]") -> Stream:
        """The events of a turn, for `for`, `async for` or `await`; text, if given, is said first, and options are those
        of turn(). budget_ms: in a `for` a Paused comes whenever so many milliseconds were computed without an event.
        """
        budget_ns = None if budget_ms is None else nanoseconds(budget_ms / 1e3, "budget_ms")
        if options:
            self.turn(**options)
        if text is not None:
            self.say(text)
        return Stream(self, budget_ns)

    def chat(self, text: Union[None, str, bytes] = None, **options: "Unpack[TurnKeywords]") -> Answer:
        """Says text, if given, and returns the whole answer. Calls are carried out with the functions that tools() was
        given; if Answer.pending is not empty, reply to each and call chat() again."""
        return self.stream(text, **options).answer()

    def _carries_out(self, name: str) -> bool:
        return name in self._functions

    def tool_result(self, call_id: int, result: object) -> None:
        """Answers a call: text as it is, anything else as JSON. ToolCall.reply is the same."""
        data = _json(result)
        self._call("glm_tool_result", _ffi.unsigned(call_id, 64, "call_id"), data, len(data))
        self._waiting.discard(call_id)

    def end_thought(self) -> None:
        """Closes the thought of the turn under way as soon as it can be; then come ThinkCut and the answer."""
        self._call("glm_session_end_thought")

    def cancel(self) -> None:
        """Ends the turn under way: its next event is the TurnEnd. Any thread, any time."""
        if not self._handle.closed:
            try:
                with self._handle as handle:
                    self.library.cdll.glm_session_cancel(handle)
            except _ffi.GlmError:  # closed in between
                pass

    @property
    def stats(self) -> Stats:
        """Totals since the session was opened."""
        out = _ffi.Stats()
        self._call("glm_session_stats", byref(out))
        return Stats(out.n_prompt, out.n_reused, out.n_generated, out.n_drafted, out.n_accepted, out.kv_bytes,
                     out.kv_shared_bytes, out.draft_speedup, out.n_expert_hit, out.n_expert_miss,
                     out.n_expert_foreseen, out.n_foreseen_used, out.expert_bytes_read, out.expert_wait_ns)

    # ---- streams and the worker

    def _next_stream(self) -> int:
        self._n_stream += 1
        return self._n_stream

    def _abandon(self, number: int) -> None:
        """Cancels the turn of a stream, unless another has taken it over, and takes what it still has to say."""
        if number != self._n_stream:
            return
        self.cancel()
        try:
            while not isinstance(self.step(), TurnEnd):
                pass
        except _ffi.GlmError:  # closed meanwhile, or over without our knowing
            pass

    def _start(self) -> None:
        self._call("glm_session_start")

    def _leave(self) -> None:
        """Cancels a turn that the worker runs. Its end comes within one unit of work: whatever is called next waits."""
        self.cancel()
        self._left = True

    def _poll(self) -> Event:
        ev = _ffi.EventRecord()
        with self._handle as handle:
            self.library.call("glm_session_poll", handle, byref(ev))
            return self._taken(as_event(self, ev))

    async def _poll_async(self) -> Event:
        """The next event of a turn that the worker runs."""
        with self._handle as handle:  # open while its descriptor is watched
            while True:
                event = self._poll()
                if not isinstance(event, Paused):
                    return event
                await readable(self.library.cdll.glm_session_fd(handle))

    def _is_last(self, event: Event) -> bool:
        return isinstance(event, (TurnEnd, Ready, Error))

    def _settle_if_left(self) -> None:
        if self._left:
            self._settle()

    def _settle(self) -> None:
        """Waits for the end of a turn that was left."""
        try:
            with self._handle as handle, selectors.DefaultSelector() as selector:
                selector.register(self.library.cdll.glm_session_fd(handle), selectors.EVENT_READ)
                event = self._poll()
                while not self._is_last(event):
                    if isinstance(event, Paused):
                        selector.select(1.0)
                    event = self._poll()
        except _ffi.GlmError:  # over without our knowing
            pass
        self._left = False

    async def _settle_async(self) -> None:
        try:
            while self._left and not self._is_last(await self._poll_async()):
                pass
        except _ffi.GlmError:
            pass
        self._left = False

    # ---- steering

    def fork(self) -> "Session":
        """A second session that goes on from the same point, the turn under way included. Both share the cache."""
        out = c_void_p()
        self._call("glm_session_fork", byref(out))
        other = Session._of(self.model, out, self._functions)
        other._waiting = set(self._waiting)
        return other

    def mark(self) -> int:
        """The place in the conversation that rewind() goes back to."""
        out = c_uint64()
        self._call("glm_session_mark", byref(out))
        return out.value

    def rewind(self, mark: int) -> None:
        """Forgets the messages from a mark on; calls that wait for replies are given up."""
        self._call("glm_session_rewind", _ffi.unsigned(mark, 64, "mark"))
        self._waiting.clear()

    @contextmanager
    def attempt(self) -> Iterator[int]:
        """A block that leaves no trace if an exception ends it: a turn in it is cancelled, and the conversation is as it
        was. Gives the mark of its beginning."""
        mark = self.mark()
        try:
            yield mark
        except BaseException:
            try:
                self.rewind(mark)
            except _ffi.GlmError as e:  # a turn is under way, here or under the worker
                if e.code == _ffi.EBUSY:
                    self._leave()
                else:
                    self._abandon(self._n_stream)
                self.rewind(mark)
            raise

    def save(self, to: snapshot.Place) -> None:
        """Saves the session, its cache included: to a path (the file is replaced in one move), or to a binary file
        object. Between turns, or while calls wait for replies."""
        if isinstance(to, (str, bytes)) or hasattr(to, "__fspath__"):
            self._call("glm_session_save", snapshot.path_bytes(to))
        else:
            with snapshot.FileObject(to) as stream:
                self._call("glm_session_save_to", byref(stream))

    # ---- code

    def infill(self, prefix: Union[str, bytes], suffix: Union[str, bytes] = "", *,
               files: Optional[Mapping[str, Union[None, str, bytes]]] = None,
               **options: "Unpack[TurnKeywords]") -> Stream:
        """The code between prefix and suffix, as the Text of a stream; infill(...).text() is all of it. The conversation
        is not touched. files: others of the project, path to text, that this and later infills see; None takes one
        back."""
        if options:
            self.turn(**options)
        for path, text in (files or {}).items():
            self.infill_file(path, text)
        before, behind = _ffi.utf8(prefix), _ffi.utf8(suffix)
        self._call("glm_session_infill", before, len(before), behind, len(behind))
        return Stream(self)

    def infill_file(self, path: str, text: Union[None, str, bytes]) -> None:
        """Another file of the project, for infills to come to see; given again, its new text; None takes it back."""
        data = None if text is None else _ffi.utf8(text)
        self._call("glm_session_infill_file", _ffi.c_text(path, "path"), data, len(data or b""))

    # ---- tokens

    def feed(self, ids: Iterable[int], *, all_rows: bool = False) -> None:
        """Queues ids behind those in the cache; step() computes them and ends with Ready. all_rows: logits of all of
        them, not of the last alone."""
        items = as_ids(ids)
        self._call("glm_session_feed", items, len(items), _ffi.ROWS_ALL if all_rows else _ffi.ROWS_LAST)

    def compute(self, ids: Iterable[int], *, all_rows: bool = False) -> None:
        """Feeds ids and steps until they are computed. GLM_ESTATE if that was cancelled."""
        self.feed(ids, all_rows=all_rows)
        event: Event = Paused(0, 0)
        try:
            while not isinstance(event, (Ready, TurnEnd)):
                event = self._step(LOOK_UP_NS)
        except _ffi.GlmError:
            raise
        except BaseException:  # Ctrl-C: nothing may stay queued
            self._abandon(self._n_stream)
            raise
        if isinstance(event, TurnEnd):
            raise _ffi.GlmError(_ffi.ESTATE, "", 0, "cancelled before everything was computed")

    def logits(self, row: Optional[int] = None) -> "array[float]":
        """The n_vocab logits that follow the row-th id of the last feed, or its last: a copy, as array('f');
        numpy.asarray takes it as it is."""
        return self._row("glm_session_logits", row, self.model.info.n_vocab)

    def hidden(self, row: Optional[int] = None) -> "array[float]":
        """The state of d_model floats behind those logits: an embedding of the text so far."""
        return self._row("glm_session_hidden", row, self.model.info.d_model)

    def _row(self, name: str, row: Optional[int], n: int) -> "array[float]":
        at = POINTER(c_float)()
        which = _ffi.LAST_ROW if row is None else _ffi.unsigned(row, 64, "row")
        copy = array("f")
        with self._handle as handle:  # until the row is copied
            self.library.call(name, handle, which, byref(at))
            copy.frombytes(string_at(at, n * 4))
        return copy

    def mask(self) -> bytes:
        """Which ids may come next under answer_schema or answer_pattern, for hosts that sample for themselves: bit i % 8 of
        byte i // 8 is id i's. The answer begins with the first call; what is computed from then on belongs to it."""
        at = POINTER(c_uint32)()
        with self._handle as handle:  # until the bits are copied
            self.library.call("glm_session_mask", handle, byref(at))
            return string_at(at, (self.model.info.n_vocab + 31) // 32 * 4)

    def sample(self) -> int:
        """Draws the id that follows the cache's last, by the options of turn(). It is not fed."""
        out = c_int32()
        self._call("glm_session_sample", byref(out))
        return out.value
