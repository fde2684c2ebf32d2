"""The Config: every key, every file that the original published, every mistake a user can make in one."""
import json
import math

import pytest

from configs import resume, schema, storage
from configs.errors import UserError

# The original's published files, by what they share; https://github.com/ConnorJL/GPT2, all of its history.
ADAM = {"lr": 0.00025, "warmup_steps": 2000, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9}
SHARED = {"encoder_path": "gs://openwebtext/stuff/encoder", "n_vocab": 50257, "embed_dropout": 0.1, "attn_dropout": 0.1,
          "res_dropout": 0.1, "train_steps": 10000, "eval_steps": 10, "data_path": "gs://connors-datasets/openwebtext/",
          "predict_batch_size": 1, "model": "GPT2", "n_ctx": 1024, "predict_path": "logs/predictions.txt"}
SMALL = {**SHARED, "n_head": 12, "n_embd": 768, "n_layer": 12, "scale": 0.2886751345948129, "train_batch_size": 32,
         "eval_batch_size": 32, "max_steps": 500000, "iterations": 500, "input": "openwebtext"}
MEDIUM = {**SMALL, "n_head": 16, "n_embd": 1024, "n_layer": 24, "scale": 0.20412414523193154, "train_batch_size": 8,
          "eval_batch_size": 8, "predict_batch_size": 8}
LARGE = {**SHARED, "n_head": 25, "n_embd": 1600, "n_layer": 48, "scale": 0.14433756729740646, "train_batch_size": 512,
         "eval_batch_size": 512, "max_steps": 604800, "iterations": 100, "input": "openwebtext_longbiased",
         "predict_path": "logs/predictions_1.7B.txt"}
PRETTY = {**LARGE, "n_head": 16, "n_embd": 1024, "n_layer": 25, "embed_dropout": 0.0, "attn_dropout": 0.0,
          "train_batch_size": 256, "eval_batch_size": 256, "encoder_path": "/home/connor/GPT2/encoder"}
ADAFACTOR = {"lr": 0.00025, "warmup_steps": 2000, "beta1": 0.0, "decay_exponent": 0.8, "opt_name": "adafactor",
             "decay_type": "pow", "weight_decay": 0.01, "eval_batch_size": 8}
NOW_ADAM = {**ADAM, "opt_name": "adam", "weight_decay": 0.01}
NOW_ADAMW = {**ADAM, "opt_name": "adamW", "weight_decay": 0.01}
EARLY_ADAMW = {**ADAM, "name": "adamW", "weight_decay": 0.01}
EARLY_ADAFACTOR = {"lr": 0.00025, "warmup_steps": 2000, "beta1": 0.9, "wd_exponent": 0.8, "name": "adafactor",
                   "wd_type": "pow"}

PUBLISHED = {
    "117M": {**SMALL, **NOW_ADAM, "model_path": "gs://connors-models/GPT2-117M"},
    "345M": {**MEDIUM, **NOW_ADAM, "model_path": "gs://connors-models/GPT2-345M"},
    "1.5B": {**LARGE, **ADAFACTOR, "precision": "float32", "train_steps": 100000, "max_steps": 300000,
             "model_path": "gs://connors-models/1.5B"},
    "1.7B": {**LARGE, **ADAFACTOR, "precision": "bfloat16", "train_batch_size": 8,
             "model_path": "gs://connors-models/GPT2-1.7B"},
    "PrettyBig": {**PRETTY, **NOW_ADAM, "model_path": "gs://connors-models/GPT2-PrettyBig"},
    "GPT2-1.7B": {**LARGE, **NOW_ADAMW, "model_path": "gs://connors-models/GPT2-1.7B"},
    "GPT2-1.7B, earliest": {**LARGE, "opt_params": EARLY_ADAMW, "model_dir": "gs://connors-models/GPT2-1.7B"},
    "GPT2-1.7B, flat": {**LARGE, **EARLY_ADAMW, "model_dir": "gs://connors-models/GPT2-1.7B"},
    "GPT2-345M, flat": {**MEDIUM, **EARLY_ADAMW, "model_path": "gs://connors-models/GPT2-345M"},
    "GPT2-117M": {**SMALL, "opt_params": EARLY_ADAMW, "model_dir": "gs://connors-models/GPT2-117M-long"},
    "GPT2-117M, earliest": {**SMALL, "opt_params": {**ADAM, "name": "adamW"},
                            "model_dir": "gs://connors-models/GPT2-117M-WDlowlr"},
    "GPT2-345M": {**MEDIUM, "opt_params": EARLY_ADAMW, "model_dir": "gs://connors-models/GPT2-345M"},
    "GPT2-SortaBig": {**PRETTY, "opt_params": EARLY_ADAMW, "model_dir": "gs://connors-models/GPT2-SortaBig"},
    "GPT2-1.7B-adafactor": {**LARGE, "opt_params": EARLY_ADAFACTOR, "predict_path": "logs/predictions_1.7B_ada.txt",
                            "model_dir": "gs://connors-models/GPT2-1.7B-adafactor"},
}
RENAMED = {"model_path": "model_dir", "name": "opt_name", "wd_type": "decay_type", "wd_exponent": "decay_exponent"}
MINIMAL = {"model_dir": "runs/a"}


