"""The command line as its users call it, and every mistake in it."""
import os
import re
import select
import subprocess
import sys

import pytest

import main
from configs import arguments as command_line
from encoder import bpe
from tests.helpers.records import write_data_set
from tests.helpers.runs import ROOT, command, mistake


def test_samples_are_printed_and_appended_and_repeat_with_their_seed(finished, tmp_path, capsys):
    capsys.readouterr()
    arguments = ["--model", finished, "--predict_text", "def é", "--length", "9", "--num_samples", "3", "--seed", "5"]
    assert main.main(arguments) == 0
    out = capsys.readouterr().out
    assert [int(number) for number in re.findall(r"^={40} SAMPLE (\d) ={40}$", out, re.M)] == [0, 1, 2]
    assert out.count("def é") == 3 and out.rstrip().endswith("=" * 80)
    assert main.main(arguments) == 0
    assert capsys.readouterr().out == out
    assert (tmp_path / "samples" / "out.txt").read_text() == out + out
    main.main(arguments[:-1] + ["6"])
    assert capsys.readouterr().out != out


def test_reader_that_has_enough_ends_the_program_quietly(run_config):
    process = subprocess.run(f"{sys.executable} main.py --model {run_config()} --plan | true", shell=True, cwd=ROOT,
                             capture_output=True, text=True)
    assert process.stderr == ""


WAITS = """import sys
from configs import commands
def main(argv):
    print("a line")
    return len(sys.stdin.read())
commands.run(main)"""


