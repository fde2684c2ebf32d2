"""What is done with the result of each evaluation in a training."""
import math

from models.checkpoints import best_checkpoint
from models.run import loss_picture, metrics_file, samples, zero_shot


def make(config, encoder, tpu, evaluation, build_estimator):
    """after(path, step, loss, stop): notes and draws the loss of the checkpoint `path`, keeps the best, writes samples,
    scores the zero-shot tasks, which a signal that `stop` sees ends with hooks.Interrupted (None: nothing ends them).

    `evaluation` is the EvalWindows of the loss, `build_estimator` main.py's.
    """
    model_dir, shards = config.model_dir, evaluation.shards
    write_samples = samples.writer(config, encoder, tpu, build_estimator)
    score_tasks = zero_shot.writer(config, encoder, tpu)

    def after(path, step, loss, stop):
        metrics_file.append(model_dir, [metrics_file.entry(
            step, eval_loss=loss, perplexity=math.exp(loss) if loss < math.log(1e300) else None,
            bits_per_byte=shards.bits_per_byte(loss))])
        loss_picture.renew(model_dir)
        result = {"loss": loss, "step": step, "eval_set": shards.fingerprint,
                  "windows": evaluation.batches * evaluation.batch}
        if best_checkpoint.keep(model_dir, path, result):
            print(f"the best so far, kept in {best_checkpoint.folder_of(model_dir)}")
        write_samples(path)
        score_tasks(path, stop)
    return after
