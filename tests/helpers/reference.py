"""GPT-2 and its optimizers once more, in NumPy float64, straight from the papers: what ours are held against."""
import numpy as np


def random_weights(shapes, seed=0, scale=0.2):
    """{name: float32 array}, large enough that every part of the network matters."""
    random = np.random.RandomState(seed)
    return {name: (random.randn(*shape) * scale + (name.endswith("/g"))).astype(np.float32)
            for name, shape in shapes.items()}


def layer_norm(x, g, b):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * g + b


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logits(weights, tokens, *, layers, heads):
    """tokens [B, T] -> [B, T, V], position by position and head by head."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    batch, time = tokens.shape
    x = w["wte"][tokens] + w["wpe"][:time]
    for i in range(layers):
        p = "h%d/" % i
        y = layer_norm(x, w[p + "ln_1/g"], w[p + "ln_1/b"]) @ w[p + "attn/c_attn/w"][0] + w[p + "attn/c_attn/b"]
        out = np.zeros_like(x)
        size = x.shape[-1] // heads
        for b in range(batch):
            for head in range(heads):
                q, k, v = (y[b, :, part * x.shape[-1] + head * size:][:, :size] for part in range(3))
                for t in range(time):
                    a = softmax(q[t] @ k[:t + 1].T / np.sqrt(size))
                    out[b, t, head * size:(head + 1) * size] = a @ v[:t + 1]
        x = x + out @ w[p + "attn/c_proj/w"][0] + w[p + "attn/c_proj/b"]
        y = gelu(layer_norm(x, w[p + "ln_2/g"], w[p + "ln_2/b"]) @ w[p + "mlp/c_fc/w"][0] + w[p + "mlp/c_fc/b"])
        x = x + y @ w[p + "mlp/c_proj/w"][0] + w[p + "mlp/c_proj/b"]
    return layer_norm(x, w["ln_f/g"], w["ln_f/b"]) @ w["wte"].T


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
