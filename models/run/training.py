"""Trains in chunks with an evaluation after each, and evaluates a checkpoint on the whole eval set."""
import contextlib
import dataclasses
import math
import time

import tensorflow.compat.v1 as tf

import inputs
from configs import storage
from configs.errors import UserError
from datasets import framing, integrity, repair, shard_sets, window_order
from models.checkpoints import best, run_folder, saved
from models.run import devices, hooks, hosts, plan
from models.run import estimator as estimators

LOCK_FILE = ".lock"
SHOWN = 5  # documents named in a message
OF_A_TPU = "Gradient for"  # TensorFlow's words where a TPU, which looks at nothing itself, hands back weights
BAD_RECORD = ("parse", "is not in [0")  # TensorFlow's words where a record is no example, or an id no vocabulary's


def train(config, encoder, tpu, strategy=None):
    """Runs or continues the run of `config` up to max_steps; returns the exit status.

    `strategy` is one of strategies.CHOICES; None leaves it to the machine and to TF_CONFIG.
    """
    estimators.quiet()
    strategy = devices.choose(strategy, tpu)
    first = devices.is_first(strategy)
    train_set = _corpus(config, encoder, shard_sets.TRAIN)
    eval_set = _corpus(config, encoder, shard_sets.EVAL) if config.eval_steps else None
    # Anything wrong with the data is said before the first step.
    inputs.make_train_input_fn(config, train_set, encoder.eot, start_step=0, stop_step=0)
    if eval_set:
        inputs.eval_steps(config, eval_set)
        for path in shard_sets.overlap(train_set, eval_set)[:1]:
            print(f"warning: {path} is trained on and evaluated on; the evaluation will look too good")
    run_folder.make_folder(config)
    lock = storage.only_run(storage.join(config.model_dir, LOCK_FILE), 'choose another "model_dir"')
    with lock if first else contextlib.nullcontext():
        return _train(config, encoder, tpu, strategy, train_set, eval_set if first else None)


