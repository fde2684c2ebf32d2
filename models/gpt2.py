"""GPT-2 as a pure function of its weights, its loss, and the model_fn of the one TPUEstimator.

Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf;
the weights' names and shapes stand in models/weights.py.

B batch, T new positions, C width, H heads, D head size, V vocabulary, L layers.
"""
import functools

import tensorflow.compat.v1 as tf
from tensorflow.compiler.tf2xla.python import xla

from models import metrics, optimizers, sampling
from models import weights as weight_format
from models.cpu import attention
from models.cpu import block as layers
from models.cpu import loss as lm_head
from models.cpu import packed as kept


def create_variables(config):
    """name -> float32 variable for every weight.  The initial values depend on the config's seed alone."""
    def initialiser(weight, number):
        def values(shape, dtype=None, partition_info=None):
            if not weight.deviation:
                return tf.fill(shape, weight.mean)
            seed = tf.stack([config.seed, number]) + layers.unfolded_zero()
            noise = tf.random.stateless_normal(shape, seed, alg=layers.RANDOM)
            return noise * weight.deviation
        return values

    with tf.variable_scope(weight_format.SCOPE, reuse=tf.AUTO_REUSE, use_resource=True):
        return {weight.name: tf.get_variable(weight.name, weight.shape, initializer=initialiser(weight, number))
                for number, weight in enumerate(weight_format.weight_list(config))}


def activations_dtype(config):
    return tf.bfloat16 if config.precision == "bfloat16" else tf.float32


def cast_weights(variables, config):
    """Tensors to evaluate and generate with: projections in the activations' dtype, cast once and not in every step of
    a loop, as layers.product would; embeddings, biases and norms stay float32."""
    dtype = activations_dtype(config)
    return {name: tf.cast(value, dtype) if value.shape.rank == 3 else tf.identity(value)
            for name, value in variables.items()}


def keep_weights(variables, config):
    """Weights to generate with, token by token: as cast_weights, but what is cast is so once for a session, in which
    the variables must not change any more.

    Local variables hold them, so this is for CPUs and GPUs alone, and for graphs whose local variables are initialised
    after the weights.  Matrices in bfloat16 stand there transposed, [O, I]: oneDNN reads that up to twice as fast for
    few rows.  Where kept.Kept can be used, they are that, and there is "output", for lm_head.quick_logits.
    """
    dtype, weights = activations_dtype(config), cast_weights(variables, config)
    usable, wte = kept.usable(dtype), weights["wte"]

    def cast(value):
        return tf.Variable(tf.cast(value, dtype), trainable=False, use_resource=True,
                           collections=[tf.GraphKeys.LOCAL_VARIABLES]).read_value()
    if dtype != tf.float32:
        for name in filter(lambda name: "/c_" in name, weights):
            matrix = weights[name].shape.rank == 3
            weights[name] = cast(tf.transpose(weights[name][0]) if matrix else weights[name])
            if matrix and usable:
                weights[name] = kept.Kept(weights[name])
    if usable:
        weights["output"] = kept.Kept(wte if dtype == tf.float32 else cast(wte - tf.reduce_mean(wte, 0)))
    return weights


def micro_batches(config, rows):
    """How many slices a device computes its `rows` of the global batch in: its share of micro_batch_size at once,
    but at least one sequence.
    """
    share = (config.micro_batch_size or config.train_batch_size) * rows // config.train_batch_size
    return rows // next(size for size in range(max(share, 1), 0, -1) if rows % size == 0)


def dropout_noise(config, step, first_row):
    """noise(site, shape) for layers.dropout, another for each step and site; None without dropout.

    `first_row` int32 [] is the place in the global batch of the first sequence that is computed here.
    """
    if not (config.embed_dropout or config.attn_dropout or config.res_dropout):
        return None

    def noise(site, shape):
        base = tf.stack([tf.constant(config.seed, tf.int32), tf.cast(step, tf.int32)])
        seed = tf.random.experimental.stateless_fold_in(base, site, alg=layers.RANDOM)
        return layers.row_noise(seed, first_row, shape)
    return noise


