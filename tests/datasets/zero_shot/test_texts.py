"""What is undone in texts before they are scored: worked examples; lm-eval's own code gave what is said to be its."""
import pytest

from datasets.zero_shot import texts

WIKITEXT = """ \n = Head <unk> = \n
 The <unk> 's 1 @,@ 200 @-@ year ( old ) " walls " don 't fall , 4 @.@ 5 % do : yes . \n
 = = Part = = \n \n Boys ' toys ; 20 \xb0 C ! \n"""


def test_wikitext_is_as_it_was_before_it_was_tokenised_and_unknown_words_stay():
    assert texts.plain_wikitext(WIKITEXT) == """
= Head <unk> =

The <unk>'s 1,200-year (old) "walls" don't fall, 4.5% do: yes.

= = Part = =

Boys ' toys; 20 \xb0 C!
"""


def test_wikitext_for_lm_eval_is_what_its_own_code_makes_of_it():
    assert texts.lm_eval_wikitext(WIKITEXT) == """
= Head <unk> =

The <unk>'s 1,200-year (old) "walls" don't fall, 4.5 % do: yes.

== Part ==

Boys' toys; 20\xb0C!
"""


def test_ptb_gets_its_contractions_and_signs_back():
    text = " it was n't the company 's fault <unk> said \n they 'll pay $ N million or N N \n"
    assert texts.plain_ptb(text) == "it wasn't the company's fault <unk> said\nthey'll pay $N million or N N\n"


def test_pages_begin_at_titles_and_not_at_the_headings_of_sections():
    text = " \n = One = \n \n a b \n = = Section = = \n c \n = = = Deeper = = = \n\n = Two = \n d \n"
    first, second = texts.wikitext_pages(text)
    assert first == " = One = \n \n a b \n = = Section = = \n c \n = = = Deeper = = = \n"
    assert second == " = Two = \n d \n"
    assert texts.wikitext_pages("no title\n") == ["no title\n"]


@pytest.mark.parametrize("text, plain", [
    (" [header] How to sit [title] Find a chair. [step] Sit  down ", "How to sit. Find a chair. Sit down"),
    ("[step]", ""), ("as it is", "as it is")])
def test_hellaswag_for_lm_eval_is_without_the_marks_of_wikihow(text, plain):
    assert texts.lm_eval_hellaswag(text).strip() == plain
