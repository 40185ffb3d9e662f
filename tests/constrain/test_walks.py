#!/usr/bin/env python3
"""Random walks through the masks of random schemas, and of tools in both dialects: every text that ends is valid by the
package jsonschema, and no walk meets a dead end. The walker (walk.c) also checks the masks against what is accepted,
going back, and canonical tokens. Exit 77: the package jsonschema is missing.
"""
import argparse
import collections
import json
import pathlib
import random
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
try:
    from oracle import Oracle, python_pattern
except ImportError as missing:
    print(f"SKIP: {missing} (Debian: python3-jsonschema)")
    sys.exit(77)
from command import CommandFailed, Constrain, spelled, unpack  # noqa: E402
from random_schemas import WORDS, Patterns, Schemas  # noqa: E402

FINE = ("end", "long")


def none(name):
    raise ValueError(f"{name} is no JSON")


def readings(text):
    """The values that a JSON text may be read as: of a key that is there twice, the last one counts, or the first."""
    last = json.loads(text, parse_constant=none)
    first = json.loads(text, parse_constant=none, object_pairs_hook=lambda pairs: dict(pairs[::-1]))
    return [last] if last == first else [last, first]


def has_infinity(value):
    """Whether a number in it is beyond every double, which the judge cannot read."""
    if isinstance(value, dict):
        return any(map(has_infinity, value.values()))
    return any(map(has_infinity, value)) if isinstance(value, list) else value in (float("inf"), float("-inf"))


class Run:
    def __init__(self, walker, most):
        self.walker, self.most = walker, most
        self.counts, self.wrong = collections.Counter(), collections.Counter()
        self.shown = set()

    def fail(self, what, schema, text, why=""):
        """Counts a failure; the first of each kind and schema is printed."""
        self.wrong[what] += 1
        if (what, spelled(schema)) not in self.shown and len(self.shown) < self.most:
            self.shown.add((what, spelled(schema)))
            print(f"{what}: schema {spelled(schema)[:1500]}\n  text {text[:600]!r}\n  {why}", flush=True)

    def ask(self, request, schema):
        """The walks of a request, or none."""
        try:
            answer = self.walker.ask_line(json.dumps(request).encode())
        except CommandFailed as e:
            self.fail("failed", schema, "", str(e))
            return []
        if answer["error"] is not None:
            self.counts["refused"] += 1
            return []
        self.counts["compiled"] += 1
        return answer["walks"]

    def schema(self, schema, seed, n):
        """Walks of a schema."""
        try:
            oracle = Oracle(schema)
        except Exception:  # its own draft does not call it a schema
            return
        for walk in self.ask({"schema": schema, "walks": n, "seed": seed}, schema):
            self.counts[walk["end"] if walk["end"] in FINE else "faults"] += 1
            if walk["end"] not in FINE:
                self.fail(walk["end"], schema, walk["text"], walk["why"])
            if walk["end"] == "end":
                self.judge(oracle, schema, walk["text"])

    def judge(self, oracle, schema, text):
        try:
            for value in readings(text):
                if has_infinity(value):
                    self.fail("beyond every double", schema, text)
                elif not oracle.allows(value):
                    self.fail("invalid", schema, text, "; ".join(
                        f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}"
                        for e in oracle.validator.iter_errors(value)))
        except RecursionError:
            self.counts["not judged"] += 1
        except ValueError as e:
            self.fail("no JSON", schema, text, str(e))

    def tools(self, tools, template, seed, n):
        """Walks of turns that must call one of some tools."""
        declared = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
        request = {"tools": tools, "template": template, "walks": n, "seed": seed}
        for walk in self.ask(request, list(declared.values())):
            self.counts["turns" if walk["end"] in FINE else "faults"] += 1
            if walk["end"] not in FINE:
                self.fail(walk["end"], tools, walk["text"], walk["why"])
            if walk["end"] == "end" and not walk["calls"]:
                self.fail("no call", tools, walk["text"])
            for call in walk["calls"]:
                self.counts["calls"] += 1
                schema = declared.get(call["name"])
                if schema is None:
                    self.fail("undeclared tool", tools, walk["text"], call["name"])
                elif set(json.loads(call["arguments"])) - set(schema.get("properties", {})):
                    self.fail("undeclared key", schema, walk["text"], call["arguments"])
                else:
                    self.judge(Oracle(schema), schema, call["arguments"])


    def others(self, request, seed, n, allows):
        """Walks of a regular expression, a choice, or any object."""
        for walk in self.ask({**request, "walks": n, "seed": seed}, request):
            self.counts[walk["end"] if walk["end"] in FINE else "faults"] += 1
            if walk["end"] not in FINE:
                self.fail(walk["end"], request, walk["text"], walk["why"])
            elif walk["end"] == "end" and not allows(walk["text"]):
                self.fail("invalid", request, walk["text"])


