"""Tool tasks: tools are declared, and the question needs one of them, or none.

One group is a set of declarations with several conversations about them; training shares the tokens of the
declarations among the conversations. Calculators compute, look-ups read the result that the case carries.
"""
from __future__ import annotations

import json
import random

from words import CITIES, KEYS, NOUNS, REAL_KEYS, RESULTS, Words, split_of

TOOL_FORMS = ("get_{}", "get_{}", "get_{}", "find_{}", "lookup_{}", "{}_lookup", "fetch_{}", "check_{}", "{}", "show_{}",
              "read_{}", "{}_of")
OPS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
TWO_KEYS = (("from", "to"), ("amount", "unit"), ("city", "date"), ("item", "size"), ("name", "year"), ("city", "day"),
            ("country", "year"), ("book", "title"))


def declare(name: str, about: str, keys: list[str], kind: str = "string", key_about: str = "") -> dict:
    """One declaration in the usual schema; kind is the JSON type of every argument."""
    props = {k: {"type": kind, **({"description": key_about} if key_about else {})} for k in keys}
    parameters = {"type": "object", "properties": props}
    if keys:
        parameters["required"] = list(keys)
    f = {"name": name, **({"description": about} if about else {}), "parameters": parameters}
    return {"type": "function", "function": f}


def said_of(rng: random.Random, value: str, noun: str, arguments: dict) -> str:
    """A look-up's result as its tool would print it: bare, or as JSON, at times with the arguments repeated."""
    if rng.random() < 0.45:
        return value
    field = rng.choice((noun, noun, "result", "value"))
    typed = int(value) if value.isdigit() and rng.random() < 0.5 else value
    given = arguments if rng.random() < 0.2 and field not in arguments else {}
    return json.dumps({**given, field: typed}, ensure_ascii=False)


def calculate(expression: str) -> str:
    """The calculator: one operation on two numbers, exact where it can be, else four decimals."""
    a, op, b = expression.split()
    x, y = int(a), int(b)
    if op == "/":
        if y == 0:
            return "error: division by zero"
        q = round(x / y, 4)
        return str(int(q)) if q == int(q) else str(q)
    return str({"+": x + y, "-": x - y, "*": x * y}[op])


class Calculator:
    """calculator(expression)."""

    def __init__(self, rng: random.Random, words: Words, split: str) -> None:
        self.name = rng.choice(("calculator", "calculator", "calculator", "calculate", "calc"))
        about = rng.choice(("", "Evaluate an expression.", "Compute a result.", "A calculator."))
        self.key = rng.choice(("expression", "expression", "expression", "expr"))
        self.declaration = declare(self.name, about, [self.key])

    def ask(self, rng: random.Random, words: Words, split: str, noun: str = "") -> dict:
        op = rng.choice("++--**/")
        while True:
            a, b = rng.randrange(10 ** rng.choice((1, 2, 3, 4))), rng.randrange(10 ** rng.choice((1, 2, 3, 4)))
            if split_of(f"calc:{a} {op} {b}") == split:
                break
        expression = f"{a} {op} {b}"
        shown = rng.choice((expression, expression, f"{a}{op}{b}", f"{a} {OPS[op]} {b}"))
        question = rng.choice(("What is {}?", "Compute {}.", "Calculate {}.", "{}", "How much is {}?", "{} = ?",
                               "Please compute {}.", "Can you work out {}?", "Use the calculator: {}",
                               "I need {}.", "what is {}")).format(shown)
        result = calculate(expression)
        said = rng.choice((result, result, json.dumps({"result": result}), f'{{"result": {result}}}'))
        return {"question": question, "arguments": {self.key: expression}, "result": said, "value": result,
                "think": f"I need to compute {expression}. Use {self.name}.", "answer": f"{expression} = {result}."}