def block(h, weights, config, *, noise, layer, visible=None, cache=None, position=None, in_place=False):
    """One transformer layer: h [B, T, C] -> (h [B, T, C], cache).

    `weights` are this layer's, by their names below `h{layer}/`.  `cache` is None or this layer's (keys, values),
    each [B, H, S, D], which the new positions are written into at `position` int32 [B]; they see what is `visible`.
    """
    site = 1 + 3 * layer
    x = layers.norm.late(h, weights["ln_1/g"], weights["ln_1/b"])
    q, k, v = attention.dense_heads(x, weights["attn/c_attn/w"], weights["attn/c_attn/b"], n_head=config.n_head,
                                 time=layers.sizes(h)[1])
    if cache is None:
        x = attention.causal_attention(q, k, v, drop=config.attn_dropout and noise and (
            lambda weights: layers.dropout(weights, config.attn_dropout, noise, site)))
    else:
        k, v = cache = [write_cache(old, new, position, in_place=in_place) for old, new in zip(cache, (k, v))]
        x = attention.attention(q, k, v, visible=visible)
    x = attention.beside(x)  # [BT, C]
    h = _add(h, x, weights["attn/c_proj/w"], weights["attn/c_proj/b"], config, noise, site + 1)
    x = layers.norm.late(h, weights["ln_2/g"], weights["ln_2/b"])
    x = layers.dense_gelu(x, weights["mlp/c_fc/w"], weights["mlp/c_fc/b"])  # [BT, 4C]
    return _add(h, x, weights["mlp/c_proj/w"], weights["mlp/c_proj/b"], config, noise, site + 2), cache


def _add(h, x, w, b, config, noise, site):
    """The residual connection: h [B, T, C] and x [BT, I] times w plus b, which dropout is for."""
    if not config.res_dropout or noise is None:
        return layers.dense_add(h, x, w, b)
    x = layers.biased(layers.product(x, w), b)
    return h + layers.dropout(tf.reshape(x, h.shape), config.res_dropout, noise, site)


def embed(weights, tokens, config, *, noise, places):
    """tokens int32 [B, T] at `places` int32 [B, T] (None: 0, 1, ...) -> [B, T, C] in the activations' dtype."""
    wpe = weights["wpe"]
    h = tf.gather(weights["wte"], tokens) \
        + (wpe[:layers.sizes(tokens)[1]] if places is None else tf.gather(wpe, places))  # [B, T, C]
    # Differs from the original: dropout on the sum, not on the table that the output layer shares.
    return tf.cast(layers.dropout(h, config.embed_dropout, noise, 0), activations_dtype(config))


def transformer(weights, tokens, config, *, noise=None):
    """tokens int32 [B, T <= n_ctx] -> final hidden states [B, T, C]; `noise` as in layers.dropout."""
    h = embed(weights, tokens, config, noise=noise, places=None)
    for i in range(config.n_layer):
        names, values = zip(*layer_weights(weights, i).items())

        def run(h, *values, layer=i, names=names):
            return block(h, dict(zip(names, values)), config, noise=noise, layer=layer)[0]
        h = layers.recompute(run)(h, *values) if config.recompute else run(h, *values)
    return layers.norm(h, weights["ln_f/g"], weights["ln_f/b"])


def transformer_step(weights, tokens, config, *, cache, position, in_place=False):
    """tokens int32 [B, T], a row's behind its first `position` int32 [B] cached ones -> (hidden [B, T, C], new cache).

    What a row's cache holds behind its new tokens is never seen, and overwritten later.
    """
    places = position[:, None] + tf.range(layers.sizes(tokens)[1])  # [B, T]
    visible = tf.range(layers.sizes(cache[0][0])[2]) <= places[:, None, :, None]  # [B, 1, T, S]
    h = embed(weights, tokens, config, noise=None, places=places)
    new_cache = []
    for i in range(config.n_layer):
        h, layer_cache = block(h, layer_weights(weights, i), config, noise=None, layer=i, visible=visible,
                               cache=cache[i], position=position, in_place=in_place)
        new_cache.append(layer_cache)
    return layers.norm(h, weights["ln_f/g"], weights["ln_f/b"]), new_cache