def write(folder, values, name="x.json"):
    path = folder / name
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return str(path)


def error_of(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_file_loads_with_every_value_it_states(name, tmp_path):
    stated = dict(PUBLISHED[name])
    config = schema.load(write(tmp_path, stated))
    stated.update(stated.pop("opt_params", {}))
    assert stated.pop("scale") and config.scale_by_depth and not config.scale_by_in
    for key, value in stated.items():
        assert getattr(config, RENAMED.get(key, key)) == ("adam" if value == "adamW" else value)
    assert config.precision == stated.get("precision", "float32")
    assert config.lr_schedule == "cosine" and config.lr_min == 0 and config.micro_batch_size is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_file_gets_one_line_per_alias_and_nothing_more(name, tmp_path):
    stated, lines = PUBLISHED[name], []
    path = write(tmp_path, stated)
    schema.load(path, notice=lines.append)
    inner = stated.get("opt_params", {})
    aliases = [key for key in [*stated, *inner] if key in ("model_path", "opt_params", "scale", *RENAMED)]
    adamw = [key for key in ("opt_name", "name") if {**stated, **inner}.get(key) == "adamW"]
    assert len(lines) == len(aliases) + len(adamw)
    assert all(line.startswith(path + ": ") for line in lines)


def test_alias_lines_say_the_current_key(tmp_path):
    lines = []
    schema.load(write(tmp_path, PUBLISHED["GPT2-1.7B-adafactor"], "a.json"), notice=lines.append)
    schema.load(write(tmp_path, PUBLISHED["PrettyBig"], "b.json"), notice=lines.append)
    assert [line.split(".json: ")[1] for line in lines] == [
        'the keys inside "opt_params" now stand at the top level',
        '"wd_exponent" in "opt_params" is now "decay_exponent"',
        '"name" in "opt_params" is now "opt_name"',
        '"wd_type" in "opt_params" is now "decay_type"',
        '"scale" is now "scale_by_depth": true (1/sqrt(2 n_layer) = 0.1021)',
        '"model_path" is now "model_dir"',
        '"scale" 0.1443 is that of 48 layers; used now: "scale_by_depth": true (1/sqrt(2 n_layer) = 0.1414)']


def test_adafactor_file_without_weight_decay_has_none_and_adamw_has_the_originals():
    assert schema.from_dict(PUBLISHED["GPT2-1.7B-adafactor"], "x").weight_decay == 0
    assert schema.from_dict(PUBLISHED["GPT2-117M, earliest"], "x").weight_decay == 0.01


def test_defaults_that_depend_on_other_keys_are_resolved():
    config = schema.from_dict({**MINIMAL, "n_embd": 320}, "x")
    assert (config.n_head, config.head_size, config.beta1) == (5, 64, 0.9)
    assert schema.from_dict({**MINIMAL, "opt_name": "adafactor"}, "x").beta1 == 0
    assert schema.from_dict({**MINIMAL, "opt_name": "adafactor", "beta1": 0.5}, "x").beta1 == 0.5


@pytest.mark.parametrize("values", [
    MINIMAL, PUBLISHED["GPT2-1.7B-adafactor"], PUBLISHED["PrettyBig"],
    {**MINIMAL, "input": "tfrecords", "train_files": "a*", "eval_steps": 0},
    {**MINIMAL, "input": "tfrecords", "train_files": [["a*", 2], ["gs://b/*", 0.5]], "eval_files": ["ü", "d"]}])
def test_saved_config_loads_as_the_same_config(values, tmp_path):
    config = schema.from_dict(values, "x")
    path, lines = str(tmp_path / "new" / "config.json"), []
    schema.save(config, path)
    assert schema.load(path, notice=lines.append) == config
    assert lines == []
    with open(path) as f:
        assert list(json.load(f)) == list(schema.FIELDS)
    assert hash(config) == hash(schema.load(path))


def test_numbers_are_stored_in_the_type_of_their_key():
    config = schema.from_dict({**MINIMAL, "max_steps": 1e5, "lr": 1, "input": "tfrecords", "eval_steps": 0,
                               "train_files": [["a", 3]]}, "x")
    assert (type(config.max_steps), config.max_steps, type(config.lr)) == (int, 100000, float)
    assert config.train_files == (("a", 3.0),)


def test_set_overrides_the_file_last_one_first_and_what_is_not_json_is_a_string(tmp_path):
    path = write(tmp_path, {**SMALL, **NOW_ADAM, "model_path": "gs://a/b"})
    config = schema.load(path, ["lr=1e-3", "model_path=runs/b", "model_dir=runs/c=d", "lr = 0.5", "recompute=true",
                                "predict_path=null", "n_layer=3", 'opt_params={"beta1": 0.5}'])
    assert (config.lr, config.model_dir, config.recompute, config.predict_path) == (0.5, "runs/c=d", True, None)
    assert (config.n_layer, config.beta1, config.weight_decay) == (3, 0.5, 0.01)
    assert schema.load(path, ["weight_decay=0.3", "opt_name=adamW"]).weight_decay == 0.3


def test_a_flat_name_is_an_optimizer_or_nothing():
    flat = {**MINIMAL, "name": "adafactor", "wd_exponent": 0.7}
    config = schema.from_dict(flat, "x")
    assert (config.opt_name, config.decay_exponent) == ("adafactor", 0.7)
    assert schema.from_dict({**MINIMAL, "name": "adamW"}, "x").weight_decay == 0.01
    assert '"name" gives "adafactor", but "opt_name" gives "adam"' in error_of(
        schema.from_dict, {**flat, "opt_name": "adam"}, "x")
    for value in ("my run", None, 3, ["adam"]):
        assert 'but in the original it was that of the optimizer (adam, adamW, adafactor), now "opt_name"; leave' in (
            error_of(schema.from_dict, {**MINIMAL, "name": value}, "x"))


@pytest.mark.parametrize("values, words", [
    ({"n_layers": 3}, 'unknown key "n_layers"; did you mean "n_layer"?'),
    ({"Model_Pth": "a"}, 'unknown key "Model_Pth"; did you mean "model_path" (now model_dir)?'),
    ({"zzzz": 3}, 'unknown key "zzzz"; docs/config.md lists all keys'),
    ({"n_layer": "12"}, '"n_layer" is "12", but must be an integer from 1 to 1000 (left out: 12)'),
    ({"n_layer": True}, '"n_layer" is true, but must be an integer'),
    ({"n_layer": 1.5}, '"n_layer" is 1.5, but must be an integer'),
    ({"n_layer": None}, '"n_layer" is null, but must be an integer'),
    ({"n_layer": 0}, '"n_layer" is 0, but must be an integer from 1 to 1000'),
    ({"n_layer": math.inf}, '"n_layer" is Infinity, but must be'),
    ({"seed": 2**31}, '"seed" is 2147483648, but must be an integer from 0 to 2147483647 (left out: 1)'),
    ({"lr": math.nan}, '"lr" is NaN, but must be a finite number'),
    ({"lr": math.inf}, '"lr" is Infinity'),
    ({"lr": 10**400}, '"lr" is 1000'),
    ({"lr": False}, '"lr" is false, but must be a number > 0 and <= 100 (left out: 0.00025)'),
    ({"lr": 0}, '"lr" is 0, but must be a number > 0'),
    ({"beta2": 1}, '"beta2" is 1, but must be a number >= 0 and < 1'),
    ({"beta1": 1}, '"beta1" is 1, but must be a number >= 0 and < 1 or null'),
    ({"lr_min": 1.1}, '"lr_min" is 1.1, but must be a number >= 0 and <= 1'),
    ({"eval_steps": -2}, '"eval_steps" is -2, but must be an integer >= -1'),
    ({"precision": "float16"}, '"precision" is "float16", but must be "float32" or "bfloat16"'),
    ({"opt_name": ["adam"]}, '"opt_name" is ["adam"], but must be "adam" or "adafactor"'),
    ({"recompute": 1}, '"recompute" is 1, but must be true or false'),
    ({"model_dir": 7}, '"model_dir" is 7, but must be a string'),
    ({"model_dir": " "}, '"model_dir" is " ", but must be a string that is not empty'),
    ({"encoder_path": ""}, '"encoder_path" is "", but must be a string that is not empty or null'),
    ({"train_files": [["a", 0]]}, '"train_files" is [["a", 0]], but must be a glob, a list of globs, or a list of'),
    ({"train_files": [["a", 1], "b"]}, '"train_files" is [["a", 1], "b"], but'),
    ({"train_files": [["a", 1, 2]]}, '"train_files" is [["a", 1, 2]], but'),
    ({"eval_files": []}, '"eval_files" is [], but must be a glob'),
    ({"eval_files": ["a", ""]}, '"eval_files" is ["a", ""], but must be a glob'),
    ({"n_embd": 100}, '"n_embd" 100 is not a multiple of 64, so "n_head" has no default; set "n_head" to a divisor'),
    ({"early_stopping": 2, "eval_steps": 0}, '"early_stopping" is 2, but "eval_steps" 0 means no evaluations; set'),
    ({"n_head": 7}, '"n_embd" 768 cannot be split into "n_head" 7 equal heads'),
    ({"warmup_steps": 11, "max_steps": 10}, '"warmup_steps" 11 is more than "max_steps" 10'),
    ({"lr_schedule": "wsd", "max_steps": 50, "warmup_steps": 9, "decay_steps": 42},
     '"warmup_steps" 9 and "decay_steps" 42 are together more than "max_steps" 50; lower one of the first two or'),
    ({"lr_schedule": "wsd", "max_steps": 50, "warmup_steps": 41},
     '"warmup_steps" 41 and "decay_steps" 10 (a fifth of "max_steps") are together more than "max_steps" 50; lower'),
    ({"decay_steps": 0}, '"decay_steps" is 0, but "lr_schedule" "cosine" has no such steps; set "lr_schedule" to'),
    ({"decay_shape": "sqrt"}, '"decay_shape" is "sqrt", but must be "linear" or "1-sqrt" (left out: "1-sqrt")'),
    ({"micro_batch_size": 3}, '"micro_batch_size" 3 does not divide "train_batch_size" 8; use a divisor'),
    ({"input": "openwebtext", "eval_files": "a"},
     '"eval_files" is given, but "input" "openwebtext" has its own files; set "input" to'),
    ({"model_path": "runs/b"}, '"model_path" gives "runs/b", but "model_dir" gives "runs/a"; keep "model_dir" alone'),
    ({"lr": 1, "opt_params": {"lr": 2}}, '"opt_params.lr" gives 2, but "lr" gives 1; keep "lr" alone'),
    ({"opt_params": 3}, '"opt_params" is 3, but must be an object'),
    ({"opt_params": {"lrr": 3}}, 'unknown key "lrr" in "opt_params", which may hold name, lr, '),
    ({"scale": 1.0, "n_layer": 12}, 'but only 1/sqrt(n_layer) = 0.288675 is known; leave it out and set "scale_'),
    ({"scale": "1", "n_layer": 25}, '"scale" is "1", but only 1/sqrt(n_layer) = 0.2 is known'),
    ({"scale": 0.5}, '"scale" depends on "n_layer", which is null; set "n_layer" to an integer >= 1, or leave'),
    ({"scale": 0.5, "n_layer": -10}, '"scale" depends on "n_layer", which is -10'),
    ({"scale": 0.5, "n_layer": 4, "scale_by_depth": False}, '"scale" gives true, but "scale_by_depth" gives false'),
])
def test_mistake_in_a_file_is_one_line_with_file_key_value_and_remedy(values, words, tmp_path):
    path = write(tmp_path, {**MINIMAL, **values})
    message = error_of(schema.load, path)
    assert message.startswith(path + ": ") and words in message


@pytest.mark.parametrize("text, words", [
    ('{"lr": 1,\n  "lr" 2}', "not JSON at line 2 column 8: Expecting ':' delimiter"),
    ("", "is empty"),
    ("[1]", "holds [1], but must be one JSON object"),
    ('{"lr": 0.1, "n_ctx": 3, "lr": 0.2}', '"lr" is given twice (0.1, 0.2); keep one'),
    ('{"opt_params": {"lr": 1, "lr": 1}}', '"lr" is given twice (1, 1); keep one'),
    ('{"n_ctx": 3}', '"model_dir" is missing; set it to the folder of the checkpoints'),
])
def test_file_that_is_no_config_says_where(text, words, tmp_path):
    path = write(tmp_path, text)
    message = error_of(schema.load, path)
    assert message.startswith(path + ": ") and words in message


def test_file_that_cannot_be_read_says_why_and_where_a_relative_path_was_looked_for(tmp_path, monkeypatch):
    assert "none.json: cannot be read (No such file or directory); give the path" in error_of(
        schema.load, str(tmp_path / "none.json"))
    monkeypatch.chdir(tmp_path)
    assert f"none.json: cannot be read (No such file or directory in {tmp_path}); give" in error_of(
        schema.load, "none.json")
    assert "cannot be read (Is a directory)" in error_of(schema.load, str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text, or UTF-16 with a byte" in error_of(schema.load, str(tmp_path / "binary"))


def test_failure_of_google_storage_is_one_line_and_our_own_bug_keeps_its_traceback(monkeypatch):
    def fail(path, mode):
        raise RuntimeError("403 no access")
    monkeypatch.setattr(storage, "open_file", fail)
    assert error_of(schema.load, "gs://a/x.json") == (
        "gs://a/x.json: cannot be read (403 no access); give the path of a JSON file")
    with pytest.raises(RuntimeError):
        schema.load("x.json")


def test_byte_order_mark_of_windows_editors_is_ignored(tmp_path):
    assert schema.load(write(tmp_path, "\ufeff" + json.dumps(MINIMAL))).model_dir == "runs/a"


@pytest.mark.parametrize("option, words", [
    ("lr", "--set lr: must be KEY=VALUE, for example"),
    ("=3", "--set =3: must be KEY=VALUE"),
    ("lr=fast", '--set lr=fast: "lr" is "fast", but must be a number > 0'),
    ("lr=", '--set lr=: "lr" is "", but must be a number'),
    ("learning=1", '--set learning=1: unknown key "learning"'),
    ("scale=0.5", '--set scale=0.5: "scale" is 0.5, but only 1/sqrt(n_layer) = 0.288675'),
    ("max_steps=10", ' --set max_steps=10: "warmup_steps" 2000 is more than "max_steps" 10'),
])
def test_mistake_in_set_names_the_option(option, words, tmp_path):
    assert words in error_of(schema.load, write(tmp_path, PUBLISHED["117M"]), [option])


def test_table_has_one_row_per_key_and_one_per_group():
    rows = schema.markdown().splitlines()
    assert [row.split("`")[1] for row in rows[2:] if not row.startswith("| **")] == list(schema.FIELDS)
    assert [row.split("**")[1] for row in rows if row.startswith("| **")] == [
        "model", "precision, memory", "optimizer", "run", "data", "output"]
    assert len([row for row in rows if row.startswith("| `grad_clip` | `1.0` | a number >= 0 | ")]) == 1
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


def config_with(**values):
    return schema.from_dict({**MINIMAL, **values}, "x")


def test_decay_takes_a_fifth_of_the_steps_where_nothing_else_is_said_and_only_where_there_is_one():
    assert [config_with(lr_schedule="wsd", max_steps=steps).decay_steps for steps in (1, 8, 10, 499)] == [0, 2, 2, 100]
    assert config_with(lr_schedule="wsd", max_steps=70, warmup_steps=30, decay_steps=40).decay_steps == 40
    assert config_with(max_steps=8).decay_steps is None


def test_resuming_with_another_network_names_every_such_key():
    message = error_of(resume.check_resume, config_with(), config_with(n_embd=640, n_layer=3, seed=2), "runs/a/c.json")
    assert message == ('runs/a/c.json: the checkpoints there do not fit: "n_embd" was 768 and is now 640, "n_layer" was'
                       ' 12 and is now 3, "n_head" was 12 and is now 10; restore the old value or choose another'
                       ' "model_dir"')


def test_batch_sizes_of_a_run_are_noted_by_the_step_from_which_they_hold(tmp_path):
    def sizes(step, batch):
        return resume.batch_sizes(config_with(model_dir=str(tmp_path), train_batch_size=batch), step)
    assert sizes(0, 8) == [[0, 8]]
    schema.save(config_with(train_batch_size=8), str(tmp_path / resume.CONFIG_FILE))
    assert (sizes(0, 3), sizes(5, 8), sizes(5, 2)) == ([[0, 3]], [[0, 8]], [[0, 8], [5, 2]])  # an earlier version's run
    (tmp_path / resume.DATA_FILE).write_text(json.dumps({"batch_sizes": [[0, 8], [5, 2], [9, 4]]}))
    assert sizes(12, 4) == [[0, 8], [5, 2], [9, 4]] and sizes(12, 2)[2:] == [[9, 4], [12, 2]]
    assert sizes(9, 2) == [[0, 8], [5, 2]] and sizes(4, 2) == [[0, 8], [4, 2]]  # from an older checkpoint


@pytest.mark.parametrize("name, values, words", [
    ("config.json", {"encoder_path": 5}, '"encoder_path" is 5'), ("data.json", {"files": "ab"}, '"files" is "ab"'),
    ("data.json", {"files": [1]}, '"files" holds 1'), ("data.json", {"vocabulary": ["x"]}, '"vocabulary" is ["x"]'),
    ("data.json", {"batch_sizes": [[0, 8, 1]]}, '"batch_sizes" holds [0, 8, 1]'),
    ("data.json", {"batch_sizes": [[0, "8"]]}, '"batch_sizes" holds [0, "8"]')])
def test_a_note_of_a_run_that_no_run_wrote_so_is_named(tmp_path, name, values, words):
    (tmp_path / name).write_text(json.dumps(values))
    assert f"{name} is not as a run writes it ({words}); bring back" in error_of(resume.recorded, str(tmp_path), name)
    for content in ("", "[]", "{"):
        (tmp_path / name).write_text(content)
        assert error_of(resume.recorded, str(tmp_path), name).endswith("; bring back the one of the run")


def test_resuming_with_other_optimizer_slots_is_refused():
    assert '"opt_name" was "adam" and' in error_of(
        resume.check_resume, config_with(), config_with(opt_name="adafactor"), "x")
    with_momentum = config_with(opt_name="adafactor", beta1=0.9)
    assert '"beta1" was 0.9 and is now 0.0' in error_of(
        resume.check_resume, with_momentum, config_with(opt_name="adafactor"), "x")
    assert len(resume.check_resume(with_momentum, config_with(opt_name="adafactor", beta1=0.5), "x")) == 1
    assert len(resume.check_resume(config_with(), config_with(beta1=0.0), "x")) == 1


def test_resuming_with_other_data_or_schedule_warns_what_changes():
    lines = resume.check_resume(config_with(), config_with(seed=3, lr=1e-3, weight_decay=0.1, scale_by_in=True), "c")
    assert lines == [
        'c: "scale_by_in" was false and is now true: has no effect: only a new run reads it',
        'c: "lr" was 0.00025 and is now 0.001: the learning rate follows the new schedule from here on',
        'c: "weight_decay" was 0.0 and is now 0.1: the weights are updated differently from here on',
        'c: "seed" was 1 and is now 3: the data order changes: some tokens come again, others later than planned']


def test_resuming_a_stable_run_with_another_end_says_so_once_for_each_key():
    stable = config_with(lr_schedule="wsd", max_steps=80, decay_steps=0)
    assert resume.check_resume(stable, config_with(lr_schedule="wsd", max_steps=90, decay_steps=20), "c") == [
        'c: "decay_steps" was 0 and is now 20: the learning rate follows the new schedule from here on',
        'c: "max_steps" was 80 and is now 90: the learning rate follows the new schedule from here on']
    assert len(resume.check_resume(config_with(max_steps=80), config_with(max_steps=90), "c")) == 1


def test_resuming_with_other_memory_or_output_settings_is_silent():
    assert resume.check_resume(config_with(), config_with(micro_batch_size=4, recompute=True, precision="bfloat16",
                                                          model_dir="b", keep_checkpoint_max=2), "c") == []
    # Whether other words for the data mean other data is seen by what they hold (resume.check_data).
    assert resume.check_resume(config_with(input="openwebtext", data_path="a"),
                               config_with(data_path="b", train_files="c"), "c") == []
    assert resume.check_resume(config_with(), config_with(), "x") == []


@pytest.mark.parametrize("sign", "*?[\\")
def test_model_dir_that_tensorflow_would_take_for_a_pattern_is_refused_with_the_reason(tmp_path, sign):
    path = write(tmp_path, {"model_dir": f"runs/a{sign}b"})
    message = error_of(schema.load, path)
    assert message == (f'{path}: "model_dir" is {json.dumps(f"runs/a{sign}b")}, but must be a string that is not empty,'
                       " without `*` `?` `[` `\\`, which TensorFlow takes for wildcards there")
    assert "which TensorFlow takes" in error_of(schema.load, write(tmp_path, MINIMAL), [f"model_dir=gs://b/{sign}"])
    assert schema.load(write(tmp_path, {"model_dir": "runs/a]b{c}", "data_path": f"d{sign}"})).data_path == f"d{sign}"


@pytest.mark.parametrize("name, value", [
    ("model_dir", "runs/\udcff"), ("data_path", "\ud83d"), ("train_files", [["a", 1], ["\udfff", 2]]),
    ("sample_prompts", ["Once \ud800"]), ("encoder_path", "\udc80"), ("n_ctx", "\ud800")])
def test_string_that_is_no_unicode_is_one_line(tmp_path, name, value):
    path = write(tmp_path, {**MINIMAL, name: value})
    assert error_of(schema.load, path) == (
        f'{path}: "{name}" {ascii(json.dumps(value, ensure_ascii=False))} is not UTF-8 text; give one that is, and'
        " rename a file where it is a path")


def test_the_home_folder_stands_for_the_tilde_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    values = {"model_dir": "~/run", "data_path": "~/data", "encoder_path": "~/encoder", "predict_path": "~/out.txt",
              "init_checkpoint": "~/weights", "train_files": ["~/a_*", "b~_*"], "eval_files": [["~/c", 1]],
              "zero_shot": [["text", "~/d"]]}
    config = schema.load(write(tmp_path, {**values, "model_dir": "elsewhere"}), ["model_dir=~/run"])
    assert (config.model_dir, config.data_path, config.encoder_path) == (
        "/home/me/run", "/home/me/data", "/home/me/encoder")
    assert (config.predict_path, config.init_checkpoint) == ("/home/me/out.txt", "/home/me/weights")
    assert (config.train_files, config.eval_files) == (("/home/me/a_*", "b~_*"), (("/home/me/c", 1.0),))
    assert config.zero_shot == (("text", "/home/me/d"),)


def test_a_run_goes_on_whose_folder_once_had_a_name_that_none_may_have(tmp_path):
    write(tmp_path, {"model_dir": "runs/what?", "lr": 0.5}, "config.json")
    line, = resume.saved_config_warnings(schema.from_dict({"model_dir": str(tmp_path)}, "x"))
    assert line.startswith(f'{tmp_path}/config.json: "lr" was 0.5')


@pytest.mark.parametrize("value", [
    "text", [["text"]], [["piqa", "a"]], [["text", ""]], [["text", "a", "b"]], ["text", "a"]])
def test_what_are_no_pairs_of_a_task_and_a_file_is_one_line_that_names_the_tasks(tmp_path, value):
    assert (f'"zero_shot" is {json.dumps(value)}, but must be a list of [task, file], where tasks are text, wikitext,'
            " ptb, lambada, hellaswag, or null") in error_of(
        schema.load, write(tmp_path, {**MINIMAL, "zero_shot": value}))


def test_tasks_and_their_files_are_saved_and_loaded(tmp_path):
    saved = schema.from_dict({**MINIMAL, "zero_shot": [["ptb", "b"], ["text", "a"]]}, "x")
    schema.save(saved, str(tmp_path / "saved.json"))
    assert schema.load(str(tmp_path / "saved.json")) == saved
