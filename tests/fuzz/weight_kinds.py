"""Weights and what a run notes: safetensors, config.json, checkpoints, results of evaluations."""
from __future__ import annotations

import json
import os
import shutil

import numpy as np
import safetensors.numpy

from configs import schema
from configs.errors import UserError
from tests.fuzz.driver import Kind, Wrong
from tests.fuzz.mutations import changed_bytes, changed_json, changed_value
from tests.fuzz.text_kinds import vocabulary

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.float16),
           "c": np.zeros((0, 3), np.float32), "d": np.float32(7).reshape(())}


def safetensors_bytes(folder):
    data = safetensors.numpy.save(TENSORS, metadata={"format": "pt"})
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + length]), data[8 + length:]


def safetensors_file(draw, parts, folder):
    """Whatever the library refuses is refused, and what it takes is read as it reads it."""
    header, body = parts
    how = draw.random()
    if how < 0.5:  # the places of the tensors
        header = json.loads(json.dumps(header))
        for _ in range(draw.choice((1, 1, 2))):
            name = draw.choice([name for name in header if name != "__metadata__"])
            key = draw.choice(("data_offsets", "data_offsets", "dtype", "shape"))
            if key == "dtype":
                header[name][key] = draw.choice(("F32", "F16", "BF16", "I64", "F64", "BOOL", "F8", ""))
            elif key == "shape":
                header[name][key] = draw.choice(([6], [2, 3], [3, 2], [1], [], [2**33, 2**31], [-1, 6], [2, 2]))
            else:
                start = draw.choice((0, 4, 8, 24, 32, 36))
                header[name][key] = draw.choice(([start, start + draw.choice((0, 4, 8, 24))], [24, 0], [0, 2**62]))
        if draw.random() < 0.2:
            header = dict(reversed(header.items()))
        text = json.dumps(header)
    elif how < 0.6:  # a key twice
        text = json.dumps(header)[:-1] + ', "a": ' + json.dumps(draw.choice([*header.values()])) + "}"
    else:
        text = None
    content = changed_json(draw, header) if text is None else text.encode()
    data = len(content).to_bytes(8, "little") + content + body
    if how > 0.9:
        data = changed_bytes(draw, data)
    elif draw.random() < 0.1:
        data += bytes(4)
    path = folder / "model.safetensors"
    path.write_bytes(data)

    def act():
        from models.checkpoints import safetensors_file
        read = {name: tensor.read() for name, tensor in safetensors_file.read_header(str(path)).items()}
        try:
            theirs = safetensors.numpy.load(data)
        except (safetensors.SafetensorError, KeyError, ValueError, OverflowError) as error:
            if "bf16" in str(error).lower() or "BF16" in str(error):
                return
            raise Wrong(f"the library refuses it: {error}")
        if set(theirs) != set(read) or not all(np.array_equal(read[name], theirs[name].astype(np.float32), True)
                                               for name in read):
            raise Wrong("other values than the library's")
        twice = [pair for pair in json.loads(content, object_pairs_hook=lambda pairs: pairs) if pair[0] == "a"] \
            if how < 0.9 else []
        if len(twice) > 1:
            raise Wrong("a key twice")
    return act


def hugging_face(folder):
    from tests.helpers import weight_files
    weight_files.write_hf(folder / "hf")
    return str(folder / "hf"), weight_files.HF_CONFIG


def sizes_in(folder):
    """The sizes that an import takes from the weights in a folder."""
    from models.checkpoints import any_format, convert
    return convert._sizes(any_format.open_weights(str(folder)), None)


def hf_config(draw, prepared, folder):
    source, config = prepared
    shutil.copytree(source, folder, dirs_exist_ok=True)
    keys = ("n_head", "num_attention_heads", "n_inner", "activation_function", "layer_norm_epsilon", "attn_pdrop",
            "scale_attn_weights")
    (folder / "config.json").write_bytes(changed_json(draw, config, keys))

    def act():
        values = sizes_in(folder)
        made = schema.from_dict({**values, "model_dir": "x"}, "here")
        if (made.n_vocab, made.n_ctx, made.n_embd, made.n_layer) != (300, 13, 12, 2) or 12 % made.n_head:
            raise Wrong(f"{values}")
    return act


