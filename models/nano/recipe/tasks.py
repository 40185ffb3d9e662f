"""The tasks the model is trained on and measured with.

A case is a dict: task, thinking, tools, messages (the whole conversation with the right assistant turns), n_prompt
(how many of the messages are given; the next one is the model's), expect (what score.py needs). Code cases have
text and completion instead of messages. `group` makes cases that share their beginning; every number, word and
wording in them belongs to the split that was asked for.
"""
from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer

import tools as tl
from talk import small_talk, word_task
from words import Words, split_of

CHAT_TASKS = ("arith", "arith_direct", "talk", "words", "turns", "tool1", "tool2", "tool_turns")
TASKS = CHAT_TASKS + ("code",)
SYSTEMS = ("You are a helpful assistant.", "You are helpful.", "Be brief.", "You are Nano.", "Answer briefly.",
           "You are a friendly assistant.", "You are a small model.", "Be polite.")

_words: Words | None = None


def setup(tokenizer_path: Path) -> Tokenizer:
    """Loads the tokenizer whose pieces the words are made of; call before anything else."""
    global _words
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    _words = Words(tokenizer)
    return tokenizer


# ---------------------------------------------------------------- arithmetic

def scratch(op: str, a: int, b: int) -> str:
    """The written-out working: a line per column from the right, with the carry, then the result."""
    if op == "-" and a < b:
        return f"{a} < {b}\n{scratch('-', b, a)}\n-{b - a}"
    x, y = [int(c) for c in str(a)[::-1]], [int(c) for c in str(b)[::-1]]
    lines, carry = [], 0
    if op == "*":
        if len(y) > 1:
            x, y = y, x
        for d in x:
            product = d * y[0]
            lines.append(f"{d}*{y[0]}={product}" + (f"+{carry}={product + carry}" if carry else ""))
            carry = (product + carry) // 10
        return "\n".join(lines) + f"\n{a * b}"
    for i in range(max(len(x), len(y))):
        p, q = x[i] if i < len(x) else 0, y[i] if i < len(y) else 0
        tail = f"+{carry}" if op == "+" else f"-{carry}"
        if op == "-" and p - q - carry < 0:
            p += 10
        value = p + q + carry if op == "+" else p - q - carry
        lines.append(f"{p}{op}{q}{tail if carry else ''}={value}")
        carry = value // 10 if op == "+" else int(p > 9)
    return "\n".join(lines) + f"\n{a + b if op == '+' else a - b}"


def sum_of(rng: random.Random, split: str) -> tuple[str, int, int]:
    """An operator and two operands of the split; a pair and its mirror are one."""
    while True:
        op = rng.choice("+-*")
        if op == "*":
            a, b = rng.randrange(10 ** rng.choice((1, 2, 2))), rng.randrange(10)
            if rng.random() < 0.3:
                a, b = b, a
        else:
            a, b = rng.randrange(10 ** rng.choice((1, 2, 2, 3, 3))), rng.randrange(10 ** rng.choice((1, 2, 2, 3, 3)))
            if op == "-" and a < b and rng.random() < 0.85:
                a, b = b, a
        if split_of(f"sum:{op}{min(a, b)},{max(a, b)}") == split:
            return op, a, b


def arithmetic(rng: random.Random, split: str) -> tuple[str, str, str, int]:
    """Question, answer, working, value."""
    op, a, b = sum_of(rng, split)
    names = {"+": ("+", "+", "plus"), "-": ("-", "-", "minus"), "*": ("*", "x", "times")}[op]
    name = rng.choice(names)
    shown = f"{a}{name}{b}" if name in "+-*" and rng.random() < 0.2 else f"{a} {name} {b}"
    ask = rng.choice(("What is {}?", "What is {}?", "what is {}", "Compute {}.", "Calculate {}.", "{}", "{} = ?", "{}=",
                      "How much is {}?", "Please compute {}.", "Can you add up {}?" if op == "+" else "Solve {}.",
                      "What's {}?", "Hi, what is {}?", "Tell me what {} is."))
    value = a + b if op == "+" else a - b if op == "-" else a * b
    return ask.format(shown), f"The answer is {value}.", scratch(op, a, b), value


# ---------------------------------------------------------------- code

