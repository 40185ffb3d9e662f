#!/usr/bin/env python3
"""Writes the held-out cases: the test split, by a fixed seed.

    python3 make_heldout.py OUT.jsonl [CASES_PER_TASK] [SPLIT]

One JSON object per line: id, task, thinking (bool), expect (see score.py), and either
    messages, tools (a list or null)    a chat; the model gives the next assistant turn
    text                                a prompt that is completed as it stands; its special tokens are meant
"""
from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import tasks

KINDS = {"arith": "arith", "arith_direct": "arith_direct", "talk": "talk", "words": "words", "turns": "turns",
         "tool_call": "tool1 tool2 tool_turns", "tool_answer": "tool1 tool2 tool_turns",
         "no_tool": "tool1 tool2 tool_turns", "code_complete": "code", "code_infill": "code"}


def strip(case: dict) -> dict:
    """The case without the answers that the model is to give."""
    if "text" in case:
        return {"task": case["task"], "thinking": False, "text": case["text"],
                "expect": {"completion": case["completion"]}}
    messages = case["messages"][:case["n_prompt"]]
    return {"task": case["task"], "thinking": case["thinking"], "messages": messages, "tools": case["tools"],
            "expect": case["expect"]}


def heldout(n_case: int, split: str, seed: int) -> list[dict]:
    """n_case cases of every task, none put twice."""
    out = []
    for task, kinds in KINDS.items():
        rng, seen, names, tries = random.Random(f"{seed} {task}"), set(), kinds.split(), 0
        while len(seen) < n_case and tries < 40 * n_case:
            tries += 1
            # One case of a group: tools that differ from case to case say more than many questions about a few.
            group = [c for c in tasks.group(rng, split, names[tries % len(names)], 6) if c["task"] == task]
            if not group:
                continue
            case = strip(group[0])
            key = json.dumps([case.get("messages"), case.get("tools"), case.get("text")])
            if key not in seen:
                seen.add(key)
                out.append({"id": f"{task}-{len(seen):03d}", **case})
    return out


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    tasks.setup(Path(__file__).parent.parent / "tokenizer.json")
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    cases = heldout(n, sys.argv[3] if len(sys.argv) > 3 else "test", 45)
    Path(sys.argv[1]).write_text("".join(json.dumps(c, ensure_ascii=False) + "\n" for c in cases))
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
