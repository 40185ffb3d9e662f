#!/usr/bin/env python3
"""Compares the exported model with transformers' Glm4MoeForCausalLM: logits and greedy text of a few prompts.

    python3 check_transformers.py [MODEL_DIR]

Also checks that transformers' tokenizer and template loader give the same ids for a prompt as the recipe does.
"""
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from eval_torch import mask_of
from export import load
from render import Encoder, render

PROMPTS = ([{"role": "user", "content": "What is 23 + 58?"}],
           [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}])


@torch.no_grad()
def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    ours = load(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    enc = Encoder(tokenizer)
    fast = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    fast.chat_template = (folder / "chat_template.jinja").read_text()
    worst = 0.0
    for messages in PROMPTS:
        ids = enc.ids(render(messages, None, True, True))
        text = fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)
        assert fast.encode(text, add_special_tokens=False) == ids
        x = torch.tensor([ids])
        n = len(ids)
        mine = ours.head(ours.trunk(x, torch.arange(n)[None], mask_of(torch.tensor([0]), n, n)))
        worst = max(worst, float((mine - theirs(x).logits).abs().max()))
        out = theirs.generate(x, max_new_tokens=60, do_sample=False)
        print(repr(tokenizer.decode(out[0, n:].tolist(), skip_special_tokens=False)))
    print(f"largest difference of a logit: {worst:.2e}")
    assert worst < 1e-3


if __name__ == "__main__":
    main()
