"""The commands whose calls are made to fail one by one: what they start from, and what they must end with."""
from __future__ import annotations

import glob
import json
import os
import random
import shutil
from typing import Callable, NamedTuple

VOCABULARY, DATA, CONFIG = "vocabulary", "data", "config.json"
# Names that may be there or not: TensorBoard's, which hold the time, and locks.
PASSING = ("events.out.tfevents", "metrics.jsonl", "loss.png", "graph.pbtxt", ".lock")


class Command(NamedTuple):
    name: str
    module: str
    argv: list  # of module.main, run in the folder
    prepare: Callable  # (folder): puts there what the command reads
    compared: tuple  # globs below the folder: the files whose bytes are the result
    unlike: tuple = ()  # beginnings of paths that a run which began anew may leave, and an undisturbed one does not
    heavy: bool = False  # loads TensorFlow


def texts(folder, documents=30):
    """Writes a folder "texts" of small documents, two of which are equal and two nearly so."""
    words = ["the", "sea", "wind", "salt", "stone", "harbour", "boat", "night", "lamp", "rope", "tide", "fish", "old"]
    draw = random.Random(1)
    written = [" ".join(draw.choices(words, k=90)) + "\n" for _ in range(documents)]
    written[4], written[8] = written[3], written[7].replace("\n", " end\n")
    os.makedirs(os.path.join(folder, "texts"))
    for number, text in enumerate(written):
        with open(os.path.join(folder, "texts", f"{number:02}.txt"), "w") as f:
            f.write(text)


def with_vocabulary(folder):
    from encoder import train
    texts(folder)
    assert not train.main(["--input", f"{folder}/texts", "--size", "290", "--output_dir", f"{folder}/{VOCABULARY}"])


def with_archive(folder):
    from datasets.pages import archive_writer
    os.makedirs(f"{folder}/pages")
    writer = archive_writer.Writer(f"{folder}/pages", f"{folder}/pages/state/RS_2017-04.txt", "RS_2017-04", "xz")
    for line in range(6):
        url = f"http://example.org/{line}"
        writer.add(line, url, b"%d: The harbour of the old town was rebuilt after the storm. " % line * 4, {"url": url})
    writer.close()


def with_data(folder):
    """Texts, vocabulary, shards, and a config of a run of 12 steps with two evaluations."""
    from datasets import create_tfrecords
    with_vocabulary(folder)
    assert not create_tfrecords.main(
        ["--input", f"{folder}/texts", "--name", "text", "--output_dir", f"{folder}/{DATA}", "--encoder_path",
         f"{folder}/{VOCABULARY}", "--files_per", "12", "--eval_fraction", "0.2", "--processes", "1"])
    values = {"n_ctx": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "train_batch_size": 4, "eval_batch_size": 3,
              "train_steps": 6, "eval_steps": 2, "max_steps": 12, "save_checkpoints_steps": 4, "data_path": DATA,
              "model_dir": "run"}
    with open(f"{folder}/{CONFIG}", "w") as f:
        json.dump(values, f)


def with_run(folder):
    """As `with_data`, and a checkpoint of random weights in the run's folder."""
    from configs import schema
    from datasets import vocabularies
    from tests.helpers import graphs
    with_data(folder)
    with open(f"{folder}/{CONFIG}") as f:
        values = {**json.load(f), "data_path": f"{folder}/{DATA}", "model_dir": f"{folder}/run"}
    graphs.save_checkpoint(vocabularies.complete(schema.from_dict(values, "here"))[0])


def with_hugging_face(folder):
    from pathlib import Path

    from tests.helpers import weight_files
    with_vocabulary(folder)
    weight_files.write_hf(Path(folder) / "source", vocabulary=Path(folder) / VOCABULARY)


MAIN, CONVERT = "main", "models.checkpoints.convert"
COMMANDS = {command.name: command for command in (
    Command("vocabulary", "encoder.train", ["--input", "texts", "--size", "290", "--output_dir", VOCABULARY], texts,
            (f"{VOCABULARY}/*",)),
    Command("create_tfrecords", "datasets.create_tfrecords",
            ["--input", "texts", "--name", "text", "--output_dir", DATA, "--encoder_path", VOCABULARY, "--files_per",
             "12", "--eval_fraction", "0.2", "--processes", "1"], with_vocabulary, (f"{DATA}/*", f"{DATA}/*/*")),
    Command("dedup", "datasets.dedup", ["--input", "texts", "--output", "lists/drop.txt", "--processes", "1"], texts,
            ("lists/*",)),
    Command("extraction", "datasets.extract_text",
            ["--archive", "pages/RS_2017-04-1_data.xz", "--output_dir", "extracted", "--extractor", "text",
             "--minimum_characters", "20", "--processes", "1"], with_archive, ("extracted/*", "extracted/*/*")),
    Command("training", MAIN, ["--model", CONFIG], with_data, ("run/model.ckpt-12.*", "run/best/model.ckpt-*"),
            ("run/model.ckpt-",), heavy=True),
    Command("import-hf", CONVERT, ["import-hf", "source", "imported"], with_hugging_face,
            ("imported/*", "imported/*/*"), heavy=True),
    Command("export-hf", CONVERT, ["export-hf", CONFIG, "exported"], with_run, ("exported/*",), heavy=True),
    Command("export_dir", MAIN, ["--model", CONFIG, "--export_dir", "saved"], with_run,
            ("saved/variables/*", "saved/assets/*"), heavy=True))}


def result(command, folder):
    """{path: bytes} of what the command made."""
    found = {}
    for pattern in command.compared:
        for path in glob.glob(os.path.join(folder, pattern)):
            if os.path.isfile(path) and os.path.basename(path) not in PASSING:
                with open(path, "rb") as f:
                    found[os.path.relpath(path, folder)] = f.read()
    return found


def names(command, folder):
    """Paths of all files below the folder, those of PASSING and of command.unlike left out."""
    found = {os.path.relpath(os.path.join(place, name), folder) for place, _, files in os.walk(folder)
             for name in files if not name.startswith(PASSING)}
    return {path for path in found if not path.startswith(command.unlike or ("\0",))}


def fresh(template, folder):
    """Makes `folder` a copy of the template."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
