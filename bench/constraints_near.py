#!/usr/bin/env python3
"""Asks the constraint engine about many more instances of MaskBench's schemas than the file has: its own, each changed
a little in many places, and judged by the package jsonschema. What is found here would be found by another sample of
the same sources. Schemas of which the judge gets one of the file's own instances wrong (a dialect, a format that it
does not know) are left out, and so are those that are refused.

An accepted invalid instance is a defect and makes the status 1. A refused valid one is printed too, but the judge does
not assert most formats, so that it may be right to refuse it.
"""
import argparse
import collections
import json
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "constrain"))
from command import CommandFailed, Constrain, spelled  # noqa: E402
from oracle import Oracle  # noqa: E402
from random_schemas import Schemas  # noqa: E402
from shrink import smaller  # noqa: E402

MOST_CHARS = 4000  # of an instance: long ones change too little to be worth their time


class Judge:
    """The oracle, or None of a verdict where it cannot say."""

    def __init__(self, schema):
        self.oracle = Oracle(schema)

    def allows(self, value):
        try:
            return self.oracle.allows(value)
        except RecursionError:
            return None


def judge_of(entry):
    """A judge that agrees with the file, or the reason why there is none."""
    try:
        judge = Judge(entry["schema"])
        wrong = [t for t in entry["tests"] if judge.allows(t["data"]) != t["valid"]]
    except Exception as e:  # no schema by its own draft, references out of the file, patterns that are not Python's
        return None, type(e).__name__
    return (None, "the judge disagrees with the file") if wrong else (judge, "")


def changed_values(entry, draw, n):
    """Changed instances, none twice, none of the file's own."""
    bases = [t["data"] for t in entry["tests"] if len(spelled(t["data"])) < MOST_CHARS]
    valid = [t["data"] for t in entry["tests"] if t["valid"] and len(spelled(t["data"])) < MOST_CHARS]
    seen, out = {spelled(t["data"]) for t in entry["tests"]}, []
    for _ in range(n if bases else 0):
        value = draw.rng.choice(valid if valid and draw.maybe(0.8) else bases)
        for _ in range(draw.rng.choice([1, 1, 1, 2, 3])):
            value = draw.changed(value)
        if spelled(value) not in seen:
            seen.add(spelled(value))
            out.append(value)
    return out


def least(command, schema, judge, value, steps=300):
    """A smaller instance that the engine gets wrong in the same way."""
    want, going = judge.allows(value), True
    while going and steps > 0:
        going = False
        for less in smaller(value):
            steps -= 1
            if steps <= 0:
                break
            if judge.allows(less) == want and command.ask(schema, [spelled(less)])["accepted"] == [not want]:
                value, going = less, True
                break
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maskbench", help="the file of schemas and tests")
    parser.add_argument("--glm45", required=True, help="the program")
    parser.add_argument("--model", required=True, help="a tokenizer.json")
    parser.add_argument("--values", type=int, default=30, metavar="N", help="changed instances a schema (30)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--id", action="append", help="only this schema (may be said again)")
    parser.add_argument("--most", type=int, default=40, metavar="N", help="print so many wrong ones (40)")
    arguments = parser.parse_args()
    counts, reasons, wrong = collections.Counter(), collections.Counter(), []
    last = time.monotonic()
    with Constrain(arguments.glm45, arguments.model) as command:
        for i, text in enumerate(open(arguments.maskbench, encoding="utf-8")):
            entry = json.loads(text)
            if arguments.id and entry["id"] not in arguments.id:
                continue
            judge, reason = judge_of(entry)
            if judge is None:
                reasons[reason] += 1
                continue
            draw = Schemas(random.Random(f"{arguments.seed} {entry['id']}"))
            judged = [(v, judge.allows(v)) for v in changed_values(entry, draw, arguments.values)]
            judged = [(v, want) for v, want in judged if want is not None]
            try:
                answer = command.ask(entry["schema"], [spelled(v) for v, _ in judged])
            except CommandFailed as e:
                wrong.append((entry, judge, None, str(e)))
                continue
            if answer["error"] is not None:
                counts["schemas refused"] += 1
                continue
            counts["schemas"] += 1
            for (value, want), got in zip(judged, answer["accepted"]):
                counts["valid instances" if want else "invalid instances"] += 1
                if want != got:
                    wrong.append((entry, judge, value, "valid refused" if want else "INVALID ACCEPTED"))
            if time.monotonic() - last > 10:
                last = time.monotonic()
                print(f"  line {i}: {dict(counts)}, {len(wrong)} wrong", file=sys.stderr)
        first = {(entry["id"], what): (entry, judge, value, what) for entry, judge, value, what in reversed(wrong)}
        for entry, judge, value, what in sorted(first.values(), key=lambda w: w[3])[:arguments.most]:
            print(f"{what}: {entry['id']}")
            if value is not None:
                value = least(command, entry["schema"], judge, value)
                errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.validator} {str(e.validator_value)[:150]}"
                          for e in judge.oracle.validator.iter_errors(value)][:3]
                print(f"  {spelled(value)[:600]}\n  {'; '.join(errors)}")
    print(f"{dict(counts)}; without a judge: {dict(reasons)}")
    print(f"wrong: {dict(collections.Counter(w[3] if w[2] is not None else 'failed' for w in wrong))}")
    return any(what != "valid refused" for *_, what in wrong)


if __name__ == "__main__":
    sys.exit(main())