def test_each_line_reaches_a_pipe_at_once():
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen([sys.executable, "-c", WAITS], cwd=ROOT, env=buffered, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    said = select.select([process.stdout], [], [], 30)[0]
    out, _ = process.communicate("", timeout=30)
    assert said and out == "a line\n" and process.returncode == 0


def test_predict_file_is_the_prompt_and_zero_temperature_is_greedy(finished, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("class Encoder:\n")
    capsys.readouterr()
    for seed in ("1", "2"):
        main.main(["--model", finished, "--predict_file", str(tmp_path / "prompt.txt"), "--length", "25",
                   "--seed", seed, "--temperature", "0", "--top_k", "0"])
    first, second = capsys.readouterr().out.split("=" * 80 + "\n")[:2]
    assert first == second and "class Encoder:\n" in first


def test_what_the_user_sees_is_ours_alone(run_config):
    config = run_config(max_steps=4)
    for arguments in ([], ["--eval"], ["--predict_text", "def", "--length", "3"]):
        result = command("--model", config, *arguments)
        assert result.returncode == 0 and result.stderr == "", result.stderr
        known = r"starting|step|evaluation|the best so far|done|generate|[\d,]+ targets"
        lines = result.stdout.splitlines()
        if "--predict_text" in arguments:
            assert "SAMPLE 0" in lines[0] and lines[1].startswith("def") and lines[-1] == "=" * 80
        else:
            assert lines and all(re.match(known, line) for line in lines), result.stdout


def test_help_imports_no_tensorflow():
    code = ("import sys, main\ntry:\n    main.main(['--help'])\nexcept SystemExit as end:\n"
            "    assert not end.code and 'tensorflow' not in sys.modules")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "--predict_text" in result.stdout, result.stderr


def test_plan_imports_no_tensorflow_and_writes_nothing(run_config, tmp_path):
    code = "import sys, main; main.main(sys.argv[1:]); assert 'tensorflow' not in sys.modules"
    arguments = ["--model", run_config(warmup_steps=1), "--plan"]
    result = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "no problems found" in result.stdout, result.stdout + result.stderr
    assert not (tmp_path / "run").exists()


def test_a_mistake_is_one_line_on_stderr_and_status_2(run_config):
    for arguments, words in [(["--model", run_config(), "--set", "n_embed=3"], '"n_embed"; did you mean "n_embd"?'),
                             (["--model", "nowhere.json"], "nowhere.json"),
                             (["--model", run_config(), "--plan", "--eval"], "not allowed with argument"),
                             (["--modle", "x"], "--help")]:
        result = command(*arguments)
        assert result.returncode == 2 and result.stdout == "", result
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ") and words in result.stderr


@pytest.mark.parametrize("arguments, words", [
    (["--predict_text", "a", "--predict_file", "b"], "not allowed with argument"),
    (["--top_k", "3"], "--top_k needs a text to continue; give --predict_text TEXT, --predict_file FILE or --inter"),
    (["--temperature", "0"], "--temperature needs a text"), (["--json"], "--json needs a text to continue"),
    (["--int8"], "--int8 needs a text to continue"),
    (["--int8", "--predict_text", "x", "--tpu", "local"], "--int8 is for the processor of this machine; leave it out"),
    (["--interactive", "--eval"], "not allowed with argument"),
    (["--interactive", "--tpu", "local"], "--interactive runs on this machine's CPU or GPU; leave --tpu out"),
    (["--predict_text", "a", "--stop", ""], '--stop is [""], but must be a text that is not empty'),
    (["--predict_text", "a", "--temperature", "-1"], "--temperature is -1.0, but must be a number from 0 to 1000000"),
    (["--predict_text", "a", "--top_p", "1.5"], "--top_p is 1.5, but must be a number from 0 to 1"),
    (["--predict_text", "a", "--length", "0"], "--length is 0, but must be an integer from 1 to 1000000"),
    (["--predict_text", "a"], "holds no checkpoint to generate with; train first"),
    (["--eval"], "holds no checkpoint to evaluate; train first"),
    (["--predict_file", "/nonexistent.txt"], "/nonexistent.txt: cannot be read (No such file")])
def test_wrong_options_are_named(run_config, arguments, words):
    assert words in mistake("--model", run_config(), *arguments)


def test_empty_or_binary_prompt_file_is_an_error(run_config, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"abc\xff")
    assert "empty.txt is empty" in mistake("--model", run_config(), "--predict_file", str(tmp_path / "empty.txt"))
    binary = mistake("--model", run_config(), "--predict_file", str(tmp_path / "binary.txt"))
    assert "binary.txt: is not UTF-8 text" in binary


def test_a_mistake_in_prompts_is_told_before_tensorflow_is_there(run_config):
    code = "import sys; sys.modules['tensorflow'] = None; import main; main.main(sys.argv[1:])"
    result = subprocess.run([sys.executable, "-c", code, "--model", run_config(), "--predict_file", "/nowhere.txt"],
                            cwd=ROOT, text=True, capture_output=True)
    assert "UserError: /nowhere.txt: cannot be read (No such file" in result.stderr


def test_an_empty_name_of_a_tpu_is_none(run_config):
    assert command_line.find_tpu(command_line.parse(["--model", run_config(), "--tpu", ""]), None) is None


def test_missing_shards_name_the_pattern(run_config, tmp_path):
    assert "no file matches" in mistake("--model", run_config(train_files="nothing_*.tfrecords"))
    assert not (tmp_path / "run").exists()


def test_plan_sees_what_does_not_fit(finished, tmp_path, capsys):
    bpe.write(str(tmp_path / "other"), [])
    others = write_data_set(tmp_path / "others", "b")
    for change, words in [("n_layer=3", '"n_layer" was 2 and is now 3'), ("n_vocab=299", "has 300 ids"),
                          (f"encoder_path={tmp_path}/other", "run was trained with another vocabulary"),
                          (f"train_files={others}/b_*.tfrecords", "training shards are not those the run began with")]:
        main.main(["--model", finished, "--plan", "--set", change])
        assert words in capsys.readouterr().out, change


def test_plan_and_start_line_name_the_source_of_the_weights(finished, run_config, tmp_path, capsys):
    new = ["--set", f"model_dir={tmp_path}/new"]
    start = str(tmp_path / "run" / "model.ckpt-4")
    for more, source in [([], f"model.ckpt-4 in {tmp_path}/run"), (new, "scratch"),
                         ([*new, "--set", f"init_checkpoint={start}"], start)]:
        main.main(["--model", finished, "--plan", *more])
        assert f"\nweights from            {source}\n" in capsys.readouterr().out
    main.main(["--model", finished, "--set", "max_steps=5"])
    assert f"continuing {tmp_path}/run at step 4 of 5 from model.ckpt-4, on " in capsys.readouterr().out
    main.main(["--model", finished, *new, "--set", f"init_checkpoint={start}", "--set", "max_steps=2"])
    assert f"starting {tmp_path}/new at step 0 of 2 from {start}, on " in capsys.readouterr().out


def test_what_generates_takes_the_vocabulary_of_its_run(finished, run_config, text_corpus, tmp_path, capsys):
    """Wherever the data is now, and without a word about it in the config."""
    away = run_config(max_steps=4, encoder_path=..., n_vocab=..., data_path=str(tmp_path / "nowhere"))
    for mode in (["--predict_text", "def", "--length", "3", "--seed", "1"], ["--export_dir", str(tmp_path / "saved")]):
        assert main.main(["--model", away, *mode]) == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "saved" / "assets" / "vocab.bpe").read_bytes() == (
        text_corpus / "encoder" / "vocab.bpe").read_bytes()
