"""What is done with the result of each evaluation in a training."""
import math

import inputs
from configs import storage
from models.checkpoints import best_checkpoint, run_checkpoints
from models.run import loss_picture, metrics_file


def run(config, eval_set, path, loss, write_samples):
    """Notes the `loss` of the checkpoint `path` on the shard_sets.ShardSet, draws it, keeps the best, writes samples.

    `write_samples` is the function that samples.writer gave.
    """
    step = run_checkpoints.step_of(path)
    metrics_file.append(config.model_dir, [metrics_file.entry(
        step, eval_loss=loss, perplexity=math.exp(loss) if loss < math.log(1e300) else None,
        bits_per_byte=eval_set.bits_per_byte(loss))])
    loss_picture.renew(config.model_dir)
    batches = inputs.eval_batches(eval_set, config.n_ctx, config.eval_batch_size, config.eval_steps)
    result = {"loss": loss, "step": step, "eval_set": eval_set.fingerprint,
              "windows": batches * config.eval_batch_size}
    if best_checkpoint.keep(config.model_dir, path, result):
        print(f"the best so far, kept in {storage.join(config.model_dir, best_checkpoint.FOLDER)}")
    write_samples(path)