def hf_index(draw, prepared, folder):
    shutil.copy(os.path.join(prepared[0], "model.safetensors"), folder / "m1.safetensors")
    from models.checkpoints import hugging_face, safetensors_file
    names = safetensors_file.read_header(str(folder / "m1.safetensors"))
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "m1.safetensors")}
    path = folder / "model.safetensors.index.json"
    path.write_bytes(changed_json(draw, index, ("metadata",)))
    return lambda: hugging_face.open_weights(str(path))


def openai(folder):
    from tests.helpers import weight_files
    weight_files.write_openai(folder / "openai")
    return str(folder / "openai"), weight_files.HPARAMS


def hparams(draw, prepared, folder):
    source, values = prepared
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "hparams.json").write_bytes(changed_json(draw, values))

    def act():
        found = sizes_in(folder)
        if found["n_embd"] != 12 or type(found["n_head"]) is not int or found["n_head"] < 1 or 12 % found["n_head"]:
            raise Wrong(f"{found}")
    return act


def checkpoint_state(draw, prepared, folder):
    """The file "checkpoint": no other folder's checkpoint is ever the newest."""
    for name in os.listdir(prepared[0]):
        if name.startswith("model.ckpt"):
            shutil.copy(os.path.join(prepared[0], name), folder / name.replace("model.ckpt", "model.ckpt-4"))
    line = b'model_checkpoint_path: "%s"\nall_model_checkpoint_paths: "model.ckpt-4"\n' % draw.choice(
        (b"model.ckpt-4", b"model.ckpt-5", b"/elsewhere/model.ckpt-4", b"../model.ckpt-4", b"gs", b"", b"\\377\\377",
         b"model.ckpt-" + b"9" * 50, b"model.ckpt", b"x\\\"y", "ü-4".encode(), b"model.ckpt-4.index", b"."))
    (folder / "checkpoint").write_bytes(changed_bytes(draw, line) if draw.random() < 0.6 else line)

    def act():
        from models.checkpoints import run_checkpoints, state_file
        for path in (run_checkpoints.newest_whole(str(folder)), state_file.named_newest(str(folder)),
                     state_file.uncounted(str(folder)), run_checkpoints.latest(str(folder))):
            if path is not None and os.path.dirname(os.path.normpath(path)) != str(folder):
                raise Wrong(f"names {path}")
    return act


def checkpoint_files(draw, prepared, folder):
    """A damaged checkpoint, read through as before a training."""
    for name in os.listdir(prepared[0]):
        if name.startswith("model.ckpt"):
            shutil.copy(os.path.join(prepared[0], name), folder / name)
    name = draw.choice([name for name in os.listdir(folder) if not name.endswith(".meta")])
    (folder / name).write_bytes(changed_bytes(draw, (folder / name).read_bytes()))

    def act():
        from models.checkpoints import tf_checkpoint
        stored = tf_checkpoint.open_weights(str(folder / "model.ckpt"))
        for weight, shape in stored.shapes.items():
            if stored.read(weight).shape != shape:
                raise Wrong(f"{weight} {shape}")
    return act


def best_result(draw, _, folder):
    note = {"loss": 2.5, "step": 4, "eval_set": "a" * 64, "windows": 7, "worse": [6, 8]}
    (folder / "best").mkdir()
    (folder / "best" / "evaluation.json").write_bytes(changed_json(draw, note, ("worse",)))

    def act():
        from models.checkpoints import best_checkpoint
        best, worse = best_checkpoint.evaluations(str(folder), 7)
        if not (best is None or type(best) is int) or not all(type(step) is int for step in worse):
            raise Wrong(f"{best} {worse}")
        # Worse than any: nothing is copied.
        note = {"loss": float("inf"), "step": 9, "eval_set": "a" * 64, "windows": 7}
        try:
            best_checkpoint.keep(str(folder), str(folder / "model.ckpt-9"), note)
        except Exception as error:
            if "the run has deleted it" not in str(error):  # which is not there in truth
                raise
    return act


