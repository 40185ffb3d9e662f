#!/usr/bin/env python3
"""Random conversations and what the family's templates make of them, as lines of tests/data/chat_extra.jsonl.

Needs jinja2 (the tests do not): python3 scripts/chat_vectors.py SEED COUNT > tests/data/chat_extra.jsonl
The environment is the one that transformers uses. "rendered" is null where the template raises.
"""
import json
import os
import random
import sys

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data")
ABSENT = object()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def templates():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = tojson
    return {name: env.from_string(open(os.path.join(DATA, name + ".jinja"), newline="").read())
            for name in ("glm-4.5", "glm-4.7")}


SPACES = [" ", "\n", "\t", "\r\n", "\x0b", "\x1c", "\x1f", "\x85", "\xa0", "\u2003", "\u2028", "\u3000", "\u200b", "\ufeff"]
WORDS = ["hello", "a", "<think>", "</think>", "/nothink", "<|user|>", "<|assistant|>", "<tool_call>", "</tool_call>",
         "<arg_key>", "caf\u00e9", "\u4e2d\u6587", "\U0001f600", "\"q\"", "it's", "\\n", "{{ x }}", "{% if %}", "\x00", "\x7f",
         "\xad", "[gMASK]", "<sop>", "&lt;", "\u200d"]


def text(rng):
    return "".join(rng.choice(SPACES + WORDS + ["\n", " "]) for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 6])))


def value(rng, depth=2):
    kind = rng.randrange(12 if depth else 9)
    if kind < 3:
        return text(rng)
    if kind < 9:
        return rng.choice([None, True, False, 0, -1, 7, 10 ** 22, 2 ** 53 + 1, 0.0, -0.0, 1.0, 2.5, 1e-07, 1e16, 1e22, 123456789.125,
                           5e-324, 1.7976931348623157e308, 0.1, 1e5, 12345678901234567890])
    if kind < 11:
        return {text(rng): value(rng, depth - 1) for _ in range(rng.randrange(4))}
    return [value(rng, depth - 1) for _ in range(rng.randrange(4))]


def part(rng):
    kind = rng.randrange(8)
    if kind < 4:
        return {"type": "text", "text": value(rng, 1) if rng.randrange(4) == 0 else text(rng)}
    if kind == 4:
        return rng.choice([{"type": "text"}, {"type": "image_url", "image_url": {"url": "u"}}, {"text": "x"}, {"type": "text", "text": None}])
    if kind == 5:
        return value(rng, 1)
    return text(rng)


def content(rng):
    kind = rng.randrange(10)
    if kind < 6:
        return text(rng)
    if kind == 6:
        return ABSENT
    if kind == 7:
        return value(rng)
    return [part(rng) for _ in range(rng.randrange(4))]


def call(rng):
    record = {"name": rng.choice(["now", "my tool", text(rng)])}
    if rng.randrange(25):
        record["arguments"] = {text(rng): value(rng) for _ in range(rng.randrange(4))}
    if rng.randrange(60) == 0:
        del record["name"]
    kind = rng.randrange(5)
    if kind < 3:
        return {"id": "c", "type": "function", "function": record}
    if kind == 3:
        return dict(record, function=rng.choice([None, {}, "", 0, False]))
    return record


def put(record, key, v):
    if v is not ABSENT:
        record[key] = v
    return record


def message(rng):
    role = rng.choice(["system", "user", "user", "assistant", "assistant", "assistant", "tool", "tool", "developer"])
    if rng.randrange(60) == 0:
        role = rng.choice([None, 3, "User", "", ABSENT])
    m = put({}, "role", role)
    put(m, "content", content(rng))
    if role == "tool" and rng.randrange(3) == 0:
        m["content"] = [rng.choice([{"output": value(rng)}, part(rng), text(rng)]) for _ in range(rng.randrange(4))]
    if rng.randrange(2):
        put(m, "reasoning_content", rng.choice([None, "", " \n ", 0, ["x"], text(rng), text(rng), text(rng)]))
    if rng.randrange(3) == 0:
        m["tool_calls"] = [call(rng) for _ in range(rng.randrange(3))]
    if rng.randrange(40) == 0:
        m["tool_calls"] = rng.choice([None, [], {}, "", 0, False])
    return m


def kwargs(rng):
    record = {}
    for key in ("enable_thinking", "clear_thinking", "add_generation_prompt"):
        kind = rng.randrange(4)
        if kind == 0:
            record[key] = rng.choice([True, False])
        elif kind == 1:
            record[key] = rng.choice([None, 0, 1, "", "x", 0.0, -0.0, 0.5, [], [0], {}, {"a": 1}])
    return record


def main():
    rng, made = random.Random(int(sys.argv[1])), templates()
    for _ in range(int(sys.argv[2])):
        line = {"template": rng.choice(sorted(made)), "messages": [message(rng) for _ in range(rng.randrange(5))],
                "tools": rng.choice([None, None, [], [{"type": "function", "function": {"name": "f", "parameters": value(rng)}}], [value(rng)]]),
                "kwargs": kwargs(rng)}
        try:
            line["rendered"] = made[line["template"]].render(messages=line["messages"], tools=line["tools"], **line["kwargs"])
        except (TemplateError, TypeError, AttributeError):
            line["rendered"] = None
        print(json.dumps(line, ensure_ascii=False))


main()
