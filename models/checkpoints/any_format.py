"""From a path to the weights that are stored there, whatever their format."""
from configs import resume, storage
from configs.errors import UserError
from encoder import bpe, formats
from models.checkpoints import hugging_face, state_file, tf_checkpoint

PICKLES = (".bin", ".pt", ".pth", ".pkl")
FORMATS = (f'a folder with {hugging_face.SINGLE} or {hugging_face.INDEX}, or with a TensorFlow checkpoint (OpenAI\'s,'
           " the original's, ours), or the checkpoint itself without its suffix")


def open_weights(path):
    """The weights.StoredWeights at `path`.  Raises UserError where there are none that can be used."""
    for file_format in (hugging_face, tf_checkpoint):
        weights_path = file_format.find(path)
        if weights_path:
            return file_format.open_weights(weights_path)
    pickle = path if path.endswith(PICKLES) and storage.exists(path) else storage.join(path, "pytorch_model.bin")
    if storage.exists(pickle) or storage.exists(pickle + ".index.json"):
        raise UserError(f"{pickle} is a Python pickle, which can run any code when it is read; fetch model.safetensors"
                        " from the same place, or convert it where you trust it: transformers'"
                        " from_pretrained(FOLDER).save_pretrained(NEW)")
    there = "no weights there" if storage.exists(path) or storage.is_folder(path) else \
        f"no such file or folder{storage.looked_for_in(path)}"
    raise UserError(f"{path}: {there}; give {FORMATS}")


def same_vocabulary(stored, encoder_path, encoder):
    """(whether the StoredWeights were trained with the vocabulary in `encoder_path`, where that is told).

    (None, None) where nothing beside them tells it.
    """
    folder = stored.path.rpartition("/")[0] or "."
    noted = resume.recorded(folder, resume.DATA_FILE) if state_file.step_in_name(stored.path) >= 0 else {}
    if "vocabulary" in noted:  # a run's own checkpoint
        return noted["vocabulary"] == encoder.fingerprint, storage.join(folder, resume.DATA_FILE)
    for place in (folder, storage.join(folder, bpe.FOLDER)):
        found = formats.find(place)
        if found:
            return formats.same(found, bpe.read_files(encoder_path)), place
    return None, None
