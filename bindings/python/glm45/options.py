"""Options as keywords, and as the library's structs: those of a session, and those of a turn, which Session.turn, stream,
chat and infill take."""
from __future__ import annotations

import json
from ctypes import POINTER, c_char_p, cast
from typing import Any, Mapping, Optional, Sequence, TypedDict, Union

from . import _ffi


class SessionKeywords(TypedDict, total=False):
    """The keywords of Model.session and Model.load."""
    n_ctx: int
    kv_type: str
    overflow: str
    event_bytes: int
    speculation: str


class TurnKeywords(TypedDict, total=False):
    """The keywords of Session.turn."""
    thinking: Union[bool, int]
    think_close: Optional[str]
    keep_thoughts: bool
    max_tokens: int
    max_seconds: Optional[float]
    stop: Union[str, Sequence[str]]
    stop_lines: int
    stop_dedent: bool
    seed: int
    temperature: Optional[float]
    top_p: Optional[float]
    min_p: Optional[float]
    repeat_penalty: Optional[float]
    top_k: Optional[int]
    tool_choice: str
    tool_name: Optional[str]
    answer_schema: Union[None, str, Mapping[str, Any]]
    answer_pattern: Optional[str]


def session_options(*, n_ctx: int = 0, kv_type: str = "auto", overflow: str = "error", event_bytes: int = 0,
                    speculation: str = "auto") -> _ffi.SessionOptions:
    """See Model.session."""
    return _ffi.SessionOptions(n_ctx=_ffi.unsigned(n_ctx, 32, "n_ctx"),
                               kv_type=_ffi.code_of(kv_type, _ffi.KV_TYPES, "kv_type"),
                               overflow=_ffi.code_of(overflow, _ffi.OVERFLOWS, "overflow"),
                               event_bytes=_ffi.unsigned(event_bytes, 64, "event_bytes"),
                               speculation=_ffi.code_of(speculation, _ffi.SPECULATIONS, "speculation"))


def nanoseconds(seconds: float, where: str) -> int:
    """A time that the library takes, at least 1: its 0 is no limit."""
    if not 0 <= seconds < 1e9:
        _ffi.invalid(where, f"{seconds} is no time")
    return max(1, int(seconds * 1e9))


def _set_thinking(options: _ffi.TurnOptions, thinking: Union[bool, int]) -> None:
    if isinstance(thinking, bool):
        options.thinking = _ffi.THINKING["on" if thinking else "off"]
    else:
        options.thinking = _ffi.THINKING["budget"]
        options.think_tokens = _ffi.unsigned(thinking, 32, "thinking")


def _set_stops(options: _ffi.TurnOptions, stop: Union[str, Sequence[str]]) -> None:
    stops = [_ffi.c_text(s, "stop") for s in ([stop] if isinstance(stop, str) else stop)]
    if stops:
        options.keep = (c_char_p * len(stops))(*stops)  # as long as the struct
        options.stop = cast(options.keep, POINTER(c_char_p))
        options.n_stop = len(stops)


def _set_sampling(options: _ffi.TurnOptions, top_k: Optional[int], **floats: Optional[float]) -> None:
    for name, value in floats.items():
        if value is not None:
            if value != value:
                _ffi.invalid(name, "a NaN; None is the checkpoint's own setting")
            setattr(options, name, value)
    if top_k is not None:
        options.top_k = _ffi.unsigned(top_k, 31, "top_k")


def turn_options(*, thinking: Union[bool, int] = True, think_close: Optional[str] = None, keep_thoughts: bool = False,
                 max_tokens: int = 0, max_seconds: Optional[float] = None, stop: Union[str, Sequence[str]] = (),
                 stop_lines: int = 0, stop_dedent: bool = False, seed: int = 0, temperature: Optional[float] = None,
                 top_p: Optional[float] = None, min_p: Optional[float] = None,
                 repeat_penalty: Optional[float] = None, top_k: Optional[int] = None, tool_choice: str = "auto",
                 tool_name: Optional[str] = None,
                 answer_schema: Union[None, str, Mapping[str, Any]] = None,
                 answer_pattern: Optional[str] = None) -> _ffi.TurnOptions:
    """See Session.turn."""
    options = _ffi.TurnOptions(max_tokens=_ffi.unsigned(max_tokens, 32, "max_tokens"),
                               max_ns=0 if max_seconds is None else nanoseconds(max_seconds, "max_seconds"),
                               seed=_ffi.unsigned(seed, 64, "seed"),
                               tool_choice=_ffi.code_of(tool_choice, _ffi.TOOL_CHOICES, "tool_choice"),
                               stop_lines=_ffi.unsigned(stop_lines, 32, "stop_lines"), stop_dedent=bool(stop_dedent),
                               keep_thoughts=bool(keep_thoughts))
    _set_thinking(options, thinking)
    _set_stops(options, stop)
    _set_sampling(options, top_k, temperature=temperature, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty)
    if think_close is not None:
        options.think_close = _ffi.c_text(think_close, "think_close")
    if tool_name is not None:
        options.tool_name = _ffi.c_text(tool_name, "tool_name")
    if answer_schema is not None:
        schema = answer_schema if isinstance(answer_schema, str) else json.dumps(answer_schema, ensure_ascii=False)
        options.answer_schema = _ffi.c_text(schema, "answer_schema")
    if answer_pattern is not None:
        options.answer_pattern = _ffi.c_text(answer_pattern, "answer_pattern")
    return options
