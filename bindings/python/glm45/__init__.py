"""GLM-4.5 family language models inside your own process: libglm45 for Python, without compiled code.

    from glm45 import Model, Text

    with Model("path/to/checkpoint") as model, model.session() as chat:
        for event in chat.stream("Hello!", thinking=False):
            if isinstance(event, Text):
                print(event.text, end="", flush=True)
"""
from ._ffi import GlmError, Library, load_library
from .events import (Answer, Event, Paused, Prefill, Ready, Reasoning, Text, ToolCall, ToolCallBegin, ToolCallDelta,
                     TurnEnd)
from .model import Estimate, Model, ModelInfo
from .session import Session, Stats

__version__ = "0.1.0"
__all__ = [
    "Answer", "Estimate", "Event", "GlmError", "Library", "Model", "ModelInfo", "Paused", "Prefill", "Ready",
    "Reasoning", "Session", "Stats", "Text", "ToolCall", "ToolCallBegin", "ToolCallDelta", "TurnEnd", "load_library",
]