def layer_weights(weights, layer):
    """The weights of one layer, by their names below `h{layer}/`."""
    prefix = f"h{layer}/"
    return {name[len(prefix):]: value for name, value in weights.items() if name.startswith(prefix)}


def decoder(variables, config, *, use_tpu=False):
    """(step_fn, empty_cache) for models/sampling.py, with what is faster where no TPU has to compile it."""
    if use_tpu:
        return decoding_step(cast_weights(variables, config), config), empty_cache(config)
    in_place = config.n_ctx // 2 > 1  # a window that is read in again by one token would overwrite its neighbours' rows
    return (decoding_step(keep_weights(variables, config), config, in_place=in_place),
            empty_cache(config, in_place=in_place))


def decoding_step(weights, config, *, in_place=False):
    """The network as models/sampling.py wants it: step(tokens [B, T], position [B], last [B], cache) -> (float32
    logits [B, V] of the token behind each row's `last` one, cache).  `in_place` as in write_cache.
    """
    def step(tokens, position, last, cache):
        if tokens.shape[1] != 1 or "output" not in weights:
            used, logits = kept.matrices(weights), lm_head.logits_of
        else:
            used, logits = weights, functools.partial(lm_head.quick_logits, output=weights["output"])
        hidden, cache = transformer_step(used, tokens, config, cache=cache, position=position, in_place=in_place)
        return logits(tf.gather(hidden, last, batch_dims=1), used["wte"]), cache
    return step


def empty_cache(config, *, in_place=False):
    """make(B, S) -> L times (keys, values), each [B, H, S, D]: of one shape throughout the decoding loop."""
    def make(batch, size):
        shape, dtype = [batch, config.n_head, size, config.n_embd // config.n_head], activations_dtype(config)

        def zeros():
            # Constants of equal value become one tensor, which may not be written into.
            return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=True) if in_place else tf.zeros(shape, dtype)
        return [[zeros() for _ in range(2)] for _ in range(config.n_layer)]
    return make


def write_cache(old, new, position, *, in_place=False):
    """`old` [B, H, S, D] with `new` [B, H, T, D] in row b from `position[b]` of the third axis on.

    With `in_place`, a single token (T = 1) is written into `old` itself, which nothing may read afterwards; the usual
    operation copies all of it in every step of a loop.  XLA does not know that one, and spares the copy by itself.
    """
    batch, heads, context, size = shape = layers.sizes(old)
    first = tf.reshape(tf.range(batch * heads) * context, [batch, heads]) + position[:, None]  # [B, H]
    rows = tf.reshape(first[:, :, None] + tf.range(layers.sizes(new)[2]), [-1])  # [BHT]
    in_place = in_place and new.shape[2] == 1
    old, new = tf.reshape(old, [-1, size]), tf.reshape(new, [-1, size])
    written = tf.raw_ops.InplaceUpdate(x=old, i=rows, v=new) if in_place \
        else tf.tensor_scatter_nd_update(old, rows[:, None], new)
    return tf.reshape(written, shape)


def token_losses(weights, tokens, labels, config, *, noise=None):
    """tokens, labels int32 [B, T] -> float32 [B, T]; 0 where the label is lm_head.IGNORED.

    `weights` may have those of lm_head.tied.
    """
    hidden = transformer(weights, tokens, config, noise=noise)
    losses = lm_head.token_losses(hidden, weights["wte"], labels, weights.get("output"))
    return tf.reshape(losses, layers.sizes(labels))


