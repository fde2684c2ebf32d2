"""The SavedModel, loaded in a fresh process that knows nothing of this project."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import schema
from configs.errors import UserError
from encoder import bpe
from tests.helpers import graphs

# What a user of the SavedModel writes; its requests and answers are JSON.
CLIENT = """
import json, os, sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
requests = json.load(sys.stdin)
answers = []
for name, inputs in requests:
    kinds = {"temperature": tf.float32, "top_p": tf.float32}
    inputs = {key: tf.constant(value, kinds.get(key, tf.int32)) for key, value in inputs.items()}
    try:
        answers.append({key: value.numpy().tolist() for key, value in model.signatures[name](**inputs).items()})
    except tf.errors.InvalidArgumentError as error:
        answers.append(str(error))
assert not {"main", "gpt2", "models", "generation", "encoder"} & set(sys.modules)
print(json.dumps([answers, sorted(os.listdir(os.path.join(sys.argv[1], "assets")))]))
"""


@pytest.fixture(scope="module")
def exported(random_run, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export") / "model")
    assert main.main(["--model", random_run, "--export_dir", folder]) == 0
    return folder


@pytest.fixture(scope="module")
def ask(exported, tmp_path_factory):
    """Function (requests) -> (answers, names of assets)."""
    def ask(*requests):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        found = subprocess.run([sys.executable, "-c", CLIENT, exported], input=json.dumps(requests), text=True,
                               cwd=elsewhere, capture_output=True, timeout=240)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout.splitlines()[-1])
    return ask


def samples_of(random_run, capsys, prompt, **options):
    capsys.readouterr()
    main.main(["--model", random_run, "--predict_text", prompt, "--json",
               *[f"--{name}={value}" for name, value in options.items()]])
    return json.loads(capsys.readouterr().out)


def weights_of(config):
    reader = tf.train.load_checkpoint(config.model_dir)
    return {name[len("model/"):]: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
            if name.startswith("model/")}


def test_a_fresh_process_generates_and_scores_with_it_as_this_project_does(random_run, ask, capsys):
    config = schema.load(random_run)
    encoder = bpe.load(config.encoder_path)
    texts = ["import json", "def", ""]
    ids = [encoder.encode(text) for text in texts]
    width = max(map(len, ids))
    ids = [row + [-1] * (width - len(row)) for row in ids]
    greedy = {"ids": ids, "length": 25, "temperature": 0, "top_k": 0, "top_p": 1, "seed": 0}
    drawn = {"ids": ids[:1] * 3, "length": 8, "temperature": [1.0, 1.0, 0.7], "top_k": [9, 9, 0],
             "top_p": [1.0, 1.0, 0.8], "seed": [4, 5, 4]}
    empty = {**greedy, "ids": [[], []]}
    scored = {"ids": [row[:5] for row in ids]}
    answers, assets = ask(["generate", greedy], ["generate", drawn], ["generate", drawn], ["score", scored],
                          ["generate", empty], ["score", {"ids": [[1] * 18]}])
    assert assets == ["encoder.json", "vocab.bpe"]
    for text, tokens, logprobs in zip(texts, answers[0]["ids"], answers[0]["logprobs"]):
        expected = samples_of(random_run, capsys, text, temperature=0, length=25)
        count = len(expected["tokens"])
        assert tokens[:count] == expected["tokens"] and set(tokens[count:]) <= {-1}
        np.testing.assert_allclose(logprobs[:count], expected["logprobs"], atol=1e-4)
    assert answers[1] == answers[2] and answers[1]["ids"][0] != answers[1]["ids"][1]
    assert answers[4]["ids"] == answers[0]["ids"][2:] * 2
    logits = graphs.logits(config, weights_of(config), [[max(i, 0) for i in row] for row in scored["ids"]])
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for row, own, found in zip(scored["ids"], logprobs, answers[3]["logprobs"]):
        expected = [own[i, row[i + 1]] if row[i + 1] >= 0 else 0 for i in range(4)]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert "the network sees 16 ids at once" in answers[5]


def test_assets_are_the_vocabulary_byte_for_byte(random_run, exported):
    for path in bpe.files(schema.load(random_run).encoder_path):
        with open(path, "rb") as ours, open(os.path.join(exported, "assets", os.path.basename(path)), "rb") as theirs:
            assert ours.read() == theirs.read()


def test_a_folder_that_exists_is_a_mistake_and_stays_as_it_is(random_run, exported):
    before = sorted(os.listdir(exported))
    with pytest.raises(UserError, match="exists and is no empty folder; give a new one"):
        main.main(["--model", random_run, "--export_dir", exported])
    assert sorted(os.listdir(exported)) == before
    assert os.listdir(os.path.dirname(exported)) == ["model"]
