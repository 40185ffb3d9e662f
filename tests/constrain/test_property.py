#!/usr/bin/env python3
"""Random small schemas and random texts through `glm45 constrain`: what it accepts is what the package jsonschema calls
valid, both ways. A schema that is refused when it is compiled decides nothing; the share of those is printed and
bounded.

A text is a value as json.dumps spells it (ensure_ascii off), and then the verdicts must be equal. Other spellings of
values (escapes, other spaces) and texts that are no JSON must not be accepted where they are invalid; that a valid one
is refused for its spelling is counted only. Exit 77: the package jsonschema is missing.
"""
import argparse
import collections
import json
import pathlib
import random
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
try:
    from oracle import Oracle
except ImportError as missing:
    print(f"SKIP: {missing} (Debian: python3-jsonschema)")
    sys.exit(77)
from command import CommandFailed, Constrain, spelled, unpack  # noqa: E402
from random_schemas import Schemas  # noqa: E402
from shrink import shrink  # noqa: E402

MOST_REFUSED = 0.35  # of the schemas drawn: beyond it, agreement would say little
KINDS = ["invalid accepted", "valid refused"]


def other_spelling(rng, value):
    """The value in another spelling of JSON."""
    how = rng.choice([{"ensure_ascii": True}, {"indent": 2}, {"separators": (",", ":")}])
    return json.dumps(value, **{"ensure_ascii": False, **how})


def damaged(rng, text):
    """The text with a character more, less or other."""
    i = rng.randrange(len(text) + 1)
    put = rng.choice(["", "", ",", "}", "]", "\"", "0", "-", ".", "e", "\\", "\t", "nul"])
    return text[:i] + put + text[i + rng.randint(0, 1):]


