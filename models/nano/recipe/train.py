#!/usr/bin/env python3
"""Trains the small model from nothing within a budget of minutes.

The learning rate follows the clock, not the step count: it is constant over the first part of the budget and falls
to zero over the rest, where most of the accuracy comes from. A run that was stopped continues from its checkpoint
with the same command.
"""
from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

import tasks
from batches import IGNORE, Batch, Feed, stack
from export import export
from model import Nano, Shape
from render import Encoder

SHORT = {"arith": 0.36, "arith_direct": 0.04, "talk": 0.11, "words": 0.20, "turns": 0.11, "code": 0.18}
FIRST_TOOLS = {"tool1": 0.8, "tool2": 0.2}
TOOLS = {"tool1": 0.30, "tool2": 0.50, "tool_turns": 0.20}
N_SHORT, N_TOOL = 192, 640          # tokens of a row
# The curriculum: until which part of the budget, short rows and tool rows per step, kinds of tool rows. Short rows
# come first because copying must form before tools can be learned; tools get more of the end, they are the hardest.
STAGES = ((0.06, 24, 0, TOOLS), (0.20, 12, 4, FIRST_TOOLS), (0.65, 12, 4, TOOLS), (1.0, 10, 6, TOOLS))
MTP_WEIGHT = 0.2


# ---------------------------------------------------------------- optimizer

