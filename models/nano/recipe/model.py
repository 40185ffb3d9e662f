"""A plain PyTorch GLM-4.5 model for training: every weight maps one to one onto a published tensor.

Owns the forward pass of the trunk and of the next-token-prediction (MTP) layer, and the two-way map between this
module's parameters and the published names. It knows nothing of tasks, tokens or files.

Legend: B rows, T tokens of a row, d d_model, H query heads, K key/value heads, D d_head, E routed experts, F width
of one expert. The routed experts and the shared one are held as one stack of E + 1, so that a mixture layer is two
matrix products: at this size it is faster on a CPU to run all experts and multiply the unchosen ones by zero than
to gather and scatter tokens.
"""
from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Shape:
    """The sizes of a model; the names are those of the published configuration."""

    vocab_size: int = 2048
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    intermediate_size: int = 512
    first_k_dense_replace: int = 1
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 64
    rope_theta: float = 10000.0
    partial_rotary_factor: float = 0.5
    rms_norm_eps: float = 1e-5
    routed_scaling_factor: float = 1.0
    max_position_embeddings: int = 4096

    def as_dict(self) -> dict:
        """For checkpoints, which must restore the shape they were made with."""
        return asdict(self)


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, as the family computes it."""

    def __init__(self, n: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.float()
        return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Half-split rotary embedding of the first part of every head; x [B, H, T, D], cos and sin [B, 1, T, n / 2]."""
    n = cos.shape[-1]
    a, b, rest = x[..., :n], x[..., n:2 * n], x[..., 2 * n:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


class Attention(nn.Module):
    """Grouped-query attention with biases on q, k, v and a norm per head on q and k."""

    def __init__(self, s: Shape):
        super().__init__()
        self.n_head, self.n_kv, self.d_head = s.num_attention_heads, s.num_key_value_heads, s.head_dim
        self.q = nn.Linear(s.hidden_size, self.n_head * self.d_head)
        self.k = nn.Linear(s.hidden_size, self.n_kv * self.d_head)
        self.v = nn.Linear(s.hidden_size, self.n_kv * self.d_head)
        self.o = nn.Linear(self.n_head * self.d_head, s.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.d_head, s.rms_norm_eps)
        self.k_norm = RMSNorm(self.d_head, s.rms_norm_eps)

    def forward(self, x, cos, sin, mask, cache=None):
        n_row, n_tok, _ = x.shape
        q = self.q(x).view(n_row, n_tok, self.n_head, self.d_head)
        k = self.k(x).view(n_row, n_tok, self.n_kv, self.d_head)
        v = self.v(x).view(n_row, n_tok, self.n_kv, self.d_head).transpose(1, 2)
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin).to(v.dtype)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin).to(v.dtype)
        if cache is not None:
            k, v = cache.append(self, k, v)
        group = self.n_head // self.n_kv
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        # Plain products with an added mask: at these lengths faster on a CPU than the fused kernel. The mask goes
        # in as bfloat16 zeros and large negatives, [B, 1, T, n_kv].
        q = (q * self.d_head ** -0.5).flatten(0, 1)
        bias = mask.to(q.dtype).expand(-1, self.n_head, -1, -1).flatten(0, 1)
        s = torch.baddbmm(bias, q, k.flatten(0, 1).mT).softmax(-1)
        y = torch.bmm(s.to(q.dtype), v.flatten(0, 1)).unflatten(0, (n_row, self.n_head))
        return self.o(y.transpose(1, 2).reshape(n_row, n_tok, -1))


