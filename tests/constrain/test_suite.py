#!/usr/bin/env python3
"""The official JSON Schema Test Suite through `glm45 constrain`: each group passes, or its schema is refused with a
pointer and a message. A group of which any test comes out wrong fails.

Formats are asserted here. The suite has both readings: tests of draft 2020-12 that call a format an annotation, and,
under optional/format, tests of the same schemas by which it holds. The former are left out, and counted.
"""
import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from command import CommandFailed, Constrain, spelled, unpack  # noqa: E402

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def groups(packed, unzstd):
    done = subprocess.run([unzstd], stdin=open(packed, "rb"), capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def schema_of(group):
    """The group's schema, saying its draft where the suite leaves that to the folder's name."""
    schema = group["schema"]
    if group["draft"] == "draft7" and isinstance(schema, dict):
        return {"$schema": DRAFT_7, **schema}
    return schema


def tests_of(group):
    """The group's tests, without those that deny a format what optional/format demands of it."""
    if group["file"] != "format":
        return group["tests"]
    return [t for t in group["tests"] if not t["description"].endswith("is only an annotation by default")]


def outcome(command, group, tests):
    """(passes, refused, wrong or failed; the lines to print about it)."""
    try:
        answer = command.ask(schema_of(group), [spelled(test["data"]) for test in tests])
    except CommandFailed as e:
        return "failed", [str(e)]
    error = answer["error"]
    if error is not None:
        if not error["message"].strip():
            return "failed", ["refused without a message"]
        if error["pointer"] and not error["pointer"].startswith("/"):
            return "failed", [f"{error['pointer']!r} is no JSON pointer"]
        return "refused", [f"{error['pointer']!r}: {error['message']}"]
    wrong = [f"{'refuses valid' if test['valid'] else 'accepts invalid'} {spelled(test['data'])}: {test['description']}"
             for test, got in zip(tests, answer["accepted"]) if got != test["valid"]]
    return ("wrong", wrong) if wrong else ("passes", [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glm45")
    parser.add_argument("unzstd")
    parser.add_argument("data", type=pathlib.Path, help="the folder tests/data")
    parser.add_argument("--file", help="only groups of this file, such as ref")
    parser.add_argument("--refused", action="store_true", help="list what is refused, and why")
    arguments = parser.parse_args()
    counts, left_out = collections.Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        model = unpack(arguments.data / "tokenizer.json.zst", arguments.unzstd, folder)
        with Constrain(arguments.glm45, model) as command:
            for group in groups(arguments.data / "json_schema_suite.jsonl.zst", arguments.unzstd):
                if arguments.file and group["file"] != arguments.file:
                    continue
                tests = tests_of(group)
                left_out += len(group["tests"]) - len(tests)
                result, lines = outcome(command, group, tests)
                counts[result] += 1
                if result in ("wrong", "failed") or result == "refused" and arguments.refused:
                    print(f"{result}: {group['draft']} {group['file']}: {group['description']}\n"
                          f"  schema {spelled(group['schema'])}")
                    for line in lines:
                        print(f"  {line}")
    n = sum(counts.values())
    print(f"{n} groups: {counts['passes']} pass, {counts['refused']} refused, {counts['wrong']} wrong, "
          f"{counts['failed']} failed; {left_out} tests that call a format an annotation left out")
    return not n or counts["wrong"] + counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
