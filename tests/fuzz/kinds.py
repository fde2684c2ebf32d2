"""All kinds of inputs by their names."""
from tests.fuzz import configs_kinds, data_kinds, outside_kinds, text_kinds, weight_kinds

KINDS = {kind.name: kind for module in (configs_kinds, data_kinds, text_kinds, weight_kinds, outside_kinds)
         for kind in module.KINDS}
