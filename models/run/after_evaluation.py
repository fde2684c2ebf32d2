"""What is done with the result of each evaluation in a training."""
import math

from configs import storage
from models.checkpoints import best_checkpoint
from models.run import loss_picture, metrics_file


def run(model_dir, evaluation, path, step, loss, write_samples):
    """Notes the `loss` of the checkpoint `path` of a step on `evaluation`, draws it, keeps the best, writes samples.

    `evaluation` is an EvalWindows, `write_samples` the function that samples.writer gave.
    """
    metrics_file.append(model_dir, [metrics_file.entry(
        step, eval_loss=loss, perplexity=math.exp(loss) if loss < math.log(1e300) else None,
        bits_per_byte=evaluation.shards.bits_per_byte(loss))])
    loss_picture.renew(model_dir)
    result = {"loss": loss, "step": step, "eval_set": evaluation.shards.fingerprint,
              "windows": evaluation.batches * evaluation.batch}
    if best_checkpoint.keep(model_dir, path, result):
        print(f"the best so far, kept in {storage.join(model_dir, best_checkpoint.FOLDER)}")
    write_samples(path)
