"""The one TPUEstimator that serves CPUs, GPUs and TPUs."""
import gc
import logging
import os

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.framework import ops
from tensorflow.python.training import monitored_session
from tensorflow_estimator.python.estimator.tpu import error_handling

from configs import tpu_names
from configs.errors import UserError
from models import gpt2
from models.checkpoints import saved, warm_start
from models.run import devices, hooks, preemption
from models.weights import SCOPE

InputPipelineConfig = tf.estimator.tpu.InputPipelineConfig


def quiet():
    """Graph mode, and none of TensorFlow's own lines."""
    # With eager execution on, replicas on several CPU devices hang and signals are swallowed in the session.
    tf.disable_eager_execution()
    logger = tf.get_logger()
    logger.setLevel(logging.CRITICAL)  # what goes wrong reaches the user as an exception
    if devices.CLUSTER not in os.environ:  # what several hosts do then is said in hosts.py
        # Where storage is gone, TensorFlow would make its session anew, for ever and without a word, and go on from
        # the last checkpoint with the data behind the last step; and TPUEstimator would take it for the end of the
        # training.  Here it is an error, and the next start goes on as it should.
        monitored_session._PREEMPTION_ERRORS = ()
        error_handling._IGNORED_ERRORS = ()
    error_handling.ErrorRendezvous = _Rendezvous


class _Rendezvous(error_handling.ErrorRendezvous):
    """What the threads of a TPUEstimator on a TPU failed by, of which the first that was noted is raised.

    A thread that fed or fetched when the training failed finds the session closed, and may say so before the training
    says why (TensorFlow 2.15.1).  That is raised where nothing else was noted.
    """

    _closed = None

    def record_error(self, source, exc_info, session=None):
        if source in ("infeed", "outfeed") and "closed Session" in str(exc_info[1]):
            self._closed = exc_info[1]
        else:
            super().record_error(source, exc_info, session)

    def raise_errors(self, timeout_sec=0):
        with preemption.known_first():
            super().raise_errors(timeout_sec)
        if self._closed:
            raise self._closed


def build_estimator(config, tpu=None, sampling_limits=None, strategy=None):
    """TPUEstimator for the config; `tpu` is a tpu_names.Tpu, None trains on what TensorFlow finds on this machine.

    `strategy` is one of strategies.CHOICES, or None for one device; it trains only.
    """
    distributed, rows = devices.make(strategy, config.train_batch_size)
    tpu_config = tf.estimator.tpu.TPUConfig(
        iterations_per_loop=config.iterations,
        # TPUEstimator evaluates on several hosts only if the first one reads for all.
        eval_training_input_configuration=InputPipelineConfig.SLICED if _evaluates_on_a_pod(tpu, sampling_limits)
        else InputPipelineConfig.PER_HOST_V1)
    run_config = tf.estimator.tpu.RunConfig(
        model_dir=config.model_dir, cluster=resolve_tpu(tpu) if tpu else None, tf_random_seed=config.seed,
        session_config=session_config(),
        train_distribute=distributed, save_summary_steps=None, log_step_count_steps=None,
        save_checkpoints_steps=config.save_checkpoints_steps,
        keep_checkpoint_max=config.keep_checkpoint_max,
        checkpoint_save_graph_def=False,  # a quarter of the time of a save, and nothing here reads it
        tpu_config=tpu_config)
    model_fn = gpt2.make_model_fn(config, sampling_limits)
    if config.init_checkpoint and not saved.latest(config.model_dir):
        model_fn = _starting_with(warm_start.open_source(config.init_checkpoint), model_fn)
    if tpu:
        model_fn = _ended_by_ctrl_c(model_fn)
    return tf.estimator.tpu.TPUEstimator(
        model_fn=model_fn, use_tpu=bool(tpu), eval_on_tpu=bool(tpu), config=run_config,
        train_batch_size=rows, eval_batch_size=config.eval_batch_size,
        predict_batch_size=config.predict_batch_size)


def _evaluates_on_a_pod(tpu, sampling_limits):
    return sampling_limits is None and len(getattr(tpu, "workers", ())) > 1


def check_cores(estimator, config, *keys):
    """Raises UserError where a batch size of the config (`keys`) cannot be shared by the cores of the TPU."""
    cores = getattr(estimator.config.cluster, "cores", None)  # None: no TPU
    for key in keys:
        size = getattr(config, key)
        if cores and size % cores:
            raise UserError(f'"{key}" is {size}, which the {cores} cores of the TPU cannot share; set it to a multiple'
                            f" such as {-(-size // cores) * cores}")


def _starting_with(source, model_fn):
    """`model_fn`, whose variables start with the weights of `source` where no checkpoint is restored."""
    def scaffold():
        variables = {variable.op.name[len(SCOPE) + 1:]: variable for variable in tf.trainable_variables()}
        weights = {id(variable) for variable in variables.values()}
        others = [variable for variable in tf.global_variables() if id(variable) not in weights]
        # Not by WarmStartSettings: that knows only TensorFlow's checkpoints, and only when it trains.  What weights
        # would start with by themselves would leave holes in memory.
        return tf.train.Scaffold(init_op=tf.variables_initializer(others),
                                 init_fn=lambda _, session: warm_start.load(source, variables, session))

    def started(features, labels, mode, params):
        return model_fn(features, labels, mode, params)._replace(scaffold_fn=scaffold)
    return started


def _ended_by_ctrl_c(model_fn):
    """`model_fn`, whose training on a TPU ends by Ctrl-C as it does by SIGTERM: saved."""
    def ended(features, labels, mode, params):
        spec = model_fn(features, labels, mode, params)
        training = mode == tf.estimator.ModeKeys.TRAIN
        return spec._replace(training_hooks=(hooks.KeepInterrupt(),)) if training else spec
    return ended


def session_config():
    """What every session runs with."""
    config = tf.ConfigProto(allow_soft_placement=True)
    options = config.graph_options.rewrite_options
    # Grappler's remapper joins products with what follows into kernels that are up to four times slower on CPUs.
    options.remapping = RewriterConfig.OFF
    # The plan of what to keep in memory finds nothing on CPUs, and complains of each operation that it cannot price.
    options.memory_optimization = RewriterConfig.NO_MEM_OPT
    return config


def release_graphs():
    """Lets go of the graphs of trainings and evaluations that are over.

    tf.custom_gradient registers each gradient for ever, and with it the tensors that it refers to and their graph
    (TensorFlow 2.15.1): tens of megabytes for every evaluation.
    """
    registered = ops.gradient_registry
    for name in [name for name in registered.list() if name.startswith("CustomGradient-")]:
        del registered._registry[name]
    gc.collect()


def resolve_tpu(tpu):
    """The resolver of a tpu_names.Tpu, whose node is watched from now on.  Raises UserError if it does not answer."""
    preemption.watch(tpu)
    return tpu_names.resolver(tpu)
