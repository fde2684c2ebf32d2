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
import sys
import time

from configs import arguments, commands, schema, start, storage
from configs.errors import UserError


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
    storage.silence_tensorflow()
    tpu = arguments.find_tpu(args, config)  # before anything else on gs:// is looked at, which may take longer
    config, encoder = vocabularies.complete(config)
    with start.importing():
        from models.run import devices, workarounds
    workarounds.prepare()
    if args.mode == arguments.WHICH_DATA:
        return print_documents(config, encoder, args.which_data)
    for line in [] if tpu else devices.unused_gpus():
        arguments.warn(line)
    if args.mode == arguments.PREDICT:
        from models.run import predict
        return predict.run(config, encoder, texts, tpu, build_estimator, as_json=args.json)
    if args.mode == arguments.INTERACTIVE:
        from models.run import interactive
        return interactive.run(config, encoder, args.generation, args.tpu, as_json=args.json)
    if args.mode == arguments.EXPORT:
        from models.run import export
        return export.run(config, encoder, args.export_dir, args.tpu)
    if args.mode == arguments.EVAL:
        return evaluate_whole(config, encoder, tpu)
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
    workarounds.compile_silently()
    run_config = tf.estimator.tpu.RunConfig(
        model_dir=config.model_dir, cluster=workarounds.resolver(tpu) if tpu else None, tf_random_seed=config.seed,
        session_config=workarounds.session_config(), train_distribute=distributed,
        save_summary_steps=None, log_step_count_steps=None, save_checkpoints_steps=config.save_checkpoints_steps,
        keep_checkpoint_max=config.keep_checkpoint_max,
        checkpoint_save_graph_def=False,  # a quarter of the time of a save, and nothing here reads it
        tpu_config=devices.tpu_config(config.iterations, tpu, evaluates=sampler is None))
    model_fn = gpt2.make_model_fn(config, sampler)
    if config.init_checkpoint and not run_checkpoints.latest(config.model_dir):
        model_fn = warm_start.starting_with(config.init_checkpoint, model_fn)
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
    for path in shard_sets.overlap(train_set, eval_set)[:1] if eval_set else []:
        print(f"warning: {path} is trained on and evaluated on; the evaluation will look too good")
    run_folder.make(config.model_dir)
    with run_folder.locked(config.model_dir) if first else contextlib.nullcontext():
        return train_in_folder(config, encoder, tpu, strategy, train_set, order, evaluation if first else None)


