"""Checkpoints by steps and by minutes: which are there when, what a kill costs, and how long saving took."""
import os
import re
import types

import pytest
import tensorflow.compat.v1 as tf

import main
from configs import schema
from configs.errors import UserError
from models import metrics
from models.checkpoints import run_checkpoints, state_file, tf_checkpoint
from models.run import hooks, saving, workarounds
from tests.helpers.runs import weights_of

ALWAYS = 1e-9  # minutes


def steps_in(folder):
    """Steps of the checkpoints in a folder."""
    return sorted(int(re.search(r"-(\d+)\.", name).group(1)) for name in os.listdir(folder) if name.endswith(".index"))


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(saving, "time", clock)
    return clock


@pytest.fixture
def steps_at(tmp_path, clock):
    """Function (times in seconds, **config) -> steps of the checkpoints after the step made at each of these times."""
    def run(times, **changes):
        config = schema.from_dict({"model_dir": str(tmp_path), **changes}, "here")
        estimator = types.SimpleNamespace(model_dir=str(tmp_path), config=config)
        by_minutes = saving.SaverByMinutes(config, say=lambda line: None)
        seen = []
        with tf.Graph().as_default():
            step = tf.assign_add(tf.train.get_or_create_global_step(), 1)
            with tf.train.MonitoredSession(hooks=[workarounds.Saver(estimator, by_minutes), by_minutes]) as session:
                for clock.now in times:
                    session.run(step)
                    seen.append(steps_in(tmp_path))
        return seen
    return run


def test_a_checkpoint_is_saved_when_minutes_have_passed_without_one_and_replaced_by_the_next(steps_at):
    assert steps_at([599, 601, 700, 1199, 1299, 1301, 1950], save_checkpoints_steps=3) == [
        [0], [0, 2],  # ten minutes after the first checkpoint
        [0, 3], [0, 3], [0, 3],  # by steps, from which the minutes are counted anew
        [0, 3, 6],  # by steps again
        [0, 3, 6, 7]]
    assert schema.FIELDS["save_checkpoints_minutes"].default == 10


def test_without_minutes_only_steps_count(steps_at):
    assert steps_at([1e6, 2e6, 3e6], save_checkpoints_steps=2, save_checkpoints_minutes=None) == [[0], [0, 2], [0, 2]]


@pytest.mark.parametrize("shown, more", [(metrics.TAGS, 0), (["loss"], 1)])
def test_a_run_of_one_step_is_not_followed_by_another_that_reads_the_step(shown, more, tmp_path, monkeypatch):
    """Only a TPU, which shows the loss alone, makes many steps in a run."""
    config = schema.from_dict({"model_dir": str(tmp_path), "save_checkpoints_steps": 5}, "here")
    estimator = types.SimpleNamespace(model_dir=str(tmp_path), config=config)
    runs, run = [], tf.Session.run
    monkeypatch.setattr(tf.Session, "run", lambda *args, **kwargs: runs.append(args) or run(*args, **kwargs))
    by_minutes = saving.SaverByMinutes(config)
    with tf.Graph().as_default():
        step = tf.assign_add(tf.train.get_or_create_global_step(), 1)
        for name in shown:
            tf.add_to_collection(metrics.COLLECTION + name, tf.constant(0.0))
        with tf.train.MonitoredSession(hooks=[workarounds.Saver(estimator, by_minutes), by_minutes]) as session:
            for after in range(1, 12):
                before = len(runs)
                session.run(step)
                saved = after % 5 == 0
                assert len(runs) - before - saved == 1 + (more or saved)
                assert steps_in(tmp_path)[-1] == after // 5 * 5


@pytest.mark.slow
def test_fewer_checkpoints_are_kept_from_the_next_save_on(run_config, tmp_path, capsys):
    config = run_config(train_steps=20, max_steps=5, eval_steps=0, save_checkpoints_steps=1, keep_checkpoint_max=4)
    assert main.main(["--model", config]) == 0
    assert steps_in(tmp_path / "run") == [2, 3, 4, 5]
    assert main.main(["--model", config, "--set", "max_steps=6", "--set", "keep_checkpoint_max=2"]) == 0
    assert steps_in(tmp_path / "run") == [5, 6]
    state = (tmp_path / "run" / "checkpoint").read_text()
    assert "model.ckpt-5" in state and "model.ckpt-4" not in state
    assert main.main(["--model", config, "--set", "max_steps=8", "--set", "keep_checkpoint_max=0"]) == 0
    assert steps_in(tmp_path / "run") == [5, 6, 7, 8]
    capsys.readouterr()
    assert main.main(["--model", config, "--set", "max_steps=9", "--set", "keep_checkpoint_max=2"]) == 0
    assert steps_in(tmp_path / "run") == [8, 9]
    assert 'removed 2 checkpoints, up to step 6: "keep_checkpoint_max" is 2\n' in capsys.readouterr().out


