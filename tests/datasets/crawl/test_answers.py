"""datasets/crawl/answers.py: what headers mean; bodies and failures are tested with a server, in test_fetching.py."""
import pytest

from datasets.crawl import answers


@pytest.mark.parametrize("text, seconds", [("7", 7), ("0", 0), ("-3", 0), ("soon", 0), ("", 0), ("nan", 0),
                                           ("Thu, 01 Jan 2015 00:00:00 GMT", 0)])
def test_when_to_come_again(text, seconds):
    assert answers.seconds_to_wait(text) == seconds


@pytest.mark.parametrize("content_type, charset", [
    ("text/html; charset=koi8-r", "koi8-r"), ("text/html;q=1; Charset = 'UTF-8' ", "UTF-8"), ("text/html", ""),
    ('text/html; charset="gbk"', "gbk"), ("", ""), ("; charset", "")])
def test_charset_of_a_content_type(content_type, charset):
    assert answers.charset(content_type) == charset
