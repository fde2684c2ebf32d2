"""When a training is over, what it says then, and the command that comes next."""
from configs import arguments
from models.checkpoints import best_checkpoint, state_file


def over(config, step, in_step=None):
    """Why a run makes no step after `step`, and the key that changes that, in words; None where it goes on.

    `in_step` is HostsInStep where several hosts have to wait for an evaluation of this step.
    """
    if step >= config.max_steps:
        return 'raise "max_steps" to go on'
    if not config.early_stopping:
        return None
    if in_step:
        in_step.wait_for(lambda: best_checkpoint.has_seen(config.model_dir, step))
    best, worse = best_checkpoint.evaluations(config.model_dir, step)
    if len(worse) < config.early_stopping:
        return None
    if in_step:
        in_step.leave()
    return (f"stopped early: {len(worse)} evaluation{'s' if len(worse) > 1 else ''} without a better loss than that of"
            f" step {best}, whose checkpoint is in {best_checkpoint.folder_of(config.model_dir)}; raise"
            ' "early_stopping" to go on')


def is_missed(config, step):
    """Whether an evaluation belongs to this step, and best/ knows of none so late: it was not brought to its end."""
    best, worse = best_checkpoint.evaluations(config.model_dir, config.max_steps)
    due = step == config.max_steps or step > 0 and step % config.train_steps == 0
    return due and step > max(best or 0, *worse, 0)


def next_command(args, config):
    """What generates with what was trained, to be typed: from the best checkpoint where evaluations ended the run."""
    step = state_file.step_in_name(state_file.named_newest(config.model_dir) or "")
    early = 0 <= step < config.max_steps and over(config, step)
    best = ["--checkpoint", arguments.BEST] if early else []
    return arguments.command(args, *best, "--interactive")
