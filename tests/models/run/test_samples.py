"""Samples in a training: where they are shown, what they are, and that they change nothing."""
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import schema, tpu_names
from encoder import bpe
from models.run import samples
from tests.helpers.runs import weights_of

PROMPTS = {"sample_prompts": ["def é", "class Error:\n"], "sample_length": 7}
BLOCK = r"={40} SAMPLE %s ={40}\n(.*?)\n={80}\n"


def texts_in_tensorboard(folder):
    """{tag: [(step, text)]} of what the page of texts shows."""
    found = {}
    for path in sorted(folder.glob("*tfevents*")):
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "text" or value.tag in found:  # only the first tells
                    text, = tf.make_ndarray(value.tensor)
                    found.setdefault(value.tag, []).append((event.step, text.decode()))
    return found


def test_samples_follow_each_evaluation_on_the_console_in_a_file_and_in_tensorboard(run_config, tmp_path, capsys):
    config = run_config(max_steps=8, **PROMPTS)
    assert main.main(["--model", config]) == 0
    out = capsys.readouterr().out
    stored = (tmp_path / "run" / samples.FILE).read_bytes().decode()
    names = [f"{number} AT STEP {step}" for step in (4, 8) for number in (0, 1)]
    assert re.findall(r"SAMPLE (.*?) =", stored) == re.findall(r"SAMPLE (.*?) =", out) == names
    for name in names:
        text, = re.findall(BLOCK % name, stored, re.S)
        assert re.findall(BLOCK % name, out, re.S) == [text]
        assert text.startswith(PROMPTS["sample_prompts"][int(name[0])]) and len(text) > 6
    assert re.search(r"evaluation at step 4.*SAMPLE 1 AT STEP 4.*step +8/8.*evaluation at step 8.*SAMPLE 0 AT STEP 8",
                     out, re.S)
    shown = texts_in_tensorboard(tmp_path / "run")
    assert [step for step, _ in shown["samples/0"]] == [4, 8] == [step for step, _ in shown["samples/1"]]
    lines = shown["samples/1"][1][1].splitlines(keepends=True)
    assert all(line.startswith("    ") for line in lines)  # Markdown keeps such lines as they are
    assert "".join(line[4:] for line in lines) in stored
    # What predictions make of the same prompt, checkpoint and seed.
    assert main.main(["--model", config, "--predict_text", "class Error:\n", "--length", "7", "--seed", "1"]) == 0
    assert re.findall(BLOCK % 0, capsys.readouterr().out, re.S) == [text]


@pytest.mark.slow
def test_samples_change_nothing_in_a_training(run_config, tmp_path):
    for name, changes in (("with", PROMPTS), ("without", {})):
        main.main(["--model", run_config(max_steps=8, res_dropout=0.1, model_dir=str(tmp_path / name), **changes)])
    one, other = weights_of(tmp_path / "with", 8), weights_of(tmp_path / "without", 8)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_where_texts_cannot_be_generated_one_note_says_so(run_config, capsys):
    pod = tpu_names.Tpu("my-pod", None, None, ("a:1", "b:1"), None)
    config = schema.load(run_config(**PROMPTS))
    encoder = bpe.load(config.encoder_path)
    write = samples.writer(config, encoder, pod, None)
    for _ in range(2):
        write("model.ckpt-4")
    assert capsys.readouterr() == ("", "note: no samples: --tpu my-pod has several hosts, and texts are generated on"
                                       " one\n")
    samples.writer(schema.load(run_config()), encoder, pod, None)("model.ckpt-4")  # none are wanted
    assert capsys.readouterr() == ("", "")


def test_samples_without_evaluations_are_said_to_be_none(run_config, tmp_path, capsys):
    main.main(["--model", run_config(max_steps=2, eval_steps=0, **PROMPTS)])
    assert 'no evaluations and no samples: "eval_steps" is 0' in capsys.readouterr().out
    assert not (tmp_path / "run" / samples.FILE).exists()