# name, number of parameters, body, what a comment says
FUNCTIONS = [("add", 2, "{a} + {b}", "add {a} and {b}"), ("subtract", 2, "{a} - {b}", "subtract {b} from {a}"),
             ("multiply", 2, "{a} * {b}", "multiply {a} by {b}"), ("divide", 2, "{a} / {b}", "divide {a} by {b}"),
             ("modulo", 2, "{a} % {b}", "{a} modulo {b}"), ("power", 2, "{a} ** {b}", "{a} to the power of {b}"),
             ("maximum", 2, "max({a}, {b})", "the larger of {a} and {b}"),
             ("minimum", 2, "min({a}, {b})", "the smaller of {a} and {b}"),
             ("equal", 2, "{a} == {b}", "whether {a} equals {b}"), ("less", 2, "{a} < {b}", "whether {a} is less than {b}"),
             ("greater", 2, "{a} > {b}", "whether {a} is greater than {b}"),
             ("both", 2, "{a} and {b}", "whether both are true"), ("either", 2, "{a} or {b}", "whether one is true"),
             ("join", 2, "{a}.join({b})", "join {b} with {a}"), ("contains", 2, "{b} in {a}", "whether {a} contains {b}"),
             ("square", 1, "{a} * {a}", "square {a}"), ("double", 1, "{a} * 2", "double {a}"),
             ("half", 1, "{a} / 2", "half of {a}"), ("increment", 1, "{a} + 1", "add one to {a}"),
             ("decrement", 1, "{a} - 1", "take one from {a}"), ("negate", 1, "-{a}", "negate {a}"),
             ("is_even", 1, "{a} % 2 == 0", "whether {a} is even"), ("is_odd", 1, "{a} % 2 == 1", "whether {a} is odd"),
             ("is_zero", 1, "{a} == 0", "whether {a} is zero"), ("is_positive", 1, "{a} > 0", "whether {a} is positive"),
             ("length", 1, "len({a})", "the length of {a}"), ("first", 1, "{a}[0]", "the first of {a}"),
             ("last", 1, "{a}[-1]", "the last of {a}"), ("reverse", 1, "{a}[::-1]", "{a} in reverse"),
             ("upper", 1, "{a}.upper()", "{a} in upper case"), ("lower", 1, "{a}.lower()", "{a} in lower case"),
             ("identity", 1, "{a}", "{a} itself"), ("absolute", 1, "abs({a})", "the absolute value of {a}"),
             ("total", 1, "sum({a})", "the sum of {a}"), ("sorted_list", 1, "sorted({a})", "{a} sorted")]
PARAMETERS = ("a b x y n m k s t p q i j v w u items data text value left right first second one two num arr lst name "
              "key word line size count").split()


def function(rng: random.Random, split: str) -> tuple[str, str, str, str]:
    """Name, parameter list, body and comment of a one-line function; the comment is "" unless it is needed."""
    while True:
        name, n, body, about = rng.choice(FUNCTIONS)
        a, b = (rng.choice(PARAMETERS) if rng.random() < 0.6 else _words.glued(rng, split, 0.0) for _ in range(2))
        if a != b and split_of(f"code:{name}({a},{b if n == 2 else ''})") == split:
            break
    comment = ""
    if rng.random() < 0.3:
        comment = f"# {about.format(a=a, b=b)}\n"
        name = rng.choice((name, "f", "g", _words.glued(rng, split, 0.0)))
    return name, f"{a}, {b}" if n == 2 else a, body.format(a=a, b=b), comment


def code(rng: random.Random, split: str) -> dict:
    """Completing a one-line function, or filling in its body or its parameters."""
    name, parameters, body, comment = function(rng, split)
    r = rng.random()
    if r < 0.4:
        return {"task": "code_complete", "text": f"[gMASK]<sop>{comment}def {name}({parameters}):\n    return",
                "completion": f" {body}\n"}
    if r < 0.8:
        prefix, middle, suffix = f"{comment}def {name}({parameters}):\n    return ", body, "\n"
        if r < 0.6:
            prefix, middle = prefix[:-1], " " + middle
    else:
        prefix, middle, suffix = f"{comment}def {name}(", parameters, f"):\n    return {body}\n"
    text = f"[gMASK]<sop><|code_prefix|>{prefix}<|code_suffix|>{suffix}<|code_middle|>"
    return {"task": "code_infill", "text": text, "completion": middle}


# ---------------------------------------------------------------- groups of conversations

def turn(question: str, answer: str, think: str, thinking: bool) -> list[dict]:
    """One question and its answer as messages."""
    said = {"role": "assistant", "content": answer}
    if thinking:
        said["reasoning_content"] = think
    return [{"role": "user", "content": question}, said]


def case(task: str, messages: list[dict], thinking: bool, expect: dict, tools=None, n_prompt: int | None = None) -> dict:
    """A case whose last message is the model's, unless n_prompt says another."""
    return {"task": task, "thinking": thinking, "tools": tools, "messages": messages,
            "n_prompt": len(messages) - 1 if n_prompt is None else n_prompt, "expect": expect}


