"""The GPT-2 of Hugging Face's transformers with our weights, and its tensors under our names."""
import pytest


def network(config, weights):
    """A GPT2LMHeadModel without dropout, with the sizes of `config` and the NumPy `weights` by our names.

    Skips the test where torch or transformers is missing.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)  # more take ten times the processor's time at the sizes of tests
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=config.n_vocab, n_positions=config.n_ctx, n_embd=config.n_embd, n_layer=config.n_layer,
        n_head=config.n_head, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0))
    state = {their_name(name): torch.tensor(value[0] if name.endswith("/w") else value)
             for name, value in weights.items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state)  # strict: every tensor, and no other
    return model


def their_name(name):
    """'h1/attn/c_proj/w' -> 'transformer.h.1.attn.c_proj.weight'."""
    path = name.split("/")
    if path[0][1:].isdigit():
        path[:1] = ["h", path[0][1:]]
    if path[-1] in ("wte", "wpe"):
        path.append("weight")
    path[-1] = {"g": "weight", "w": "weight", "b": "bias"}.get(path[-1], path[-1])
    return ".".join(["transformer", *path])


def by_our_names(tensors, names):
    """{name: NumPy array in our shape} for each of our `names`; `tensors` is a dict by theirs."""
    found = {name: tensors[their_name(name)].detach().numpy() for name in names}
    return {name: value[None] if name.endswith("/w") else value for name, value in found.items()}
