"""The quick start's first steps by the formulas alone, and with the functions of models/cpu/: the same losses."""
import os
import re
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inputs
from configs import schema
from datasets import shard_sets, vocabularies
from datasets.window_order import WindowOrder
from models import gpt2
from models.cpu import compiled
from tests.helpers.runs import ROOT

STEPS = 20


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """configs/quickstart.json with the data that `make quickstart` makes, in a folder of their own."""
    folder = tmp_path_factory.mktemp("quickstart")
    with open(os.path.join(ROOT, "Makefile")) as f:
        left_out = re.search(r"foreach name,([\w -]+),", f.read()).group(1).replace(",", " ").split()
    stdlib = ["--input", sysconfig.get_path("stdlib"), "--no_ftfy"]
    stdlib += [word for name in left_out for word in ("--exclude", name)]
    for command in (["encoder/train.py", *stdlib, "--size", "4096", "--output_dir", folder / "encoder"],
                    ["datasets/create_tfrecords.py", *stdlib, "--name", "python", "--eval_fraction", "0.05",
                     "--encoder_path", folder / "encoder", "--output_dir", folder]):
        subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, capture_output=True)
    config = schema.load(os.path.join(ROOT, "configs", "quickstart.json"), [f"data_path={folder}"])
    return vocabularies.complete(config)[0]


def losses(config, formulas_only):
    """Those of the first STEPS updates."""
    order = WindowOrder.of(config, shard_sets.find(config, shard_sets.TRAIN))
    input_fn = inputs.train_input_fn(order, config.n_vocab - 1, start_step=0, stop_step=STEPS)
    with pytest.MonkeyPatch.context() as patch, tf.Graph().as_default(), tf.Session() as s:
        patch.setattr(compiled, "FORMULAS_ONLY", formulas_only)
        tf.train.create_global_step()
        batch = tf.data.make_one_shot_iterator(input_fn({"batch_size": config.train_batch_size})).get_next()
        spec = gpt2.make_model_fn(config)(*batch, tf.estimator.ModeKeys.TRAIN, {"use_tpu": False})
        types = {op.type for op in s.graph.get_operations()}
        assert ("PartitionedCall" in types and "InplaceAdd" in types) != formulas_only
        s.run(tf.global_variables_initializer())
        return [s.run([spec.loss, spec.train_op])[0] for _ in range(STEPS)]


@pytest.mark.slow
def test_the_formulas_alone_train_to_the_same_losses(config):
    expected = losses(config, formulas_only=False)
    assert expected[0] - expected[-1] > 1
    np.testing.assert_allclose(losses(config, formulas_only=True), expected, atol=1e-4)
