"""GPT-2 in NumPy, written from the papers: what the network is held against.  It shares nothing with models/gpt2.py.

Attention: https://arxiv.org/abs/1706.03762, GELU: https://arxiv.org/abs/1606.08415, layer norm:
https://arxiv.org/abs/1607.06450.  T tokens, C width, H heads, D head size, V vocabulary.
"""
import math

import numpy as np

from configs.constants import NORM_EPSILON


def layer_norm(x, g, b):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + NORM_EPSILON) * g + b


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attention(q, k, v):
    """[..., T, D] each -> [..., T, D]: each position looks at itself and at those before it."""
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # [..., T, T]
    scores[..., np.triu(np.ones(scores.shape[-2:], bool), 1)] = -np.inf
    return softmax(scores) @ v


def logits(read, tokens, *, n_layer, n_head):
    """int [..., T] -> [..., T, V] in the dtype of the weights, which read(name) gives one at a time."""
    def norm(x, name):
        return layer_norm(x, read(name + "/g"), read(name + "/b"))

    def linear(x, name):
        return x @ read(name + "/w")[0] + read(name + "/b")

    def heads(x):
        return np.moveaxis(x.reshape(*x.shape[:-1], n_head, -1), -2, -3)  # [..., H, T, D]
    x = read("wte")[tokens] + read("wpe")[:tokens.shape[-1]]  # [..., T, C]
    for i in range(n_layer):
        q, k, v = map(heads, np.split(linear(norm(x, f"h{i}/ln_1"), f"h{i}/attn/c_attn"), 3, -1))
        mixed = np.moveaxis(attention(q, k, v), -3, -2).reshape(x.shape)  # [..., T, C]
        x = x + linear(mixed, f"h{i}/attn/c_proj")
        x = x + linear(gelu(linear(norm(x, f"h{i}/ln_2"), f"h{i}/mlp/c_fc")), f"h{i}/mlp/c_proj")
    return norm(x, "ln_f") @ read("wte").T
