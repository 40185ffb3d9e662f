#!/usr/bin/env python3
"""Samples tool calls from a model, hot, and validates every call's arguments with the package jsonschema. Nothing that
a model says may make a call invalid: the status is 1 if one is, or if fewer calls than asked for came to their end.

    glm45 synth --shape models/nano --tokenizer models/nano/tokenizer.json --format hf -o build/random-nano
    python3 bench/calls.py models/nano build/random-nano --calls 10000

Each call is a turn of its own with one declared tool that must be called (tool_choice "required"), or, with --several,
five of them; the seed of the turn is the call's number. The shared library is found as the Python package does
(GLM45_LIBRARY names it). The tools are a file of JSON lines, each as in a chat API's array of tools.
"""
import argparse
import collections
import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bindings" / "python"), str(ROOT / "tests" / "constrain")]
sys.dont_write_bytecode = True

from glm45 import GlmError, Model  # noqa: E402
from oracle import Oracle  # noqa: E402

QUESTIONS = ["What is the weather in Oslo?", "Do it.", "Hello!", "Please call the tool with whatever fits.", "{}",
             "Use set_light with room attic.", "a b c", "Was wünschen Sie?"]


def refuse_twice(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


class Tally:
    """What became of the turns with one model."""

    def __init__(self):
        self.ends, self.per_tool = collections.Counter(), collections.Counter()
        self.n_calls, self.bad, self.lengths = 0, [], []
        self.distinct = set()

    def add(self, answer, declared, seed):
        self.ends[answer.end.reason if answer.calls else f"{answer.end.reason}, no call"] += 1
        for call in answer.calls:
            self.n_calls += 1
            self.per_tool[call.name] += 1
            self.lengths.append(len(call.arguments_json))
            self.distinct.add((call.name, call.arguments_json))
            why = self.fault(call, declared)
            if why:
                self.bad.append((seed, call.name, call.arguments_json, why))

    @staticmethod
    def fault(call, declared):
        """What is wrong with a call, or None."""
        if call.name not in declared:
            return "no tool of this name is declared"
        schema, oracle = declared[call.name]
        try:
            arguments = json.loads(call.arguments_json, object_pairs_hook=refuse_twice)
        except ValueError as e:
            return f"no JSON: {e}"
        if not isinstance(arguments, dict):
            return "no object"
        strange = set(arguments) - set(schema.get("properties", {}))
        if strange:
            return f"keys that are not declared: {sorted(strange)}"
        if oracle.allows(arguments):
            return None
        errors = oracle.validator.iter_errors(arguments)
        return "; ".join(f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors)


def sample(model, tools, arguments, tally):
    """Turns until enough calls are complete, going round the tools; gives up after five times as many turns."""
    oracles = {}
    for tool in tools:
        function = tool["function"]
        oracles[function["name"]] = (function["parameters"], Oracle(function["parameters"]))
    seed, last = arguments.seed, time.monotonic()
    while tally.n_calls < arguments.calls and seed < arguments.seed + 5 * arguments.calls:
        i = seed % len(tools)
        chosen = [tools[(i + 7 * k) % len(tools)] for k in range(5 if arguments.several else 1)]
        declared = {t["function"]["name"]: oracles[t["function"]["name"]] for t in chosen}
        with model.session() as session:
            session.tools(chosen)
            answer = session.chat(QUESTIONS[seed // len(tools) % len(QUESTIONS)], temperature=arguments.temperature,
                                  top_p=1.0, max_tokens=arguments.max_tokens, seed=seed + 1, thinking=False,
                                  tool_choice="required")
            tally.add(answer, declared, seed)
        seed += 1
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(f"  {seed - arguments.seed} turns: {tally.n_calls} calls, {len(tally.bad)} invalid", file=sys.stderr)


def show(path, tally, tools, seconds):
    missing = [t["function"]["name"] for t in tools if not tally.per_tool[t["function"]["name"]]]
    mean = sum(tally.lengths) / len(tally.lengths) if tally.lengths else 0
    print(f"{path}: {tally.n_calls} calls of {len(tally.per_tool)} tools, {len(tally.bad)} invalid; "
          f"{len(tally.distinct)} distinct, {mean:.0f} characters of arguments on average; "
          f"turns ended as {dict(tally.ends)}; {seconds:.0f} s")
    if missing:
        print(f"  never called to the end: {', '.join(missing)}")
    for seed, name, text, why in tally.bad[:20]:
        print(f"  turn {seed}: {name} {text}\n    {why}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", help="checkpoints, each asked for as many calls")
    parser.add_argument("--tools", type=pathlib.Path, default=ROOT / "tests" / "data" / "call_tools.jsonl")
    parser.add_argument("--calls", type=int, default=10000)
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--max-tokens", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0, help="the first turn's; each turn has the next")
    parser.add_argument("--several", action="store_true", help="declare five tools a turn instead of one")
    arguments = parser.parse_args()
    tools = [json.loads(line) for line in arguments.tools.read_text(encoding="utf-8").splitlines()]
    failed = False
    for path in arguments.model:
        tally, begin = Tally(), time.monotonic()
        try:
            with Model(path) as model:
                sample(model, tools, arguments, tally)
        except GlmError as e:
            print(f"{path}: {e}")
            failed = True
        show(path, tally, tools, time.monotonic() - begin)
        failed |= bool(tally.bad) or tally.n_calls < arguments.calls
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
