"""Conversations to text and to token ids, byte for byte as the published chat template prints them.

Owns the rendering (a hand-written twin of chat_template.jinja, because Jinja is too slow to feed a training loop;
`python3 render.py` compares the two) and the choice of the tokens that the model is trained to produce.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

PREFIX = "[gMASK]<sop>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>")
TOOLS_HEAD = (
    "<|system|>\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n")
TOOLS_TAIL = (
    "</tools>\n\nFor each function call, output the function name and arguments within the following XML format:\n"
    "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>\n"
    "<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>")


def render_tools(tools: list[dict] | None) -> str:
    """The declaration block, empty without tools."""
    if not tools:
        return ""
    lines = "".join(json.dumps(t, ensure_ascii=False) + "\n" for t in tools)
    return TOOLS_HEAD + lines + TOOLS_TAIL


def render_calls(calls: list[dict]) -> str:
    """Tool calls as the model writes them."""
    out = []
    for call in calls:
        f = call.get("function", call)
        out.append(f"\n<tool_call>{f['name']}\n")
        for k, v in f["arguments"].items():
            text = v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
            out.append(f"<arg_key>{k}</arg_key>\n<arg_value>{text}</arg_value>\n")
        out.append("</tool_call>")
    return "".join(out)


def render(messages: list[dict], tools: list[dict] | None, thinking: bool, generate: bool) -> str:
    """The conversation as text; string contents only. generate appends the opening of the next assistant turn."""
    out = [PREFIX, render_tools(tools)]
    last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    for i, m in enumerate(messages):
        role, text = m["role"], m.get("content", "")
        if role == "system":
            out.append("<|system|>\n" + text)
        elif role == "user":
            mark = "" if thinking or text.endswith("/nothink") else "/nothink"
            out.append("<|user|>\n" + text + mark)
        elif role == "assistant":
            reasoning = m.get("reasoning_content", "") if i > last_user else ""
            out.append("<|assistant|>\n<think>" + reasoning.strip() + "</think>")
            if text.strip():
                out.append("\n" + text.strip())
            out.append(render_calls(m.get("tool_calls") or []))
        elif role == "tool":
            if i == 0 or messages[i - 1]["role"] != "tool":
                out.append("<|observation|>")
            out.append("\n<tool_response>\n" + text + "\n</tool_response>")
    if generate:
        out.append("<|assistant|>" + ("" if thinking else "\n<think></think>"))
    return "".join(out)


def stop_of(messages: list[dict]) -> str:
    """The token that ends the last assistant turn."""
    return "<|observation|>" if messages[-1].get("tool_calls") else "<|user|>"


class Encoder:
    """Text to ids, and the mask of the ids that the model must learn to produce."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        ident = tokenizer.token_to_id
        self.role_ids = {ident(r) for r in ROLES}
        self.assistant, self.middle = ident("<|assistant|>"), ident("<|code_middle|>")
        self.think, self.end_think = ident("<think>"), ident("</think>")
        self.end_of_text, self.first_user = ident("<|endoftext|>"), ident("<|user|>")

    def ids(self, text: str) -> list[int]:
        """Plain encoding; special tokens in the text become their ids."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def chat_mask(self, ids: list[int]) -> list[int]:
        """1 on the tokens of assistant turns and on the token that ends them.

        An empty thinking block is what the caller or the template put there, never what the model should say:
        its three tokens are left out.
        """
        mask, inside, skip = [0] * len(ids), False, 0
        for i, t in enumerate(ids):
            if inside:
                mask[i] = 0 if skip else 1
                skip = max(0, skip - 1)
            if t in self.role_ids:
                inside = t == self.assistant
                empty = inside and ids[i + 2:i + 4] == [self.think, self.end_think]
                skip = 3 if empty else 0
        return mask


def check(template: Path) -> int:
    """Compares render() with the template on generated conversations; returns how many were compared."""
    import random

    from jinja2.sandbox import ImmutableSandboxedEnvironment

    import tasks
    tasks.setup(template.parent / "tokenizer.json")
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda x, ensure_ascii=False: json.dumps(x, ensure_ascii=ensure_ascii)
    chat = env.from_string(template.read_text())
    rng, n = random.Random(5), 0
    for kind in tasks.CHAT_TASKS:
        for _ in range(60):
            for case in tasks.group(rng, "train", kind):
                for generate in (False, True):
                    want = chat.render(messages=case["messages"], tools=case["tools"],
                                       enable_thinking=case["thinking"], add_generation_prompt=generate)
                    got = render(case["messages"], case["tools"], case["thinking"], generate)
                    assert got == want, f"{kind}\n{got!r}\n{want!r}"
                    n += 1
    return n


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "chat_template.jinja"
    print(f"{check(path)} renders equal to {path.name}")
