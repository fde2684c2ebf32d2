"""GPT-2: the network, its loss, and the model_fn of the one TPUEstimator, as plain formulas.

Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf.
Names, shapes and starting values of the weights stand in models/weights.py; they are OpenAI's checkpoint format.

GPUs, TPUs, SavedModels and small tensors run these formulas.  On CPUs a function marked `@cpu.faster(f)` is replaced by
f, a function of models/cpu/ with the same arguments, which tests/models/cpu/test_pairs.py holds to the same values and
gradients: whoever changes one of the two changes both.

B batch, T positions, S positions attended to, C width, H heads, D = C / H head size, V vocabulary.
`weights` and `w` are {name: float32 tensor}, of the whole network and of one layer.
"""
import math

import tensorflow.compat.v1 as tf

from configs.constants import HIDDEN, IGNORED, NORM_EPSILON
from models import cpu, dropout, initial_values, metrics, optimizers, replicas
from models.shapes import shape_of
from models.weights import layer_weights

TRAIN, EVAL, PREDICT = tf.estimator.ModeKeys.TRAIN, tf.estimator.ModeKeys.EVAL, tf.estimator.ModeKeys.PREDICT


@cpu.faster(cpu.norm)
def norm(x, g, b):
    """LayerNorm over the last axis of x [..., C]; its statistics are float32 whatever the dtype of x."""
    wide = tf.cast(x, tf.float32)
    centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
    return tf.cast(centred * tf.math.rsqrt(variance + NORM_EPSILON) * g + b, x.dtype)


def linear(x, w, b):
    """x [B, T, I] times w [1, I, O] plus b [O]; the leading 1 is part of OpenAI's checkpoint format."""
    batch, time, width = shape_of(x)
    rows = tf.matmul(tf.reshape(x, [-1, width]), tf.cast(tf.squeeze(w, 0), x.dtype))  # [B * T, O]
    return tf.reshape(tf.nn.bias_add(rows, tf.cast(b, x.dtype)), [batch, time, w.shape[2]])


def gelu(x):
    """The tanh approximation, with which GPT-2 was trained (https://arxiv.org/abs/1606.08415), in float32."""
    wide = tf.cast(x, tf.float32)
    return tf.cast(0.5 * wide * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide ** 3))), x.dtype)


def split_heads(x, n_head):
    batch, time, width = shape_of(x)
    return tf.transpose(tf.reshape(x, [batch, time, n_head, width // n_head]), [0, 2, 1, 3])  # [B, H, T, D]


def merge_heads(x):
    batch, n_head, time, size = shape_of(x)
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch, time, n_head * size])  # [B, T, C]


def attention(q, k, v, mask, drop):
    """softmax(q k^T / sqrt(D) + mask) v: q [B, H, T, D], k and v [B, H, S, D]; the softmax is computed in float32."""
    scores = tf.matmul(q * tf.cast(q.shape[-1] ** -0.5, q.dtype), k, transpose_b=True)  # [B, H, T, S]
    weights = tf.nn.softmax(tf.cast(scores, tf.float32) + mask)
    return tf.matmul(drop(tf.cast(weights, q.dtype)), v)  # [B, H, T, D]


def mask_of(visible):
    """float32 of the shape of `visible`, bool [T, S] or [B, 1, T, S]: what attention adds to the scores."""
    return tf.where_v2(visible, 0.0, HIDDEN)


def causal_mask(time):
    """The mask by which each position sees itself and those before it: [T, T]."""
    return mask_of(tf.range(time) <= tf.range(time)[:, None])


@cpu.faster(cpu.attn)
def attn(h, w, n_head, drop, cache=None):
    """h + self-attention of norm(h), [B, T, C].  With a `decoding.Cache`, what it holds is attended to as well."""
    x = norm(h, w["ln_1/g"], w["ln_1/b"])
    qkv = linear(x, w["attn/c_attn/w"], w["attn/c_attn/b"])  # [B, T, 3C]
    q, k, v = (split_heads(part, n_head) for part in tf.split(qkv, 3, 2))  # [B, H, T, D] each
    k, v, mask = cache.append(k, v) if cache else (k, v, causal_mask(shape_of(h)[1]))
    x = merge_heads(attention(q, k, v, mask, drop.attention))  # [B, T, C]
    return h + drop.attn(linear(x, w["attn/c_proj/w"], w["attn/c_proj/b"]))


@cpu.faster(cpu.mlp)
def mlp(h, w, drop):
    """h + MLP of norm(h), [B, T, C]."""
    x = norm(h, w["ln_2/g"], w["ln_2/b"])
    x = gelu(linear(x, w["mlp/c_fc/w"], w["mlp/c_fc/b"]))  # [B, T, 4C]
    return h + drop.mlp(linear(x, w["mlp/c_proj/w"], w["mlp/c_proj/b"]))


def block(h, w, n_head, drop, cache=None):
    """One layer: h [B, T, C] -> [B, T, C]."""
    return mlp(attn(h, w, n_head, drop, cache), w, drop)


def embed(weights, tokens, config, drop=dropout.NONE, places=None):
    """tokens int32 [B, T] at `places` int32 [B, T] (None: 0, 1, ...) -> [B, T, C] in the dtype of the activations."""
    wpe = weights["wpe"]
    h = tf.gather(weights["wte"], tokens) \
        + (wpe[:shape_of(tokens)[1]] if places is None else tf.gather(wpe, places))  # [B, T, C]
    # Differs from the original: dropout on the sum, not on the table that the output layer shares.
    return tf.cast(drop.embedding(h), config.precision)


def transformer(weights, tokens, config, drop=dropout.NONE):
    """tokens int32 [B, T <= n_ctx] -> hidden states behind the last norm, [B, T, C]."""
    run = dropout.recompute(block) if config.recompute else block
    h = embed(weights, tokens, config, drop)
    for i in range(config.n_layer):
        h = run(h, layer_weights(weights, i), config.n_head, drop.layer(i))
    return norm(h, weights["ln_f/g"], weights["ln_f/b"])


def logits(hidden, wte):
    """hidden [..., C], wte float32 [V, C] -> float32 [..., V]: the table of the embedding is the output layer, too.

    In float32 for bfloat16 activations as well: eight bits of a logit are too few to tell the likeliest tokens apart.
    """
    *shape, width = shape_of(hidden)
    rows = tf.matmul(tf.reshape(tf.cast(hidden, tf.float32), [-1, width]), wte, transpose_b=True)
    return tf.reshape(rows, [*shape, wte.shape[0]])


@cpu.faster(cpu.token_losses)
def token_losses(hidden, wte, labels):
    """Cross-entropy of each label, int32 [B, T] -> float32 [B, T]; 0 without gradient where it is IGNORED."""
    counted = tf.not_equal(labels, IGNORED)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        logits=logits(hidden, wte), labels=tf.where_v2(counted, labels, tf.zeros_like(labels)))
    return tf.where_v2(counted, losses, 0.0)