class Dense(nn.Module):
    """The plain feed-forward block of the first layer."""

    def __init__(self, s: Shape):
        super().__init__()
        self.gate = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.up = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.down = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Mixture(nn.Module):
    """Sigmoid-routed experts plus one shared expert.

    `bias` moves the choice of experts only, never their weights; training shifts it against the load so that no
    auxiliary loss is needed (the family's own way).
    """

    def __init__(self, s: Shape):
        super().__init__()
        n, f, d = s.n_routed_experts, s.moe_intermediate_size, s.hidden_size
        self.n_expert, self.n_used, self.scale = n, s.num_experts_per_tok, s.routed_scaling_factor
        self.router = nn.Parameter(torch.empty(n, d))
        self.gate = nn.Parameter(torch.empty(n + 1, f, d))   # [E + 1, F, d]; the last one is the shared expert
        self.up = nn.Parameter(torch.empty(n + 1, f, d))
        self.down = nn.Parameter(torch.empty(n + 1, d, f))
        self.register_buffer("bias", torch.zeros(n))
        self.register_buffer("load", torch.zeros(n), persistent=False)

    def forward(self, x):
        n_exp, f, d = self.gate.shape
        with torch.autocast(x.device.type, enabled=False):
            score = torch.sigmoid(x.float() @ self.router.T)                         # [B, T, E]
        chosen = (score.detach() + self.bias).topk(self.n_used, -1).indices
        picked = torch.zeros_like(score).scatter_(-1, chosen, 1.0)
        if self.training:
            self.load.add_(picked.sum((0, 1)))
        w = score * picked
        w = w / (w.sum(-1, keepdim=True) + 1e-20) * self.scale
        w = torch.cat([w, torch.ones_like(w[..., :1])], -1)                          # [B, T, E + 1]
        h = F.silu(F.linear(x, self.gate.view(-1, d))) * F.linear(x, self.up.view(-1, d))
        h = (h.unflatten(-1, (n_exp, f)) * w.to(h.dtype).unsqueeze(-1)).flatten(-2)
        return F.linear(h, self.down.permute(1, 0, 2).reshape(d, -1))


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, s: Shape, dense: bool):
        super().__init__()
        self.norm_attn = RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.attn = Attention(s)
        self.norm_ffn = RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.ffn = Dense(s) if dense else Mixture(s)

    def forward(self, x, cos, sin, mask, cache=None):
        x = x + self.attn(self.norm_attn(x), cos, sin, mask, cache)
        return x + self.ffn(self.norm_ffn(x))


class Nano(nn.Module):
    """Trunk, head and MTP layer. The MTP layer reads the trunk's embedding and head."""

    def __init__(self, s: Shape):
        super().__init__()
        self.shape = s
        d = s.hidden_size
        self.embed = nn.Embedding(s.vocab_size, d)
        self.layers = nn.ModuleList(Layer(s, i < s.first_k_dense_replace) for i in range(s.num_hidden_layers))
        self.norm = RMSNorm(d, s.rms_norm_eps)
        self.head = nn.Linear(d, s.vocab_size, bias=False)
        self.enorm, self.hnorm = RMSNorm(d, s.rms_norm_eps), RMSNorm(d, s.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * d, d, bias=False)
        self.mtp = Layer(s, False)
        self.mtp_norm = RMSNorm(d, s.rms_norm_eps)
        self.reset()

    def reset(self) -> None:
        """Initial weights: wide embedding (0.02 does not start to learn), silent residual branches, small head."""
        for name, p in self.named_parameters():
            if name == "embed.weight":
                nn.init.normal_(p, std=1.0)
            elif name.endswith(("attn.o.weight", "ffn.down", "ffn.down.weight", "bias")):
                nn.init.zeros_(p)
            elif p.dim() >= 2:
                nn.init.normal_(p, std=p.shape[-1] ** -0.5 * (0.5 if name == "head.weight" else 1.0))

    def angles(self, pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """pos [B, T] -> cos, sin [B, 1, T, n_rot / 2] in float32."""
        n = int(self.shape.head_dim * self.shape.partial_rotary_factor)
        i = torch.arange(0, n, 2, device=pos.device, dtype=torch.float32)
        a = pos[:, None, :, None].float() * self.shape.rope_theta ** (-i / n)
        return a.cos(), a.sin()

    def trunk(self, ids, pos, mask, cache=None):
        """ids, pos [B, T], mask broadcast to [B, H, T, n_kv] -> hidden state after the final norm [B, T, d]."""
        cos, sin = self.angles(pos)
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin, mask, cache)
        return self.norm(x)

    def draft(self, hidden, next_ids, pos, mask, cache=None):
        """The MTP layer: hidden state at p and token p + 1 -> normed state whose head gives token p + 2."""
        cos, sin = self.angles(pos)
        x = self.eh_proj(torch.cat([self.enorm(self.embed(next_ids)), self.hnorm(hidden)], -1))
        return self.mtp_norm(self.mtp(x, cos, sin, mask, cache))

    def mixtures(self) -> list[Mixture]:
        """All mixture layers, the MTP layer's included."""
        return [m for m in self.modules() if isinstance(m, Mixture)]


