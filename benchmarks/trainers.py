"""Training in turns: ours as main.py trains, and transformers' GPT2LMHeadModel in a loop of torch.

Both start from the same weights, see the same tokens and update by the same rule.
"""
import contextlib
import os
import time

import numpy as np

from benchmarks import ours, products
from benchmarks.machine import forget_peak, resident

LOSSES = 8  # losses of the first steps, kept to be compared
WARM_UP = 2  # turns: the first one is the first step, which also builds
BATCHES = "batches.npy"
WEIGHTS = "weights"


class NoMoreTurns(Exception):
    """Leaves a training without the checkpoint at its end."""


class TrainingTurns:
    """Divides a training into turns: the first is one step, each further one `steps`."""

    def __init__(self, turns, steps):
        self._turns, self._steps, self._number, self._left = turns, steps, 0, 1
        self._losses = []
        self._begin()

    def _begin(self):
        if not self._turns.wait():
            self._turns.answer({"losses": [float(loss) for loss in self._losses], "start_peak": self._start_peak,
                                "peak": resident("VmHWM")})
            raise NoMoreTurns
        self._begun = np.array([time.monotonic(), time.process_time()])

    def step(self, loss, finish=None):
        """Counts a step that is done; after the last one of a turn it answers, and waits for the next turn.

        `finish` is called before the clock is read.  Raises NoMoreTurns.
        """
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
    """Trains as the contender `name` of benchmarks.train, until there are no more turns."""
    with contextlib.suppress(NoMoreTurns):
        training = TrainingTurns(turns, steps)
        if name.startswith("ours"):
            ours.start_quietly()
            products.check_gpu("TensorFlow", device)
            ours.train(config, training.step, xla=name.endswith("xla"))
        else:
            _train_by_torch(training, config, folder, device, compiled=name.endswith("compile"),
                            weights_dtype=weights_dtype)


def _train_by_torch(training, config, folder, device, *, compiled, weights_dtype):
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    place = products.torch_device(torch, device)
    batches = torch.from_numpy(np.load(os.path.join(folder, BATCHES)).astype(np.int64)).to(place)  # [N, B, T + 1]
    model = transformers.GPT2LMHeadModel.from_pretrained(
        os.path.join(folder, WEIGHTS), dtype=getattr(torch, weights_dtype or "float32"), attn_implementation="sdpa")
    model.to(place).train()
    optimizer = _torch_optimizer(torch, model, config)
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
        training.step(total, finish)


def _torch_optimizer(torch, model, config):
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": config.weight_decay},
                              {"params": vectors, "weight_decay": 0.0}], lr=config.lr,
                             betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True)


def save_batches(config, folder, count):
    """Writes the first batches of the run, read by our pipeline, for torch: int32 [N, B, T + 1]."""
    import tensorflow.compat.v1 as tf
    build = ours.train_dataset(config, ours.train_set(config), 0, count)
    with tf.Graph().as_default(), tf.Session() as session:
        tokens, labels = tf.data.make_one_shot_iterator(build()).get_next()
        windows = tf.concat([tokens, labels[:, -1:]], 1)  # [B, T + 1]
        np.save(os.path.join(folder, BATCHES), np.stack([session.run(windows) for _ in range(count)]))
