#!/usr/bin/env python3
"""Schemas made to hurt, through `glm45 constrain`: each is refused with a message or compiled and walked, within a
bound of processor time and memory growth, and the command lives on. The bounds (100 ms, 64 MB) are for one request as
a whole: its line read, the schema compiled, its few short texts walked. --factor widens both, for sanitizers.

Processor time is the command's own, so that a busy machine changes little; of three tries the least counts.
"""
import argparse
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from command import CommandFailed, Constrain, unpack  # noqa: E402
from hostile_cases import BROKEN, cases  # noqa: E402

MOST_S, MOST_KIB = 0.100, 64 * 1000 * 1000 // 1024
TRIES = 3

def measure(command, packed):
    """(answer, seconds, KiB) of the least of some tries."""
    best = None
    for _ in range(TRIES):
        command.forget_peak()
        before, cpu = command.rss_kib(), command.cpu_s()
        answer = command.ask_line(packed)
        got = (command.cpu_s() - cpu, max(0, command.rss_kib(peak=True) - before))
        best = got if best is None else (min(best[0], got[0]), max(best[1], got[1]))
        if best[0] > 5:
            break
    return answer, *best


class Report:
    """Counts, and prints what is worth it."""

    def __init__(self, factor, show_all):
        self.factor, self.show_all = factor, show_all
        self.n = self.n_bad = self.n_refused = 0
        self.worst_s = self.worst_kib = (0, "")

    def add(self, name, answer, spent, kib, problems):
        if answer and answer["error"] and not answer["error"]["message"].strip():
            problems.append("refused without a message")
        if spent > MOST_S * self.factor:
            problems.append("too slow")
        if kib > MOST_KIB * self.factor:
            problems.append("too much memory")
        self.worst_s, self.worst_kib = max(self.worst_s, (spent, name)), max(self.worst_kib, (kib, name))
        self.n += 1
        self.n_bad += bool(problems)
        self.n_refused += bool(answer and answer["error"])
        if problems or self.show_all:
            said = "" if not answer else f"compiled, accepts {answer['accepted']}; " if not answer["error"] else (
                f"refused at {answer['error']['pointer'][:60]!r}: {answer['error']['message'][:120]}; ")
            print(f"{'FAIL' if problems else 'ok  '} {name[:60]}: {spent * 1e3:.1f} ms, {kib / 1024:.1f} MiB; {said}"
                  + "; ".join(problems), flush=True)

    def total(self):
        print(f"{self.n} hostile schemas: {self.n_refused} refused, {self.n_bad} failures; "
              f"worst {self.worst_s[0] * 1e3:.0f} ms ({self.worst_s[1][:60]}), "
              f"{self.worst_kib[0] / 1024:.0f} MiB ({self.worst_kib[1][:60]})")
        return not self.n or self.n_bad > 0


def try_case(command, name, packed, report):
    """One case, on a command that has its vocabulary ready."""
    problems, spent, kib, answer = [], 0, 0, None
    try:
        if command.child is None:
            command.ask({"type": "null"}, ["null"])
        answer, spent, kib = measure(command, packed)
    except CommandFailed as e:
        clean = e.status is not None and e.status > 0 and e.said
        if not (name.startswith(BROKEN) and clean):
            problems.append(str(e))
    report.add(name, answer, spent, kib, problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glm45")
    parser.add_argument("unzstd")
    parser.add_argument("data", type=pathlib.Path, help="the folder tests/data")
    parser.add_argument("--factor", type=float, default=1.0, help="how much wider the bounds are (1)")
    parser.add_argument("--only", default="", help="only cases with this in their names")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds after which no answer is a failure (20)")
    parser.add_argument("--all", action="store_true", help="print every case, not those alone that fail")
    arguments = parser.parse_args()
    report = Report(arguments.factor, arguments.all)
    with tempfile.TemporaryDirectory() as folder:
        model = unpack(arguments.data / "tokenizer.json.zst", arguments.unzstd, folder)
        with Constrain(arguments.glm45, model, arguments.limit) as command:
            for name, packed in cases():
                if arguments.only in name:
                    try_case(command, name, packed, report)
    return report.total()


if __name__ == "__main__":
    sys.exit(main())
