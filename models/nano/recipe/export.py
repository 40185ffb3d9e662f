#!/usr/bin/env python3
"""Writes a training checkpoint as a published-style folder: model.safetensors (bfloat16), config.json,
generation_config.json.

    python3 export.py CHECKPOINT.pt OUT_DIR

The tokenizer and the chat template are expected beside them already (make_tokenizer.py).
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from model import Nano, Shape, config_json, load_published, published


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def export(model: Nano, out: Path) -> int:
    """Writes the three files; returns the size of the weights in bytes."""
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    special = {t: tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|user|>", "<|observation|>")}
    tensors = {k: v.cpu().to(torch.float32 if k.endswith("e_score_correction_bias") else torch.bfloat16).contiguous()
               for k, v in published(model).items()}
    part = out / "model.safetensors.part"
    save_file(tensors, str(part), metadata={"format": "pt"})
    part.chmod(0o644)      # the writer of safetensors makes files that only their owner can read
    part.rename(out / "model.safetensors")
    config = config_json(model.shape, special)
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", {
        "do_sample": False, "eos_token_id": config["eos_token_id"], "pad_token_id": config["pad_token_id"],
        "transformers_version": config["transformers_version"]})
    return (out / "model.safetensors").stat().st_size


def load(folder: Path) -> Nano:
    """The model of an exported folder, float32."""
    config = json.loads((folder / "config.json").read_text())
    model = Nano(Shape(**{k: config[k] for k in Shape().as_dict()}))
    load_published(model, load_file(str(folder / "model.safetensors")))
    return model.eval()


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    saved = torch.load(sys.argv[1], map_location="cpu")
    model = Nano(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    print(f"{export(model, Path(sys.argv[2])):,} bytes of weights, step {saved['step']}")


if __name__ == "__main__":
    main()