def strict(text):
    """The value of a JSON text; ValueError where it is none, or has a key twice."""
    def one_each(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def none(name):
        raise ValueError(name)
    return json.loads(text, object_pairs_hook=one_each, parse_constant=none)


class Run:
    """All cases of a seed, and what came of them."""

    def __init__(self, command, seed, n_values, show):
        self.command, self.rng = command, random.Random(seed)
        self.schemas = Schemas(self.rng)
        self.n_values, self.show = n_values, show
        self.counts, self.reasons = collections.Counter(), collections.Counter()
        self.words = collections.defaultdict(collections.Counter)
        self.failures = []

    def texts(self, schema, oracle):
        """Texts near the schema: (text, whether it is valid, whether it is a value in the usual spelling)."""
        out = []
        for _ in range(self.n_values):
            value = self.schemas.near(schema if isinstance(schema, dict) else {})
            while self.rng.random() < 0.35:
                value = self.schemas.changed(value)
            valid = oracle.allows(value)
            out.append((spelled(value), valid, True))
            if self.rng.random() < 0.15:
                out.append((other_spelling(self.rng, value), valid, False))
            if self.rng.random() < 0.15:
                self.add_damaged(out, oracle, damaged(self.rng, spelled(value)))
        return out

    @staticmethod
    def add_damaged(out, oracle, text):
        """Adds a text that may still be JSON; numbers beyond every double are none that the oracle can judge."""
        try:
            value = strict(text)
        except ValueError:
            out.append((text, False, False))
            return
        if "Infinity" not in spelled(value):
            out.append((text, oracle.allows(value), False))

    def case(self):
        """One schema and its texts."""
        schema = self.schemas.draw()
        try:
            texts = self.texts(schema, Oracle(schema))
        except RecursionError:
            self.counts["endless"] += 1
            return
        try:
            answer = self.command.ask(schema, [text for text, _, _ in texts])
        except CommandFailed as e:
            self.failures.append(("failed", schema, str(e), False))
            return
        self.count_words(schema, answer["error"] is not None)
        if answer["error"] is not None:
            self.counts["refused"] += 1
            self.reasons[answer["error"]["message"]] += 1
            if self.show:
                print(f"refused at {answer['error']['pointer']!r}: {answer['error']['message']}: {spelled(schema)}")
            return
        self.counts["compiled"] += 1
        for (text, want, usual), got in zip(texts, answer["accepted"]):
            self.verdict(schema, text, usual, want, got)

    def verdict(self, schema, text, usual, want, got):
        self.counts[("valid" if want else "invalid") if usual else "other"] += 1
        if want and not got and not usual:
            self.counts["valid refused for its spelling"] += 1
        elif want != got:
            self.failures.append((KINDS[want], schema, text, usual))

    def count_words(self, schema, refused):
        """Which keywords (and names) are in schemas that compile, and in those that do not."""
        def words(part):
            if isinstance(part, dict):
                for name, sub in part.items():
                    yield name
                    yield from words(sub)
            elif isinstance(part, list):
                for sub in part:
                    yield from words(sub)
        for word in set(words(schema)):
            self.words[word][refused] += 1

    def still_fails(self, kind):
        """A test for shrink: whether a schema and a value show the same kind of disagreement."""
        def fails(schema, value):
            try:
                want = Oracle(schema).allows(value)
                if KINDS[want] != kind:
                    return False
                answer = self.command.ask(schema, [spelled(value)])
            except Exception:  # no schema any more, or the command's failure, which is another one
                return False
            return answer["error"] is None and answer["accepted"][0] != want
        return fails

    def explain(self, failure, seed):
        kind, schema, text, usual = failure
        print(f"\n{kind} (seed {seed}): schema {spelled(schema)}\n  text {text}")
        if kind in KINDS and usual:
            schema, value = shrink(schema, json.loads(text), self.still_fails(kind))
            print(f"  smallest: schema {spelled(schema)}\n            text {spelled(value)}")

    def explain_some(self, most, seed):
        """A failure of each of the first schemas that have one."""
        seen = set()
        for failure in self.failures:
            if spelled(failure[1]) not in seen and len(seen) < most:
                seen.add(spelled(failure[1]))
                self.explain(failure, seed)


def report(run, arguments):
    counts, n = run.counts, run.counts["compiled"] + run.counts["refused"]
    share = counts["refused"] / n if n else 1
    print(f"seed {arguments.seed}: {n} schemas, {counts['refused']} refused when compiled ({share:.1%}), "
          f"{counts['endless']} endless left out\n"
          f"{counts['valid']} valid and {counts['invalid']} invalid texts in the usual spelling, "
          f"{counts['other']} others; "
          f"{counts['valid refused for its spelling']} valid ones refused for their spelling\n"
          f"{len(run.failures)} failures {dict(collections.Counter(f[0] for f in run.failures))}")
    for reason, n_reason in run.reasons.most_common(12):
        print(f"  refused {n_reason:5}: {reason}")
    if arguments.words:
        for word, seen in sorted(run.words.items()):
            print(f"  {word:22} in {seen[False]:5} schemas compiled, {seen[True]:5} refused")
    if share > MOST_REFUSED:
        print(f"too many refused: at most {MOST_REFUSED:.0%} may be")
    return bool(run.failures) or share > MOST_REFUSED or min(counts["valid"], counts["invalid"]) < n / 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glm45")
    parser.add_argument("unzstd")
    parser.add_argument("data", type=pathlib.Path, help="the folder tests/data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schemas", type=int, default=3000)
    parser.add_argument("--values", type=int, default=10, help="about how many texts a schema gets")
    parser.add_argument("--explain", type=int, default=5, help="how many failures are shrunk and shown")
    parser.add_argument("--words", action="store_true", help="count the keywords of compiled and refused schemas")
    parser.add_argument("--refused", action="store_true", help="print each refusal")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = unpack(arguments.data / "tokenizer.json.zst", arguments.unzstd, folder)
        with Constrain(arguments.glm45, model) as command:
            run = Run(command, arguments.seed, arguments.values, arguments.refused)
            for _ in range(arguments.schemas):
                run.case()
            run.explain_some(arguments.explain, arguments.seed)
            print()
            return report(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
