"""Our side of what is measured: all that the benchmarks take from inputs.py, main.py and models/ stands here.

What the ablation puts in the place of the product's functions stands in benchmarks/original.py.  TensorFlow is
imported inside the functions, for it reads its environment when it is imported.
"""
import math
import time

from datasets import shard_sets
from models.run import cost
from models.weights import weight_list

# Weights

def parameters(config):
    """How many numbers the weights are."""
    return sum(math.prod(weight.shape) for weight in weight_list(config))


def write_weights(config, folder):
    """Writes random weights with GPT-2's deviations, as Hugging Face has them."""
    import numpy as np

    from models.checkpoints import hugging_face
    random = np.random.default_rng(config.seed)
    listed = {weight.name: weight for weight in weight_list(config)}

    def read(name):
        weight = listed[name]
        values = random.standard_normal(weight.shape, np.float32)
        values *= weight.deviation
        return values + np.float32(weight.mean)
    hugging_face.write_folder(folder, config, {name: weight.shape for name, weight in listed.items()}, read,
                              config.n_vocab - 1)


def step_memory(config):
    """Bytes of weights, gradients and optimizer, as --plan counts them."""
    memory = cost.memory(config)
    return memory.weights + cost.FLOAT32 * cost.parameter_count(config) + memory.optimizer


# The input pipeline

def train_set(config):
    """The shards that the config trains on."""
    return shard_sets.find(config, shard_sets.TRAIN)


def train_dataset(config, shards, start, stop):
    """Function that builds the tf.data.Dataset of the batches of steps [start, stop)."""
    import inputs
    input_fn = inputs.train_input_fn(order_of(config, shards), config.n_vocab - 1, start_step=start, stop_step=stop)
    return lambda: input_fn({"batch_size": config.train_batch_size})


def order_of(config, shards):
    """The order in which training reads the shards."""
    from datasets.window_order import WindowOrder
    return WindowOrder.of(config, shards)


def steps_an_epoch(config, shards):
    """Whole batches in the first data set of `shards`."""
    return order_of(config, shards).parts[0].windows // config.train_batch_size


def blocks_of_step(config, shards, step):
    """From how many blocks of files the batch of a step takes its windows."""
    first = order_of(config, shards).parts[0]
    return len(first.schedule(step * config.train_batch_size, (step + 1) * config.train_batch_size))


# Sessions and training

def start_quietly():
    """Graph mode, and no lines of TensorFlow's own."""
    from models.run import workarounds
    workarounds.prepare()


def session():
    """A tf.Session with the options that the product gives."""
    import tensorflow.compat.v1 as tf

    from models.run import workarounds
    return tf.Session(config=workarounds.session_config())


def train(config, after_step, *, xla=False):
    """Trains as main.py does and calls after_step(loss) after each step; ends where that raises.

    `xla`: XLA compiles what it can of the graph, as TF_XLA_FLAGS=--tf_xla_auto_jit=1 would.
    """
    import tensorflow.compat.v1 as tf

    import inputs
    import main
    from models import metrics
    from models.run import hooks, loss_watch, saving, workarounds

    class AfterStep(tf.train.SessionRunHook):
        def before_run(self, run_context):
            return tf.train.SessionRunArgs(metrics.collected()["loss"])

        def after_run(self, run_context, run_values):
            after_step(float(run_values.results))
    def clustered(session_config):
        session_config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    if xla:
        _change_sessions(clustered)
    shards = train_set(config)
    order = order_of(config, shards)
    progress = hooks.Progress(config, order, loss_watch.LossWatch(config), say=lambda line: None)
    stop = min(config.max_steps, order.longest_stretch)
    input_fn = inputs.train_input_fn(order, config.n_vocab - 1, start_step=0, stop_step=stop)
    estimator, by_minutes = main.build_estimator(config), saving.SaverByMinutes(config)
    estimator.train(input_fn, max_steps=stop, hooks=[workarounds.Saver(estimator, by_minutes), by_minutes, progress,
                                                     hooks.StopOnSignal(), AfterStep()])


