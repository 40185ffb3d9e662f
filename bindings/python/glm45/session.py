"""Sessions: conversations as streams of typed events, and the token level beneath them."""
from __future__ import annotations

import ctypes
import json
import weakref
from array import array
from ctypes import POINTER, byref, c_float, c_int32, c_uint64, c_void_p
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Iterable, Iterator, List, Mapping, Optional, Sequence, Type, TypedDict, Union

from . import _ffi
from .events import (Answer, Event, Paused, Prefill, Ready, Reasoning, Text, ToolCall, ToolCallBegin, ToolCallDelta,
                     TurnEnd)
from .model import Model, as_ids, session_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Without a budget of the caller's, a stream looks up this often: it lets Ctrl-C in. Answers do not depend on it.
_LOOK_UP_NS = 50_000_000

JsonArray = Union[str, bytes, Sequence[Mapping[str, Any]]]


class TurnKeywords(TypedDict, total=False):
    """The keywords of Session.turn."""
    thinking: bool
    max_tokens: int
    seed: int
    temperature: Optional[float]
    top_p: Optional[float]
    min_p: Optional[float]
    repeat_penalty: Optional[float]
    top_k: Optional[int]
    tool_choice: str


@dataclass(frozen=True)
class Stats:
    """Totals since the session was opened."""
    n_prompt: int
    n_reused: int
    n_generated: int
    n_drafted: int
    n_accepted: int
    kv_bytes: int
    kv_shared_bytes: int


def _json(value: object) -> bytes:
    """JSON for the library: text as it is, anything else encoded."""
    return _ffi.utf8(value if isinstance(value, (str, bytes)) else json.dumps(value, ensure_ascii=False))


def _event(session: "Session", ev: _ffi.EventRecord) -> Event:
    """The library's event as an object of its own: nothing of it lives in the library's memory."""
    kind = _ffi.name_of(ev.type, _ffi.EVENTS)
    if kind == "text":
        return Text(_ffi.text_at(ev.text, ev.text_size))
    if kind == "reasoning":
        return Reasoning(_ffi.text_at(ev.text, ev.text_size))
    if kind == "prefill":
        return Prefill(ev.rows_done, ev.rows_total)
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
    if kind == "ready":
        return Ready()
    return Paused(ev.rows_done, ev.rows_total)


