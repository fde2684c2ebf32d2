"""Names with line ends and escape sequences in them: whatever a command says of a file stays on its line."""
from configs import schema
from datasets import create_tfrecords, shard_sets, tfrecords, verify_tfrecords
from models.run import plan, room
from tests.helpers.records import write_data_set

NAME, SHOWN = "a\nb\x1b[2J", r"a b\x1b[2J"


def lines_with(capsys, words):
    """The lines of the output in which the name stands, which must also hold `words`."""
    lines = [line for line in "".join(capsys.readouterr()).split("\n") if SHOWN in line]
    assert lines and all(words in line for line in lines), lines
    return lines


def create(folder, *more):
    return create_tfrecords.main(["--input", str(folder), "--name", "mine", "--output_dir", f"{folder}-out",
                                  "--processes", "1", *more])


def test_what_is_made_of_texts(tmp_path, capsys):
    (tmp_path / f"{NAME}.txt").write_text("only words of a document\n" * 90)
    (tmp_path / f"{NAME}.pdf").write_text("")
    assert create(tmp_path) == 0
    unread, aside = lines_with(capsys, "")
    assert unread == f"--input: not read are 1 .pdf ({SHOWN}.pdf)"
    assert aside == f"the end of {SHOWN}.txt, the only document, is put aside for evaluation"


def test_what_is_left_out_of_texts(tmp_path, capsys):
    (tmp_path / "good.txt").write_text("words of a document\n" * 90)
    (tmp_path / f"{NAME}.txt").write_bytes(b"caf\xe9 " * 90)
    assert create(tmp_path, "--eval_fraction", "0") == 0
    assert len(lines_with(capsys, f"1 document left out that could not be read as UTF-8 or UTF-16: {SHOWN}.txt;")) == 1


def test_what_is_wrong_with_shards(tmp_path, capsys):
    path = f"{write_data_set(tmp_path / 'data', 'mine', train=2)}/{NAME}.tfrecords"
    with open(path, "wb") as f:
        f.write(tfrecords.frame(b"junk"))
    assert verify_tfrecords.main([f"{tmp_path}/data", "--processes", "1"]) == 2
    assert len(lines_with(capsys, f"{tmp_path}/data/{SHOWN}.tfrecords: ")) == 2  # in no manifest, no Example
    config = schema.from_dict({"data_path": f"{tmp_path}/data", "train_files": "*.tfrecords", "model_dir":
                               f"{tmp_path}/run", "n_vocab": 300, "skip_corrupt_records": True}, "here")
    shard_sets.find(config, shard_sets.TRAIN)
    note, warning = lines_with(capsys, "")
    assert "skipped 1 damaged records" in note + warning and "takes in 2 data sets" in note + warning


def test_what_a_plan_says(tmp_path):
    shard = tfrecords.Shard(f"{NAME}_0.tfrecords", 5, 900_000, None, 10**6, "0" * 64, 1, 2)
    one = shard_sets.ShardSet((shard_sets.Part((shard,), 1.0),), None, None)
    data = plan.Data(one, one)
    config = schema.from_dict({"model_dir": "/dev/null/a\nb", "n_vocab": 300, "max_steps": 9}, "here")
    machine = room.Machine(on_cpu=True, memory=10**14, free=10**13, disk=10**15)
    lines = plan.report(config, data, machine, plan.problems(config, data, machine)).split("\n")
    assert ('  - "model_dir" /dev/null/a b cannot be written: /dev/null: Not a directory; choose a path in a folder'
            in lines)
    assert f"  - {SHOWN}_0.tfrecords is trained on and evaluated on; the evaluation will look too good" in lines
    assert "disk                    1000.0 TB are free for /dev/null/a b" in lines