def between_steps(config, batches, rounds):
    """(seconds of each save, {number of batches: seconds of each evaluation}), `rounds` of each.

    They come from a training with a checkpoint behind each step, and from evaluations of its last one on so many
    batches for each of `batches`, in turn; the first of each is not counted.
    """
    import tensorflow.compat.v1 as tf

    import inputs
    import main
    from datasets.window_order import EvalWindows
    from models.checkpoints import run_checkpoints
    from models.run import workarounds
    saves, evaluations = [], {count: [] for count in batches}

    class Timed(tf.train.CheckpointSaverListener):
        def before_save(self, session, global_step_value):
            self._begun = time.monotonic()

        def after_save(self, session, global_step_value):
            saves.append(time.monotonic() - self._begun)
    eot, order = config.n_vocab - 1, order_of(config, train_set(config))
    estimator = main.build_estimator(config)
    estimator.train(inputs.train_input_fn(order, eot, start_step=0, stop_step=rounds + 1), max_steps=rounds + 1,
                    hooks=[workarounds.Saver(estimator, Timed())])
    workarounds.release_graphs()
    windows = EvalWindows.of(config, shard_sets.find(config, shard_sets.EVAL))
    path = run_checkpoints.latest(config.model_dir)
    for _ in range(rounds + 1):
        for count, seconds in evaluations.items():
            begun = time.monotonic()
            estimator.evaluate(inputs.eval_input_fn(windows, eot), steps=count, checkpoint_path=path)
            workarounds.release_graphs()
            seconds.append(time.monotonic() - begun)
    return saves[1:], {count: seconds[1:] for count, seconds in evaluations.items()}


def operations(config, steps):
    """([seconds of a step], [(operation, its name, compiled function or "", seconds)] of each step), of so many steps.

    Operations begin one after the other and use all cores each.  The seconds are those of the steps before the traced
    ones, without the first, which compiles.
    """
    import tensorflow.compat.v1 as tf

    import inputs
    import main
    seconds, traces = [], []

    class Traced(tf.train.SessionRunHook):
        def before_run(self, run_context):
            self._traces = len(seconds) > steps
            options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE) if self._traces else None
            self._begun = time.monotonic()
            return tf.train.SessionRunArgs([], options=options)

        def after_run(self, run_context, run_values):
            if self._traces:
                traces.append(list(_operations_in(run_values.run_metadata, run_context.session.graph)))
            else:
                seconds.append(time.monotonic() - self._begun)

    def in_turn(session_config):
        session_config.inter_op_parallelism_threads = 1
    _change_sessions(in_turn)
    input_fn = inputs.train_input_fn(order_of(config, train_set(config)), config.n_vocab - 1, start_step=0,
                                     stop_step=2 * steps + 1)
    main.build_estimator(config).train(input_fn, max_steps=2 * steps + 1, hooks=[Traced()])
    return seconds[1:], traces


def _operations_in(metadata, graph):
    calls = {operation.name: operation.get_attr("f").name for operation in graph.get_operations()
             if operation.type.endswith("PartitionedCall")}  # not those in the loop over micro-batches
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:
            yield (node.timeline_label.partition(" = ")[2].partition("(")[0], node.node_name,
                   calls.get(node.node_name, ""), (node.op_end_rel_micros - node.op_start_rel_micros) / 1e6)


def _change_sessions(change):
    """Lets change(tf.ConfigProto) change what every session of this process runs with."""
    from models.run import workarounds
    plain = workarounds.session_config

    def session_config(**named):
        config = plain(**named)
        change(config)
        return config
    workarounds.session_config = session_config


# Generation

def samples(config, rows, lengths, *, int8=False, **options):
    """Yields the tokens of each sample, int32 [length]: for each of `lengths` one for each of `rows`, [B, S] ids.

    They come through the estimator's predict(), as those of `main.py --predict_file` do; `options` are its.
    """
    import main
    from encoder import bpe, prompts, stop_texts
    from models.run import predict
    encoder = bpe.load(config.encoder_path)
    of_length = {length: prompts.make("", {**options, "length": length}) for length in sorted(set(lengths))}
    wanted = [predict.Row(of_length[length], tokens.tolist(), number)
              for length in lengths for number, tokens in enumerate(rows)]
    limits, _ = predict.limits_of(config, encoder, list(of_length.values()))
    input_fn = predict._input_fn(wanted, {(): stop_texts.NEVER}, encoder.eot)
    with predict.threads_for(config, *rows.shape, max(lengths), int8=int8):
        for sample in predict.draw(config, None, None, input_fn, limits, main.build_estimator, int8=int8):
            yield sample["tokens"][:sample["count"]]