class Arithmetic:
    """add(a, b) and its like: numbers as arguments."""

    def __init__(self, rng: random.Random, words: Words, split: str) -> None:
        self.name, self.verb, self.op = rng.choice((("add", "Add", "+"), ("multiply", "Multiply", "*"),
                                                    ("subtract", "Subtract", "-"), ("divide", "Divide", "/")))
        self.keys = rng.choice((["a", "b"], ["a", "b"], ["x", "y"]))
        self.declaration = declare(self.name, rng.choice(("", f"{self.verb} two numbers.")), self.keys,
                                   rng.choice(("number", "integer")))

    def ask(self, rng: random.Random, words: Words, split: str, noun: str = "") -> dict:
        while True:
            a, b = rng.randrange(10 ** rng.choice((1, 2, 3))), rng.randrange(10 ** rng.choice((1, 2, 3)))
            if split_of(f"calc:{a} {self.op} {b}") == split:
                break
        shown = f"{a} {self.op} {b}"
        forms = ["What is {}?", "Compute {}.", "{}", "How much is {}?", "Calculate {}."]
        question = rng.choice(forms).format(rng.choice((shown, f"{a} {OPS[self.op]} {b}")))
        if rng.random() < 0.3:
            question = rng.choice((f"Use {self.name} with {self.keys[0]} {a} and {self.keys[1]} {b}.",
                                   f"{self.verb} {a} and {b}." if self.op in "+*" else question))
        result = calculate(shown)
        return {"question": question, "arguments": dict(zip(self.keys, (a, b))), "result": result, "value": result,
                "think": f"I need to compute {shown}. Use {self.name}.", "answer": f"{shown} = {result}."}


class Lookup:
    """A look-up of some noun by nothing, one key or two."""

    def __init__(self, rng: random.Random, words: Words, split: str, avoid: set[str], n_key: int | None = None) -> None:
        self.values = None
        while True:
            self.real = rng.random() < 0.5
            self.noun = rng.choice(NOUNS) if self.real else words.glued(rng, split, 0.0)
            if self.noun not in avoid:
                break
        self.name = rng.choice(TOOL_FORMS).format(self.noun)
        n_key = rng.choice((0, 1, 1, 1, 1, 1, 2, 2)) if n_key is None else n_key
        if n_key == 1 and self.noun in REAL_KEYS and rng.random() < 0.6:
            key, self.values = REAL_KEYS[self.noun]
            self.keys = [key]
        elif n_key == 2 and rng.random() < 0.4:
            self.keys = list(rng.choice(TWO_KEYS))
        else:
            self.keys = []
            while len(self.keys) < n_key:
                k = words.glued(rng, split, 0.0) if rng.random() < 0.25 else rng.choice(KEYS)
                if k not in self.keys and k != self.noun:
                    self.keys.append(k)
        of = f" of a {self.keys[0]}" if n_key == 1 and rng.random() < 0.5 else ""
        about = rng.choice(("", f"Get the {self.noun}{of}.", f"Look up the {self.noun}{of}.", f"The {self.noun}{of}."))
        key_about = ""
        if n_key == 1 and rng.random() < 0.2:
            key_about = rng.choice(("The {k}.", "Name of the {k}", "The {k} to look up", "The {k}, e.g. {w}")).format(
                k=self.keys[0], w=rng.choice(CITIES))
        self.declaration = declare(self.name, about, self.keys, "string", key_about)
        if n_key == 1 and rng.random() < 0.06:      # an argument that nobody asks for is left out
            self.declaration["function"]["parameters"]["properties"]["unit"] = {
                "type": "string", "enum": rng.choice((["C", "F"], ["celsius", "fahrenheit"], ["km", "miles"]))}

    def value(self, rng: random.Random, words: Words, split: str) -> str:
        if self.values and rng.random() < 0.6:
            return words.real(rng, split, self.values)
        return words.value(rng, split)

    def ask(self, rng: random.Random, words: Words, split: str, noun: str = "") -> dict:
        noun, n = self.noun, len(self.keys)
        v = [self.value(rng, words, split) for _ in self.keys]
        if n == 0:
            question = rng.choice(("What is the {n}?", "Get the {n}.", "Tell me the {n}.", "Show me the {n}.",
                                   "What is the {n} now?", "I need the {n}.", "Use {t}.")).format(n=noun, t=self.name)
            subject = f"The {noun}"
        elif n == 1:
            question = rng.choice((
                "What is the {n} of {v}?", "What is the {n} of {v}?", "What is the {n} in {v}?",
                "What's the {n} in {v}?", "What is the {n} in {v} now?", "What is the {n} for {v}?", "Tell me the {n} of {v}.", "Get the {n} of {v}.", "Find the {n} for {v}.",
                "I need the {n} of {v}.", "Look up the {n} of {v}.", "Look up the {n} of the {k} {v}.",
                "Please check the {n} for {v}.", "Can you find the {n} of {v}?", "What's the {n} of {v}?",
                "{v}: what is the {n}?", "Give me the {n} for {k} {v}.", "what is the {n} in {v}",
                "How is the {n} in {v}?", "Use {t} for {v}.", "Use {t} with {k} {v}.", "{n} of {v}?",
                'What is the {n} of "{v}"?')).format(n=noun, v=v[0], k=self.keys[0], t=self.name)
            subject = f"The {noun} of {v[0]}"
        else:
            given = f"{self.keys[0]} {v[0]} and {self.keys[1]} {v[1]}"
            question = rng.choice((
                "What is the {n} for {g}?", "What is the {n} with {g}?", "Find the {n} for {g}.", "Get the {n} for {g}.",
                "Look up the {n} with {g}.", "I need the {n} for {g}.", "Tell me the {n} for {g}.",
                "Use {t} with {g}.")).format(n=noun, g=given, t=self.name)
            if self.keys == ["from", "to"]:
                question = question.replace(f" for {given}", f" {given.replace(' and to ', ' to ')}")
            subject = f"The {noun}"
        value = self.result(rng, words, split)
        said = said_of(rng, value, noun, dict(zip(self.keys, v)))
        return {"question": question, "arguments": dict(zip(self.keys, v)), "result": said, "value": value,
                "think": f"I need the {noun}. Use {self.name}.", "answer": f"{subject} is {value}."}

    @staticmethod
    def result(rng: random.Random, words: Words, split: str) -> str:
        r = rng.random()
        if r < 0.3:
            return words.number(rng, split, rng.choice((2, 3, 4)))
        if r < 0.45:
            return f"{words.number(rng, split, 2)} {rng.choice(('C', 'km', 'kg', 'USD', 'years', 'cm'))}"
        if r < 0.6:
            return rng.choice(RESULTS)
        if r < 0.7:
            return f"{rng.choice(RESULTS)}, {words.number(rng, split, 2)} C"
        if r < 0.95:
            return words.glued(rng, split)
        return f"{words.glued(rng, split)} {words.glued(rng, split)}"


