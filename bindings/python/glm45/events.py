"""What a turn hands out: one small class per kind of event, and the answer that they make together."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Dict, List, Union

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
class Text:
    """More of the answer."""
    text: str


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
    """A complete call. Carry it out and reply: during the stream, and the turn goes on by itself, or after its end,
    and the next stream goes on with it."""
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


@dataclass(frozen=True)
class TurnEnd:
    """The turn is over. reason: "stop", "length", "cancelled", or "tools" (calls wait for replies)."""
    reason: str
    n_prompt: int
    n_reused: int
    n_think: int
    n_answer: int
    prefill_ns: int
    decode_ns: int


@dataclass(frozen=True)
class Ready:
    """Token level: everything that was fed is computed."""


Event = Union[Paused, Prefill, Reasoning, Text, ToolCallBegin, ToolCallDelta, ToolCall, TurnEnd, Ready]


@dataclass(frozen=True)
class Answer:
    """What a turn said, as a whole. str() of it is the text."""
    text: str
    reasoning: str
    calls: List[ToolCall]
    end: TurnEnd

    def __str__(self) -> str:
        return self.text
