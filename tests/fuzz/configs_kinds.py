"""What a user writes: configs, --set, paths, prompts, lists of documents."""
from __future__ import annotations

import json
import os

from configs import schema
from configs.generation import OPTIONS
from datasets import shard_sets, vocabularies
from datasets.duplicates import drop_list
from encoder import prompts
from tests.fuzz.driver import Kind, Wrong
from tests.fuzz.mutations import as_json, changed_bytes, changed_json, changed_value, text_of
from tests.helpers import records

BASE = {"model_dir": "run", "n_ctx": 16, "n_embd": 32, "n_layer": 2, "n_head": 2, "lr": 1e-3, "train_batch_size": 4,
        "train_files": ["a_*.tfrecords", "b"], "sample_prompts": ["x"], "zero_shot": [["text", "x"]],
        "init_checkpoint": None}
THEIRS = ("model_path", "opt_params", "scale", "name", "n_embed", "batch_size")
NAMES = ("plain", "~", "~nobody", "a b", "[x]", "x*", "?", "{a}", "\\", "..", ".", "", "a\nb", "ü", "\udcff", "\ud800",
         "x" * 300, "nul\0", "-x", "%s", "$HOME", "'", '"', "//")


def nothing(folder):
    return None


def config(draw, _, folder):
    path = str(folder / "config.json")
    (folder / "config.json").write_bytes(changed_json(draw, BASE, (*schema.FIELDS, *THEIRS)))

    def act():
        loaded = schema.load(path)
        schema.save(loaded, path)
        if schema.load(path) != loaded:
            raise Wrong("another config after saving and loading")
    return act


def override(draw, _, folder):
    (folder / "config.json").write_text(json.dumps(BASE))
    value = draw.choice((text_of(draw), as_json(draw, changed_value(draw, BASE)).decode("utf-8", "surrogatepass"),
                         "1" * 5000, "[" * 2000, "NaN", "1e999", "null"))
    given = draw.choice((f"{draw.choice([*schema.FIELDS, *THEIRS, ''])}={value}", value, "=" + value))

    def act():
        schema.load(str(folder / "config.json"), [given])
    return act


def data_set(folder):
    return records.write_data_set(str(folder / "data"), "a")


def path_of(draw, folder):
    return os.path.join(draw.choice((str(folder), "", "~", "/")), *(draw.choice(NAMES) for _ in range(draw.choice(
        (1, 1, 2, 3)))))


def path(draw, data, folder):
    """A path anywhere in a config that trains on a good data set, and as the config's own."""
    key = draw.choice((None, "data_path", "model_dir", "encoder_path", "init_checkpoint", "predict_path",
                       "train_files"))
    values = {"model_dir": str(folder / "run"), "data_path": data, "n_embd": 64, "n_layer": 1}
    given = path_of(draw, folder)
    if key:
        values[key] = given
    (folder / "config.json").write_text(json.dumps(values))

    def act():
        loaded, encoder = vocabularies.complete(schema.load(str(folder / "config.json") if key else given))
        shards = shard_sets.read(loaded, encoder, shard_sets.TRAIN, cache=False)
        if key is None or not shards.records:
            raise Wrong("something was read")
    return act


def prompt(draw, _, folder):
    lines = [as_json(draw, changed_value(draw, {"prompt": text_of(draw), "length": 5, "stop": ["x"]},
                                         (*OPTIONS, "text"))) for _ in range(draw.randrange(4))]
    data = b"\n".join(lines)
    place = folder / draw.choice(("p.txt", "p.jsonl", "p.JSONL"))
    place.write_bytes(changed_bytes(draw, data) if draw.random() < 0.3 else data)

    def act():
        for made in prompts.read(str(place), {}):
            made.text.encode()
            if not isinstance(made.length, int) or not all(isinstance(text, str) for text in made.stop):
                raise Wrong(f"options {made}")
    return act


def drops(draw, _, folder):
    data = b"\n".join(os.fsencode(text_of(draw).replace("\ud800", "").replace("\udfff", "")) for _ in range(5))
    (folder / "drop.txt").write_bytes(changed_bytes(draw, data))

    def act():
        drop_list.read(str(folder / draw.choice(("drop.txt", "none", ""))))
    return act


KINDS = (Kind("config", "configs", nothing, config), Kind("--set", "configs", nothing, override),
         Kind("path", "paths", data_set, path), Kind("prompts", "prompts", nothing, prompt),
         Kind("drop list", "data", nothing, drops))