def training_loss(weights, tokens, labels, config, *, noise=None):
    """The mean of token_losses, float32 [], as fast as can be: on CPUs, under bfloat16 with rounded logits."""
    weights = {**weights, **lm_head.tied(weights["wte"], labels, activations_dtype(config))}
    return tf.reduce_mean(token_losses(weights, tokens, labels, config, noise=noise))


def make_model_fn(config, sampling_limits=None):
    """The model_fn of TPUEstimator for all three modes; predictions are sampled within `sampling_limits`."""
    def model_fn(features, labels, mode, params):
        variables = create_variables(config)
        if mode == tf.estimator.ModeKeys.PREDICT:
            return _predict_spec(variables, features, config, sampling_limits, use_tpu=params["use_tpu"])
        if mode == tf.estimator.ModeKeys.EVAL:
            return _eval_spec(variables, features, labels, config)
        return _train_spec(variables, features, labels, config, use_tpu=params["use_tpu"])
    return model_fn


def _train_spec(variables, tokens, labels, config, *, use_tpu):
    step = tf.train.get_or_create_global_step()
    rows = tokens.shape[0]

    def loss_fn(weights, tokens, labels, micro_batch):
        replica = xla.replica_id() if use_tpu else tf.distribute.get_replica_context().replica_id_in_sync_group
        noise = dropout_noise(config, step, micro_batch * tokens.shape[0] + replica * rows)
        return training_loss(weights, tokens, labels, config, noise=noise)

    slices = micro_batches(config, rows)
    loss, gradients = optimizers.gradients(loss_fn, variables, (tokens, labels), slices)
    wishes = [metrics.stop_wish()] if tf.distribute.get_strategy().num_replicas_in_sync > 1 else []
    loss, *gradients = optimizers.mean_over_replicas([loss, *gradients, *wishes], use_tpu=use_tpu)
    agreed = [gradients.pop() for _ in wishes]
    loss = tf.debugging.check_numerics(loss, "loss")  # before the update, so that it does not spoil the weights
    step_before = tf.identity(step)
    with tf.control_dependencies([loss, step_before]):
        train_op, shown = optimizers.train_op(gradients, list(variables.values()), config)
    shown = dict(shown, loss=loss)
    host_call = None
    if use_tpu:
        host_call = metrics.host_call(step_before, shown, config.model_dir)
    else:
        metrics.collect(shown, agreed)
    return tf.estimator.tpu.TPUEstimatorSpec(tf.estimator.ModeKeys.TRAIN, loss=loss, train_op=train_op,
                                             host_call=host_call)


def _eval_spec(variables, tokens, labels, config):
    losses = token_losses(cast_weights(variables, config), tokens, labels, config)
    counts = tf.cast(tf.not_equal(labels, lm_head.IGNORED), tf.float32)

    def measure(losses, counts):
        mean, update = metrics.exact_mean(losses, counts)
        # exp of the mean over all tokens, not the mean of the batches' exp
        return {"token_loss": (mean, update), "perplexity": (tf.exp(mean), update)}
    loss = tf.reduce_sum(losses) / tf.maximum(tf.reduce_sum(counts), 1.0)
    return tf.estimator.tpu.TPUEstimatorSpec(tf.estimator.ModeKeys.EVAL, loss=loss,
                                             eval_metrics=(measure, [losses, counts]))


def _predict_spec(variables, features, config, limits, *, use_tpu):
    """`features` are tokens int32 [B, S], given int32 [B], and one [B] for each field of sampling.Options."""
    step, cache = decoder(variables, config, use_tpu=use_tpu)
    options = sampling.Options(**{name: features[name] for name in sampling.Options._fields})
    sampled = sampling.sample(step, cache, features["tokens"], features["given"], options, limits)
    return tf.estimator.tpu.TPUEstimatorSpec(tf.estimator.ModeKeys.PREDICT, predictions=sampled._asdict())
