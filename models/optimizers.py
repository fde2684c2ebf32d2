"""From a loss to an update: accumulated gradients, clipping, the learning rate, AdamW, Adafactor, Muon.

The same code serves one device, the replicas of a strategy and the cores of a TPU.
"""
import math

import tensorflow as tf2
import tensorflow.compat.v1 as tf

from configs import schedule
from configs.constants import MUON_POLYNOMIAL, MUON_STEPS
from models import cpu
from models.initial_values import unfolded_zero
from models.weights import MATRIX_RANK, OPTIMIZERS

ADAFACTOR_EPSILON = 1e-30  # added to squared gradients
ADAFACTOR_SCALE_FLOOR = 1e-3  # smallest parameter scale, so that weights that start at zero can move
ADAFACTOR_CLIP = 1.0  # largest root mean square of an update before it is scaled
MUON_MOMENTUM = 0.95
MUON_EPSILON = 1e-7  # least norm that a gradient is divided by
MUON_RMS = 0.2  # of the elements of an update before the rate; about what AdamW's have


def micro_batches(config, rows):
    """Number of equal slices in which a device computes its `rows` of the global batch: its share of micro_batch_size,
    or the next smaller divisor of the rows.
    """
    share = (config.micro_batch_size or config.train_batch_size) * rows // config.train_batch_size
    return rows // next(size for size in range(max(share, 1), 0, -1) if rows % size == 0)