def is_object(text):
    try:
        return isinstance(json.loads(text, parse_constant=none), dict)
    except ValueError:
        return False


def other_kinds(run, arguments):
    patterns = Patterns(random.Random(arguments.seed))
    for i in range(arguments.schemas // 5):
        pattern = patterns.draw()
        # As a whole: the expression's ends are the text's.
        whole = re.compile(f"(?:{python_pattern(pattern)})")
        run.others({"regex": pattern}, i + 1, arguments.walks, lambda text: whole.fullmatch(text) is not None)
    for i in range(20):
        choices = patterns.rng.sample(WORDS[1:], 4)
        run.others({"choices": choices}, i + 1, arguments.walks, lambda text: text in choices)
    run.others({}, arguments.seed, 100, is_object)


def random_schemas(run, arguments):
    draw = Schemas(random.Random(arguments.seed))
    for i in range(arguments.schemas):
        run.schema(draw.draw(), i + 1, arguments.walks)


def file_schemas(run, arguments):
    """A file's own schemas, such as MaskBench's."""
    for i, line in enumerate(open(arguments.file, encoding="utf-8")):
        run.schema(json.loads(line)["schema"], i + arguments.seed, arguments.walks)
        if i % 200 == 199:
            print(f"  line {i + 1}: {dict(run.counts)}, wrong {dict(run.wrong)}", file=sys.stderr)


def all_tools(run, arguments):
    tools = [json.loads(line) for line in open(arguments.data / "call_tools.jsonl", "rb")]
    for template in ("4.5", "4.7"):
        for i in range(len(tools)):
            several = [tools[(i + 9 * k) % len(tools)] for k in range(4)]
            run.tools([tools[i]], template, arguments.seed + i, arguments.turns)
            run.tools(several, template, arguments.seed + i, arguments.turns)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("walker")
    parser.add_argument("unzstd")
    parser.add_argument("data", type=pathlib.Path, help="the folder tests/data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schemas", type=int, default=1500)
    parser.add_argument("--walks", type=int, default=8, help="walks a schema")
    parser.add_argument("--turns", type=int, default=20, help="turns a tool")
    parser.add_argument("--file", help="walk this file's schemas instead ({\"schema\"} a line)")
    parser.add_argument("--explain", type=int, default=12, help="how many failures are shown")
    parser.add_argument("--model", help="another tokenizer than the family's")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or unpack(arguments.data / "tokenizer.json.zst", arguments.unzstd, folder)
        with Constrain(arguments.walker, model) as walker:
            run = Run(walker, arguments.explain)
            if arguments.file:
                file_schemas(run, arguments)
            else:
                random_schemas(run, arguments)
                other_kinds(run, arguments)
                all_tools(run, arguments)
    print(f"seed {arguments.seed}: {dict(run.counts)}; wrong: {dict(run.wrong) or 'none'}")
    least_calls = 0 if arguments.file else 50 * arguments.turns
    too_few = run.counts["end"] < run.counts["compiled"] - 4 * arguments.turns or run.counts["calls"] < least_calls
    if too_few:
        print("too few texts came to their end: this says little")
    return bool(run.wrong) or too_few


if __name__ == "__main__":
    sys.exit(main())
