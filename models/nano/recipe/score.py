"""Says whether an answer is right. Knows nothing of how it was produced: the same rules serve the training framework
and the library.

A case of heldout.jsonl has, besides what is put to the model, an `expect` object with one of
    {"number": 81}                         the last number in the content must be it
    {"text": "..."}                        the content must be it
    {"contains": "12 C"}                   the content must contain it as whole words
    {"calls": [{"name", "arguments"}]}     exactly these tool calls, with these arguments
    {"completion": "..."}                  a code case: the text must be it
and nothing else may be there: a tool call where none is expected is wrong.
"""
from __future__ import annotations

import json
import re


def same_value(got: object, want: object) -> bool:
    """Arguments compare by value where both are numbers, else as text; 23, 23.0 and "23" are the same argument."""
    try:
        return float(str(got)) == float(str(want))
    except ValueError:
        return str(got) == str(want)


def same_call(got: dict, want: dict) -> bool:
    """Name and arguments of one call; arguments may come as an object or as its JSON text."""
    f = got.get("function", got)
    arguments = f.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return False
    wanted = want["arguments"]
    return f.get("name") == want["name"] and arguments.keys() == wanted.keys() and all(
        same_value(arguments[k], wanted[k]) for k in wanted)


def right(expect: dict, content: str, tool_calls: list[dict] | None) -> bool:
    """Whether what the model said after its reasoning is what the case expects."""
    content, calls = content or "", tool_calls or []
    if "completion" in expect:
        return content == expect["completion"]
    content = content.strip()
    if "calls" in expect:
        want = expect["calls"]
        return not content and len(calls) == len(want) and all(map(same_call, calls, want))
    if calls:
        return False
    if "number" in expect:
        numbers = re.findall(r"-?\d+", content)
        return bool(numbers) and int(numbers[-1]) == expect["number"]
    if "text" in expect:
        return content == expect["text"]
    return re.search(r"(?<![\w-])" + re.escape(expect["contains"]) + r"(?!\w)", content) is not None


def well_formed(tool_calls: list[dict] | None, tools: list[dict]) -> bool:
    """Whether there is a call, and every call names a declared tool, gives all it requires and nothing undeclared."""
    declared = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
    for call in tool_calls or []:
        f = call.get("function", call)
        arguments = f.get("arguments") or {}
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                return False
        schema = declared.get(f.get("name"))
        if schema is None or not set(schema.get("required", ())) <= set(arguments) <= set(schema["properties"]):
            return False
    return bool(tool_calls)


def run_tool(expect: dict, call: dict) -> str:
    """What the tool of a tool_call case gives: its result for the expected call, an error for any other."""
    for want, result in zip(expect["calls"], expect["results"]):
        if same_call(call, want):
            return result
    return json.dumps({"error": "not found"})
