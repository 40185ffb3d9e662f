#!/usr/bin/env python3
"""Puts the held-out cases to the small model through the library's own API, and says whether it is good enough.

    python3 evaluate.py [CASES.jsonl] [--limit N]

Needs the shared library where the Python package finds it (GLM45_LIBRARY names it). Chats go through messages, tools
and streams of events, greedily, with 200 tokens at most; tool calls are answered and the answer after them counts too;
sums are put again with the thought cut at a budget of tokens, and without one; code is filled in with Session.infill, and
completed through tokens. The cases and the rules are recipe/README.md and recipe/score.py. Sessions speculate: how many
of the multi-token-prediction layer's drafts the model itself would have chosen is counted on the way. Exit status 1 if a
threshold is missed.
"""
from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "recipe"), str(HERE.parents[1] / "bindings" / "python")]
sys.dont_write_bytecode = True

import score  # noqa: E402
from glm45 import Answer, GlmError, Model, Session, Text, ThinkCut, TurnEnd  # noqa: E402

MAX_NEW = 200
STOPS = ("<|endoftext|>", "<|user|>", "<|observation|>")
# A row's least share of right answers.
THRESHOLDS = {"tool_call": 0.90, "tool_call well-formed": 0.90, "tool_answer": 0.95, "tool_call then answer": 0.95,
              "arith": 0.90, "MTP drafts": 0.85}
ARITH_GAIN = 0.05  # by which thinking has to be better than none
SHOWN_BY_THINKING = ("tool_call", "tool_answer", "no_tool")
BUDGETS = (0, 12, 24, 48)  # tokens of thought, for the sums once more
INFILL = re.compile(r"\[gMASK\]<sop><\|code_prefix\|>(.*)<\|code_suffix\|>(.*)<\|code_middle\|>", re.S)

Case = Dict[str, Any]
Rows = Dict[str, List[int]]  # what is measured: [cases, right]


def count(rows: Rows, name: str, right: bool) -> None:
    rows[name][0] += 1
    rows[name][1] += right


def calls_of(answer: Answer) -> List[Dict[str, Any]]:
    """An answer's calls in the form that score.py takes."""
    return [{"name": c.name, "arguments": c.arguments} for c in answer.calls]


def ended(answer: Answer) -> bool:
    return answer.end.reason in ("stop", "tools")


def run_chat(model: Model, case: Case, rows: Rows) -> Tuple[bool, str]:
    """The next turn of a conversation; if it calls tools, the turn's second half too."""
    with model.session(speculation="on") as session:
        result = chat(session, case, rows)
        rows["MTP drafts"][0] += session.stats.n_drafted
        rows["MTP drafts"][1] += session.stats.n_accepted
        return result


def chat(session: Session, case: Case, rows: Rows) -> Tuple[bool, str]:
    session.tools(case["tools"] or [])
    session.messages(case["messages"])
    session.turn(thinking=case["thinking"], temperature=0.0, max_tokens=MAX_NEW)
    answer = session.chat()
    calls = calls_of(answer)
    right = ended(answer) and score.right(case["expect"], answer.text, calls)
    said = f"{answer.text!r} {calls}" if calls else repr(answer.text)
    if case["task"] == "tool_call":
        count(rows, "tool_call well-formed", score.well_formed(calls, case["tools"]))
    if case["task"] == "tool_call" and right:
        for call, plain in zip(answer.calls, calls):
            call.reply(score.run_tool(case["expect"], plain))
        second = session.chat()
        then = {"contains": case["expect"]["contains"]}
        good = ended(second) and score.right(then, second.text, calls_of(second))
        count(rows, "tool_call then answer", good)
        if not good:
            said += f", then {second.text!r}"
    return right, said


def greedy(session: Session, ids: List[int], stops: List[int]) -> List[int]:
    """The most likely continuation, token by token, its stop token included."""
    session.turn(temperature=0.0)
    out: List[int] = []
    session.compute(ids)
    while len(out) < MAX_NEW:
        out.append(session.sample())
        if out[-1] in stops:
            break
        session.compute(out[-1:])
    return out


def run_budget(model: Model, case: Case, budget: int, rows: Rows) -> None:
    """A sum with a thought of at most so many tokens. How many were cut counts too."""
    with model.session() as session:
        session.messages(case["messages"])
        session.turn(thinking=budget, temperature=0.0, max_tokens=MAX_NEW)
        events = list(session.stream())
    text = "".join(e.text for e in events if isinstance(e, Text))
    ended = isinstance(events[-1], TurnEnd) and events[-1].reason == "stop"
    count(rows, f"{case['task']} think<={budget}", ended and score.right(case["expect"], text, None))
    count(rows, f"{case['task']} think<={budget} cut", any(isinstance(e, ThinkCut) for e in events))


def run_infill(model: Model, case: Case, prefix: str, suffix: str) -> Tuple[bool, str]:
    """Code between a prefix and a suffix."""
    with model.session(n_ctx=1024) as session:
        answer = session.infill(prefix, suffix, temperature=0.0, max_tokens=MAX_NEW).answer()
    return ended(answer) and score.right(case["expect"], answer.text, None), repr(answer.text)