class Search:
    """lookup(key): a look-up whose question names no noun."""

    def __init__(self, rng: random.Random, words: Words, split: str) -> None:
        self.name = rng.choice(("lookup", "search", "lookup"))
        self.key = rng.choice(("key", "query", "word", "name"))
        self.declaration = declare(self.name, rng.choice(("", "Look up a value.", "Search for something.")), [self.key])

    def ask(self, rng: random.Random, words: Words, split: str, noun: str = "") -> dict:
        v = words.value(rng, split)
        verb = ("Look up", "Please look up", "look up") if self.name == "lookup" else ("Search for", "Please search for",
                                                                                      "search")
        value = Lookup.result(rng, words, split)
        said = value if rng.random() < 0.5 else json.dumps({rng.choice(("result", "value")): value})
        return {"question": f"{rng.choice(verb)} {v}.", "arguments": {self.key: v}, "result": said, "value": value,
                "think": f"I need to {self.name} {v}. Use {self.name}.", "answer": f"The result for {v} is {value}."}


def make_tools(rng: random.Random, words: Words, split: str, n_tool: int) -> list:
    """n_tool different tools."""
    out: list = []
    while len(out) < n_tool:
        r = rng.random()
        kinds = {type(t) for t in out}
        if r < 0.22:
            if not kinds & {Calculator, Arithmetic}:
                out.append(Calculator(rng, words, split))
        elif r < 0.30:
            if not kinds & {Calculator, Arithmetic}:
                out.append(Arithmetic(rng, words, split))
        elif r < 0.37:
            if Search not in kinds:
                out.append(Search(rng, words, split))
        else:
            out.append(Lookup(rng, words, split, {t.noun for t in out if isinstance(t, Lookup)}))
    rng.shuffle(out)
    return out


def exchange(ask: dict, name: str, thinking: bool) -> list[dict]:
    """Question, call, result and answer as messages."""
    call: dict = {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": name, "arguments": ask["arguments"]}}]}
    answer = {"role": "assistant", "content": ask["answer"]}
    if thinking:
        call["reasoning_content"] = ask["think"]
        answer["reasoning_content"] = f"The result is {ask['value']}."
    return [{"role": "user", "content": ask["question"]}, call, {"role": "tool", "content": ask["result"]}, answer]
