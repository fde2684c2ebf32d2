"""Constants on which the network, the data and the weights' formats must agree."""

IGNORED = -1  # a label that does not count: it fills up the last window and the last batch of an evaluation
NORM_EPSILON = 1e-5  # of every LayerNorm
HIDDEN = -1e9  # the score of a position that must not be seen, before the softmax
STOPPED = 0  # state of the table of stop texts once one is complete
RANDOM = "philox"  # the generator of random numbers; XLA draws other bits from one seed than TensorFlow (2.15.1)
PHILOX = 1  # its number for raw operations
MUON_STEPS = 5  # of Newton-Schulz, in an update
MUON_POLYNOMIAL = 3.4445, -4.7750, 2.0315  # a x + b x^3 + c x^5: five of them bring (0, 1] to about 0.7 to 1.2
