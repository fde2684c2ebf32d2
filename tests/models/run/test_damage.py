"""What is said where memory runs out; damaged records and losses that are not finite are tried in test_training.py."""
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import hardware, schema
from configs.errors import UserError
from models.run import cost, damage, devices, predict
from tests.helpers.runs import ROOT

KEYS = {"model_dir": "runs/a", "n_vocab": 50257, "train_batch_size": 32}
RAN_OUT = "a training step ran out of memory: "


def said_of(action, **values):
    """What a user reads where `action` fails in a training step."""
    with pytest.raises(UserError) as caught, damage.named_in_training(schema.from_dict({**KEYS, **values}, "x"), None,
                                                                      None, 9):
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def raising(error):
    def action():
        raise error
    return action


@pytest.mark.slow
def test_where_tensorflow_gets_no_memory_two_keys_are_named_with_values_that_fit(monkeypatch):
    def too_large():
        with tf.Graph().as_default(), tf.Session() as session:
            size = tf.placeholder(tf.int64, [2])  # else it would be computed when the graph is made
            session.run(tf.reduce_sum(tf.fill(size, 1.0)), {size: [2**21, 2**26]})  # 563 TB
    monkeypatch.setattr(hardware, "memory", lambda: (12 * 10**9, 11 * 10**9))
    config = schema.from_dict(KEYS, "x")
    assert said_of(too_large) == RAN_OUT + cost.out_of_memory(config, 12 * 10**9, on_cpu=True)
    assert '"micro_batch_size" to ' in said_of(too_large) and '"recompute" to true' in said_of(too_large)


def test_where_python_gets_no_memory_the_same_is_said():
    assert said_of(lambda: np.empty(2**60, np.uint8)).startswith(RAN_OUT)


@pytest.mark.parametrize("kind, message", [
    (tf.errors.ResourceExhaustedError, "Out of memory while trying to allocate 21474836480 bytes."),
    (tf.errors.InternalError, "Dst tensor is not initialized."),
    (tf.errors.InternalError, "Failed to load in-memory CUBIN: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    (tf.errors.InternalError, "cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"),
    (tf.errors.AbortedError, "Operation received an exception:Status: 1, message: could not create a primitive")])
def test_words_of_gpus_and_of_libraries_are_understood(kind, message, monkeypatch):
    monkeypatch.setattr(hardware, "gpu_memory", lambda: 24 * 10**9)
    monkeypatch.setattr(devices, "devices", lambda: ["/gpu:0"])
    config = schema.from_dict(KEYS, "x")
    assert said_of(raising(kind(None, None, message))) == RAN_OUT + cost.out_of_memory(config, 24 * 10**9)


def test_a_tpu_is_not_taken_for_the_processor_of_its_host():
    words = said_of(raising(tf.errors.ResourceExhaustedError(
        None, None, "Ran out of memory in memory space hbm. Used 20.13G of 15.48G hbm.")))
    assert words == RAN_OUT + cost.out_of_memory(schema.from_dict(KEYS, "x"), None)


def test_another_error_is_not_taken_for_one_about_memory():
    config = schema.from_dict(KEYS, "x")
    for error in (tf.errors.AbortedError(None, None, "Operation received an exception:Status: 3, message: x"),
                  tf.errors.ResourceExhaustedError(None, None, "Received message larger than max"), ValueError("x")):
        with pytest.raises(type(error)), damage.named_in_training(config, None, None, 9):
            raise error
    for words, remedy in (("No space left on device", "make room there"), ("File too large", "allow larger files")):
        assert said_of(raising(tf.errors.ResourceExhaustedError(None, None, f"x; {words}"))).startswith(
            f'"model_dir" runs/a: {words}; {remedy}')


def test_an_evaluation_that_runs_out_of_memory_names_its_own_key():
    for batch, words in ((8, 'lower "eval_batch_size" 8'), (1, cost.SMALLER)):
        config = schema.from_dict({**KEYS, "eval_batch_size": batch}, "x")
        with pytest.raises(UserError, match=f"an evaluation ran out of memory: {words}"), \
                damage.named_in_evaluation(config, None):
            raise MemoryError


def test_generation_that_runs_out_of_memory_names_its_own_key_or_what_else_helps():
    config = schema.from_dict({**KEYS, "predict_batch_size": 8}, "x")
    for at_once, words in ((8, 'lower "predict_batch_size" 8$'), (1, "end other programs, or generate on a machine")):
        with pytest.raises(UserError, match=f"generating ran out of memory: {words}"), \
                damage.named_in_generation(config, at_once):
            raise MemoryError


@pytest.mark.parametrize("words", [["--predict_text", "a"], ["--interactive"]])
def test_both_ways_to_generate_say_so(finished, monkeypatch, words):
    def no_memory(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9,9]")
    monkeypatch.setattr(predict, "rows_of" if words[0] == "--interactive" else "draw", no_memory)
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n"))
    with pytest.raises(UserError, match="generating ran out of memory: end other programs"):
        main.main(["--model", finished, *words])


def test_a_run_warns_where_a_step_takes_more_memory_than_there_is(finished, monkeypatch, capsys):
    monkeypatch.setattr(hardware, "memory", lambda: (600_000_000, 500_000_000))
    assert main.main(["--model", finished]) == 0
    assert "warning: a step takes about 70" in capsys.readouterr().out.split("is done")[0]


PROGRAM = """import ctypes, sys, threading, time
from configs import schema
from models.run import damage
config = schema.from_dict({"model_dir": "runs/a", "n_vocab": 50257, "train_batch_size": 32}, "x")
print("before")
with damage.named_in_training(config, None, None, 9):
    threading.Thread(target=getattr(ctypes.CDLL("libstdc++.so.6"), sys.argv[1])).start()
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs GNU's C++ library")
@pytest.mark.parametrize("thrown, status", [("_ZSt17__throw_bad_allocv", 2), ("_ZSt25__throw_bad_function_callv", -6)])
def test_bad_alloc_in_a_thread_of_the_library_is_one_line_and_not_the_end_by_abort(thrown, status):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, thrown], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, "PYTHONUNBUFFERED": ""})
    assert done.returncode == status and (done.stdout == "before\n") == (status == 2), done
    if status == 2:
        assert done.stderr.startswith(f"error: {RAN_OUT}set ") and done.stderr.count("\n") == 1
