"""tools/backup_checkpoint.py: whole copies, each a model_dir by itself, and no more of them than asked for."""
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from configs.errors import UserError
from models.checkpoints import run_checkpoints
from tests.helpers.fake_gcs import FakeGCS
from tests.helpers.runs import ROOT
from tools import backup_checkpoint


def save(folder, step):
    """A checkpoint of one weight and its step, as TensorFlow writes it."""
    folder.mkdir(exist_ok=True)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("model/wte", initializer=np.full([3, 2], step, np.float32))
        tf.train.create_global_step()
        session.run(tf.global_variables_initializer())
        session.run(tf.train.get_global_step().assign(step))
        tf.train.Saver().save(session, str(folder / "model.ckpt"), global_step=step, write_meta_graph=False)
    (folder / "config.json").write_text('{"model_dir": "here"}')
    return folder


@pytest.mark.parametrize("place", [0, 1])
def test_a_folder_that_tensorflow_takes_for_a_pattern_is_refused(tmp_path, place):
    folders = [str(save(tmp_path / "run", 3)), str(tmp_path / "copies")]
    folders[place] = str(tmp_path / "a[1]")
    with pytest.raises(UserError, match=r"the folder .*/a\[1\] holds \[, and TensorFlow takes"):
        backup_checkpoint.main(folders)
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("end", ["", "//"])
def test_a_copy_is_a_model_dir_by_itself(tmp_path, capsys, end):
    source = save(tmp_path / "run", 7)
    assert backup_checkpoint.main([str(source) + end, str(tmp_path / "backups")]) == 0
    copy = tmp_path / "backups" / "step-7"
    for child in (source, copy):
        path = run_checkpoints.latest(str(child))
        assert tf.train.load_checkpoint(path).get_tensor("model/wte").tolist() == [[7, 7]] * 3
    assert path == str(copy / "model.ckpt-7") and run_checkpoints.step_of(path) == 7
    assert (copy / "config.json").read_text() == '{"model_dir": "here"}'
    for file in copy.iterdir():
        assert file.stat().st_nlink == 1  # a link would be no copy
    assert "bytes copied" in capsys.readouterr().out
    backup_checkpoint.main([str(source), str(tmp_path / "backups")])
    assert "is there already" in capsys.readouterr().out


def test_only_the_newest_copies_are_kept_and_nothing_else_is_touched(tmp_path):
    backups = tmp_path / "backups"
    for name in ("mine", "step-1", "step-99-not"):  # step-1: one that was cut short
        (backups / name).mkdir(parents=True)
    for step in (8, 9, 10, 100):
        backup_checkpoint.main([str(save(tmp_path / "run", step)), str(backups), "--keep", "2"])
    assert sorted(os.listdir(backups)) == ["mine", "step-1", "step-10", "step-100", "step-99-not"]


def test_a_copy_that_was_just_made_is_never_the_one_that_goes_though_its_step_is_lower(tmp_path, capsys):
    for step in (20, 10):
        backup_checkpoint.main([str(save(tmp_path / f"run{step}", step)), str(tmp_path / "backups"), "--keep", "1"])
    assert os.listdir(tmp_path / "backups") == ["step-10"]
    assert "step-20: deleted, 1 newer ones are kept" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_no_backup_and_drives_none_out(tmp_path, capsys):
    run, backups = tmp_path / "run", tmp_path / "backups"
    for step in (15, 20):
        save(run, step)

    def damage(folder):
        data, = folder.glob("model.ckpt-20.data-*")
        content = data.read_bytes()
        data.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        return content
    content = damage(run)
    assert backup_checkpoint.main([str(run), str(backups), "--keep", "1"]) == 0
    out, err = capsys.readouterr()
    assert os.listdir(backups) == ["step-15"] and "bytes copied" in out and "model.ckpt-20" in err
    next(run.glob("model.ckpt-20.data-*")).write_bytes(content)
    assert backup_checkpoint.main([str(run), str(backups), "--keep", "2"]) == 0
    damage(backups / "step-20")
    capsys.readouterr()
    assert backup_checkpoint.main([str(run), str(backups), "--keep", "2"]) == 0
    assert "step-20: " in capsys.readouterr().out
    assert next((backups / "step-20").glob("model.ckpt-20.data-*")).read_bytes() == content


