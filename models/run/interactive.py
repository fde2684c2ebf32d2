"""Prompt after prompt from standard input, each continued token by token with weights that are loaded once."""
import signal
import sys

import tensorflow.compat.v1 as tf

from configs.errors import UserError
from encoder import prompts, stop_texts
from models import decoding, initial_values, sampling
from models.checkpoints import warm_start
from models.run import predict, workarounds

MARK = "> "


def run(config, encoder, given, tpu, *, as_json):
    """Continues every line of standard input with the options `given`, until it ends; returns the exit status."""
    if tpu:
        raise UserError("--interactive runs on this machine's CPU or GPU; leave --tpu out, or give a --predict_file")
    path = predict.weights_path(config, encoder)
    predict.store(config, "")  # a path that cannot be written is said before anything is typed
    with predict.threads_for(config, 1):
        workarounds.compile_silently()
        decoder = Decoder(config, encoder, path)
    number = 0
    for line in _lines(shown=not as_json):
        with Interruption() as interruption:
            for row in predict.rows_of(prompts.make(line, given), encoder, config.n_ctx):
                sample = _continue(decoder, encoder, number, row, interruption, as_json=as_json)
                predict.store(config, predict.layout(number, sample))
                number += 1
                if interruption.came:
                    break
    return 0


class Interruption:
    """Inside, Ctrl-C only sets `came`: TensorFlow is not torn out of its work, and what was drawn is kept."""
    came = False

    def __enter__(self):
        def note(*_):
            self.came = True
        self._before = signal.signal(signal.SIGINT, note)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self._before)


class Decoder:
    """The network with the weights at `path` in a session of its own; what is between two tokens stays in variables."""

    def __init__(self, config, encoder, path):
        self._config = config
        with tf.Graph().as_default():
            variables = initial_values.create_variables(config)
            self._options = sampling.Options(*[
                tf.placeholder(tf.float32 if name in ("temperature", "top_p", "repetition_penalty") else tf.int32, [1])
                for name in sampling.Options._fields])
            self._tokens = tf.placeholder(tf.int32, [1, None])
            self._build(variables, encoder)
            self._session = tf.Session(config=workarounds.session_config())
            warm_start.restore(path, config, variables, self._session)
            self._session.run(tf.local_variables_initializer())

    def _build(self, variables, encoder):
        config, options = self._config, self._options
        step, empty_cache = decoding.decoder(variables, config)
        limits = sampling.Limits(n_ctx=config.n_ctx, eot=encoder.eot, length=options.length[0],
                                 vocabulary=encoder.size, penalties=True,
                                 largest=sampling.largest_needed(options, config.n_vocab))
        state = sampling.begin(step, empty_cache, self._tokens, tf.shape(self._tokens)[1:], options, limits)
        places = [_state_variable(part) for part in tf.nest.flatten(state)]
        before = tf.nest.pack_sequence_as(state, [place.read_value() for place in places])
        self._first = self._keep_state(places, state)
        self._next = self._keep_state(places, sampling.advance(step, before, options, limits))

    @staticmethod
    def _keep_state(places, state):
        """What to fetch: token, logprob, and whether the sample has ended, once `state` lies in its variables."""
        with tf.control_dependencies([place.assign(part) for place, part in zip(places, tf.nest.flatten(state))]):
            return [tf.identity(part) for part in (state.token[0], state.logprobs[0, state.number - 1], state.ended[0])]

    def draw(self, row):
        """Yields (token, logprob) of a generation.Row, one after the other."""
        values = row.prompt._asdict()
        values.update(seed=row.seed, stop=stop_texts.NEVER)  # the caller sees the text, and stops
        feed = {place: [values[name]] for name, place in self._options._asdict().items()}
        token, logprob, ended = self._session.run(self._first, {**feed, self._tokens: [row.tokens]})
        yield int(token), float(logprob)
        while not ended:
            token, logprob, ended = self._session.run(self._next, feed)
            yield int(token), float(logprob)


def _continue(decoder, encoder, number, row, interruption, *, as_json):
    """Draws one sample, showing its text as it comes; returns the generation.Sample."""
    text, tokens, logprobs, pieces = stop_texts.Text(encoder, row.prompt.stop), [], [], []

    def show(piece):
        pieces.append(piece)
        if not as_json:
            print(piece, end="", flush=True)
    if not as_json:
        print(predict.heading(number) + row.prompt.text, end="", flush=True)
    for token, logprob in decoder.draw(row):
        tokens.append(token)
        logprobs.append(round(logprob, 6))
        if token != encoder.eot:
            show(text.add(token))
        if text.stopped or interruption.came:
            break
    show(text.end())
    stop = "stop" if text.stopped else "eot" if tokens[-1] == encoder.eot else "length"
    if interruption.came and stop == "length" and len(tokens) < row.prompt.length:
        stop = "interrupted"
    sample = predict.Sample(row.prompt.text, "".join(pieces), tokens, logprobs, stop)
    print(predict.json_of(sample) if as_json else predict.ENDING, end="\n" if as_json else "", flush=True)
    return sample


def _lines(*, shown):
    """The lines of standard input; at a terminal each is asked for, and Ctrl-C begins another one."""
    asked = sys.stdin.isatty() and shown
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    while True:
        if asked:
            print(MARK, end="", flush=True)  # input(MARK) writes it to stderr
        try:
            yield input()
        except EOFError:
            print(end="\n" if asked else "")
            return
        except KeyboardInterrupt:
            if not asked:
                raise
            print()


def _state_variable(tensor):
    """A variable for values like `tensor`; their size may change from prompt to prompt."""
    shape = [size or 0 for size in tensor.shape.as_list()]
    return tf.Variable(tf.zeros(shape, tensor.dtype), shape=tensor.shape, trainable=False, use_resource=True,
                       collections=[tf.GraphKeys.LOCAL_VARIABLES])