def _train(config, encoder, tpu, strategy, train_set, eval_set):
    """`train` behind its checks; of several hosts the first one evaluates, saves, and has an eval set."""
    path, changes = run_folder.check_run(config, encoder, train_set)
    step = saved.step_of(path)
    for line in changes + plan.reading_problems(config, train_set):
        print(f"warning: {line}")
    if step >= config.max_steps:
        print(f'{config.model_dir} is done: step {step} of {config.max_steps}; raise "max_steps" to go on')
        return 0
    run_folder.check_room(config, path)
    estimator = estimators.build_estimator(config, tpu, strategy=strategy)
    estimators.check_cores(estimator, config, "train_batch_size", *(["eval_batch_size"] if eval_set else []))
    if devices.is_first(strategy):
        run_folder.save_run(config, encoder, train_set)
        if path:
            saved.note_newest(path)
    print(f"{'continuing' if path else 'starting'} {config.model_dir} at step {step} of {config.max_steps},"
          f" {config.train_batch_size * config.n_ctx:,} tokens a step;"
          f" {window_order.dropped(config, train_set):.4%} of each epoch's tokens fill no window")
    if config.eval_steps == 0:
        print('no evaluations: "eval_steps" is 0')
    stop, watch = hooks.StopOnSignal(), hooks.SpikeWatch()
    together = hosts.Together(stop, config.model_dir) if strategy == devices.MULTI_WORKER else None
    while step < config.max_steps:
        # Evaluations stand at multiples of train_steps, wherever the run was interrupted.
        due = min(config.max_steps, (step // config.train_steps + 1) * config.train_steps)
        target = min(due, step + inputs.longest_chunk(config, train_set))
        before = step
        _train_to(estimator, config, train_set, encoder, step, target, stop, watch, together)
        estimators.release_graphs()
        step = saved.step_of(saved.latest(config.model_dir))
        try:
            if together.stopped if together else stop.signal_number is not None:
                raise hooks.Interrupted
            if step == before:
                raise UserError(f"{train_set.parts[0].shards[0].path} or a shard beside it holds fewer records than its"
                                " manifest says; delete the manifest, and the shards are scanned instead, or set"
                                ' "skip_corrupt_records" to true')
            if eval_set and step == due:
                if together:  # the others wait for this host, which stops with them in the next step
                    with hosts.alone():
                        _evaluate_and_keep(estimators.build_estimator(config), config, eval_set, encoder, None)
                else:
                    _evaluate_and_keep(estimator, config, eval_set, encoder, stop)
        except hooks.Interrupted:
            print(f"stopped by signal {stop.signal_number}; step {step} is saved in {config.model_dir}")
            return 128 + stop.signal_number
    print(f"done: {config.model_dir} is trained to step {step}; read {window_order.seen(config, train_set, step)}")
    return 0


def _corpus(config, encoder, split):
    if config.skip_corrupt_records:
        run_folder.make_folder(config)
    found = shard_sets.find(config, split)
    shard_sets.check(found, config, encoder)
    return found


def _train_to(estimator, config, train_set, encoder, step, target, stop, watch, together):
    input_fn = inputs.make_train_input_fn(config, train_set, encoder.eot, start_step=step, stop_step=target)
    progress = hooks.Progress(
        config.model_dir, max_steps=config.max_steps, tokens=config.train_batch_size * config.n_ctx,
        seen=lambda step: window_order.seen(config, train_set, step), dropped=window_order.dropped(config, train_set),
        watch=watch)
    with _naming_damage(config, train_set), saved.reading(saved.latest(config.model_dir) or "none"):
        try:
            if together:
                together.train(estimator, input_fn, target, progress, last=target == config.max_steps)
            else:
                # A TPUEstimator counts on its own hook where a TPU makes many steps at once.
                savers = [] if estimator.config.cluster else [hooks.Saver(estimator)]
                estimator.train(input_fn, max_steps=target, hooks=[*savers, progress, stop])
        except (tf.train.NanLossDuringTrainingError, tf.errors.OpError) as error:
            if any(words in str(error) for words in storage.FULL):
                raise UserError(f'"model_dir" {config.model_dir}: no space left on the disk; make room and run again')
            if isinstance(error, tf.errors.OpError) and "Tensor had" not in error.message:
                raise
            if OF_A_TPU in str(error):
                raise UserError(f"a weight is not finite after one of the steps {progress.step + 1} to"
                                f" {min(target, progress.step + config.iterations)}, which a TPU makes at once;"
                                f" {_way_on(config)}")
            what = "gradient" if "gradient norm" in str(error) else "loss"
            raise _not_finite(config, train_set, what, (progress.step or step) + 1)


def _not_finite(config, train_set, what, step):
    """The UserError for a loss or gradient that is not finite: says which documents stand in the batch."""
    names = inputs.documents_of(config, train_set, step)
    rest = f" and {len(names) - SHOWN} more (--which_data {step} lists them)" if len(names) > SHOWN else ""
    return UserError(f"the {what} is not finite at step {step}, whose batch holds the documents"
                     f" {', '.join(names[:SHOWN])}{rest}; {_way_on(config)}")


def _way_on(config):
    """What to do about a loss that is not finite."""
    return (f"the last checkpoint is {saved.latest(config.model_dir) or 'none'}; lower \"lr\" or raise"
            ' "warmup_steps" and run again, from an older checkpoint if it fails at once')


@contextlib.contextmanager
def _naming_damage(config, found):
    """Turns TensorFlow's word of a damaged record in the corpus `found` into one that names the file and the offset."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        if isinstance(error, tf.errors.DataLossError) or any(words in error.message for words in BAD_RECORD):
            for part in found.parts:
                for shard in part.shards:
                    problem = integrity.first_problem(shard.path, config.n_vocab)
                    if problem:
                        raise UserError(f"{shard.path}: {problem}: {_remedy(config)}")
        raise


def _remedy(config):
    """What to do about a damaged record."""
    if not config.skip_corrupt_records:
        return framing.REMEDY
    repair.forget(shard_sets.repair_folder(config))
    return "it was good when this run began; run again: all shards are read once more, and what is damaged is skipped"


def _evaluate_and_keep(estimator, config, eval_set, encoder, stop):
    """Evaluates the newest checkpoint and keeps it apart if it is the best."""
    path = saved.latest(config.model_dir)
    loss = _evaluate(estimator, config, eval_set, encoder, stop, path)
    result = {"loss": loss, "step": saved.step_of(path), "eval_set": eval_set.fingerprint,
              "windows": inputs.eval_steps(config, eval_set) * config.eval_batch_size}
    if best.keep(config.model_dir, path, result):
        print(f"the best so far, kept in {storage.join(config.model_dir, best.FOLDER)}")


def _evaluate(estimator, config, eval_set, encoder, stop, path):
    """Evaluates the checkpoint `path`, prints the result and returns the mean loss of a token.

    A signal that `stop`, a StopOnSignal, sees ends it with session_hooks.Interrupted; None: nothing does.
    """
    begun = time.monotonic()
    input_fn = inputs.make_eval_input_fn(config, eval_set, encoder.eot)
    steps = inputs.eval_steps(config, eval_set)
    with _naming_damage(config, eval_set), saved.reading(path or config.init_checkpoint):
        result = estimator.evaluate(input_fn, steps=steps, checkpoint_path=path,
                                    hooks=[hooks.GiveUpOnSignal(stop)] if stop else [])
    estimators.release_graphs()
    loss = float(result["token_loss"])
    if not math.isfinite(loss):
        raise UserError(f"the evaluation loss at step {result['global_step']} is {loss}: the weights in"
                        f' {config.model_dir} are spoiled; lower "lr" and go back to an older checkpoint')
    print(f"evaluation at step {result['global_step']}: loss {loss:.4f}, perplexity {result['perplexity']:.2f},"
          f" {steps} batches in {hooks.duration(time.monotonic() - begun)}")
    return loss


def evaluate_whole(config, encoder, tpu):
    """Evaluates the newest checkpoint on every token of the eval set; returns the exit status."""
    config = dataclasses.replace(config, eval_steps=-1)
    estimators.quiet()
    eval_set = _corpus(config, encoder, shard_sets.EVAL)
    path = run_folder.trained(config, encoder, "evaluate")
    estimator = estimators.build_estimator(config, tpu)
    estimators.check_cores(estimator, config, "eval_batch_size")
    stop = hooks.StopOnSignal()
    try:
        loss = _evaluate(estimator, config, eval_set, encoder, stop, path)
    except hooks.Interrupted:
        return 128 + stop.signal_number
    bits = loss / math.log(2)
    per_byte = f", {bits * eval_set.targets / eval_set.text_bytes:.4f} bits per byte" if eval_set.text_bytes else ""
    print(f"{eval_set.targets:,} targets, {bits:.4f} bits per token{per_byte}")
    return 0


def print_documents(config, encoder, step):
    """Lists the documents in the batch of a step; returns the exit status."""
    if step > config.max_steps:
        raise UserError(f'--which_data {step} is beyond "max_steps" {config.max_steps}')
    train_set = _corpus(config, encoder, shard_sets.TRAIN)
    inputs.make_train_input_fn(config, train_set, encoder.eot, start_step=0, stop_step=0)
    with _naming_damage(config, train_set):
        print("\n".join(inputs.documents_of(config, train_set, step)))
    return 0
