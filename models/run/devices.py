"""What a run runs on: several GPUs, several hosts, the cores of a TPU share a batch."""
import tensorflow as tf2
import tensorflow.compat.v1 as tf

from configs import cluster, hardware
from configs.arguments import STRATEGIES
from configs.errors import UserError
from datasets.jobs import workers
from models.run import room

MIRRORED, MULTI_WORKER = STRATEGIES


def choose(wanted, tpu):
    """One of STRATEGIES, or None for one device: what is `wanted`, else what this machine and TF_CONFIG suggest."""
    if tpu:
        return None
    return wanted or (MULTI_WORKER if len(cluster.hosts()[0]) > 1 else MIRRORED if len(devices()) > 1 else None)


def devices():
    """Names of the GPUs that TensorFlow sees here."""
    return [f"/gpu:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]


def unused_gpus():
    """Lines on GPUs of this machine that TensorFlow does not see: one, or none."""
    return [] if devices() else hardware.gpus()[1]


def memory_warnings(config, tpu, strategy):
    """Lines on a step that may take too much memory, as far as it is known what there is; the system kills silently."""
    if tpu or strategy == MULTI_WORKER:
        return []
    found = room.memory_problems(config, room.here(config, len(devices())))
    return found.stop + found.spoil


def described(estimator, strategy):
    """What a run runs on, in words: '2 CPU cores', 'GPU: NVIDIA H200', '8 TPU cores'."""
    cores = getattr(estimator.config.cluster, "cores", None)  # None: no TPU
    if cores:
        return f"{cores} TPU core{'s' if cores > 1 else ''}"
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
             for gpu in tf.config.list_physical_devices("GPU")]
    here = hardware.in_words(names, workers.cores())
    return f"{len(cluster.hosts()[0])} hosts, this one with {here}" if strategy == MULTI_WORKER else here


def make(choice, batch_size):
    """(tf.distribute strategy or None, rows of each replica).  Raises UserError where they cannot share the batch."""
    if choice is None:
        return None, batch_size
    local, hosts = max(1, len(devices())), len(cluster.hosts()[0]) if choice == MULTI_WORKER else 1
    if choice == MULTI_WORKER and hosts < 2:
        raise UserError(f"--strategy {MULTI_WORKER} needs the environment variable {cluster.VARIABLE} with two workers"
                        f" or more: {cluster.EXAMPLE}")
    if batch_size % (local * hosts):
        raise UserError(f'"train_batch_size" {batch_size} cannot be shared by {local * hosts} replicas ({hosts} hosts '
                        f"of {local}); use a multiple of {local * hosts}")
    if choice == MULTI_WORKER:
        options = tf2.distribute.experimental.CommunicationOptions(implementation="NCCL" if devices() else "RING")
        strategy = tf2.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    else:
        strategy = tf2.distribute.MirroredStrategy(devices() or None)
    return strategy, batch_size // (local * hosts)


def tpu_config(iterations, tpu, evaluates):
    """The TPUConfig; several hosts evaluate only if the first one reads for all."""
    several = evaluates and len(getattr(tpu, "workers", ())) > 1
    reading = tf.estimator.tpu.InputPipelineConfig
    return tf.estimator.tpu.TPUConfig(iterations_per_loop=iterations, eval_training_input_configuration=(
        reading.SLICED if several else reading.PER_HOST_V1))


def check_cores(estimator, config, *keys):
    """Raises UserError where a batch size of the config (`keys`) cannot be shared by the cores of the TPU."""
    cores = getattr(estimator.config.cluster, "cores", None)  # None: no TPU
    for key in keys:
        size = getattr(config, key)
        if cores and size % cores:
            raise UserError(f'"{key}" is {size}, which the {cores} cores of the TPU cannot share; set it to a multiple'
                            f" such as {-(-size // cores) * cores}")


def is_first(strategy):
    """Whether this is the host that saves, evaluates and tells; with one host it always is."""
    return strategy != MULTI_WORKER or cluster.hosts()[1] == 0