def train_in_folder(config, encoder, tpu, strategy, train_set, order, evaluation):
    """`train` behind its checks of the data; `evaluation` is None where this host does not evaluate."""
    from models.checkpoints import run_checkpoints, run_folder, state_file
    from models.run import after_evaluation, cost, devices, endings, hooks, hosts, metrics_file, plan, samples
    path, changes = run_folder.check(config, encoder, train_set)
    step = run_checkpoints.step_of(path)
    for line in changes + plan.reading_problems(config, order) + devices.memory_warnings(config, tpu, strategy):
        print(f"warning: {line}")
    over = endings.over(config, step)
    # An evaluation that a signal or a full disk broke off is made before the next step.
    missed = bool(evaluation and path and strategy != devices.MULTI_WORKER) and endings.is_missed(config, step)
    if over and not missed:
        print(f"{config.model_dir} is done: step {step} of {config.max_steps}; {over}")
        return 0
    run_folder.check_room(config.model_dir, path)
    estimator = build_estimator(config, tpu, strategy=strategy)
    devices.check_cores(estimator, config, "train_batch_size", *(["eval_batch_size"] if evaluation else []))
    if devices.is_first(strategy):
        run_folder.save(config, encoder, train_set, path)
        metrics_file.cut(config.model_dir, step)
    print(f"{'continuing' if path else 'starting'} {config.model_dir} at step {step} of {config.max_steps} from"
          f" {state_file.weights_source(config, path)}, on {devices.described(estimator, strategy)};"
          f" {cost.parameter_count(config):,} parameters, {config.train_batch_size * config.n_ctx:,} tokens a step;"
          f" {order.dropped:.4%} of each epoch's tokens fill no window")
    if config.eval_steps == 0:
        print(f"no evaluations{' and no samples' if config.sample_prompts else ''}: \"eval_steps\" is 0")
    write_samples = samples.writer(config, encoder, tpu, build_estimator) if evaluation else None
    lasting = hooks.RunHooks.of(config)
    stop = lasting.stop
    in_step = hosts.HostsInStep(lasting, config.model_dir) if strategy == devices.MULTI_WORKER else None
    while missed or not over:
        # Evaluations stand at multiples of train_steps, wherever the run was interrupted.
        due = step if missed else min(config.max_steps, (step // config.train_steps + 1) * config.train_steps)
        before, target = step, min(due, step + order.longest_stretch)
        if not missed:
            train_steps(estimator, config, encoder, train_set, order, step, target, lasting, in_step)
            step = run_checkpoints.step_of(run_checkpoints.latest(config.model_dir))
        try:
            if in_step.stopped if in_step else stop.signal_number is not None:
                raise hooks.Interrupted
            if step == before and not missed:
                raise UserError(f"{train_set.parts[0].shards[0].path} or a shard beside it holds fewer records than its"
                                " manifest says; delete the manifest, and the shards are scanned instead, or set"
                                ' "skip_corrupt_records" to true')
            if evaluation and step == due:
                # While the first of several hosts evaluates, the others wait for their next step with it.
                with hosts.alone() if in_step else contextlib.nullcontext():
                    own = build_estimator(config) if in_step else estimator
                    path = run_checkpoints.latest(config.model_dir)
                    loss = evaluate(own, config, encoder, evaluation, path, None if in_step else stop)
                    after_evaluation.run(config.model_dir, evaluation, path, step, loss, write_samples)
        except hooks.Interrupted:
            print(f"stopped by {stop.name} at step {step}, saved; the same command goes on")
            return 128 + stop.signal_number
        over, missed = endings.over(config, step, in_step if step == due else None), False
    print(f"done: {config.model_dir} is trained to step {step}; read {order.seen(step)}; {over}")
    return 0


def train_steps(estimator, config, encoder, train_set, order, step, target, lasting, in_step):
    """Trains from `step` to `target`, or until a signal; what was reached is saved."""
    import inputs
    from models.checkpoints import run_checkpoints, tf_checkpoint
    from models.run import damage, hooks, workarounds
    input_fn = inputs.train_input_fn(order, encoder.eot, start_step=step, stop_step=target)
    progress = hooks.Progress(config, order, lasting.losses)
    with damage.named(config, train_set), tf_checkpoint.naming_damage(run_checkpoints.latest(config.model_dir)), \
            damage.named_in_training(config, order, in_step or progress, target):
        if in_step:
            in_step.train(estimator, input_fn, target, progress, last=target == config.max_steps)
        else:
            # A TPUEstimator counts on its own hook where a TPU makes many steps at once.
            savers = [] if estimator.config.cluster else [workarounds.Saver(estimator, lasting.by_minutes)]
            estimator.train(input_fn, max_steps=target, hooks=[*savers, lasting.by_minutes, progress, lasting.stop],
                            saving_listeners=[lasting.by_minutes])
    workarounds.release_graphs()


def evaluate(estimator, config, encoder, evaluation, path, stop=None):
    """Evaluates the checkpoint `path` (None: init_checkpoint), prints the result, returns the mean loss of a token.

    `evaluation` is an EvalWindows.  A signal that `stop`, a StopOnSignal, sees ends it with hooks.Interrupted.
    """
    import inputs
    from models.checkpoints import tf_checkpoint
    from models.run import damage, hooks, workarounds
    begun = time.monotonic()
    input_fn = inputs.eval_input_fn(evaluation, encoder.eot)
    with damage.named_in_evaluation(config, evaluation.shards), \
            tf_checkpoint.naming_damage(path or config.init_checkpoint):
        result = estimator.evaluate(input_fn, steps=evaluation.batches, checkpoint_path=path,
                                    hooks=[hooks.GiveUpOnSignal(stop)] if stop else [])
    workarounds.release_graphs()
    loss = float(result["token_loss"])
    if not math.isfinite(loss):
        raise UserError(f"the evaluation loss at step {result['global_step']} is {loss}: the weights in"
                        f' {config.model_dir} are spoiled; lower "lr" and go back to an older checkpoint')
    bits = evaluation.shards.bits_per_byte(loss)
    per_byte = "" if bits is None else f" {bits:.4f} bits per byte,"
    print(f"evaluation at step {result['global_step']}: loss {loss:.4f}, perplexity {result['perplexity']:.2f},"
          f"{per_byte} {evaluation.batches} batches in {hooks.duration(time.monotonic() - begun)}")
    return loss


def evaluate_whole(config, encoder, tpu=None):
    """Evaluates the newest checkpoint on every token of the eval set; returns the exit status."""
    from datasets import shard_sets, window_order
    from models.checkpoints import run_folder
    from models.run import devices, hooks
    config = dataclasses.replace(config, eval_steps=-1)
    eval_set = read_shards(config, encoder, shard_sets.EVAL)
    evaluation = window_order.EvalWindows.of(config, eval_set)
    path = run_folder.trained(config, encoder, "evaluate")
    estimator = build_estimator(config, tpu)
    devices.check_cores(estimator, config, "eval_batch_size")
    stop = hooks.StopOnSignal()
    try:
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
    from models.run import damage
    train_set = read_shards(config, encoder, shard_sets.TRAIN)
    with damage.named(config, train_set):
        print("\n".join(inputs.documents_of(window_order.WindowOrder.of(config, train_set), step)))
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
