"""The ways of counting in each task: what each means, and what the released GPT-2 sizes have there.

Sources: the GPT-2 paper, table 3
(https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf); lm-eval 0.4
(https://github.com/EleutherAI/lm-evaluation-harness, its issues 356, 911 and 2159); llm.c, dev/data/hellaswag.py
(https://github.com/karpathy/llm.c); https://github.com/huggingface/transformers/issues/13761.
"""
from typing import NamedTuple


class Variant(NamedTuple):
    """One way of counting."""
    name: str
    meaning: str
    normal: str = ""  # what the released sizes have


ROLLING = Variant(
    "rolling", "the text as it is, behind <|endoftext|>, each token scored once; white space stands between words")

WIKITEXT_LM_EVAL = Variant(
    "lm-eval",
    "lm-eval 0.4's wikitext: each page by itself, by its detokeniser; words and bytes are those of the page before it",
    "124M word perplexity 37.37, on the raw file, whose test set is one for WikiText-2 and WikiText-103")
WIKITEXT_OPENAI = Variant(
    "openai",
    "the whole file, by a detokeniser of ours in the manner of OpenAI's, which is not published; a line end is a word",
    "word perplexity by the paper, 124M, 355M, 774M, 1558M: WikiText-2 29.41, 22.76, 19.93, 18.34; WikiText-103 37.50,"
    " 26.37, 22.05, 17.48; how close this comes is not known")

PTB_OPENAI = Variant(
    "openai", WIKITEXT_OPENAI.meaning,
    "word perplexity by the paper, 124M, 355M, 774M, 1558M: 65.85, 47.33, 40.31, 35.76; how close this comes is not"
    " known")

LAMBADA_LM_EVAL = Variant(
    "lm-eval",
    "lm-eval 0.4's lambada_openai: the last word, each of its tokens the likeliest; word perplexity is its perplexity",
    "124M accuracy 0.3256, word perplexity 40.06; 1558M word perplexity 10.63")
LAMBADA_OPENAI = Variant(
    "openai",
    "as lm-eval, but the word's first token has to be the likeliest of those that are no stop word; the rule and the"
    " list of words are ours, the paper's are not published",
    "by the paper, 124M, 355M, 774M, 1558M: accuracy 0.4599, 0.5548, 0.6012, 0.6324; word perplexity 35.13, 15.60,"
    " 10.87, 8.63; others come near these accuracies by last-token alone")
LAMBADA_LAST_TOKEN = Variant(
    "last-token", "the last token alone, behind all before it: what lm-eval's authors take the paper's accuracy for",
    "124M accuracy 0.4667, measured by others")

HELLASWAG_LLM_C = Variant(
    "llm.c", "llm.c's: context and ending as they are; the accuracy by length divides by tokens",
    "124M accuracy 0.2859, by length 0.2955 (0.2945 in other runs of theirs); 1558M 0.3842, 0.4893")
HELLASWAG_LM_EVAL = Variant(
    "lm-eval",
    "lm-eval 0.4's hellaswag: behind the activity, without WikiHow's marks; the accuracy by length divides by"
    " characters",
    "124M accuracy 0.2892, by length 0.3114; 1558M 0.4004, 0.5089")
