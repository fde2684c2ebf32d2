"""GPT-2 from a JSON config: trains with evaluation, evaluates, generates text, exports, or says what a run would do.

    python3 main.py --model configs/117M.json [--tpu NAME | grpc://HOST:PORT | local]
    python3 main.py --model configs/117M.json --predict_text "Once upon a time"

The spine of the program, to be read first: arguments -> Config -> TPUEstimator -> train | evaluate | predict | export |
plan.  Everything but configs/ is imported inside of functions: TensorFlow takes seconds, which --help, --plan and a
mistake need not cost.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import contextlib
import dataclasses
import math
import os
import sys
import time

from configs import arguments, cluster, commands, resume, schema, start, storage
from configs.errors import UserError, printable


def main(argv=None):
    """Arguments -> the exit status."""
    args = arguments.parse(argv)
    config = schema.load(args.model, args.overrides, notice=arguments.note)
    with start.importing():
        from datasets import vocabularies
        from encoder import prompts
    if args.mode == arguments.PLAN:
        from models.run import plan
        return plan.show(*vocabularies.complete(config), args)
    if args.mode == arguments.PREDICT:  # before TensorFlow is there: a mistake in them is told at once
        texts = prompts.read(args.predict_file, args.generation) if args.predict_text is None \
            else [prompts.make(args.predict_text, args.generation)]
    if args.mode == arguments.INTERACTIVE and sys.stdin.isatty():
        arguments.note("loading TensorFlow and the weights")
    if args.mode != arguments.TRAIN or args.tpu or len(cluster.hosts()[0]) < 2:
        os.environ.pop(cluster.VARIABLE, None)  # an Estimator would read it, and only a training on hosts uses it
    storage.silence_tensorflow()
    tpu = arguments.find_tpu(args, config)  # before anything else on gs:// is looked at, which may take longer
    config, encoder = vocabularies.complete(config)
    with start.importing(() if tpu else storage.TENSORFLOW_SPARES):
        from models.run import devices, workarounds
    workarounds.prepare()
    if args.checkpoint is not None:
        config = dataclasses.replace(config, init_checkpoint=None)  # nothing starts from it, and it may be gone
    if args.mode == arguments.WHICH_DATA:
        return print_documents(config, encoder, args.which_data)
    for line in [] if tpu else devices.unused_gpus():
        arguments.warn(line)
    if args.mode == arguments.PREDICT:
        from models.run import predict
        return predict.run(config, encoder, texts, tpu, build_estimator, checkpoint=args.checkpoint, as_json=args.json,
                           int8=args.int8)
    if args.mode == arguments.INTERACTIVE:
        from models.run import interactive
        return interactive.run(config, encoder, args.generation, args.tpu, checkpoint=args.checkpoint,
                               as_json=args.json, int8=args.int8)
    if args.mode == arguments.EXPORT:
        from models.run import export
        return export.run(config, encoder, args.export_dir, args.tpu, checkpoint=args.checkpoint)
    if args.mode == arguments.EVAL:
        return evaluate_whole(config, encoder, tpu, args.checkpoint)
    status = train(config, encoder, tpu, args.strategy)
    if status == 0:
        from models.run import endings
        print(f"generate: {endings.next_command(args, config)}")
    return status


def build_estimator(config, tpu=None, *, strategy=None, sampler=None):
    """The one TPUEstimator for CPUs, GPUs and TPUs.

    `tpu` is a tpu_names.Tpu, or None for what TensorFlow finds on this machine; `strategy` is one of
    arguments.STRATEGIES, or None for one device; `sampler` is that of models/decoding.py, for predictions.
    """
    import tensorflow.compat.v1 as tf

    from models import gpt2
    from models.checkpoints import run_checkpoints, warm_start
    from models.run import devices, workarounds
    distributed, rows = devices.make(strategy, config.train_batch_size)
    generates = bool(sampler and not tpu)  # with variables of its own dtypes
    workarounds.compile_silently()
    run_config = tf.estimator.tpu.RunConfig(
        model_dir=config.model_dir, cluster=workarounds.resolver(tpu) if tpu else None, tf_random_seed=config.seed,
        session_config=workarounds.session_config(on_tpu=bool(tpu)), train_distribute=distributed,
        save_summary_steps=None, log_step_count_steps=None, save_checkpoints_steps=config.save_checkpoints_steps,
        keep_checkpoint_max=config.keep_checkpoint_max,
        checkpoint_save_graph_def=False,  # a quarter of the time of a save, and nothing here reads it
        tpu_config=devices.tpu_config(config.iterations, tpu, evaluates=sampler is None))
    model_fn = gpt2.make_model_fn(config, sampler)
    if generates:
        model_fn = warm_start.only_reading(config, model_fn)
    else:
        if config.init_checkpoint and not run_checkpoints.latest(config.model_dir):
            model_fn = warm_start.starting_with(config, model_fn)
        model_fn = warm_start.resuming(config.model_dir, model_fn, computes_values=bool(tpu))
    if tpu:
        model_fn = workarounds.ended_by_ctrl_c(model_fn)
    return tf.estimator.tpu.TPUEstimator(
        model_fn=model_fn, use_tpu=bool(tpu), eval_on_tpu=bool(tpu), config=run_config, train_batch_size=rows,
        eval_batch_size=config.eval_batch_size, predict_batch_size=config.predict_batch_size)


def train(config, encoder, tpu=None, strategy=None):
    """Trains up to max_steps, by `strategy` or what the machine and TF_CONFIG suggest; returns the exit status."""
    from datasets import shard_sets, window_order
    from models.checkpoints import run_folder
    from models.run import devices
    strategy = devices.choose(strategy, tpu)
    first = devices.is_first(strategy)  # of several hosts, the one that saves, evaluates and has the lock
    train_set = read_shards(config, encoder, shard_sets.TRAIN)
    eval_set = read_shards(config, encoder, shard_sets.EVAL) if config.eval_steps else None
    # Anything wrong with the data is said before the first step.
    order = window_order.WindowOrder.of(config, train_set)
    evaluation = eval_set and window_order.EvalWindows.of(config, eval_set)
    run_folder.make(config.model_dir)
    with run_folder.locked(config.model_dir) if first else contextlib.nullcontext():
        return train_in_folder(config, encoder, tpu, strategy, order, evaluation)


def train_in_folder(config, encoder, tpu, strategy, order, evaluation):
    """`train` behind its checks of the data: a WindowOrder, and an EvalWindows or None."""
    from models.checkpoints import run_checkpoints, run_folder
    from models.run import after_evaluation, damage, devices, endings, hooks, loss_picture, metrics_file, plan, room
    path, changes = run_folder.check(config, encoder, order.shards)
    step = run_checkpoints.step_of(path)
    order = order.of_a_run(resume.batch_sizes(config, step))
    for line in [*changes, *plan.reading_problems(config, order, evaluation and evaluation.shards),
                 *devices.memory_warnings(config, tpu, strategy)]:
        print(f"warning: {printable(line)}")
    over = endings.over(config, step)
    # An evaluation that a signal or a full disk broke off is made before the next step.
    missed = bool(evaluation and path and strategy != devices.MULTI_WORKER) and endings.is_missed(config, step)
    if over and not missed:
        print(f"{config.model_dir} is done: step {step} of {config.max_steps}; {over}")
        return 0
    room.check_next(config.model_dir, path)
    estimator = build_estimator(config, tpu, strategy=strategy)
    devices.check_cores(estimator, config, "train_batch_size", *(["eval_batch_size"] if evaluation else []))
    first = devices.is_first(strategy)
    if first:
        run_folder.save(config, encoder, order.shards, path)
        metrics_file.cut(config.model_dir, step, evaluates=missed)
    print("\n".join(plan.start_lines(config, order, path, step, devices.described(estimator, strategy))))
    after = after_evaluation.make(config, encoder, tpu, evaluation, build_estimator) if first and evaluation else None
    lasting = hooks.RunHooks.of(config, strategy, step)
    in_step = lasting.in_step
    try:
        while missed or not over:
            # Evaluations stand at multiples of train_steps, wherever the run was interrupted.
            due = step if missed else min(config.max_steps, (step // config.train_steps + 1) * config.train_steps)
            before, target = step, min(due, step + order.longest_stretch)
            if not missed:
                train_steps(estimator, config, encoder, order, lasting, step, target)
                path = run_checkpoints.latest(config.model_dir)
                step = run_checkpoints.step_of(path)
            if lasting.stopped:
                raise hooks.Interrupted
            if step == before and not missed:
                raise damage.without_a_step(config, order.shards, step)
            if after and step == due:
                with lasting.alone():  # the other hosts wait for their next step with this one
                    own = build_estimator(config) if in_step else estimator
                    stop = None if in_step else lasting.stop
                    after(path, step, evaluate(own, config, encoder, evaluation, path, stop), stop)
            over, missed = endings.over(config, step, in_step if step == due else None), False
    except hooks.Interrupted:
        print(f"stopped by {lasting.stop.name} at step {step}, saved; the same command goes on")
        return 128 + lasting.stop.signal_number
    finally:
        if first:
            loss_picture.renew(config.model_dir)  # whatever ended the training
    print(f"done: {config.model_dir} is trained to step {step}; read {order.seen(step)}; {over}")
    return 0


def train_steps(estimator, config, encoder, order, lasting, step, target):
    """Trains from `step` to `target`, or until a signal; what was reached is saved.  `lasting` are the RunHooks."""
    import inputs
    from models.checkpoints import run_checkpoints, tf_checkpoint
    from models.run import damage, hooks, workarounds
    input_fn = inputs.train_input_fn(order, encoder.eot, start_step=step, stop_step=target)
    progress = hooks.Progress(config, order, lasting.losses)
    with damage.named(config, order.shards), tf_checkpoint.naming_damage(run_checkpoints.latest(config.model_dir)), \
            damage.named_in_training(config, order, lasting.in_step or progress, target):
        lasting.train(estimator, input_fn, progress, target, last=target == config.max_steps)
    workarounds.release_graphs()


def evaluate(estimator, config, encoder, evaluation, path, stop=None):
    """Evaluates the checkpoint `path` (None: init_checkpoint), prints the result, returns the mean loss of a token.

    `evaluation` is an EvalWindows.  A signal that `stop`, a StopOnSignal, sees ends it with hooks.Interrupted.
    """
    import inputs
    from models.checkpoints import tf_checkpoint
    from models.run import damage, hooks, metrics_file, workarounds
    begun = time.monotonic()
    input_fn = inputs.eval_input_fn(evaluation, encoder.eot)
    with damage.named_in_evaluation(config, evaluation.shards), \
            tf_checkpoint.naming_damage(path or config.init_checkpoint):
        result = estimator.evaluate(input_fn, steps=evaluation.batches, checkpoint_path=path,
                                    hooks=[hooks.GiveUpOnSignal(stop)] if stop else [])
    workarounds.release_graphs()
    loss = float(result["token_loss"])
    if not math.isfinite(loss):
        raise UserError(f"the evaluation loss at step {result['global_step']} is not finite ({loss}) with the weights"
                        f' in {path or config.init_checkpoint}; lower "lr" and go back to an older checkpoint')
    bits = evaluation.shards.bits_per_byte(loss)
    per_byte = "" if bits is None else f" {bits:.4f} bits per byte,"
    perplexity = metrics_file.in_words(result["perplexity"], 2)
    print(f"evaluation at step {result['global_step']}: loss {loss:.4f}, perplexity {perplexity},"
          f"{per_byte} {evaluation.batches} batches in {hooks.duration(time.monotonic() - begun)}")
    return loss


def evaluate_whole(config, encoder, tpu=None, checkpoint=None):
    """Evaluates the newest checkpoint, or the one named, on every token of the eval set; returns the exit status."""
    from datasets import shard_sets, window_order
    from models.checkpoints import run_folder
    from models.run import devices, hooks, workarounds
    config = dataclasses.replace(config, eval_steps=-1)
    eval_set = read_shards(config, encoder, shard_sets.EVAL)
    evaluation = window_order.EvalWindows.of(config, eval_set)
    path = run_folder.trained(config, encoder, "evaluate", checkpoint)
    estimator = build_estimator(config, tpu)
    devices.check_cores(estimator, config, "eval_batch_size")
    stop = hooks.StopOnSignal()
    try:
        with workarounds.without_points():
            loss = evaluate(estimator, config, encoder, evaluation, path, stop)
    except hooks.Interrupted:
        print(f"stopped by {stop.name} without a result; the same command evaluates anew")
        return 128 + stop.signal_number
    print(f"{eval_set.targets:,} targets, {loss / math.log(2):.4f} bits per token")
    return 0


def print_documents(config, encoder, step):
    """Lists the documents in the batch of a step; returns the exit status."""
    if step > config.max_steps:
        raise UserError(f'--which_data {step} is beyond "max_steps" {config.max_steps}')
    import inputs
    from datasets import shard_sets, window_order
    from models.checkpoints import run_checkpoints
    from models.run import damage
    train_set = read_shards(config, encoder, shard_sets.TRAIN)
    made = run_checkpoints.step_of(run_checkpoints.latest(config.model_dir))
    sizes = [size for first, size in resume.batch_sizes(config, made) if first < step]  # the run's may have changed
    config = dataclasses.replace(config, train_batch_size=[config.train_batch_size, *sizes][-1])
    with damage.named(config, train_set):
        print("\n".join(map(printable, inputs.documents_of(window_order.WindowOrder.of(config, train_set), step))))
    return 0


def read_shards(config, encoder, split):
    """The shard_sets.ShardSet that the config reads for `split`.  Raises UserError."""
    from datasets import shard_sets
    from models.checkpoints import run_folder
    if config.skip_corrupt_records:
        run_folder.make(config.model_dir)  # for the copies of what is good
    return shard_sets.read(config, encoder, split)


if __name__ == "__main__":
    commands.run(main)
