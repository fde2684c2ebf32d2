"""GPT-2 one token after the other: the cache of keys and values, and the step function that models/sampling.py calls.

B batch, T new positions, S room of the cache, C width, H heads, D head size, V vocabulary, L layers.
"""
import tensorflow.compat.v1 as tf

from configs.errors import UserError
from models import dropout, gpt2, initial_values, sampling
from models.cpu import int8 as int8_products
from models.cpu import packed
from models.shapes import shape_of
from models.weights import layer_weights, weight_list

ONE_LAYER = dropout.NONE.layer(0)
CENTRED = "wte/centred"  # wte less its mean row, which is no weight of its own: for packed.logits


class Cache:
    """Keys and values of one layer, [B, H, S, D] each; `places` says where new tokens go, as for `write`.

    What a row holds behind its new tokens is never seen, and overwritten later.
    """

    def __init__(self, keys, values, places, mask, *, in_place):
        self.keys, self.values = keys, values
        self._places, self._mask, self._in_place = places, mask, in_place

    def append(self, k, v):
        """Writes k and v, [B, H, T, D] each, into the cache; returns (keys, values, mask) of all positions."""
        self.keys, self.values = (write(old, new, self._places, in_place=self._in_place)
                                  for old, new in ((self.keys, k), (self.values, v)))
        return self.keys, self.values, self._mask


def places_in(cache, position, new):
    """int32 [B * H * T]: where `new` tokens of row b go from `position[b]` on, in [B * H * S] places of a cache."""
    batch, heads, size, _ = shape_of(cache)
    first = tf.reshape(tf.range(batch * heads) * size, [batch, heads]) + position[:, None]  # [B, H]
    return tf.reshape(first[:, :, None] + tf.range(new), [-1])


def write(old, new, places, *, in_place):
    """`old` [B, H, S, D] with `new` [B, H, T, D] in the `places` of `places_in`.

    With `in_place`, a single token (T = 1) is written into `old` itself, which nothing may read afterwards; the usual
    operation copies all of it in every step of a loop.  XLA does not know that one, and spares the copy anyway.
    """
    shape, width = shape_of(old), old.shape[3]
    old, new, one = tf.reshape(old, [-1, width]), tf.reshape(new, [-1, width]), new.shape[2] == 1
    written = tf.raw_ops.InplaceUpdate(x=old, i=places, v=new) if in_place and one \
        else tf.tensor_scatter_nd_update(old, places[:, None], new)
    return tf.reshape(written, shape)


def empty_cache(config, *, in_place=False):
    """make(B, S) -> L times (keys, values), each [B, H, S, D]: of one shape throughout the decoding loop."""
    def make(batch, size):
        shape = [batch, config.n_head, size, config.n_embd // config.n_head]

        def zeros():
            # Constants of equal value become one tensor, which may not be written into.
            return tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(config.precision), init=True) if in_place \
                else tf.zeros(shape, config.precision)
        return [[zeros() for _ in range(2)] for _ in range(config.n_layer)]
    return make


def decoding_step(weights, config, *, layer_packed=None, output=None, in_place=False):
    """The network as models/sampling.py calls it: step(tokens [B, T], position [B], last [B], cache) -> (logits float32
    [B, V] of the token behind each row's `last` one, cache).

    The tokens of a row stand behind its first `position` cached ones.  A single token goes through models/cpu/packed.py
    where layer_packed(i), the weights of layer i for it, and `output`, that of packed.logits, are given.
    """
    def step(tokens, position, last, cache):
        one = tokens.shape[1] == 1
        places = position[:, None] + tf.range(shape_of(tokens)[1])  # [B, T]
        visible = tf.range(shape_of(cache[0][0])[2]) <= places[:, None, :, None]  # [B, 1, T, S]
        mask, new_cache = gpt2.mask_of(visible), []
        rows = places_in(cache[0][0], position, shape_of(tokens)[1])
        h = gpt2.embed(weights, tokens, config, places=places)
        for i in range(config.n_layer):
            layer = Cache(*cache[i], rows, mask, in_place=in_place)
            if one and layer_packed:
                w = layer_packed(i)
                h = packed.mlp(packed.attn(h, w, config.n_head, ONE_LAYER, layer), w, ONE_LAYER)
            else:
                h = gpt2.block(h, layer_weights(weights, i), config.n_head, ONE_LAYER, layer)
            new_cache.append((layer.keys, layer.values))
        hidden = tf.gather(gpt2.norm(h, weights["ln_f/g"], weights["ln_f/b"]), last, batch_dims=1)  # [B, C]
        if one and output:
            return packed.logits(hidden, weights["wte"], output), new_cache
        return gpt2.logits(hidden, weights["wte"]), new_cache
    return step