def run_text(model: Model, case: Case) -> Tuple[bool, str]:
    """A prompt that is completed as it stands."""
    place = INFILL.fullmatch(case["text"])
    if place:
        return run_infill(model, case, *place.groups())
    stops = [model.tokenize(s, specials=True)[0] for s in STOPS]
    with model.session(n_ctx=1024) as session:
        out = greedy(session, model.tokenize(case["text"], specials=True), stops)
    text = model.detokenize(out[:-1] if out[-1] in stops else out)
    return out[-1] in stops and score.right(case["expect"], text, None), repr(text)


def read_cases(path: Path) -> List[Case]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def first_of_each(cases: List[Case], limit: int) -> List[Case]:
    """The first so many cases of every task; 0: all."""
    seen: Dict[str, int] = defaultdict(int)
    out = []
    for case in cases:
        seen[case["task"]] += 1
        if not limit or seen[case["task"]] <= limit:
            out.append(case)
    return out


def measure(model: Model, cases: List[Case], show: int) -> Rows:
    """Every case, counted by task."""
    rows: Rows = defaultdict(lambda: [0, 0])
    for i, case in enumerate(cases):
        try:
            right, said = run_text(model, case) if "text" in case else run_chat(model, case, rows)
        except GlmError as e:
            sys.exit(f"{case['id']}: {e}")
        count(rows, case["task"], right)
        if case["task"] == "arith":
            for budget in BUDGETS:
                run_budget(model, case, budget, rows)
        if case["task"] in SHOWN_BY_THINKING:
            count(rows, case["task"] + (" +think" if case["thinking"] else " -think"), right)
        if not right and show > 0:
            show -= 1
            print(f"{case['id']}: {said}, expected {case['expect']}", file=sys.stderr)
        if (i + 1) % 50 == 0 or i + 1 == len(cases):
            print(f"{i + 1} of {len(cases)} cases", file=sys.stderr, flush=True)
    return rows


def cli(tool: Path, command: str, *arguments: str, given: Any) -> Any:
    """One line of a command for scripts."""
    done = subprocess.run([str(tool), command, *arguments], input=json.dumps(given) + "\n", capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{tool} {command}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def run_free(model: Model, folder: Path, tool: Path, case: Case, rows: Rows) -> None:
    """A tool case without constraints: the prompt rendered, tokens chosen from bare logits, the calls parsed from them."""
    line = {"messages": case["messages"], "tools": case["tools"],
            "kwargs": {"enable_thinking": case["thinking"], "add_generation_prompt": True}}
    prompt = cli(tool, "render", str(folder), given=line)
    stops = [model.tokenize(s, specials=True)[0] for s in STOPS]
    with model.session(n_ctx=2048) as session:
        out = greedy(session, prompt["ids"], stops)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as declared:
        json.dump(case["tools"], declared)
        declared.flush()
        said = cli(tool, "parse", str(folder), "--tools", declared.name,
                   given={"input": model.detokenize(out), "prompt_ends": prompt["text"][-20:]})
    calls = [{"name": c["name"], "arguments": json.loads(c["arguments"])} for c in said["tool_calls"] or []]
    right = score.right(case["expect"], said["content"] or "", calls)
    count(rows, "tool_call, free", out[-1] in stops and right)
    count(rows, "tool_call, free, well-formed", score.well_formed(calls, case["tools"]))


def share(rows: Rows, name: str) -> Optional[float]:
    n, right = rows.get(name, [0, 0])
    return right / n if n else None


def report(rows: Rows) -> bool:
    """Prints the table; whether every threshold that was measured is kept."""
    kept = True
    print(f"{'task':30}{'cases':>7}{'right':>7}{'%':>8}  threshold")
    for name in sorted(rows):
        n, right = rows[name]
        least = THRESHOLDS.get(name)
        missed = least is not None and right < least * n
        kept = kept and not missed
        print(f"{name:30}{n:7}{right:7}{100 * right / n:8.1f}"
              + (f"  {100 * least:.0f}{' MISSED' if missed else ''}" if least is not None else ""))
    thinking, direct = share(rows, "arith"), share(rows, "arith_direct")
    if thinking is not None and direct is not None:
        missed = thinking < direct + ARITH_GAIN
        kept = kept and not missed
        print(f"thinking adds {100 * (thinking - direct):.1f} points to arithmetic, at least {100 * ARITH_GAIN:.0f} are "
              f"wanted{': MISSED' if missed else ''}")
    return kept


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plain, packed = HERE / "heldout.jsonl", HERE / "heldout.jsonl.gz"
    p.add_argument("cases", type=Path, nargs="?", default=plain if plain.exists() else packed)
    p.add_argument("--model", type=Path, default=HERE, help="the checkpoint's folder [the one of this program]")
    p.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N cases of every task")
    p.add_argument("--task", help="only this task")
    p.add_argument("--show", type=int, default=0, metavar="N", help="print the first N wrong answers")
    p.add_argument("--threads", type=int, default=0, help="[the machine's cores, at most 8]")
    p.add_argument("--library", help="the shared library [GLM45_LIBRARY, or the system's]")
    p.add_argument("--cli", type=Path, help="the glm45 program: to show what calls are like without constraints")
    a = p.parse_args()
    cases = [c for c in read_cases(a.cases) if a.task in (None, c["task"])]
    with Model(a.model, threads=a.threads, library=a.library) as model:
        chosen = first_of_each(cases, a.limit)
        rows = measure(model, chosen, a.show)
        for case in chosen if a.cli else []:
            if case["task"] == "tool_call":
                run_free(model, a.model, a.cli, case, rows)
    sys.exit(0 if report(rows) else 1)


if __name__ == "__main__":
    main()
