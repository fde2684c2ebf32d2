"""From a path to the weights that are stored there, whatever their format."""
from configs import storage
from configs.errors import UserError
from models.checkpoints import hugging_face, tf_checkpoint

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
    there = "no weights there" if storage.exists(path) or storage.is_folder(path) else "no such file or folder"
    raise UserError(f"{path}: {there}; give {FORMATS}")
