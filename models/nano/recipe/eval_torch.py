#!/usr/bin/env python3
"""Greedy decoding of held-out cases in PyTorch: a check of the training, not of the library.

    python3 eval_torch.py CASES.jsonl [MODEL_DIR] [--show N] [--task TASK]

Prints one line per task: how many cases, how many right, for tool calls how many well-formed, and which share of the
MTP layer's drafts the trunk would have accepted.
"""
from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

import torch
from tokenizers import Tokenizer

import score
from export import load
from model import Nano
from render import Encoder, render

MAX_NEW = 200


class Cache:
    """Keys and values of all layers for a batch whose prompts end at the same place."""

    def __init__(self) -> None:
        self.kv: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def append(self, layer, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        old = self.kv.get(id(layer))
        if old:
            k, v = torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)
        self.kv[id(layer)] = k, v
        return k, v


def mask_of(start: torch.Tensor, n_query: int, n_key: int) -> torch.Tensor:
    """Additive mask [B, 1, n_query, n_key] for rows whose real tokens begin at start [B]."""
    key, query = torch.arange(n_key), torch.arange(n_key - n_query, n_key)
    allowed = (key <= query[:, None])[None] & (key >= start[:, None, None])
    allowed |= (key == query[:, None])[None]
    return torch.zeros(allowed.shape).masked_fill_(~allowed, -1e9)[:, None]


@torch.no_grad()
def generate(model: Nano, prompts: list[list[int]], stops: set[int]) -> tuple[list[list[int]], int, int]:
    """Greedy continuations up to and with the stop token; also how many drafts were made and accepted."""
    n = max(map(len, prompts))
    start = torch.tensor([n - len(p) for p in prompts])
    ids = torch.tensor([[0] * (n - len(p)) + p for p in prompts])
    cache, out, live = Cache(), [[] for _ in prompts], set(range(len(prompts)))
    x, all_ids = ids, ids
    while live and len(out[0]) < MAX_NEW:
        t = all_ids.shape[1]
        pos = (torch.arange(t - x.shape[1], t)[None] - start[:, None]).clamp(min=0)
        hidden = model.trunk(x, pos, mask_of(start, x.shape[1], t), cache)
        x = model.head(hidden[:, -1]).argmax(-1)[:, None]
        all_ids = torch.cat([all_ids, x], 1)
        for i, tok in enumerate(x[:, 0].tolist()):
            out[i].append(tok)
            if tok in stops:
                live.discard(i)
    cut = []
    for o in out:
        at = next((i for i, t in enumerate(o) if t in stops), len(o) - 1)
        cut.append(o[:at + 1])
    t = all_ids.shape[1]
    pos, mask = (torch.arange(t)[None] - start[:, None]).clamp(min=0), mask_of(start, t, t)
    draft = model.head(model.draft(model.trunk(all_ids, pos, mask), all_ids.roll(-1, 1), pos, mask)).argmax(-1)
    made = accepted = 0
    for i, o in enumerate(cut):
        # the state at the last prompt token and the first new token draft the second new token, and so on
        made += len(o) - 1
        accepted += int((draft[i, n - 1:n - 2 + len(o)] == torch.tensor(o[1:])).sum())
    return cut, made, accepted


def parse(text: str) -> tuple[str, str, list[dict]]:
    """Reasoning, content and tool calls of a finished turn; arguments as text."""
    reasoning = ""
    m = re.match(r"\s*<think>(.*?)</think>", text, re.S)
    if m:
        reasoning, text = m[1], text[m.end():]
    calls = []
    for name, body in re.findall(r"<tool_call>([^\n<]*)\n?(.*?)</tool_call>", text, re.S):
        pairs = re.findall(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", body, re.S)
        calls.append({"name": name.strip(), "arguments": {k.strip(): v for k, v in pairs}})
    return reasoning, text.split("<tool_call>")[0].strip(), calls


def prompt_of(enc: Encoder, case: dict) -> list[int]:
    """Token ids that are put to the model."""
    if "text" in case:
        return enc.ids(case["text"])
    return enc.ids(render(case["messages"], case["tools"], case["thinking"], True))


def evaluate(model: Nano, tokenizer: Tokenizer, cases: list[dict], show: int, batch: int = 25) -> None:
    """Prints the table."""
    enc = Encoder(tokenizer)
    stops = {tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|user|>", "<|observation|>")}
    rows = defaultdict(lambda: [0, 0, 0])
    made = accepted = 0
    order = sorted(cases, key=lambda c: (c["task"], len(prompt_of(enc, c))))
    for i in range(0, len(order), batch):
        part = order[i:i + batch]
        outs, m, a = generate(model, [prompt_of(enc, c) for c in part], stops)
        made, accepted = made + m, accepted + a
        for c, ids in zip(part, outs):
            text = tokenizer.decode(ids[:-1], skip_special_tokens=False)
            if "text" in c:
                ok, formed = score.right(c["expect"], text, None), 0
            else:
                _, content, calls = parse(text)
                ok = score.right(c["expect"], content, calls) and ids[-1] in stops
                formed = score.well_formed(calls, c["tools"]) if c["tools"] else 0
            for key in {c["task"], c["task"] + (" +think" if c["thinking"] else " -think")}:
                if key == c["task"] or c["task"] in ("tool_call", "tool_answer", "no_tool"):
                    rows[key][0] += 1
                    rows[key][1] += ok
                    rows[key][2] += formed
            if not ok and show > 0:
                show -= 1
                asked = c.get("text") or c["messages"][-1]["content"]
                print(f"  {c['task']}: {asked!r} -> {text!r}, expected {c['expect']}")
    for task in sorted(rows):
        n, ok, formed = rows[task]
        more = f"   well-formed {formed / n:6.1%}" if task.startswith("tool_call") else ""
        print(f"{task:22} {n:5}  right {ok / n:6.1%}{more}")
    print(f"MTP drafts accepted {accepted / max(1, made):.1%} of {made}", flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cases", type=Path)
    p.add_argument("model", type=Path, nargs="?", default=Path(__file__).parent.parent)
    p.add_argument("--show", type=int, default=0, help="print so many wrong answers")
    p.add_argument("--task", help="only this task")
    a = p.parse_args()
    cases = [json.loads(line) for line in a.cases.read_text().splitlines()]
    tokenizer = Tokenizer.from_file(str(a.model / "tokenizer.json"))
    evaluate(load(a.model), tokenizer, [c for c in cases if a.task in (None, c["task"])], a.show)


if __name__ == "__main__":
    main()