# ---------------------------------------------------------------- published names

def published(model: Nano) -> dict[str, torch.Tensor]:
    """The model's weights under their published names, float32."""
    out: dict[str, torch.Tensor] = {"model.embed_tokens.weight": model.embed.weight,
                                    "model.norm.weight": model.norm.weight, "lm_head.weight": model.head.weight}

    def layer(p: str, m: Layer) -> None:
        out[p + "input_layernorm.weight"] = m.norm_attn.weight
        out[p + "post_attention_layernorm.weight"] = m.norm_ffn.weight
        for x in "qkv":
            out[p + f"self_attn.{x}_proj.weight"] = getattr(m.attn, x).weight
            out[p + f"self_attn.{x}_proj.bias"] = getattr(m.attn, x).bias
        out[p + "self_attn.o_proj.weight"] = m.attn.o.weight
        out[p + "self_attn.q_norm.weight"] = m.attn.q_norm.weight
        out[p + "self_attn.k_norm.weight"] = m.attn.k_norm.weight
        f = m.ffn
        for kind in ("gate", "up", "down"):
            w = getattr(f, kind)
            if isinstance(f, Dense):
                out[p + f"mlp.{kind}_proj.weight"] = w.weight
                continue
            for e in range(f.n_expert):
                out[p + f"mlp.experts.{e}.{kind}_proj.weight"] = w[e]
            out[p + f"mlp.shared_experts.{kind}_proj.weight"] = w[f.n_expert]
        if isinstance(f, Mixture):
            out[p + "mlp.gate.weight"] = f.router
            out[p + "mlp.gate.e_score_correction_bias"] = f.bias

    for i, m in enumerate(model.layers):
        layer(f"model.layers.{i}.", m)
    p = f"model.layers.{len(model.layers)}."
    layer(p, model.mtp)
    out[p + "enorm.weight"], out[p + "hnorm.weight"] = model.enorm.weight, model.hnorm.weight
    out[p + "eh_proj.weight"] = model.eh_proj.weight
    out[p + "shared_head.norm.weight"] = model.mtp_norm.weight
    return {k: v.detach() for k, v in out.items()}


def load_published(model: Nano, tensors: dict[str, torch.Tensor]) -> None:
    """Fills the model from tensors under their published names; the inverse of published()."""
    views = published(model)
    assert views.keys() == tensors.keys(), views.keys() ^ tensors.keys()
    with torch.no_grad():
        for k, v in views.items():
            v.copy_(tensors[k])


def config_json(s: Shape, special: dict[str, int]) -> dict:
    """config.json of the published kind; special gives the ids of the stop and padding tokens by name."""
    j = {"architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "attention_bias": True,
         "attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02, "n_group": 1, "topk_group": 1,
         "n_shared_experts": 1, "norm_topk_prob": True, "num_nextn_predict_layers": 1, "rope_scaling": None,
         "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.54.0",
         "use_cache": True, "use_qk_norm": True,
         "pad_token_id": special["<|endoftext|>"],
         "eos_token_id": [special["<|endoftext|>"], special["<|user|>"], special["<|observation|>"]]}
    j.update(s.as_dict())
    return dict(sorted(j.items()))
