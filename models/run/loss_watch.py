"""What the losses of a training tell: a batch on which the loss jumps, and a learning rate at which it diverges."""
import math

SPIKE_STEPS = 50  # over about so many steps the usual loss and its usual change from step to step are averaged
SPIKE_CHANGES = 8  # above the usual loss
DIVERGING_STEPS = 50  # so many in a row, with a loss so much above that of guessing
DIVERGING_LOSS = 1.0


class LossWatch:
    """Says what is wrong with a training that begins behind `step`, by the loss of each step, or of some (on a TPU).

    A loss that jumps hints at the documents of its batch.  But after the warm-up, while the loss is worse than that of
    guessing, the learning rate may be the cause: then a jump is told when the loss has come down again, or never.
    """

    def __init__(self, config, step=0):
        self._spikes, self._lr, self._warmup = SpikeWatch(), config.lr, config.warmup_steps
        self._bound = math.log(config.n_vocab) + DIVERGING_LOSS
        self._learnt = step > 0  # starting weights may begin above the bound, and that is no divergence
        self._below, self._jump, self._told = step, None, False  # the last step that was below the bound

    def warning(self, step, loss):
        """What to tell after this step, in a line, or None."""
        usual, jump = self._spikes.usual(loss), None
        if usual is not None:
            jump = (f"the loss jumped to {loss:.4f} at step {step}, from about {usual:.4f}; --which_data {step} lists"
                    " the documents of that batch")
        self._learnt = self._learnt or loss <= self._bound
        if loss <= self._bound or step <= self._warmup:
            jump, self._below, self._jump = self._jump or jump, step, None
            return jump
        self._jump = self._jump or jump
        if self._told:
            self._jump = None
        elif self._learnt and step - self._below >= DIVERGING_STEPS:
            self._told, self._jump = True, None
            return (f'diverging: lower "lr" ({self._lr:g}); for {step - self._below} steps the loss has been above'
                    f' {self._bound:.2f}, which is ln("n_vocab") + {DIVERGING_LOSS:g}: worse than guessing')
        return None


class SpikeWatch:
    """Tells a loss that leaves its own recent range upwards from noise and from the steady fall of a training."""

    def __init__(self):
        self._steps, self._mean, self._change, self._last, self._high = 0, 0.0, 0.0, None, False

    def usual(self, loss):
        """The usual loss where `loss` is the first of a spike, else None."""
        usual, longest = self._mean, SPIKE_CHANGES * self._change
        was_high, self._high = self._high, self._steps >= SPIKE_STEPS and loss > usual + longest
        self._steps += 1
        share = max(1 / self._steps, 1 / SPIKE_STEPS)
        self._mean += share * (loss - self._mean)
        if self._last is not None:
            change = abs(loss - self._last)
            change = min(change, longest) if self._steps > SPIKE_STEPS else change  # one spike must not hide the next
            self._change += share * (change - self._change)
        self._last = loss
        return usual if self._high and not was_high else None