def test_a_folder_of_that_name_that_is_no_copy_or_was_trained_on_stays(tmp_path):
    backups = tmp_path / "backups"
    backups.mkdir()
    save(backups / "step-2", 2)
    backup_checkpoint.main([str(save(tmp_path / "run", 3)), str(backups)])
    save(backups / "step-3", 5)
    for step in (8, 9, 10):
        backup_checkpoint.main([str(save(tmp_path / "run", step)), str(backups), "--keep", "2"])
    assert sorted(os.listdir(backups)) == ["step-10", "step-2", "step-3", "step-9"]


def test_a_copy_that_was_cut_short_is_made_again(tmp_path):
    source, copy = save(tmp_path / "run", 7), tmp_path / "backups" / "step-7"
    copy.mkdir(parents=True)
    (copy / "model.ckpt-7.index").write_bytes(b"half")
    backup_checkpoint.main([str(source), str(tmp_path / "backups")])
    assert tf.train.load_checkpoint(run_checkpoints.latest(str(copy))).has_tensor("model/wte")


def test_a_folder_without_a_checkpoint_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint; nothing is copied"):
        backup_checkpoint.main([str(tmp_path), str(tmp_path / "backups")])
    assert not (tmp_path / "backups").exists()


def test_checkpoint_that_the_run_deletes_meanwhile_is_passed_over_for_its_next(tmp_path, monkeypatch):
    run, files_of = save(tmp_path / "run", 7), run_checkpoints.files_of

    def delete_first(path):
        if path.endswith("-7"):
            for file in run.glob("model.ckpt-7.index"):
                file.unlink()
            save(run, 8)
        return files_of(path)
    monkeypatch.setattr(run_checkpoints, "files_of", delete_first)
    backup_checkpoint.main([str(run), str(tmp_path / "backups")])
    assert os.listdir(tmp_path / "backups") == ["step-8"]


def test_checkpoint_that_the_run_deletes_while_it_is_read_is_not_called_damaged(tmp_path, monkeypatch, capsys):
    run, read_whole = save(tmp_path / "run", 7), run_checkpoints.read_whole

    def delete_first(path):
        if path.endswith("-7") and str(run) in path:
            (run / "model.ckpt-7.index").unlink()
            save(run, 8)
        return read_whole(path)
    monkeypatch.setattr(run_checkpoints, "read_whole", lambda path, train=True: delete_first(path))
    backup_checkpoint.main([str(run), str(tmp_path / "backups")])
    assert os.listdir(tmp_path / "backups") == ["step-8"] and capsys.readouterr().err == ""


@pytest.mark.slow
def test_copies_on_google_storage_are_whole_in_spite_of_failing_requests(tmp_path):
    with FakeGCS() as server:
        for step in (7, 8):
            server.put_folder(str(save(tmp_path / "run", step)), "gs://bucket/run")
            fault = server.fail("", 503, every=7)
            process = subprocess.run(
                [sys.executable, os.path.join(ROOT, "tools", "backup_checkpoint.py"), "gs://bucket/run", "gs://bucket/backups",
                 "--keep", "1"], capture_output=True, text=True, timeout=120,
                env={**os.environ, **server.environment(), "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "0"})
            assert process.returncode == 0 and process.stderr == "", process
        assert fault.done
        for name in server.names("gs://bucket/run"):
            if "ckpt-8" in name:
                assert server.objects[f"gs://bucket/backups/step-8/{name}"] == server.objects[f"gs://bucket/run/{name}"]
        assert not [name for name in server.objects if "step-7" in name]
