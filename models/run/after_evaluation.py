"""What is done with the result of each evaluation in a training."""
from datasets.zero_shot.numbers import perplexity
from models.checkpoints import best_checkpoint
from models.run import loss_picture, metrics_file, samples, zero_shot


def make(config, encoder, tpu, evaluation, build_estimator):
    """after(path, step, loss, stop): notes and draws the loss of the checkpoint `path`, scores the zero-shot tasks,
    writes samples, keeps the best.

    A signal that `stop` sees ends the tasks with hooks.Interrupted (None: nothing ends them).  The best is kept last,
    because that counts the evaluation as made: one that is broken off before is made again.  Samples follow the tasks,
    so that those of a broken off evaluation are not written twice.
    `evaluation` is the EvalWindows of the loss, `build_estimator` main.py's.
    """
    model_dir, shards = config.model_dir, evaluation.shards
    write_samples = samples.writer(config, encoder, tpu, build_estimator)
    score_tasks = zero_shot.writer(config, encoder, tpu)

    def after(path, step, loss, stop):
        metrics_file.append(model_dir, [metrics_file.entry(
            step, eval_loss=loss, perplexity=perplexity(loss), bits_per_byte=shards.bits_per_byte(loss))])
        loss_picture.renew(model_dir)
        score_tasks(path, stop)
        write_samples(path)
        result = {"loss": loss, "step": step, "eval_set": shards.fingerprint,
                  "windows": evaluation.batches * evaluation.batch}
        if best_checkpoint.keep(model_dir, path, result):
            print(f"the best so far, kept in {best_checkpoint.folder_of(model_dir)}")
    return after
