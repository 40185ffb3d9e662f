"""GLM-4.5 family language models inside your own process: libglm45 for Python, without compiled code.

    from glm45 import Model, Text

    with Model("path/to/checkpoint") as model, model.session() as chat:
        for event in chat.stream("Hello!", thinking=False):     # or `async for`
            if isinstance(event, Text):
                print(event.text, end="", flush=True)
"""
from ._ffi import GlmError, Library, load_library
from .events import (Answer, Error, Event, Loop, Paused, Prefill, Ready, Reasoning, Text, ThinkCut, ToolCall,
                     ToolCallBegin, ToolCallDelta, TurnEnd)
from .model import Estimate, Model, ModelInfo
from .options import TurnKeywords
from .session import Session, Stats
from .stream import Stream
from .tools import declaration, tool

__version__ = "0.1.0"
__all__ = [
    "Answer", "Error", "Estimate", "Event", "GlmError", "Library", "Loop", "Model", "ModelInfo", "Paused", "Prefill",
    "Ready", "Reasoning", "Session", "Stats", "Stream", "Text", "ThinkCut", "ToolCall", "ToolCallBegin",
    "ToolCallDelta", "TurnEnd", "TurnKeywords", "declaration", "load_library", "tool",
]
