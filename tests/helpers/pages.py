"""Web pages for the tests of the extraction: an article amid what surrounds articles, in variations."""

NAVIGATION = "".join(f'<li><a href="/{i}">Menu entry {i}</a></li>' for i in range(12))
SENTENCES = {
    "en": "The harbour of the old town was rebuilt after the storm, and the fishermen returned within the year. "
          "Most of the houses along the quay had lost their roofs, which the council replaced with slate. ",
    "de": "Der Hafen der alten Stadt wurde nach dem Sturm wieder aufgebaut, und die Fischer kehrten bald zurück. "
          "Die meisten Häuser am Kai hatten ihre Dächer verloren, die der Rat durch Schiefer ersetzen ließ. ",
}


def paragraphs(number, language="en"):
    """Four paragraphs that no other number has."""
    return [f"{SENTENCES[language]}Entry {number}, part {i}, was written down by the harbour master himself."
            for i in range(4)]


def article(number, language="en", head="", tail=""):
    """HTML, str, with the paragraphs of that number as its article."""
    text = "".join(f"<p>{paragraph}</p>\n" for paragraph in paragraphs(number, language))
    return (f'<!DOCTYPE html><html lang="{language}"><head>{head}<title>Entry {number}</title></head><body>'
            f'<nav><ul>{NAVIGATION}</ul></nav><main><article><h1>Harbour book</h1>{text}</article></main>'
            f'<footer><p>Copyright notice, terms</p></footer><script>var tracker = 1;</script>{tail}</body></html>')
