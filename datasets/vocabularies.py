"""Which vocabulary goes with a config: the one that it names, or that of its run or its shards, or GPT-2's own."""
import dataclasses
import os

from configs import resume, storage
from configs.errors import UserError
from datasets import manifest
from encoder import bpe, vocabulary_files


def complete(config):
    """(the config with the "encoder_path" and "n_vocab" that it left out, its Encoder).

    "encoder_path" stays None where GPT-2's own vocabulary is meant.  Raises UserError.
    """
    folder = _find(config) if config.encoder_path is None else config.encoder_path
    encoder = bpe.load(folder)
    n_vocab = encoder.size if config.n_vocab is None else config.n_vocab
    return dataclasses.replace(config, encoder_path=folder, n_vocab=n_vocab), encoder


def check(config, encoder):
    """Raises UserError where the network has fewer ids than the vocabulary."""
    if encoder.size > config.n_vocab:
        raise UserError(f'"n_vocab" is {config.n_vocab}, but {bpe.name_of(config.encoder_path)} has {encoder.size} ids;'
                        f' leave "n_vocab" out, or set it to {encoder.size}')


def remedy(shard, fingerprint):
    """What to do about "encoder_path" to read a shard of the vocabulary `fingerprint`."""
    beside = _beside(os.path.dirname(shard))
    if vocabulary_files.is_there(beside) and bpe.fingerprint(beside) == fingerprint:
        return f'set "encoder_path" to {beside}'
    if bpe.fingerprint() == fingerprint:
        return 'leave "encoder_path" out, in a new "model_dir": the shard\'s is GPT-2\'s own'
    return 'set "encoder_path" to that one'


def _find(config):
    """The folder of the vocabulary of the run in model_dir, else of the data; None: GPT-2's own.

    Fingerprints decide, where the run or a manifest notes one; folders may have moved since.
    """
    noted = resume.recorded(config.model_dir, resume.DATA_FILE).get("vocabulary")
    of_run = resume.recorded(config.model_dir, resume.CONFIG_FILE).get("encoder_path") if noted else None
    places = [place for place in (of_run, _beside(config.data_path)) if place and vocabulary_files.is_there(place)]
    places.append(None)
    wanted = noted or _of_manifests(config.data_path)
    fitting = [place for place in places if wanted and bpe.fingerprint(place) == wanted]
    if not fitting and of_run and of_run not in places:
        raise UserError(f"{config.model_dir} was trained with the vocabulary in {of_run}, which is not there; set"
                        ' "encoder_path" to where it is now')
    return (fitting or places)[0]


def _beside(folder):
    return storage.join(folder, bpe.FOLDER)


def _of_manifests(folder):
    """The fingerprint in the manifests in `folder`; None where they note none, or several."""
    found = {manifest.load(path).plan.get("vocabulary") for path in manifest.paths_in(folder)}
    return found.pop() if len(found) == 1 else None
