#!/usr/bin/env python3
"""Several conversations in one event loop: the model's worker computes them together, while the loop goes on with its
own work. One of them calls a Python function, one is given up by a time-out.

    python3 async_chat.py MODEL

Needs the glm45 package (bindings/python), and the shared library where it finds it.
"""
from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Dict

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bindings" / "python"))

from glm45 import GlmError, Model, Text, ToolCall, TurnEnd, tool  # noqa: E402


@tool
async def get_weather(city: str) -> Dict[str, str]:
    """Get the weather of a city."""
    await asyncio.sleep(0.05)  # a look-up that takes its time
    return {"result": "rain, 7 C" if city == "Oslo" else "sunny, 21 C"}


async def ask(model: Model, question: str) -> str:
    """A question and its answer."""
    with model.session() as chat:
        return (await chat.stream(question, thinking=False, temperature=0.0)).text


async def ask_with_tools(model: Model, question: str) -> str:
    """The same event by event, with a tool."""
    said = []
    with model.session() as chat:
        chat.tools(get_weather)
        async for event in chat.stream(question, thinking=False, temperature=0.0):
            if isinstance(event, Text):
                said.append(event.text)
            elif isinstance(event, ToolCall):
                print(f"[{event.name} {event.arguments_json}]")
                await event.arun()
            elif isinstance(event, TurnEnd):
                print(f"[{event.n_answer} tokens]")
    return "".join(said)


async def give_up(model: Model) -> str:
    """A turn that nobody wants to wait for: its task is cancelled, and so is the turn. The session stays good."""
    with model.session() as chat:
        try:
            await asyncio.wait_for(chat.stream("Hello! " * 500, max_tokens=2000, temperature=5.0), 0.1)
        except asyncio.TimeoutError:
            print("[given up]")
        return (await chat.stream("What is 1 + 1?", thinking=False, temperature=0.0)).text


async def main(path: str) -> None:
    with Model(path) as model:
        for answer in await asyncio.gather(ask(model, "Hello!"), ask(model, "What is 12 + 30?"),
                                           ask_with_tools(model, "What is the weather in Oslo?"), give_up(model)):
            print(answer)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except GlmError as e:
        sys.exit(str(e))