def gradients(loss_fn, variables, batch, slices=1):
    """Mean loss of the batch and its gradient: (float32 scalar, list of tensors like `variables`).

    loss_fn(weights, *micro-batch, number of the micro-batch) -> mean loss.  The rows of the batch go through in
    `slices` equal micro-batches, one at a time: same result up to rounding, activations of one micro-batch in memory.
    With one slice, some gradients may be in the dtype of the activations; else all are float32.
    """
    if slices == 1:
        return _slice_gradients(loss_fn, variables, batch, 0)
    batch = [tf.reshape(x, [slices, x.shape[0] // slices] + x.shape[1:].as_list()) for x in batch]

    def body(i, loss_sum, *sums):
        loss, new = _slice_gradients(loss_fn, variables, [x[i] for x in batch], i)
        return [i + 1, loss_sum + loss] + [total + tf.cast(x, tf.float32) for total, x in zip(sums, new)]
    zeros = [tf.zeros(variable.shape, tf.float32) for variable in variables.values()]
    _, loss_sum, *sums = tf.while_loop(lambda i, *_: i < slices, body, [0, tf.constant(0.0)] + zeros,
                                       maximum_iterations=slices, parallel_iterations=1)
    return loss_sum / slices, [total / slices for total in sums]


def _slice_gradients(loss_fn, variables, batch, number):
    """(loss, dense gradients) of one micro-batch."""
    local = {name: tf.identity(variable) for name, variable in variables.items()}  # of this loop body's own graph
    loss = loss_fn(local, *batch, number)
    grads = tf.gradients(loss, list(local.values()))
    return loss, [tf.convert_to_tensor(grad) for grad in grads]  # not the IndexedSlices of a table


def train_op(grads, variables, config):
    """(operation that updates `variables` and the global step, {name: scalar} to show).

    `grads` are those of the global batch (`replicas.mean`), so that it is their norm that is clipped.
    """
    step = tf.train.get_or_create_global_step()
    rate = schedule.learning_rate(tf.cast(step, tf.float32), config, tf2)
    norm = tf.global_norm([tf.cast(grad, tf.float32) for grad in grads])
    norm = tf.debugging.check_numerics(norm, "gradient norm")
    scale = config.grad_clip / tf.maximum(norm, config.grad_clip) if config.grad_clip else tf.constant(1.0)
    optimizer = CLASSES[config.opt_name](config, rate, tf.cast(step, tf.float32) + 1.0, scale)
    # The rate of this step, not of the one it counts up to; and no update from gradients that are not finite.
    with tf.control_dependencies([rate, norm]):
        update = optimizer.apply_gradients(list(zip(grads, variables)), global_step=step)
    return update, {"learning_rate": rate, "gradient_norm": norm}


class _Decoupled(tf.train.Optimizer):
    """Updates resource variables, after shrinking those of rank >= 2 by rate * weight_decay.

    Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101.  Differs from the original: gains and biases are
    never decayed.  `time` is a float32 scalar, 1 for the first update; gradients of any float dtype are multiplied by
    the float32 scalar `scale`.  The slots are those of models/weights.py.
    """

    def __init__(self, config, rate, time, scale):
        super().__init__(use_locking=False, name=type(self).__name__)
        self._config, self._rate, self._time, self._scale = config, rate, time, scale

    def _create_slots(self, variables):
        zero = tf.cast(unfolded_zero(), tf.float32)

        def zeros(shape, dtype=None, partition_info=None):
            return tf.fill(shape, zero)
        for variable in variables:
            shapes = OPTIMIZERS[self._config.opt_name](tuple(variable.shape.as_list()), self._config.beta1)
            for slot, shape in shapes.items():
                self._get_or_make_slot_with_initializer(
                    variable, zeros, tf.TensorShape(shape), tf.float32, slot, slot)

    def _distributed_apply(self, distribution, grads_and_vars, global_step=None, name=None):
        """Updates each replica's copy by its own gradient: that of the global batch, so nothing is left to sum."""
        with tf.init_scope():
            self._create_slots([variable for _, variable in grads_and_vars])

        def update(variable, grad):
            return self._resource_apply_dense(grad, variable)
        updates = [done for grad, variable in grads_and_vars
                   for done in distribution.extended.update(variable, update, args=(grad,), group=False)]
        with tf.control_dependencies(updates):
            return distribution.extended.update(global_step, lambda step: step.assign_add(1))

    def _decay_of(self, variable):
        return self._config.weight_decay if variable.shape.rank >= 2 else 0.0


@cpu.faster(cpu.adamw)
def adamw(grad, variable, m, v, *, scale, rate, decay, powers, epsilon, beta1, beta2):
    """The operation that updates variable, m and v by Adam (https://arxiv.org/abs/1412.6980), after the decay.

    The gradient is `grad * scale`; `powers` are beta1 and beta2 to the power of the update's number; `epsilon` is added
    to sqrt(v) before its bias is corrected.
    """
    grad = tf.cast(grad, tf.float32) * scale
    with tf.control_dependencies(_shrunk(variable, rate * decay) if decay else []):
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=m.handle, v=v.handle, beta1_power=powers[0], beta2_power=powers[1], lr=rate,
            beta1=beta1, beta2=beta2, epsilon=epsilon, grad=grad)


def _shrunk(variable, share):
    return [variable.assign_sub(share * variable, read_value=False)]


class AdamW(_Decoupled):
    """Adam (https://arxiv.org/abs/1412.6980) with epsilon outside the bias correction, as in the paper and torch."""

    def __init__(self, config, rate, time, scale):
        super().__init__(config, rate, time, scale)
        self._powers = [tf.pow(beta, time) for beta in (config.beta1, config.beta2)]
        # The kernel adds epsilon to sqrt(v), not to sqrt(v / (1 - beta2^t)); scaled, the two are equal.
        self._epsilon = config.epsilon * tf.sqrt(1.0 - self._powers[1])

    def _resource_apply_dense(self, grad, variable):
        return adamw(grad, variable, *[self.get_slot(variable, slot) for slot in ("adam_m", "adam_v")],
                     scale=self._scale, rate=self._rate, decay=self._decay_of(variable), powers=self._powers,
                     epsilon=self._epsilon, beta1=self._config.beta1, beta2=self._config.beta2)


class Adafactor(_Decoupled):
    """Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235, algorithms 4 and 5, with the rate from outside.

        V   <- b V + (1 - b)(G^2 + 1e-30)      b = 1 - t^-decay_exponent; for rank >= 2 only V's row and column means
        U   <- G / sqrt(V),  U <- U / max(1, rms(U))
        X   <- X - rate * max(1e-3, rms(X)) * U        with beta1, U's running mean instead of U

    State: rank >= 2: `vr` [..., R] and `vc` [..., C] over the last two axes; else `v` like the variable; `m` with
    beta1.
    """

    def _decay(self):
        if self._config.decay_type == "pow":
            return 1.0 - tf.pow(self._time, -self._config.decay_exponent)
        beta2 = self._config.beta2
        return beta2 * (1.0 - tf.pow(beta2, self._time - 1.0)) / (1.0 - tf.pow(beta2, self._time))

    def _resource_apply_dense(self, grad, variable):
        grad, share = tf.cast(grad, tf.float32) * self._scale, self._decay_of(variable)
        with tf.control_dependencies(_shrunk(variable, self._rate * share) if share else []):
            return self._update(grad, variable)

    def _update(self, grad, variable):
        decay = self._decay()

        def track(name, value):
            slot = self.get_slot(variable, name)
            new = decay * slot + (1.0 - decay) * value
            return new, slot.assign(new, read_value=False)
        squared = tf.square(grad) + ADAFACTOR_EPSILON
        if variable.shape.rank < 2:
            second, update = track("adafactor_v", squared)
            updates, step = [update], grad * tf.math.rsqrt(second)
        else:
            rows, row_update = track("adafactor_vr", tf.reduce_mean(squared, -1))
            columns, column_update = track("adafactor_vc", tf.reduce_mean(squared, -2))
            updates = [row_update, column_update]
            row_factor = tf.math.rsqrt(rows / tf.reduce_mean(rows, -1, keepdims=True))
            step = grad * row_factor[..., None] * tf.math.rsqrt(columns)[..., None, :]
        step = step / tf.maximum(1.0, _rms(step) / ADAFACTOR_CLIP)
        step = self._rate * tf.maximum(ADAFACTOR_SCALE_FLOOR, _rms(variable)) * step
        if self._config.beta1:
            momentum = self.get_slot(variable, "adafactor_m")
            step = self._config.beta1 * momentum + (1.0 - self._config.beta1) * step
            updates.append(momentum.assign(step, read_value=False))
        return tf.group(variable.assign_sub(step, read_value=False), *updates)


def _rms(x):
    return tf.sqrt(tf.reduce_mean(tf.square(x)))


class Muon(AdamW):
    """Muon for the matrices of the layers, AdamW for all other weights; both with the same rate and decay.

        M <- 0.95 M + 0.05 G,  N <- 0.95 M + 0.05 G          Nesterov's momentum
        X <- X - rate * 0.2 sqrt(max(R, C)) * orthogonal(N)  for X [R, C]

    Jordan 2024, https://kellerjordan.github.io/posts/muon/; the factor is that of Liu et al. 2025,
    https://arxiv.org/abs/2502.16982, section 2.2.  `c_attn` is one matrix, as it is stored.  State: M.
    """

    def __init__(self, config, rate, time, scale):
        super().__init__(config, rate, time, scale)
        self._before = {}  # device: [the newest update of a matrix there]

    def _resource_apply_dense(self, grad, variable):
        if variable.shape.rank != MATRIX_RANK:
            return super()._resource_apply_dense(grad, variable)
        # One matrix after the other on each device: what all take on the way is larger than the weights.
        with tf.control_dependencies(self._before.get(variable.device, [])):
            update = self._update(tf.cast(grad, tf.float32) * self._scale, variable)
        self._before[variable.device] = [update]
        return update

    def _update(self, grad, variable):
        slot, decay = self.get_slot(variable, "muon_m"), self._decay_of(variable)
        momentum = grad + MUON_MOMENTUM * (slot - grad)
        step = tf.squeeze(grad + MUON_MOMENTUM * (momentum - grad), 0)  # [R, C]
        step = orthogonal(step / tf.maximum(tf.norm(step), MUON_EPSILON), self._config.precision)
        step = self._rate * (MUON_RMS * math.sqrt(max(step.shape.as_list()))) * step[None]  # [1, R, C]
        with tf.control_dependencies(_shrunk(variable, self._rate * decay) if decay else []):
            return tf.group(variable.assign_sub(step, read_value=False), slot.assign(momentum, read_value=False))


@cpu.faster(cpu.orthogonal, cpu.pays)
def orthogonal(x, dtype):
    """x, a float32 matrix [R, C] of norm 1, with all its singular values brought near 1; products run in `dtype`.

    Newton-Schulz: an odd polynomial of a matrix changes its singular values by this polynomial, and keeps its vectors.
    """
    a, b, c = MUON_POLYNOMIAL
    tall = x.shape[0] > x.shape[1]
    for _ in range(MUON_STEPS):
        factor = tf.cast(x, dtype)
        gram = tf.matmul(factor, factor, transpose_a=tall, transpose_b=not tall)  # the smaller one of the two
        square = tf.matmul(gram, gram)
        # The sums are float32: bfloat16 would round a, b and c.
        sums = tf.cast(b * tf.cast(gram, tf.float32) + c * tf.cast(square, tf.float32), dtype)
        product = tf.matmul(factor, sums) if tall else tf.matmul(sums, factor)
        x = a * x + tf.cast(product, tf.float32)
    return x


CLASSES = {"adam": AdamW, "adafactor": Adafactor, "muon": Muon}  # by "opt_name"
