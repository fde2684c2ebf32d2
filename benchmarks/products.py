"""How fast TensorFlow and torch multiply matrices of the shapes that a training step of GPT-2 multiplies.

A training step cannot be faster than the better library for each shape.  M, K, N: [M, K] times [K, N].
"""
import collections
import time

from benchmarks import ours
from configs.errors import UserError
from datasets.jobs import workers

TIMES = 3  # calls, of which the best counts
LIBRARIES = ("tensorflow", "torch")


def shapes(config):
    """{(M, K, N, is the left one transposed, the right one): how often} of products with weights in a training step."""
    rows = (config.micro_batch_size or config.train_batch_size) * config.n_ctx
    slices = config.train_batch_size * config.n_ctx // rows
    counts = collections.Counter()
    for weight in ours.weight_list(config):
        if len(weight.shape) == 3:
            _, inputs, outputs = weight.shape
            counts.update({(rows, inputs, outputs, False, False): slices, (rows, outputs, inputs, False, True): slices,
                           (inputs, rows, outputs, True, False): slices})
        elif weight.name == "wte":  # as the output layer
            vocabulary, width = weight.shape
            counts.update({(rows, width, vocabulary, False, True): slices,
                           (rows, vocabulary, width, False, False): slices,
                           (vocabulary, rows, width, True, False): slices})
    return counts


def operations(counts):
    """Multiplications and additions of all these products."""
    return sum(2 * m * k * n * times for (m, k, n, _, _), times in counts.items())


def attention_operations(config):
    """Operations of attention in a training step, with the half that causality makes superfluous."""
    return 12 * config.n_layer * config.n_embd * config.n_ctx * config.n_ctx * config.train_batch_size


def step_operations(config):
    """Operations of a training step."""
    return operations(shapes(config)) + attention_operations(config)


def serve(turns, config, library, precision, device):
    """Answers each turn with the seconds of each shape, in their order."""
    runs = None
    while turns.wait():
        runs = runs or (_tensorflow if library == "tensorflow" else _torch)(config, precision, device)
        turns.answer([min(_seconds(run) for _ in range(TIMES)) for run in runs])
    turns.answer(None)


def rate(config, answers):
    """Operations a second by the best library for each shape; `answers` holds one answer of each library."""
    counts = shapes(config)
    seconds = sum(min(times) * count for times, count in zip(zip(*answers), counts.values()))
    return operations(counts) / seconds


def _seconds(run):
    begun = time.monotonic()
    run()
    return time.monotonic() - begun


def _stored(shape):
    """The shapes of the two matrices of a product as they stand in memory."""
    m, k, n, left, right = shape
    return (k, m) if left else (m, k), (n, k) if right else (k, n)


def _tensorflow(config, precision, device):
    """A function for each shape that multiplies two such matrices."""
    import tensorflow.compat.v1 as tf
    ours.start_quietly()
    check_gpu("TensorFlow", device)

    def make(size):
        values = tf.random.stateless_uniform(size, [1, 2], -1.0)
        return tf.Variable(tf.cast(values, precision), use_resource=True)
    matrices = _matrices(config, make)
    # The operation and not its result, which would be copied out of the session.
    runs = [tf.matmul(*(matrices[size] for size in _stored(shape)), transpose_a=shape[3], transpose_b=shape[4]).op
            for shape in shapes(config)]
    session = ours.session()
    session.run(tf.global_variables_initializer())
    return [lambda run=run: session.run(run) for run in runs]


def _torch(config, precision, device):
    """Like _tensorflow, in torch."""
    import torch
    place = torch_device(torch, device)
    matrices = _matrices(config, lambda size: (torch.rand(size) * 2 - 1).to(place, getattr(torch, precision)))

    def run(left, right):
        torch.mm(left, right)
        if device == "gpu":
            torch.cuda.synchronize()
    runs = []
    for shape in shapes(config):
        left, right = (matrices[size].T if transposed else matrices[size]
                       for size, transposed in zip(_stored(shape), shape[3:]))
        runs.append(lambda left=left, right=right: run(left, right))
    return runs


def _matrices(config, make):
    """{shape: make(shape)} of all matrices as they stand in memory."""
    return {size: make(size) for size in {size for shape in shapes(config) for size in _stored(shape)}}


def torch_device(torch, device):
    """torch's device: all cores, or the GPU with tensor cores in float32, as TensorFlow uses them."""
    torch.set_num_threads(workers.cores())
    check_gpu("torch", device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return torch.device("cuda" if device == "gpu" else "cpu")


def check_gpu(library, device):
    """Raises UserError where a GPU is to be measured that the library does not see."""
    if device != "gpu":
        return
    if library == "torch":
        import torch
        there = torch.cuda.is_available()
    else:
        import tensorflow
        there = tensorflow.config.list_physical_devices("GPU")
    if not there:
        raise UserError(f"{library} sees no GPU; install it with CUDA, or give --device cpu")
