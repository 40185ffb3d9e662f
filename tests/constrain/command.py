"""`glm45 constrain` as a child process: a request line in, an answer line out, with a time limit and its use of memory
and processor. Python's standard library only."""
import json
import os
import pathlib
import selectors
import subprocess
import tempfile
import time

CHUNK = 1 << 16


class CommandFailed(Exception):
    """The command died, hung, or answered what is no answer. The next request starts it anew. status is its exit status
    (below 0: the signal), said what it wrote to stderr."""

    def __init__(self, what, status=None, said=""):
        super().__init__(f"{what} (status {status}){': ' + said if said else ''}")
        self.status, self.said = status, said


def unpack(packed, unzstd, folder):
    """Writes a .zst file's content into the folder and returns the new file's path."""
    out = pathlib.Path(folder) / pathlib.Path(packed).stem
    with open(packed, "rb") as source, open(out, "wb") as target:
        subprocess.run([str(unzstd)], stdin=source, stdout=target, check=True)
    return out


def spelled(value):
    """A value as MaskBench spells it."""
    return json.dumps(value, ensure_ascii=False)


class Constrain:
    """The command with one model. It is started by the first request and restarted after a failure."""

    def __init__(self, glm45, model, limit_s=120.0):
        self.arguments = [str(glm45), "constrain", str(model)]
        self.limit_s = limit_s
        self.child = None
        self.errors = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _start(self):
        self.errors = tempfile.TemporaryFile()
        self.child = subprocess.Popen(self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=self.errors, bufsize=0)
        self.left = b""

    def close(self):
        """Ends the command if it runs."""
        if self.child is None:
            return
        try:
            self.child.stdin.close()
            self.child.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()
        self.errors.close()
        self.child = None

    def _fail(self, what):
        """Says what the command's end was, kills it where it still runs, and raises."""
        if self.child.poll() is None and "no answer" in what:
            self.child.kill()
        try:
            status = self.child.wait(2)
        except subprocess.TimeoutExpired:
            self.child.kill()
            status = self.child.wait()
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace").strip()[-2000:]
        self.close()
        raise CommandFailed(what, status, said)

    def _line(self):
        """The next line of its output."""
        end = time.monotonic() + self.limit_s
        with selectors.DefaultSelector() as ready:
            ready.register(self.child.stdout, selectors.EVENT_READ)
            pieces = [self.left]
            while b"\n" not in pieces[-1]:
                if not ready.select(max(0.0, end - time.monotonic())):
                    self._fail(f"no answer within {self.limit_s:g} s")
                piece = os.read(self.child.stdout.fileno(), CHUNK)
                if not piece:
                    self._fail("the command ended without an answer")
                pieces.append(piece)
        line, _, self.left = b"".join(pieces).partition(b"\n")
        return line

    def _write(self, line):
        view = memoryview(line)
        while view:
            view = view[self.child.stdin.write(view):]

    def ask_line(self, line):
        """The answer to a request that is JSON text already (bytes without a newline)."""
        if self.child is None:
            self._start()
        try:
            self._write(line + b"\n")
        except BrokenPipeError:
            self._fail("the command ended while it was asked")
        got = self._line()
        try:
            answer = json.loads(got)
            answer["error"] is None or answer["error"]["pointer"] + answer["error"]["message"]
        except (ValueError, KeyError, TypeError):
            self._fail(f"no answer in the agreed form: {got[:300]!r}")
        return answer

    def ask(self, schema, texts=(), **more):
        """The answer about a schema (a Python value) and texts. Anything that is not ASCII goes as an escape."""
        answer = self.ask_line(json.dumps({"schema": schema, "texts": list(texts), **more}).encode())
        if answer["error"] is None and len(answer["accepted"]) != len(texts):
            self._fail(f"{len(answer['accepted'])} verdicts on {len(texts)} texts")
        return answer

    # ---- what it uses, by Linux' /proc

    def cpu_s(self):
        """Seconds of processor time that its threads have used (threads that ended are not counted)."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.child.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def rss_kib(self, peak=False):
        """Memory that it holds, or the most it held since forget_peak."""
        field = "VmHWM:" if peak else "VmRSS:"
        for line in pathlib.Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        raise CommandFailed("no memory figure in /proc")

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")