def run_notes(draw, vocabulary_of, folder):
    """config.json and data.json of a run that is to go on."""
    from encoder import bpe
    bpe_folder = folder / "encoder"
    bpe_folder.mkdir()
    for name in (bpe.TOKENS_FILE, bpe.MERGES_FILE):
        (bpe_folder / name).write_bytes(vocabulary_of[name])
    values = {"model_dir": str(folder), "n_embd": 64, "n_layer": 1}
    schema.save(schema.from_dict({**values, "encoder_path": str(bpe_folder)}, "x"), str(folder / "config.json"))
    (folder / "data.json").write_text(json.dumps(
        {"vocabulary": bpe.fingerprint(str(bpe_folder)), "vocabulary_size": 267, "shards": "x", "files": ["a", "b"]}))
    name = draw.choice(("config.json", "data.json"))
    (folder / name).write_bytes(changed_json(draw, json.loads((folder / name).read_bytes()), ("vocabulary", "files")))

    def act():
        from configs import resume
        from datasets import shard_sets, vocabularies
        config, encoder = vocabularies.complete(schema.from_dict(values, "here"))
        resume.saved_config_warnings(config)
        resume.check_data(config, encoder, shard_sets.ShardSet((), None, None, ("z",)))
    return act


def metrics(draw, _, folder):
    """metrics.jsonl: what can be read of it is, and the picture is drawn or left."""
    lines = [json.dumps({"step": step, "time": 1.0, "loss": 3.0, "eval_loss": 2.0, "tokens": 5}).encode()
             for step in range(3)]
    lines = [line if draw.random() < 0.5 else changed_json(draw, json.loads(line)) for line in lines]
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines))
    step = draw.randrange(4)

    def act():
        from models.run import metrics_file
        metrics_file.cut(str(folder), step)
        for entry in metrics_file.read(str(folder)):
            if entry["step"] > step:
                raise Wrong("a line is left")
    return act


def nothing(folder):
    return None


def override_of_network(draw, prepared, folder):
    """A config whose sizes are others, over weights: it fits, or is refused."""
    source, _ = prepared
    sizes = {"n_vocab": 300, "n_ctx": 13, "n_embd": 12, "n_layer": 2, "n_head": 3}
    values = changed_value(draw, sizes)
    values = values if isinstance(values, dict) else {}

    def act():
        from models.checkpoints import any_format
        from models.weights import misfits
        config = schema.from_dict({**values, "model_dir": "x"}, "here")
        problem = misfits(any_format.open_weights(source).shapes, config)
        same = all(getattr(config, name) == sizes[name] for name in ("n_vocab", "n_ctx", "n_embd", "n_layer"))
        if bool(problem) == same:
            raise Wrong(f"{values}: {problem}")
        if problem:
            raise UserError(problem)
    return act


KINDS = (Kind("safetensors", "weights", safetensors_bytes, safetensors_file),
         Kind("Hugging Face's config.json", "weights", hugging_face, hf_config),
         Kind("safetensors index", "weights", hugging_face, hf_index), Kind("hparams.json", "weights", openai, hparams),
         Kind("file \"checkpoint\"", "runs", openai, checkpoint_state),
         Kind("checkpoint", "weights", openai, checkpoint_files),
         Kind("evaluation.json", "runs", nothing, best_result), Kind("notes of a run", "runs", vocabulary, run_notes),
         Kind("metrics.jsonl", "runs", nothing, metrics), Kind("sizes", "weights", openai, override_of_network))
