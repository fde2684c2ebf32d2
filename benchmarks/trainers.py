"""Training in turns: ours as main.py trains, and transformers' GPT2LMHeadModel in a loop of torch.

Both start from the same weights, see the same tokens and update by the same rule.
"""
import contextlib
import os
import time

import numpy as np

from benchmarks import products
from benchmarks.machine import forget_peak, resident
from datasets import shard_sets

LOSSES = 8  # of the first steps, that are kept to be compared
WARM_UP = 2  # turns: the first is the first step, which also builds
BATCHES = "batches.npy"
WEIGHTS = "weights"


class Over(Exception):
    """No more turns: leaves a training without the checkpoint at its end."""


class Stretches:
    """The turns of a training: the first is one step, each further one `steps`."""

    def __init__(self, turns, steps):
        self._turns, self._steps, self._number, self._left = turns, steps, 0, 1
        self._losses = []
        self._begin()

    def _begin(self):
        if not self._turns.come():
            self._turns.answer({"losses": [float(loss) for loss in self._losses], "start_peak": self._start_peak,
                                "peak": resident("VmHWM")})
            raise Over
        self._begun = np.array([time.monotonic(), time.process_time()])

    def step(self, loss, finish=None):
        """Takes note of a step that is done; at the end of a turn answers and waits for the next.  Raises Over."""
        if len(self._losses) < LOSSES:
            self._losses.append(loss)
        self._left -= 1
        if self._left:
            return
        if finish:
            finish()
        seconds, cpu = np.array([time.monotonic(), time.process_time()]) - self._begun
        self._number += 1
        if self._number <= WARM_UP:
            self._start_peak = resident("VmHWM")
            forget_peak()
        self._turns.answer({"seconds": seconds, "cpu": cpu})
        self._left = self._steps
        self._begin()


def serve(turns, name, config, *, folder, steps, device, weights_dtype=None):
    """Trains in turns as `name` of train.CONTENDERS says, until there are no more."""
    with contextlib.suppress(Over):
        stretches = Stretches(turns, steps)
        if name.startswith("ours"):
            _ours(stretches, config, device, xla=name.endswith("xla"))
        else:
            _theirs(stretches, config, folder, device, compiled=name.endswith("compile"), weights_dtype=weights_dtype)


def _ours(stretches, config, device, *, xla):
    """As training.train does it, with one hook more."""
    import tensorflow.compat.v1 as tf

    import inputs
    from datasets import window_order
    from models import metrics
    from models.run import estimator as estimators
    from models.run import hooks
    estimators.quiet()
    products.needed(tf.config.list_physical_devices("GPU"), "TensorFlow", device)
    if xla:
        _cluster_by_xla(tf, estimators)

    class InTurns(tf.train.SessionRunHook):
        def before_run(self, run_context):
            return tf.train.SessionRunArgs(metrics.collected()["loss"])

        def after_run(self, run_context, run_values):
            stretches.step(float(run_values.results))
    found = shard_sets.find(config, shard_sets.TRAIN)
    progress = hooks.Progress(
        config.model_dir, max_steps=config.max_steps, tokens=config.train_batch_size * config.n_ctx,
        seen=lambda step: window_order.seen(config, found, step), dropped=window_order.dropped(config, found),
        watch=hooks.SpikeWatch(), say=lambda line: None)
    chunk = min(config.max_steps, inputs.longest_chunk(config, found))
    input_fn = inputs.make_train_input_fn(config, found, config.n_vocab - 1, start_step=0, stop_step=chunk)
    estimator = estimators.build_estimator(config)
    estimator.train(input_fn, max_steps=chunk, hooks=[hooks.Saver(estimator), progress,
                                                      hooks.StopOnSignal(), InTurns()])


def _cluster_by_xla(tf, estimators):
    """Lets XLA compile what it can of the graph, as TF_XLA_FLAGS=--tf_xla_auto_jit=1 would."""
    plain = estimators.session_config

    def session_config():
        config = plain()
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
        return config
    estimators.session_config = session_config


def _theirs(stretches, config, folder, device, *, compiled, weights_dtype):
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    place = products.torch_device(torch, device)
    batches = torch.from_numpy(np.load(os.path.join(folder, BATCHES)).astype(np.int64)).to(place)  # [N, B, T + 1]
    model = transformers.GPT2LMHeadModel.from_pretrained(
        os.path.join(folder, WEIGHTS), dtype=getattr(torch, weights_dtype or "float32"), attn_implementation="sdpa")
    model.to(place).train()
    optimizer = _their_optimizer(torch, model, config)
    autocast = torch.autocast(place.type, torch.bfloat16,
                              enabled=config.precision == "bfloat16" and weights_dtype is None)

    def loss_of(window):
        logits = model(window[:, :-1], use_cache=False).logits  # [B, T, V]
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())
    loss_of = torch.compile(loss_of) if compiled else loss_of
    finish = torch.cuda.synchronize if device == "gpu" else None
    slices = config.train_batch_size // (config.micro_batch_size or config.train_batch_size)
    number = 0
    while True:
        total = 0.0
        for window in batches[number % len(batches)].chunk(slices):
            with autocast:
                loss = loss_of(window) / slices
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        number += 1
        stretches.step(total, finish)


def _their_optimizer(torch, model, config):
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": config.weight_decay},
                              {"params": vectors, "weight_decay": 0.0}], lr=config.lr,
                             betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True)


def save_batches(config, folder, count):
    """Writes the first batches of the run for torch: int32 [N, B, T + 1], read by our pipeline."""
    import tensorflow.compat.v1 as tf

    import inputs
    found = shard_sets.find(config, shard_sets.TRAIN)
    input_fn = inputs.make_train_input_fn(config, found, config.n_vocab - 1, start_step=0, stop_step=count)
    with tf.Graph().as_default(), tf.Session() as session:
        tokens, labels = tf.data.make_one_shot_iterator(input_fn({"batch_size": config.train_batch_size})).get_next()
        windows = tf.concat([tokens, labels[:, -1:]], 1)  # [B, T + 1]
        np.save(os.path.join(folder, BATCHES), np.stack([session.run(windows) for _ in range(count)]))