@cpu.faster(cpu.mean_loss)
def mean_loss(hidden, wte, labels):
    """What training minimises: the mean of token_losses, float32 []."""
    return tf.reduce_mean(token_losses(hidden, wte, labels))


def make_model_fn(config, sampler=None):
    """The model_fn of TPUEstimator for all three modes; `sampler` is the one of models/decoding.py, for predictions."""
    def model_fn(features, labels, mode, params):
        if mode == PREDICT:
            return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=sampler(features, use_tpu=params["use_tpu"]))
        weights = initial_values.create_variables(config)
        if mode == EVAL:
            return eval_spec(weights, features, labels, config)
        return train_spec(weights, features, labels, config, use_tpu=params["use_tpu"])
    return model_fn


def train_spec(weights, tokens, labels, config, *, use_tpu):
    step = tf.train.get_or_create_global_step()
    rows = tokens.shape[0]

    def loss_fn(weights, tokens, labels, micro_batch):
        """The loss of a micro-batch, which stands in the global batch behind those of other replicas and before it."""
        first_row = replicas.number(use_tpu) * rows + micro_batch * tokens.shape[0]
        # The one thing that `faster` cannot hold: on CPUs the table's two gradients are summed in place.
        embedding, output = cpu.two_uses(weights["wte"])
        drop = dropout.of_step(config, step, first_row)
        hidden = transformer({**weights, "wte": embedding}, tokens, config, drop)
        return mean_loss(hidden, output, labels)

    slices = optimizers.micro_batches(config, rows)
    loss, gradients = optimizers.gradients(loss_fn, weights, (tokens, labels), slices)
    loss, *gradients = replicas.mean([loss, *gradients], use_tpu)
    loss = tf.debugging.check_numerics(loss, "loss")  # before the update, so that it does not spoil the weights
    step_before = tf.identity(step)
    with tf.control_dependencies([loss, step_before]):
        train_op, shown = optimizers.train_op(gradients, list(weights.values()), config)
    host_call = metrics.show({**shown, "loss": loss}, step_before, config.model_dir, use_tpu)
    return tf.estimator.tpu.TPUEstimatorSpec(TRAIN, loss=loss, train_op=train_op, host_call=host_call)


def eval_spec(weights, tokens, labels, config):
    losses = token_losses(transformer(weights, tokens, config), weights["wte"], labels)
    counts = tf.cast(tf.not_equal(labels, IGNORED), tf.float32)
    loss = tf.reduce_sum(losses) / tf.maximum(tf.reduce_sum(counts), 1.0)
    return tf.estimator.tpu.TPUEstimatorSpec(EVAL, loss=loss,
                                             eval_metrics=(metrics.loss_and_perplexity, [losses, counts]))