def create_variables(config, *, int8=False):
    """{name: variable} as `decoder` uses them without another copy, for warm_start.load to fill.

    With `int8` all are float32: eight bits are made of those.
    """
    kinds, dtype = {}, tf.as_dtype(config.precision)
    for weight in weight_list(config):
        kinds[weight.name] = weight.shape, tf.float32 if int8 else dtype_of(weight.name, config)
        if weight.name == "wte" and not int8 and dtype != tf.float32 and packed.supported(dtype):
            kinds[CENTRED] = weight.shape, dtype
    return initial_values.empty_variables(kinds)


def dtype_of(name, config):
    """The dtype in which generation uses a weight: that of the activations for those of products."""
    return tf.as_dtype(config.precision if "/c_" in name or name == CENTRED else tf.float32)


def cast_weights(variables, config):
    """Tensors to generate with: those of products in the dtype of the activations, cast once and not in each step."""
    return {name: tf.cast(tf.identity(value), dtype_of(name, config)) for name, value in variables.items()}


def decoder(variables, config, *, use_tpu=False, int8=False):
    """(step, empty_cache) for models/sampling.py, by what is fastest where no TPU has to compile it.

    On CPUs and GPUs weights that have another dtype than `create_variables` gives them are cast once per session, into
    local variables; the weights themselves must stay constant, and local variables must be initialised after them.
    With `int8`, the products of a single token have eight bits.
    """
    if use_tpu:
        return decoding_step(cast_weights(variables, config), config), empty_cache(config)
    dtype, weights = tf.as_dtype(config.precision), cast_weights(variables, config)
    layer_packed = output = None
    if dtype != tf.float32:
        weights = {name: value if value.dtype == variables[name].dtype else _for_the_session(value)
                   for name, value in weights.items()}
    if int8:
        if not int8_products.supported():
            raise UserError("--int8 needs a processor with VNNI and no GPU beside it; leave it out")
        layers, output = _int8_weights(variables, config)
        layer_packed = layers.__getitem__
    elif packed.supported(dtype):
        wte = weights["wte"]
        if dtype != tf.float32 and CENTRED not in weights:
            weights[CENTRED] = _for_the_session(tf.cast(wte - tf.reduce_mean(wte, 0), dtype))
        output = [packed.PackedMatrix(part, transposed=True) for part in packed.in_parts(weights.get(CENTRED, wte))]
        if dtype != tf.float32:
            layers = [{name: packed.PackedMatrix(tf.squeeze(value, 0)) if value.shape.rank == 3 else value
                       for name, value in layer_weights(weights, i).items()} for i in range(config.n_layer)]
            layer_packed = layers.__getitem__
    in_place = config.n_ctx // 2 > 1  # a window that is read in again by one token would overwrite its neighbours' rows
    return (decoding_step(weights, config, layer_packed=layer_packed, output=output, in_place=in_place),
            empty_cache(config, in_place=in_place))


def _int8_weights(variables, config):
    """(the weights of each layer, the output layer) of a single token, with Int8Matrix in the place of matrices."""
    def quantised(*matrices):
        """The Int8Matrix of the columns of all these, computed once."""
        parts = map(int8_products.quantise, matrices)
        return int8_products.Int8Matrix(*(_for_the_session(tf.concat(values, -1)) for values in zip(*parts)))
    layers = [{name: quantised(tf.squeeze(value, 0)) if value.shape.rank == 3 else tf.identity(value)
               for name, value in layer_weights(variables, i).items()} for i in range(config.n_layer)]
    wte = variables["wte"]
    mean = tf.reduce_mean(wte, 0)
    # In parts: what lies between a table and its numbers of eight bits is several times as large as these.
    return layers, [quantised(*(tf.transpose(part - mean) for part in packed.in_parts(wte)))]


def _for_the_session(value):
    """`value` computed once, when local variables are initialised."""
    return tf.Variable(value, trainable=False, use_resource=True,
                       collections=[tf.GraphKeys.LOCAL_VARIABLES]).read_value()


def sampler(config, limits, *, int8=False):
    """sampler(features, use_tpu) -> predictions, for gpt2.make_model_fn.

    `features` are tokens int32 [B, S], given int32 [B], and one [B] for each field of sampling.Options.
    """
    def sample(features, use_tpu):
        variables = initial_values.create_variables(config) if use_tpu else create_variables(config, int8=int8)
        step, cache = decoder(variables, config, use_tpu=use_tpu, int8=int8)
        options = sampling.Options(**{name: features[name] for name in sampling.Options._fields})
        return sampling.sample(step, cache, features["tokens"], features["given"], options, limits)._asdict()
    return sample
