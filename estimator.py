"""The one TPUEstimator that serves CPUs, GPUs and TPUs, and the state of its model_dir."""
import json
import logging

import tensorflow.compat.v1 as tf

import storage
from configs import resume, schema
from errors import UserError
from models import checkpoints, gpt2

CONFIG_FILE, VOCABULARY_FILE = "config.json", "vocabulary.json"
NOISE = ("Reraising captured error", "Instructions for updating", "deprecated", "params are not passed to Estimator")


def quiet():
    """Graph mode, and of TensorFlow's own lines only warnings that are not about its future."""
    # With eager execution on, replicas on several CPU devices hang and signals are swallowed in the session.
    tf.disable_eager_execution()
    logger = tf.get_logger()
    logger.setLevel(logging.WARNING)
    logger.addFilter(lambda record: not any(words in record.getMessage() for words in NOISE))


def build_estimator(config, tpu=None, sampling_options=None):
    """TPUEstimator for the config; `tpu` names a TPU, None trains on what TensorFlow finds on this machine."""
    quiet()
    session_config = tf.ConfigProto(allow_soft_placement=True)
    # Grappler's remapper fuses products with what follows into kernels that are up to four times slower on CPUs.
    session_config.graph_options.rewrite_options.remapping = 2  # RewriterConfig.OFF
    run_config = tf.estimator.tpu.RunConfig(
        model_dir=config.model_dir, cluster=resolve_tpu(tpu) if tpu else None, tf_random_seed=config.seed,
        session_config=session_config, save_checkpoints_steps=config.save_checkpoints_steps,
        keep_checkpoint_max=config.keep_checkpoint_max, save_summary_steps=None, log_step_count_steps=None,
        checkpoint_save_graph_def=False,  # a quarter of the time of a save, and nothing here reads it
        tpu_config=tf.estimator.tpu.TPUConfig(iterations_per_loop=config.iterations))
    start = None
    if config.init_checkpoint and not checkpoints.latest(config.model_dir):
        start = tf.estimator.WarmStartSettings(config.init_checkpoint, vars_to_warm_start="model/.*")
    return tf.estimator.tpu.TPUEstimator(
        model_fn=gpt2.make_model_fn(config, sampling_options), use_tpu=bool(tpu), eval_on_tpu=bool(tpu),
        config=run_config, train_batch_size=config.train_batch_size, eval_batch_size=config.eval_batch_size,
        predict_batch_size=config.predict_batch_size, warm_start_from=start)


def resolve_tpu(name):
    """The resolver of a TPU's address.  Raises UserError, one line, where it cannot be found."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        resolver.cluster_spec()
    except Exception as error:  # whatever Google's client libraries raise: the user's cloud set-up is at fault
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"--tpu {name} cannot be reached: {reason}; give the address as grpc://IP:8470, or run on a"
                        " machine with Google credentials")
    return resolver


def check_run(config, encoder):
    """(path of the newest checkpoint or None, warning lines), when model_dir fits this config and vocabulary.

    Raises UserError where the config, the vocabulary or the weights of the run in model_dir are others.
    """
    warnings_found = []
    saved = storage.join(config.model_dir, CONFIG_FILE)
    path = checkpoints.latest(config.model_dir)
    if path and storage.exists(saved):
        warnings_found = resume.check_resume(schema.load(saved), config, saved)
    noted = storage.join(config.model_dir, VOCABULARY_FILE)
    if path and storage.exists(noted):
        with storage.open_file(noted) as f:
            fingerprint = json.load(f)["fingerprint"]
        if fingerprint != encoder.fingerprint:
            raise UserError(f"{config.model_dir} was trained with another vocabulary ({fingerprint:.12}) than that in"
                            f" {config.encoder_path or 'the package of GPT-2'} ({encoder.fingerprint:.12}); set"
                            ' "encoder_path" to that one or choose another "model_dir"')
    start = path or config.init_checkpoint
    if start:
        checkpoints.check(start, config)
    return path, warnings_found


def save_run(config, encoder):
    """Writes the resolved config and the vocabulary's fingerprint beside the checkpoints."""
    try:
        storage.make_folder(config.model_dir)
        schema.save(config, storage.join(config.model_dir, CONFIG_FILE))
        note = {"fingerprint": encoder.fingerprint, "size": encoder.size}
        storage.write_whole(storage.join(config.model_dir, VOCABULARY_FILE), json.dumps(note) + "\n")
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or storage.blame(error) or str(error).splitlines()[0]
        raise UserError(f'"model_dir" {config.model_dir} cannot be written: {reason}; set it to a folder that can')
