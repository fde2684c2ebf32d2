import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import tensorflow.compat.v1 as tf  # noqa: E402

tf.disable_eager_execution()
tf.logging.set_verbosity(tf.logging.ERROR)

import json  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sysconfig  # noqa: E402

import pytest  # noqa: E402

# Where the tests run in the background Ctrl-C is ignored, and so it would be in the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def text_corpus(tmp_path_factory):
    """Folder with a vocabulary of 300 ids in encoder/ and shards of real text: a package of Python's own sources."""
    from datasets import create_tfrecords
    from encoder import train
    folder = tmp_path_factory.mktemp("corpus")
    source = os.path.join(sysconfig.get_path("stdlib"), "json")
    assert not train.main(["--input", source, "--size", "300", "--no_ftfy", "--output_dir", str(folder / "encoder")])
    assert not create_tfrecords.main(
        ["--input", source, "--name", "text", "--output_dir", str(folder), "--encoder_path", str(folder / "encoder"),
         "--files_per", "2", "--eval_fraction", "0.3", "--minimum_size", "5", "--no_ftfy", "--processes", "1"])
    return folder


def _small_run(text_corpus, folder):
    return {"n_ctx": 16, "n_vocab": 300, "n_embd": 32, "n_layer": 2, "n_head": 2, "lr": 1e-2, "warmup_steps": 2,
            "train_batch_size": 4, "eval_batch_size": 3, "predict_batch_size": 2, "train_steps": 4, "eval_steps": 2,
            "max_steps": 8, "save_checkpoints_steps": 100, "input": "tfrecords", "data_path": str(text_corpus),
            "train_files": "text_*.tfrecords", "eval_files": "text-eval_*.tfrecords",
            "encoder_path": str(text_corpus / "encoder"), "model_dir": str(folder / "run"),
            "predict_path": str(folder / "samples" / "out.txt")}


@pytest.fixture
def run_config(text_corpus, tmp_path):
    """Function (**changes) -> path of a JSON config of a run that takes a second, with its model_dir in tmp_path."""
    def write(**changes):
        values = {**_small_run(text_corpus, tmp_path), **changes}
        path = tmp_path / "config.json"
        path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))
        return str(path)
    return write


@pytest.fixture(scope="session")
def trained_folder(text_corpus, tmp_path_factory):
    """A model_dir after the 4 steps and the evaluation of run_config(max_steps=4)."""
    import main
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "config.json"
    config.write_text(json.dumps({**_small_run(text_corpus, folder), "max_steps": 4}))
    assert main.main(["--model", str(config)]) == 0
    return folder / "run"


@pytest.fixture
def finished(trained_folder, run_config, tmp_path):
    """Path of run_config(max_steps=4), whose run is done."""
    shutil.copytree(trained_folder, tmp_path / "run")
    return run_config(max_steps=4)


@pytest.fixture(scope="session")
def random_run(text_corpus, tmp_path_factory):
    """Path of the config of a run with a checkpoint of random weights: every token is possible and none certain."""
    from configs import schema
    from tests.helpers import graphs
    folder = tmp_path_factory.mktemp("random_run")
    values = {"n_ctx": 16, "n_vocab": 300, "n_embd": 32, "n_layer": 2, "n_head": 2, "predict_batch_size": 3,
              "model_dir": str(folder / "run"), "encoder_path": str(text_corpus / "encoder"), "eval_steps": 0,
              "predict_path": str(folder / "samples" / "out.txt"), "input": "tfrecords", "train_files": "none"}
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    graphs.save_checkpoint(schema.load(str(path)), scale=0.3)
    return str(path)
