"""Continues a text with transformers, as a short script would: what benchmarks/startup.py holds main.py against.

    python3 -m benchmarks.sample_transformers FOLDER PRECISION LENGTH TEXT
"""
import os
import sys

os.environ["USE_TF"] = "0"  # read by transformers


def main(folder, precision, length, text):
    """Prints the text and its `length` likeliest next tokens."""
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=getattr(torch, precision)).eval()
    model.generation_config.eos_token_id = None  # no sample ends before its length
    with torch.inference_mode():
        tokens = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=int(length), do_sample=False,
                                pad_token_id=0)
    print(tokenizer.decode(tokens[0], clean_up_tokenization_spaces=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
