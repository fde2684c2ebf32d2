"""Prompt after prompt from standard input, each continued token by token with weights that are loaded once."""
import contextlib
import re
import signal
import sys
import threading

import tensorflow.compat.v1 as tf

from configs import arguments, start, storage
from configs.errors import UserError
from encoder import prompts, stop_texts
from models import decoding, sampling
from models.checkpoints import warm_start
from models.run import damage, predict, workarounds

MARK = "> "
# What a key such as Up sends where nothing reads it (ECMA-48), and other control characters.
KEYS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|.)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def run(config, encoder, given, tpu, *, checkpoint, as_json, int8):
    """Continues every line of standard input with the options `given`, until it ends; returns the exit status."""
    if tpu:
        raise UserError("--interactive runs on this machine's CPU or GPU; leave --tpu out, or give a --predict_file")
    path = predict.weights_path(config, encoder, checkpoint)
    predict.store(config, "")  # a path that cannot be written is said before anything is typed
    with predict.threads_for(config, 1, int8=int8), damage.named_in_generation(config), start.ended_at_once():
        workarounds.compile_silently()
        draw = _load(config, encoder, path, int8)

    def say(piece):
        print("" if as_json else piece, end="", flush=True)
    number = 0
    for line in _lines(shown=not as_json):
        with _ctrl_c() as came, damage.named_in_generation(config):
            for row in predict.rows_of(prompts.make(line, given), encoder, config.n_ctx):
                shown = predict.heading(number) + row.prompt.text
                say(shown)
                sample = predict.finish(encoder, row.prompt, draw(row, came), say)
                predict.show(config, number, sample, as_json=as_json, shown=shown + sample.text)
                number += 1
                if came.is_set():
                    break
    return 0


@contextlib.contextmanager
def _ctrl_c():
    """Inside, Ctrl-C only sets the Event: TensorFlow is not torn out of its work, and what was drawn is kept."""
    came = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


def _load(config, encoder, path, int8):
    """draw(a predict.Row, Event), which yields (token, logprob) one after the other until the Event is set.

    The weights are those at `path`.  The session is kept, and what is between two tokens stays in its variables.
    """
    with tf.Graph().as_default():
        variables = decoding.create_variables(config, int8=int8)
        options = sampling.Options(*[tf.placeholder(sampling.dtype_of(name), [1]) for name in sampling.Options._fields])
        tokens = tf.placeholder(tf.int32, [1, None])
        step, empty_cache = decoding.decoder(variables, config, int8=int8)
        limits = sampling.Limits(n_ctx=config.n_ctx, eot=encoder.eot, length=options.length[0],
                                 vocabulary=encoder.size, penalties=True,
                                 largest=sampling.largest_needed(options, config.n_vocab))
        state = sampling.begin(step, empty_cache, tokens, tf.shape(tokens)[1:], options, limits)
        places = [_state_variable(part) for part in tf.nest.flatten(state)]
        before = tf.nest.pack_sequence_as(state, [place.read_value() for place in places])
        first = _keep_state(places, state)
        following = _keep_state(places, sampling.advance(step, before, options, limits))
        session = tf.Session(config=workarounds.session_config())
        warm_start.restore(path, config, variables, session)
        session.run(tf.local_variables_initializer())

    def draw(row, came):
        values = row.options(stop_texts.NEVER)  # the caller sees the text, and stops
        feed = {place: [values[name]] for name, place in options._asdict().items()}
        with start.ended_at_once():  # the first token waits for the whole prompt
            token, logprob, ended = session.run(first, {**feed, tokens: [row.tokens]})
        yield int(token), logprob
        while not (ended or came.is_set()):
            token, logprob, ended = session.run(following, feed)
            yield int(token), logprob
    return draw


def _state_variable(tensor):
    """A variable for values like `tensor`; their size may change from prompt to prompt."""
    shape = [size or 0 for size in tensor.shape.as_list()]
    return tf.Variable(tf.zeros(shape, tensor.dtype), shape=tensor.shape, trainable=False, use_resource=True,
                       collections=[tf.GraphKeys.LOCAL_VARIABLES])


def _keep_state(places, state):
    """What to fetch: token, logprob, and whether the sample has ended, once `state` lies in its variables `places`."""
    with tf.control_dependencies([place.assign(part) for place, part in zip(places, tf.nest.flatten(state))]):
        return [tf.identity(part) for part in (state.token[0], state.logprobs[0, state.number - 1], state.ended[0])]


def _lines(*, shown):
    """The lines of standard input; at a terminal each is asked for and may be edited, and Ctrl-C begins another one."""
    typed = sys.stdin.isatty()
    asked = typed and shown
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no UTF-8 is refused below
    if typed:
        back = ""
        with contextlib.suppress(ImportError):  # Python may lack it: the keys are taken out below then
            import readline  # noqa: F401 (all that input() needs)
            back = ", Up brings an earlier one back"
        arguments.note(f"Enter continues a line{back}; Ctrl-C ends a text, Ctrl-D the program")
    while True:
        try:
            line = input(MARK if asked else "")
            storage.check_text(line, "the line")
            yield KEYS.sub("", line) if typed else line
        except UserError as error:
            if not typed:
                raise
            arguments.note(str(error))
        except EOFError:
            print(end="\n" if asked else "")
            return
        except KeyboardInterrupt:
            if not asked:
                raise
            print()
