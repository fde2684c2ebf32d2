"""What is done with the result of each evaluation in a training."""
import inputs
from configs import storage
from models.checkpoints import best_checkpoint, run_checkpoints


def run(config, eval_set, path, loss):
    """Keeps the checkpoint `path` apart if its `loss` on the shard_sets.ShardSet is the lowest so far."""
    batches = inputs.eval_batches(eval_set, config.n_ctx, config.eval_batch_size, config.eval_steps)
    result = {"loss": loss, "step": run_checkpoints.step_of(path), "eval_set": eval_set.fingerprint,
              "windows": batches * config.eval_batch_size}
    if best_checkpoint.keep(config.model_dir, path, result):
        print(f"the best so far, kept in {storage.join(config.model_dir, best_checkpoint.FOLDER)}")