def plain(rng: random.Random, split: str, thinking: bool, kind: str) -> tuple[list[dict], dict]:
    """A question without tools, as messages and what to expect of the answer."""
    if kind.startswith("arith"):
        question, answer, think, value = arithmetic(rng, split)
        return turn(question, answer, think, thinking), {"number": value}
    make = small_talk if kind == "talk" else word_task
    question, answer, think = make(rng, _words, split)
    return turn(question, answer, think, thinking), {"text": answer}


def no_tool_for(rng: random.Random, split: str, thinking: bool, avoid: set[str]) -> tuple[list[dict], dict]:
    """A look-up's question without the tool."""
    ask = tl.Lookup(rng, _words, split, avoid, 1).ask(rng, _words, split)
    while ask["question"].startswith("Use "):
        ask = tl.Lookup(rng, _words, split, avoid, 1).ask(rng, _words, split)
    answer = "I have no tool for that, sorry."
    return turn(ask["question"], answer, "I have no tool for that.", thinking), {"text": answer}


def tool_group(rng: random.Random, split: str, n_tool: int, n_case: int, turns: bool) -> list[dict]:
    """Conversations about the same declared tools."""
    kit = tl.make_tools(rng, _words, split, n_tool)
    tools = [t.declaration for t in kit]
    system = [{"role": "system", "content": rng.choice(SYSTEMS)}] if rng.random() < 0.12 else []
    can_compute = any(isinstance(t, (tl.Calculator, tl.Arithmetic)) for t in kit)
    out = []
    for i in range(n_case):
        thinking = rng.random() < 0.65
        before = list(system)
        if turns and rng.random() < 0.7:
            t = rng.choice(kit)
            before += (tl.exchange(t.ask(rng, _words, split), t.name, False) if rng.random() < 0.6
                       else plain(rng, split, False, "talk")[0])
        if rng.random() < 0.02 and not any(isinstance(t, tl.Search) for t in kit):
            # a look-up that none of the declared tools does
            messages, expect = no_tool_for(rng, split, thinking, {t.noun for t in kit if isinstance(t, tl.Lookup)})
            out.append(case("no_tool", before + messages, thinking, expect, tools))
            continue
        if rng.random() < 0.14:
            kind = rng.choice(("talk", "talk", "words") if can_compute or not thinking else ("talk", "words", "arith"))
            messages, expect = plain(rng, split, thinking, kind)
            if thinking and kind != "arith" and "not know" not in messages[-1]["content"]:
                messages[-1]["reasoning_content"] += " No tool is needed."
            out.append(case("no_tool", before + messages, thinking, expect, tools))
            continue
        t = kit[i % n_tool] if not turns else rng.choice(kit)
        ask = t.ask(rng, _words, split)
        messages = before + tl.exchange(ask, t.name, thinking)
        n_prompt = len(before) + 1
        if rng.random() < 0.5:
            expect = {"calls": [{"name": t.name, "arguments": ask["arguments"]}], "results": [ask["result"]],
                      "contains": ask["value"]}
            out.append(case("tool_call", messages[:-2], thinking, expect, tools, n_prompt))
        else:
            out.append(case("tool_answer", messages, thinking, {"contains": ask["value"]}, tools))
    return out


def group(rng: random.Random, split: str, kind: str, n_case: int = 6) -> list[dict]:
    """Cases of one kind that share tools and system prompt; kinds without tools give one case."""
    if kind == "code":
        return [code(rng, split)]
    if kind in ("tool1", "tool2", "tool_turns"):
        n_tool = {"tool1": 1, "tool2": 2, "tool_turns": rng.choice((1, 2))}[kind]
        return tool_group(rng, split, n_tool, n_case, kind == "tool_turns")
    thinking = kind == "arith" or (kind != "arith_direct" and rng.random() < 0.6)
    messages = [{"role": "system", "content": rng.choice(SYSTEMS)}] if rng.random() < 0.12 else []
    if kind == "turns":
        for _ in range(rng.choice((1, 1, 2))):
            messages += plain(rng, split, False, rng.choice(("talk", "words")))[0]
        last = rng.choice(("talk", "words", "arith")) if thinking else rng.choice(("talk", "words"))
        asked, expect = plain(rng, split, thinking, last)
        return [case("turns", messages + asked, thinking, expect)]
    if kind == "words" and rng.random() < 0.05:
        asked, expect = no_tool_for(rng, split, thinking, set())
    else:
        asked, expect = plain(rng, split, thinking, kind)
    return [case(kind, messages + asked, thinking, expect)]
