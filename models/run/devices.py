"""Several GPUs, several hosts, the cores of a TPU: who shares a batch."""
import json
import os

from configs.arguments import STRATEGIES
from configs.errors import UserError

MIRRORED, MULTI_WORKER = STRATEGIES
EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
CLUSTER = "TF_CONFIG"  # TensorFlow's name for the environment variable that describes the hosts


def choose(wanted, tpu):
    """One of STRATEGIES, or None for one device: what is `wanted`, else what this machine and TF_CONFIG suggest."""
    if tpu:
        return None
    return wanted or (MULTI_WORKER if len(workers()) > 1 else MIRRORED if len(devices()) > 1 else None)


def devices():
    """Names of the GPUs that TensorFlow sees here."""
    import tensorflow as tf
    return [f"/gpu:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]


def make(choice, batch_size):
    """(tf.distribute strategy or None, rows of the global batch for each replica).

    Raises UserError where the replicas do not divide the batch.
    """
    if choice is None:
        return None, batch_size
    import tensorflow as tf
    local, hosts = max(1, len(devices())), 1
    if choice == MULTI_WORKER:
        hosts = len(workers())
        if hosts < 2:
            raise UserError(f"--strategy {MULTI_WORKER} needs the environment variable {CLUSTER} with two workers or "
                            f"more: {EXAMPLE}")
    if batch_size % (local * hosts):
        raise UserError(f'"train_batch_size" {batch_size} cannot be shared by {local * hosts} replicas ({hosts} hosts '
                        f"of {local}); use a multiple of {local * hosts}")
    if choice == MULTI_WORKER:
        kind = tf.distribute.experimental.CommunicationImplementation
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=tf.distribute.experimental.CommunicationOptions(
                implementation=kind.NCCL if devices() else kind.RING))
    else:
        strategy = tf.distribute.MirroredStrategy(devices() or None)
    return strategy, batch_size // (local * hosts)


def tpu_config(iterations, tpu, evaluates):
    """The TPUConfig; several hosts evaluate only if the first one reads for all."""
    import tensorflow.compat.v1 as tf
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


def workers():
    """Addresses, host:port, of all hosts of a training; [] for one.  Raises UserError for a bad TF_CONFIG."""
    return _cluster()[0]


def index():
    """The place of this host among `workers`."""
    return _cluster()[1]


def is_first(strategy):
    """Whether this is the host that saves, evaluates and tells; with one host it always is."""
    return strategy != MULTI_WORKER or index() == 0


def _cluster():
    text = os.environ.get(CLUSTER)
    if not text:
        return [], 0
    try:
        content = json.loads(text)
        cluster, task = dict(content["cluster"]), content["task"]
        hosts = [(kind, number, address) for kind in ("chief", "worker")
                 for number, address in enumerate(cluster.pop(kind, []))]
        if cluster:
            raise ValueError
        place = [host[:2] for host in hosts].index((task["type"], int(task["index"])))
    except (ValueError, KeyError, TypeError):
        raise UserError(f'the environment variable {CLUSTER} is {text[:200]}; it has to look like '
                        f"{EXAMPLE}")
    return [address for _, _, address in hosts], place