class Session:
    """A conversation, or a sequence of tokens, of one model. One thread at a time: another one gets GLM_EBUSY.
    cancel() and close() alone may come from any thread at any time.

    n_ctx: most positions, 0 for the model's; kv_type: "auto", "f32", "bf16", "int8" or "fp8".
    """

    def __init__(self, model: Model, *, n_ctx: int = 0, kv_type: str = "auto") -> None:
        self.model = model
        self.library = model.library
        out = c_void_p()
        options = session_options(n_ctx, kv_type)
        with model._handle as handle:
            self.library.call("glm_session_open", handle, byref(options), byref(out))
        self._handle = _ffi.Handle("session", out.value or 0, self.library.cdll.glm_session_close, model._keep)
        self._finalizer = weakref.finalize(self, self._handle.close)
        self._n_stream = 0

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session; a turn that another thread computes is cancelled. Again is fine."""
        self.cancel()
        self._finalizer()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def _call(self, name: str, *arguments: Any) -> None:
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
        return n_common.value

    def tools(self, tools: JsonArray) -> None:
        """Declares the tools of turns to come, an OpenAI-style array (objects or JSON text); [] takes them back."""
        data = _json(tools)
        self._call("glm_session_tools", data, len(data))

    def turn(self, *, thinking: bool = True, max_tokens: int = 0, seed: int = 0,
             temperature: Optional[float] = None, top_p: Optional[float] = None, min_p: Optional[float] = None,
             repeat_penalty: Optional[float] = None, top_k: Optional[int] = None, tool_choice: str = "auto") -> None:
        """Sets the options of turns to come (and of sample) until they are replaced. None: as the checkpoint says.
        max_tokens counts the thought too, 0 is 8192 or what the context holds; temperature 0 is greedy; top_k 0 is
        off; repeat_penalty 1 is off; tool_choice: "auto" or "none". turn() gives the defaults again."""
        options = _ffi.TurnOptions(thinking=_ffi.THINKING["on" if thinking else "off"],
                                   max_tokens=_ffi.unsigned(max_tokens, 32, "max_tokens"),
                                   seed=_ffi.unsigned(seed, 64, "seed"),
                                   tool_choice=_ffi.code_of(tool_choice, _ffi.TOOL_CHOICES, "tool_choice"))
        for name, value in (("temperature", temperature), ("top_p", top_p), ("min_p", min_p),
                            ("repeat_penalty", repeat_penalty)):
            if value is not None:
                if value != value:
                    _ffi.invalid(name, "a NaN; None is the checkpoint's own setting")
                setattr(options, name, value)
        if top_k is not None:
            options.top_k = _ffi.unsigned(top_k, 31, "top_k")
        self._call("glm_session_turn", byref(options))

    def step(self, budget_ms: Optional[float] = None) -> Event:
        """Goes on with the turn until there is an event, or about budget_ms are spent (Paused)."""
        if budget_ms is not None and not 0 <= budget_ms < 1e12:
            _ffi.invalid("budget_ms", f"{budget_ms} is no time")
        return self._step(0 if budget_ms is None else max(1, int(budget_ms * 1e6)))

    def _step(self, budget_ns: int) -> Event:
        how, ev = _ffi.Step(budget_ns=budget_ns), _ffi.EventRecord()
        with self._handle as handle:  # until the event's strings are copied
            self.library.call("glm_session_step", handle, byref(how), byref(ev))
            return _event(self, ev)

    def stream(self, text: Union[None, str, bytes] = None, *, budget_ms: Optional[float] = None,
               **options: "Unpack[TurnKeywords]") -> Iterator[Event]:
        """Yields the events of a turn up to its TurnEnd; text, if given, is said first, and options are those of
        turn(). With budget_ms, a Paused comes whenever so many milliseconds were computed without an event. Leaving
        the loop early, or an exception in it, cancels the turn: what was delivered stays in the conversation.
        """
        if options:
            self.turn(**options)
        if text is not None:
            self.say(text)
        return self._events(budget_ms)

    def _events(self, budget_ms: Optional[float]) -> Iterator[Event]:
        self._n_stream += 1
        number, under_way = self._n_stream, False
        try:
            while True:
                under_way = True
                try:
                    event = self._step(_LOOK_UP_NS) if budget_ms is None else self.step(budget_ms)
                except _ffi.GlmError:  # the turn is over already, or not ours
                    under_way = False
                    raise
                if isinstance(event, TurnEnd):
                    under_way = False
                    yield event
                    return
                if budget_ms is not None or not isinstance(event, Paused):
                    yield event
        finally:
            if under_way and number == self._n_stream:
                self._abandon()

    def _abandon(self) -> None:
        """Cancels the turn and takes what it still has to say."""
        self.cancel()
        try:
            while not isinstance(self.step(), TurnEnd):
                pass
        except _ffi.GlmError:  # closed meanwhile, or over without our knowing
            pass

    def chat(self, text: Union[None, str, bytes] = None, **options: "Unpack[TurnKeywords]") -> Answer:
        """Says text, if given, and returns the whole answer. If answer.calls is not empty, reply to each and call
        chat() again."""
        said: List[str] = []
        thought: List[str] = []
        calls: List[ToolCall] = []
        for event in self.stream(text, **options):
            if isinstance(event, Text):
                said.append(event.text)
            elif isinstance(event, Reasoning):
                thought.append(event.text)
            elif isinstance(event, ToolCall):
                calls.append(event)
            elif isinstance(event, TurnEnd):
                return Answer("".join(said), "".join(thought), calls, event)
        raise AssertionError("a stream ends with TurnEnd")

    def tool_result(self, call_id: int, result: object) -> None:
        """Answers a call: text as it is, anything else as JSON. ToolCall.reply is the same."""
        data = _json(result)
        self._call("glm_tool_result", _ffi.unsigned(call_id, 64, "call_id"), data, len(data))

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
                     out.kv_shared_bytes)

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
                event = self._step(_LOOK_UP_NS)
        except _ffi.GlmError:
            raise
        except BaseException:  # Ctrl-C: nothing may stay queued
            self._abandon()
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
            copy.frombytes(ctypes.string_at(at, n * 4))
        return copy

    def sample(self) -> int:
        """Draws the id that follows the cache's last, by the options of turn(). It is not fed."""
        out = c_int32()
        self._call("glm_session_sample", byref(out))
        return out.value