@pytest.mark.slow
def test_what_lies_before_a_damaged_checkpoint_is_not_kept_for_ever(run_config, tmp_path):
    config = run_config(train_steps=20, max_steps=5, eval_steps=0, save_checkpoints_steps=1, keep_checkpoint_max=3)
    assert main.main(["--model", config]) == 0
    data = tmp_path / "run" / "model.ckpt-5.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    assert main.main(["--model", config, "--set", "max_steps=6"]) == 0
    assert steps_in(tmp_path / "run") == [4, 5, 6]


class Killed(Exception):
    pass


def kill_at(config, step, monkeypatch, *arguments):
    """Runs the config in this process until an error in the given step, which leaves what a kill leaves."""
    class Stop(hooks.StopOnSignal):
        def after_run(self, run_context, run_values):
            if tf.train.get_global_step().eval(session=run_context.session) == step:
                raise Killed
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(hooks, "StopOnSignal", Stop)
        main.main(["--model", config, *arguments])


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_from_the_last_minute_whose_checkpoint_drives_no_other_out(
        run_config, tmp_path, capsys, monkeypatch):
    config = run_config(train_steps=12, max_steps=12, eval_steps=0, save_checkpoints_steps=3, keep_checkpoint_max=2,
                        save_checkpoints_minutes=ALWAYS)
    kill_at(config, 8, monkeypatch)
    assert steps_in(tmp_path / "run") == [3, 6, 8]
    kill_at(config, 9, monkeypatch, "--set", "save_checkpoints_steps=1")
    assert steps_in(tmp_path / "run") == [6, 9]
    kill_at(config, 10, monkeypatch)
    assert steps_in(tmp_path / "run") == [6, 9, 10]
    assert state_file.uncounted(str(tmp_path / "run")) == str(tmp_path / "run" / "model.ckpt-10")
    capsys.readouterr()
    assert main.main(["--model", config]) == 0
    assert re.search("continuing .* at step 10 of 12", capsys.readouterr().out)
    assert steps_in(tmp_path / "run") == [9, 12]
    assert weights_of(tmp_path / "run", 12)["global_step"] == 12


def test_only_what_was_saved_by_minutes_is_uncounted(tmp_path):
    folder = str(tmp_path)
    assert state_file.uncounted(folder) is None
    for step in (5, 7):
        (tmp_path / f"model.ckpt-{step}.index").touch()
    state = tmp_path / "checkpoint"
    state.write_text('model_checkpoint_path: "model.ckpt-5"\n')  # as a user may have written it
    assert state_file.uncounted(folder) is None
    state.write_text('model_checkpoint_path: "model.ckpt-5"\nall_model_checkpoint_paths: "/elsewhere/model.ckpt-5"\n')
    assert state_file.uncounted(folder) is None
    elsewhere = r'/old\303\244/\"my\" run/model.ckpt-5'  # as TensorFlow writes it
    state.write_text(f'model_checkpoint_path: "{elsewhere}"\nall_model_checkpoint_paths: "{elsewhere}"\n')
    assert state_file.named_newest(folder) == f"{folder}/model.ckpt-5" and state_file.uncounted(folder) is None
    state_file.note_uncounted(f"{folder}/model.ckpt-7")
    assert state_file.uncounted(folder) == run_checkpoints.latest(folder) == f"{folder}/model.ckpt-7"


def test_a_run_counts_all_that_lies_before_the_checkpoint_it_goes_on_from(tmp_path):
    def counted():
        state = tf.train.get_checkpoint_state(folder)
        return [os.path.basename(path) for path in (state.model_checkpoint_path, *state.all_model_checkpoint_paths)]
    folder, five, seven = str(tmp_path), f"{tmp_path}/model.ckpt-5", f"{tmp_path}/model.ckpt-7"
    for step in (5, 7, 10):
        (tmp_path / f"model.ckpt-{step}.index").touch()
    state_file.note_run(seven)
    assert counted() == ["model.ckpt-7", "model.ckpt-5", "model.ckpt-7"]
    state_file.note_newest(five)
    state_file.note_uncounted(seven)
    state_file.note_run(seven)
    assert counted() == ["model.ckpt-7", "model.ckpt-5"] and state_file.uncounted(folder) == seven
    (tmp_path / "model.ckpt-5.index").unlink()
    state_file.note_run(seven)
    assert counted() == ["model.ckpt-7", "model.ckpt-7"]


