"""The checkpoint format: what an optimizer keeps, by arithmetic, against what it makes in a graph."""
import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from configs import schema
from models import initial_values, optimizers
from models.weights import OPTIMIZERS, SCOPE, count, is_slot, slot_shapes, weight_list
from tests.helpers import graphs


def test_every_optimizer_of_the_schema_says_what_it_keeps():
    assert schema.FIELDS["opt_name"].metadata["kind"].allowed == " or ".join(f'"{name}"' for name in OPTIMIZERS)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("opt_name", OPTIMIZERS)
def test_slots_are_those_that_the_optimizer_makes(opt_name, beta1):
    config = graphs.small_config(opt_name=opt_name, beta1=beta1)
    with tf.Graph().as_default():
        variables = list(initial_values.create_variables(config).values())
        optimizers.train_op([tf.zeros(variable.shape) for variable in variables], variables, config)
        made = {variable.op.name: tuple(variable.shape.as_list()) for variable in tf.global_variables()}
    weights = {f"{SCOPE}/{weight.name}": weight.shape for weight in weight_list(config)}
    slots = {f"{SCOPE}/{name}": shape for name, shape in slot_shapes(config).items()}
    assert made == {**weights, **slots, "global_step": ()}
    assert count(slot_shapes(config)) == sum(np.prod(made[name]) for name in slots)
    assert [name for name in made if is_slot(name, weights)] == [name for name in made if name in slots]


def test_unknown_optimizer_is_not_taken_for_adam():
    with pytest.raises(KeyError):
        slot_shapes(dataclasses.replace(graphs.small_config(), opt_name="no_such_optimizer"))
