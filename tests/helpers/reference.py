"""Random weights, and what ours is held against in NumPy float64: GPT-2, and its optimizers by the papers."""
import numpy as np

from models.checkpoints import numpy_gpt2


def random_weights(shapes, seed=0, scale=0.2):
    """{name: float32 array}, large enough that every part of the network matters."""
    random = np.random.RandomState(seed)
    return {name: (random.randn(*shape) * scale + (name.endswith("/g"))).astype(np.float32)
            for name, shape in shapes.items()}


gelu, layer_norm, softmax = numpy_gpt2.gelu, numpy_gpt2.layer_norm, numpy_gpt2.softmax


def logits(weights, tokens, *, layers, heads):
    """tokens [B, T] -> [B, T, V] in float64."""
    return numpy_gpt2.logits(lambda name: weights[name].astype(np.float64), tokens, n_layer=layers, n_head=heads)


def adamw(weight, grads, *, rate, decay, beta1, beta2, epsilon):
    """The weight after one update per gradient; decay is applied whatever the rank."""
    w, m, v = weight.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(grads, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g ** 2
        w = w - rate * decay * w
        w = w - rate * (m / (1 - beta1 ** t)) / (np.sqrt(v / (1 - beta2 ** t)) + epsilon)
    return w


def adafactor(weight, grads, *, rate, decay, beta1, decay_rate):
    """Algorithms 4 and 5 of https://arxiv.org/abs/1804.04235, the matrix being the last two axes; decay_rate(t)."""
    w, m = weight.astype(np.float64), 0.0
    rows = columns = full = 0.0
    for t, g in enumerate(grads, 1):
        b, squared = decay_rate(t), g.astype(np.float64) ** 2 + 1e-30
        if w.ndim >= 2:
            w = w - rate * decay * w
            rows = b * rows + (1 - b) * squared.sum(-1)  # the paper's sums, not means
            columns = b * columns + (1 - b) * squared.sum(-2)
            second = rows[..., None] * columns[..., None, :] / rows.sum(-1)[..., None, None]
        else:
            full = second = b * full + (1 - b) * squared
        u = g / np.sqrt(second)
        u = u / max(1.0, np.sqrt((u ** 2).mean()))
        u = rate * max(1e-3, np.sqrt((w ** 2).mean())) * u
        m = beta1 * m + (1 - beta1) * u
        w = w - m
    return w


def muon(weight, grads, *, rate, decay):
    """The matrix [1, R, C] after one update per gradient by https://kellerjordan.github.io/posts/muon/, the step scaled
    as in https://arxiv.org/abs/2502.16982, section 2.2.
    """
    w, total = weight[0].astype(np.float64), 0.0
    for g in grads:
        g = g[0].astype(np.float64)
        total = 0.95 * total + g
        x = g + 0.95 * total
        w = w - rate * decay * w - rate * 0.2 * np.sqrt(max(w.shape)) * orthogonal(x / np.linalg.norm(x))
    return w[None]


def orthogonal(x):
    """The matrix [R, C] of norm 1 behind Muon's five Newton-Schulz steps."""
    if x.shape[0] > x.shape[1]:
        return orthogonal(x.T).T
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x
