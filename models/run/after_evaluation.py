"""What is done with the result of each evaluation in a training."""
from configs import storage
from models.checkpoints import best_checkpoint


def run(model_dir, evaluation, path, step, loss):
    """Keeps the checkpoint `path` of a step apart if its `loss` on `evaluation`, EvalWindows, is the lowest so far."""
    result = {"loss": loss, "step": step, "eval_set": evaluation.shards.fingerprint,
              "windows": evaluation.batches * evaluation.batch}
    if best_checkpoint.keep(model_dir, path, result):
        print(f"the best so far, kept in {storage.join(model_dir, best_checkpoint.FOLDER)}")
