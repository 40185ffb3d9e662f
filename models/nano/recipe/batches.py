"""Packs cases into training rows of a fixed length.

A row holds documents; a document is a shared beginning (the declared tools) and branches (conversations about them).
A token sees the tokens before it in its own branch and in the shared beginning, nothing else, and positions continue
from the beginning: every branch is computed exactly as if it stood alone, and the long declarations are paid once.
"""
from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch

import tasks
from render import Encoder, render, stop_of

IGNORE = -100


@dataclass
class Branch:
    """Token ids, their loss mask, and what the case was (for exact-match figures)."""

    ids: list[int]
    mask: list[int]
    task: str


def encode_group(enc: Encoder, cases: list[dict]) -> tuple[list[int], list[Branch]]:
    """The shared beginning and the branches of a group."""
    head, out = None, []
    for c in cases:
        if "text" in c:
            ids = enc.ids(c["text"])
            done = enc.ids(c["completion"]) + [enc.end_of_text]
            ids, mask = ids + done, [0] * len(ids) + [1] * len(done)
        else:
            ids = enc.ids(render(c["messages"], c["tools"], c["thinking"], False) + stop_of(c["messages"]))
            mask = enc.chat_mask(ids)
        if head is None:
            head = ids[:2] if not c.get("tools") else ids[:ids.index(enc.first_user)]
        assert ids[:len(head)] == head
        out.append(Branch(ids[len(head):], mask[len(head):], c["task"]))
    return head, out


class Row:
    """One row under construction."""

    def __init__(self, n_tok: int) -> None:
        self.n = n_tok
        self.ids, self.next_ids, self.pos = np.zeros(n_tok, np.int64), np.zeros(n_tok, np.int64), np.zeros(n_tok, np.int64)
        self.target = np.full((2, n_tok), IGNORE, np.int64)      # the next token, and the one after it
        self.doc, self.branch = np.full(n_tok, -1, np.int32), np.zeros(n_tok, np.int32)
        self.used = self.n_doc = self.n_branch = 0
        self.tasks: list[str] = []                               # by branch number - 1

    def free(self) -> int:
        return self.n - self.used

    def _put(self, ids: list[int], mask: list[int], start: int, branch: int, after: int) -> None:
        a, n = self.used, len(ids)
        self.ids[a:a + n], self.pos[a:a + n] = ids, np.arange(start, start + n)
        self.next_ids[a:a + n] = ids[1:] + [after]
        m = np.array(mask, bool)
        x = np.array(ids)
        self.target[0, a:a + n - 1][m[1:]] = x[1:][m[1:]]
        self.target[1, a:a + n - 2][m[2:]] = x[2:][m[2:]]
        self.doc[a:a + n], self.branch[a:a + n] = self.n_doc, branch
        self.used += n

    def add(self, head: list[int], branches: list[Branch]) -> int:
        """Adds as many of the branches as fit; returns how many."""
        if not branches or len(head) + len(branches[0].ids) > self.free():
            return 0
        self._put(head, [0] * len(head), 0, 0, branches[0].ids[0])
        count = 0
        for b in branches:
            if len(b.ids) > self.free():
                break
            self.n_branch += 1
            self._put(b.ids, b.mask, len(head), self.n_branch, 0)
            self.tasks.append(b.task)
            count += 1
        self.n_doc += 1
        return count


@dataclass
class Batch:
    """Tensors [B, T] of a batch; mask [B, 1, T, T] is added to the scores: 0 where a token may look."""

    ids: torch.Tensor
    next_ids: torch.Tensor
    pos: torch.Tensor
    mask: torch.Tensor
    target: torch.Tensor      # [2, B, T]
    branch: torch.Tensor
    tasks: list[list[str]]


def stack(rows: list[Row], device: torch.device) -> Batch:
    """Rows to tensors."""
    def put(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(r, name) for r in rows])).to(device)

    doc, branch = put("doc"), put("branch")
    n = doc.shape[1]
    i = torch.arange(n, device=device)
    same = doc[:, :, None] == doc[:, None, :]
    seen = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    allowed = same & seen & (i[:, None] >= i[None, :])
    allowed |= i[:, None] == i[None, :]                      # padding looks at itself, or softmax has nothing
    mask = torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, -1e9)[:, None].bfloat16()
    return Batch(put("ids"), put("next_ids"), put("pos"), mask, put("target").transpose(0, 1).contiguous(), branch,
                 [r.tasks for r in rows])


class Feed:
    """An endless stream of rows drawn from weighted kinds of one split."""

    def __init__(self, enc: Encoder, split: str, seed: int) -> None:
        self.enc, self.split, self.rng = enc, split, random.Random(seed)
        self.left: tuple[list[int], list[Branch]] | None = None

    def draw(self, weights: dict[str, float], n_case: int = 8) -> tuple[list[int], list[Branch]]:
        kind = self.rng.choices(list(weights), list(weights.values()))[0]
        return encode_group(self.enc, tasks.group(self.rng, self.split, kind, n_case))

    def short_row(self, weights: dict[str, float], n_tok: int, row: Row | None = None) -> Row:
        """Fills a row with single conversations until one does not fit; that one starts the next row."""
        row = row or Row(n_tok)
        while row.free() > 24:
            item = self.left or self.draw(weights)
            self.left = None
            if not row.add(*item):
                if len(item[0]) + len(item[1][0].ids) <= n_tok:
                    self.left = item
                break
        return row

    def tool_row(self, weights: dict[str, float], short: dict[str, float], n_tok: int) -> Row:
        """One set of declarations with as many conversations as fit, the rest filled with short ones."""
        row = Row(n_tok)
        while not row.add(*self.draw(weights, 12)):
            pass
        return self.short_row(short, n_tok, row)