def orthogonal(g: torch.Tensor) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrices to a stack [N, rows, columns], by five Newton-Schulz steps."""
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal; for matrices and stacks of matrices."""

    def __init__(self, params, lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["m"] = torch.zeros_like(p)
                state["m"].lerp_(p.grad, 1 - group["momentum"])
                u = p.grad.lerp(state["m"], group["momentum"])
                by_shape[p.shape[-2:]].append((p, u.view(-1, *p.shape[-2:])))
            for shape, items in by_shape.items():
                done = orthogonal(torch.cat([u for _, u in items]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for (p, _), u in zip(items, done.split([u.shape[0] for _, u in items])):
                    p.add_(u.view_as(p), alpha=-group["lr"] * scale)


def optimizers(model: Nano, lr_matrix: float, lr_rest: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, Adam for embedding, head, router, norms and biases."""
    matrix, rest = [], []
    for name, p in model.named_parameters():
        inner = p.dim() >= 2 and not name.startswith(("embed", "head")) and not name.endswith("router")
        (matrix if inner else rest).append(p)
    return [Muon(matrix, lr_matrix), torch.optim.Adam(rest, lr_rest, betas=(0.9, 0.98), eps=1e-8)]


def balance(model: Nano, rate: float) -> None:
    """Moves every expert's selection bias against its load: the family's balance without an auxiliary loss."""
    with torch.no_grad():
        for m in model.mixtures():
            m.bias.add_(rate * torch.sign(m.load.mean() - m.load))
            m.bias.sub_(m.bias.mean())
            m.load.zero_()


# ---------------------------------------------------------------- one batch

def losses(model: Nano, b: Batch) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Summed cross-entropy of the trunk and of the MTP layer over the taught tokens, and how many the trunk had."""
    hidden = model.trunk(b.ids, b.pos, b.mask)
    draft = model.draft(hidden, b.next_ids, b.pos, b.mask)
    out = []
    for x, target in ((hidden, b.target[0]), (draft, b.target[1])):
        at = (target.flatten() != IGNORE).nonzero()[:, 0]
        logits = model.head(x.flatten(0, 1)[at])
        out.append(F.cross_entropy(logits.float(), target.flatten()[at], reduction="sum"))
    return out[0], out[1], int((b.target[0] != IGNORE).sum())


@torch.no_grad()
def exact(model: Nano, batches: list[Batch], autocast) -> tuple[dict[str, float], float]:
    """Share of branches whose every taught token is the model's first choice, by task; and of right MTP drafts.

    All taught tokens right under the given beginning is the same as greedy decoding giving them.
    """
    model.eval()
    good, total, drafted, accepted = defaultdict(int), defaultdict(int), 0, 0
    for b in batches:
        with autocast():
            hidden = model.trunk(b.ids, b.pos, b.mask)
            first = model.head(hidden).argmax(-1)
            second = model.head(model.draft(hidden, b.next_ids, b.pos, b.mask)).argmax(-1)
        wrong = (first != b.target[0]) & (b.target[0] != IGNORE)
        at = b.target[1] != IGNORE
        drafted += int(at.sum())
        accepted += int((second == b.target[1])[at].sum())
        for i, names in enumerate(b.tasks):
            bad = set(b.branch[i][wrong[i]].tolist())
            for n, task in enumerate(names):
                total[task] += 1
                good[task] += n + 1 not in bad
    model.train()
    return {t: good[t] / total[t] for t in sorted(total)}, accepted / max(1, drafted)


def dev_batches(enc: Encoder, device: torch.device, n_short: int, n_tool: int, split: str = "dev") -> list[Batch]:
    """Fixed rows of a split that is not trained on."""
    feed = Feed(enc, split, 77)
    out = [stack([feed.short_row(SHORT, N_SHORT) for _ in range(12)], device) for _ in range(n_short)]
    return out + [stack([feed.tool_row(TOOLS, SHORT, N_TOOL) for _ in range(4)], device) for _ in range(n_tool)]


# ---------------------------------------------------------------- the run

def rate_at(progress: float, hold: float) -> float:
    """Factor on the learning rate: one until `hold`, then linearly to zero."""
    return 1.0 if progress < hold else max(0.0, (1 - progress) / (1 - hold))


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).parent.parent
    p.add_argument("--minutes", type=float, default=86, help="budget of training time (default %(default)s)")
    p.add_argument("--model", type=Path, default=here, help="folder of tokenizer.json (default %(default)s)")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt; resumed when present")
    p.add_argument("--export", type=Path, help="folder that receives the exported model at every save (default: none)")
    p.add_argument("--save-minutes", type=float, default=8, help="time between saves (default %(default)s)")
    p.add_argument("--hold", type=float, default=0.45, help="part of the budget at the full learning rate")
    p.add_argument("--lr-matrix", type=float, default=0.02)
    p.add_argument("--lr-rest", type=float, default=3e-3)
    p.add_argument("--init", type=Path, help="start from the weights of this checkpoint (a fine-tune)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--processes", type=int, default=2, help="training processes; 1 on a GPU (default %(default)s)")
    return p.parse_args()


def save(path: Path, model: Nano, opts, elapsed: float, step: int) -> None:
    """Writes the checkpoint in one move, so that a stop at any time leaves a whole one."""
    part = path.with_suffix(".part")
    torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "elapsed": elapsed, "step": step,
                "shape": model.shape.as_dict()}, part)
    part.rename(path)


class Team:
    """Processes that train one model together, one thread each.

    On a CPU at this size two processes beat one process with two threads, and by far on a shared machine: they meet
    once per step instead of twice per operation.
    """

    def __init__(self, model: Nano, rank: int, n: int) -> None:
        self.rank, self.n = rank, n
        self.params = list(model.parameters())
        self.loads = [m.load for m in model.mixtures()]

    def share(self, elapsed: float) -> float:
        """Averages the gradients, adds up the expert loads; returns the first process's clock."""
        if self.n == 1:
            return elapsed
        flat = torch.cat([p.grad.flatten() for p in self.params] + [x.flatten() * self.n for x in self.loads]
                         + [torch.tensor([elapsed * self.n if self.rank == 0 else 0.0])])
        dist.all_reduce(flat)
        flat /= self.n
        at = 0
        for x in [p.grad for p in self.params] + self.loads:
            x.copy_(flat[at:at + x.numel()].view_as(x))
            at += x.numel()
        return float(flat[-1])


def run(rank: int, a: argparse.Namespace) -> None:
    """One process's part of the training."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    if a.processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{a.out.resolve()}/meet", rank=rank, world_size=a.processes)
    torch.manual_seed(a.seed)
    tokenizer = tasks.setup(a.model / "tokenizer.json")
    enc = Encoder(tokenizer)
    model = Nano(Shape(vocab_size=tokenizer.get_vocab_size())).to(device)
    opts = optimizers(model, a.lr_matrix, a.lr_rest)
    base = [o.param_groups[0]["lr"] for o in opts]
    path, elapsed, step = a.out / "checkpoint.pt", 0.0, 0
    say = print if rank == 0 else (lambda *_, **__: None)
    if path.exists():
        c = torch.load(path, map_location=device)
        model.load_state_dict(c["model"])
        for o, s in zip(opts, c["opts"]):
            o.load_state_dict(s)
        elapsed, step = c["elapsed"], c["step"]
        say(f"resumed at step {step}, {elapsed / 60:.1f} min", flush=True)
    elif a.init:
        model.load_state_dict(torch.load(a.init, map_location=device)["model"])
    say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters on {device}", flush=True)

    def autocast():
        return torch.autocast(device.type, torch.bfloat16)

    team = Team(model, rank, a.processes)
    feed = Feed(enc, "train", (a.seed * 1000003 + step) * 16 + rank)
    dev = dev_batches(enc, device, 3, 6) if rank == 0 else []
    budget, last_save, last_log = a.minutes * 60, elapsed, elapsed
    sums, tokens = [0.0, 0.0, 0], 0
    model.train()
    while elapsed < budget:
        start = time.time()
        progress = elapsed / budget
        _, n_short, n_tool, mix = next(stage for stage in STAGES if progress < stage[0])
        batches = [stack([feed.short_row(SHORT, N_SHORT) for _ in range(n_short // a.processes)], device)]
        if n_tool:
            rows = [feed.tool_row(mix, SHORT, N_TOOL) for _ in range(n_tool // a.processes)]
            batches.append(stack(rows, device))
        n_all = sum(int((b.target[0] != IGNORE).sum()) for b in batches)
        for b in batches:
            with autocast():
                main_loss, draft_loss, n = losses(model, b)
            ((main_loss + MTP_WEIGHT * draft_loss) / n_all).backward()
            sums = [sums[0] + main_loss.item(), sums[1] + draft_loss.item(), sums[2] + n]
            tokens += b.ids.numel() * a.processes
        elapsed = team.share(elapsed)
        factor = rate_at(progress, a.hold) * min(1.0, (step + 1) / 100)
        for o, lr in zip(opts, base):
            o.param_groups[0]["lr"] = lr * factor
            o.step()
            o.zero_grad(set_to_none=True)
        balance(model, 1e-3 * factor)
        step += 1
        if step % 20 == 0:
            say(f"{elapsed / 60:6.2f} min  step {step:6d}  lr x{factor:.3f}  loss {sums[0] / sums[2]:.4f}  "
                f"mtp {sums[1] / sums[2]:.4f}  {tokens / max(1e-9, elapsed - last_log):6.0f} tokens/s", flush=True)
            sums, tokens, last_log = [0.0, 0.0, 0], 0, elapsed
        # All processes see the same clock (the first one's, as of the last step), so they save and stop together.
        if elapsed - last_save > a.save_minutes * 60 or elapsed >= budget:
            last_save = elapsed
            if rank == 0:
                save(path, model, opts, elapsed, step)
                if a.export:
                    export(model, a.export)
                figures, draft = exact(model, dev, autocast)
                say(f"{elapsed / 60:6.2f} min  dev " + "  ".join(f"{t} {v:.0%}" for t, v in figures.items())
                    + f"  mtp {draft:.1%}", flush=True)
        elapsed += time.time() - start


def main() -> None:
    a = parse()
    a.out.mkdir(parents=True, exist_ok=True)
    if a.processes == 1:
        run(0, a)
        return
    (a.out / "meet").unlink(missing_ok=True)
    # Ending this process must end the workers: they are daemons, which a normal exit takes along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    torch.multiprocessing.spawn(run, (a,), nprocs=a.processes, daemon=True)


if __name__ == "__main__":
    main()
