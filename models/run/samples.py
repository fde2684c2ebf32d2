"""Continues "sample_prompts" after each evaluation: on the console, in model_dir/samples.txt, in TensorBoard."""
import dataclasses
import textwrap

import tensorflow.compat.v1 as tf

from configs import arguments, reading, storage
from encoder import prompts
from models.checkpoints import run_checkpoints
from models.run import extras, predict, workarounds

FILE = "samples.txt"


def writer(config, encoder, tpu, build_estimator):
    """write(path): shows and stores what the checkpoint `path` makes of the prompts, by main.py's build_estimator.

    The seed is the run's each time: from evaluation to evaluation, the texts differ by what was learnt.
    """
    given = [prompts.make(text, {"length": config.sample_length, "seed": config.seed,
                                 "where": f'"sample_prompts", {reading.shown(text)}'})
             for text in config.sample_prompts or ()]
    if given and len(getattr(tpu, "workers", ())) > 1:
        arguments.note(f"no samples: --tpu {tpu} has several hosts, and texts are generated on one")
        given = []
    rows = [row for prompt in given for row in predict.rows_of(prompt, encoder, config.n_ctx)]

    def write(path):
        if not rows:
            return
        at_once = dataclasses.replace(config, predict_batch_size=len(rows))
        step = run_checkpoints.step_of(path)
        texts = [predict.layout(f"{number} AT STEP {step}", sample) for number, sample in
                 enumerate(predict.samples_of(at_once, encoder, rows, tpu, path, build_estimator))]
        workarounds.release_graphs()
        print("".join(texts), end="", flush=True)
        file = storage.join(config.model_dir, FILE)
        with extras.written(file):
            storage.append_whole(file, "".join(texts))
        with extras.written(storage.join(config.model_dir, "events.out.tfevents...")):
            _show_in_tensorboard(config.model_dir, step, texts)
    return write


def _show_in_tensorboard(model_dir, step, texts):
    plugin = tf.SummaryMetadata(plugin_data=tf.SummaryMetadata.PluginData(plugin_name="text"))
    # Indented, or its Markdown would join the lines.
    values = [tf.Summary.Value(tag=f"samples/{number}", metadata=plugin,
                               tensor=tf.make_tensor_proto([textwrap.indent(text, "    ", bool)]))
              for number, text in enumerate(texts)]
    events = tf.summary.FileWriterCache.get(model_dir)
    events.add_summary(tf.Summary(value=values), step)
    events.flush()
