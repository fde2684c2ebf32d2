"""What tasks of evaluation do to their texts: undo the tokenisation of WikiText and PTB, cut pages, mend HellaSwag.

Sources: the GPT-2 paper, section 3.1, for what OpenAI's detokenisers undo (they themselves are not published), and the
tasks wikitext and hellaswag of lm-eval 0.4 (https://github.com/EleutherAI/lm-evaluation-harness).
"""
import re

# English words that go on with a sentence of LAMBADA more often than they end it.  The paper's list is not published.
STOP_WORDS = (
    "a about after again against all also am an and any are as at be because been before being below between both but"
    " by can could did do does doing down during each few for from further had has have having he her here hers herself"
    " him himself his how i if in into is it its itself just may me might more most must my myself no nor not now of"
    " off on once only or other our ours ourselves out over own same shall she should so some such than that the their"
    " theirs them themselves then there these they this those through to too under until up upon very was we were what"
    " when where which while who whom why will with would you your yours yourself yourselves")
CONTRACTIONS = "s|t|re|ve|ll|d|m"
# Of lm-eval, in its order: (what stands in the text, what comes in its place).
LM_EVAL_FIRST = [("s '", "s'")]
LM_EVAL_MARKS = [(" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."),
                 *((f" {mark} ", f"{mark} ") for mark in ":;.!?,")]
LM_EVAL_PAIRS = [("\\(", "\\)"), ("\\[", "\\]"), ("{", "}"), ('"', '"'), ("'", "'")]
LM_EVAL_LAST = [("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \xb0 ", "\xb0"), (" \n", "\n"), ("\n ", "\n"),
                (" N ", " 1 "), (" 's", "'s")]


def plain_wikitext(text):
    """WikiText, raw or tokenised, as it was before it was tokenised, as far as rules can tell; <unk> stays.

    These rules are ours.  They undo what OpenAI's are said to undo, and nothing shows that they are the same.
    """
    for mark in "-,.":
        text = text.replace(f" @{mark}@ ", mark)
    text = re.sub(rf" '({CONTRACTIONS})\b", r"'\1", text)
    text = re.sub(r'" ([^"\n]*) "', r'"\1"', text)
    text = re.sub(r" ([,.;:!?%)\]}])", r"\1", text)
    text = re.sub(r"([(\[{$]) ", r"\1", text)
    return re.sub(r"^ | $", "", text, flags=re.M)


def plain_ptb(text):
    """The Penn Treebank with contractions and signs joined, by rules of ours; `<unk>`, `N`, small letters stay."""
    text = re.sub(rf" (n't|'(?:{CONTRACTIONS}))\b", r"\1", text)
    text = re.sub(r"([$#]) ", r"\1", text)
    return re.sub(r"^ | $", "", text, flags=re.M)


def lm_eval_wikitext(page):
    """A page of WikiText as lm-eval scores it."""
    page = _replaced(page, LM_EVAL_FIRST + LM_EVAL_MARKS)
    for left, right in LM_EVAL_PAIRS:
        begin, end = left.removeprefix("\\"), right.removeprefix("\\")
        page = re.sub(rf"{left}\s*([^{right}]*?)\s*{right}", rf"{begin}\g<1>{end}", page)
    return _replaced(page, LM_EVAL_LAST)


def _replaced(text, pairs):
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def wikitext_pages(text):
    """List of the pages of WikiText, each from its title ` = Title = ` on, as lm-eval's data set has them."""
    pages, lines = [], []
    for line in text.split("\n"):
        title = line.replace("= = =", "===").replace("= =", "==").strip()
        if title.startswith("= ") and title.endswith(" ="):
            pages.append("\n".join(lines))
            lines = []
        lines.append(line)
    pages.append("\n".join(lines))
    return [page for page in pages if page.strip()]


def lm_eval_hellaswag(text):
    """A context or an ending of HellaSwag without the marks of WikiHow, as lm-eval scores it."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")