def test_saving_that_takes_more_than_two_hundredths_of_the_time_is_told_with_its_seconds(clock):
    said = []
    hook = saving.SaverByMinutes(schema.from_dict({"model_dir": "nowhere"}, "here"), said.append)
    for begun, ended in ((0, 100), (1000, 1018), (2000, 2021)):  # the first comes after no other
        clock.now = begun
        hook.before_save(None, 5)
        clock.now = ended
        hook.after_save(None, 5)
    assert said == ["saving step 5 took 21.00 s, 2% of the time since the last checkpoint"]


def test_a_run_tells_what_saving_took_by_steps_and_by_minutes(run_config, capsys, monkeypatch):
    monkeypatch.setattr(saving, "SHARE", 0)
    monkeypatch.setattr(saving, "LEAST_SECONDS", 0)
    main.main(["--model", run_config(train_steps=4, max_steps=4, eval_steps=0, save_checkpoints_minutes=ALWAYS)])
    said = re.findall(r"saving step (\d+) took [\d.]+ s, \d+% of the time since the last checkpoint",
                      capsys.readouterr().out)
    assert said == ["1", "2", "3", "4", "4"]


def save_steps(folder, *steps):
    """Writes a checkpoint for each step; returns the path of the last one."""
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.get_or_create_global_step()
        saver = tf.train.Saver()
        for number in steps:
            session.run(tf.assign(step, number))
            path = saver.save(session, str(folder / "model.ckpt"), number)
    return path


@pytest.mark.parametrize("content", [
    b"", b"\xff\xfe\0", b"{}", b"model_checkpoint_path: 7\n", b'model_checkpoint_path: "gs://elsewhere/model.ckpt"\n',
    b'model_checkpoint_path: "/etc/passwd"\n', b'model_checkpoint_path: "\xff\xfe"\n', b'model_checkpoint_path: ".."\n',
    b'model_checkpoint_path: "../other/model.ckpt-9\0"\n', b'model_checkpoint_path: "a' + b"b" * 10**6 + b'"\n'])
def test_a_file_checkpoint_that_names_none_of_the_run_s_does_not_hide_them(tmp_path, content):
    path = save_steps(tmp_path, 3, 5)
    (tmp_path / "checkpoint").write_bytes(content)
    assert run_checkpoints.newest_whole(str(tmp_path)) == path
    assert run_checkpoints.latest(str(tmp_path)) is None
    assert state_file.uncounted(str(tmp_path)) is None
    state_file.note_newest(path)
    assert run_checkpoints.latest(str(tmp_path)) == path == tf.train.latest_checkpoint(str(tmp_path))


def test_a_first_save_that_was_cut_short_is_no_checkpoint_and_a_later_one_is(tmp_path, capsys):
    for step in (0, 5):
        path = save_steps(tmp_path, step)
        (tmp_path / "checkpoint").unlink()
        assert run_checkpoints.newest_whole(str(tmp_path)) == state_file.newest(str(tmp_path)) == path
        assert f"there is no {tmp_path}/checkpoint; going on from {path}" in capsys.readouterr().err
        index = tmp_path / f"model.ckpt-{step}.index"
        index.write_bytes(index.read_bytes()[:20])
        if step:
            index.with_name("model.ckpt-0.index").unlink()
            with pytest.raises(UserError, match="no checkpoint there can be read whole"):
                run_checkpoints.newest_whole(str(tmp_path))
        else:
            assert run_checkpoints.newest_whole(str(tmp_path)) is None
            assert f"warning: the checkpoint {path} is damaged" in capsys.readouterr().err


def test_a_file_checkpoint_that_points_elsewhere_means_the_file_here(tmp_path):
    path = save_steps(tmp_path, 3, 5)
    for folder in ("gs://no-such-bucket/run", "/nowhere", ".."):
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{folder}/model.ckpt-5"\n')
        assert run_checkpoints.latest(str(tmp_path)) == run_checkpoints.newest_whole(str(tmp_path)) == path


def test_an_index_that_tells_of_more_than_its_data_holds_is_not_believed(tmp_path):
    save_steps(tmp_path, 3, 5)
    large = tmp_path / "large"
    large.mkdir()
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("model/wte", [1000, 7])
        session.run(variable.initializer)
        prefix = tf.train.Saver().save(session, str(large / "model.ckpt"))
    os.truncate(prefix + ".data-00000-of-00001", 1000)
    with pytest.raises(UserError, match=r"its index tells of 28,000 bytes of tensors, its data files have 1,000"):
        tf_checkpoint.read_index(prefix)
