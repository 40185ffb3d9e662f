"""What a turn hands out: one small class per kind of event, and the answer that they make together."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Dict, List, Union

from ._ffi import GlmError

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True)
class Paused:
    """The budget is spent and the turn is not over: go on whenever it suits. Only with a budget."""
    rows_done: int
    rows_total: int


@dataclass(frozen=True)
class Prefill:
    """A piece of the prompt is computed."""
    rows_done: int
    rows_total: int


@dataclass(frozen=True)
class Reasoning:
    """More of the thought."""
    text: str


@dataclass(frozen=True)
class ThinkCut:
    """The thought was closed early, at its budget or by end_thought, after n_think tokens. The answer follows."""
    n_think: int


@dataclass(frozen=True)
class Text:
    """More of the answer."""
    text: str


@dataclass(frozen=True)
class Loop:
    """The model repeats itself: its last n_tokens tokens are a run of n_period tokens over and over. The turn goes
    on; leave the stream, or cancel, if that is no use."""
    n_tokens: int
    n_period: int


@dataclass(frozen=True)
class ToolCallBegin:
    """The model begins to call a tool."""
    call_id: int
    name: str


@dataclass(frozen=True)
class ToolCallDelta:
    """More of a call's arguments: the texts of all its deltas make the JSON object."""
    call_id: int
    text: str


@dataclass(frozen=True)
class ToolCall:
    """A complete call. Run it, or carry it out yourself and reply: during the stream, and the turn goes on by itself,
    or after its end, and the next stream goes on with it."""
    call_id: int
    name: str
    arguments_json: str
    session: "Session" = field(repr=False, compare=False)

    @property
    def arguments(self) -> Dict[str, Any]:
        """The arguments, parsed."""
        parsed: Dict[str, Any] = json.loads(self.arguments_json)
        return parsed

    def reply(self, result: object) -> None:
        """Gives the tool's result to the model: text as it is, anything else as JSON."""
        self.session.tool_result(self.call_id, result)

    def run(self) -> str:
        """Calls the function that Session.tools was given for it, replies with what it returns, and returns that.
        Wrong arguments and exceptions go to the model as {"error": ...}."""
        from .tools import carry_out
        result = carry_out(self.session._functions, self.name, self.arguments_json)
        self.reply(result)
        return result

    async def arun(self) -> str:
        """As run: `async def` tools are awaited, others run in a thread of their own."""
        from .tools import carry_out_async
        result = await carry_out_async(self.session._functions, self.name, self.arguments_json)
        self.reply(result)
        return result


@dataclass(frozen=True)
class TurnEnd:
    """The turn is over. reason: "stop", "length", "time", "cancelled", or "tools" (calls wait for replies)."""
    reason: str
    n_prompt: int
    n_reused: int
    n_think: int
    n_answer: int
    prefill_ns: int
    decode_ns: int


@dataclass(frozen=True)
class Error:
    """Of Model.step and Model.stream_all: this session's turn failed, the others go on. A stream raises it."""
    error: GlmError


@dataclass(frozen=True)
class Ready:
    """Token level: everything that was fed is computed."""


Event = Union[Paused, Prefill, Reasoning, ThinkCut, Text, Loop, ToolCallBegin, ToolCallDelta, ToolCall, TurnEnd, Error,
              Ready]


@dataclass(frozen=True)
class Answer:
    """What a turn said, as a whole. str() of it is the text. calls are all that the model made; pending, those of them
    that wait for a reply."""
    text: str
    reasoning: str
    calls: List[ToolCall]
    end: TurnEnd
    pending: List[ToolCall] = field(default_factory=list)

    def __str__(self) -> str:
        return self.text
