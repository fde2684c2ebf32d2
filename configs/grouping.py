"""Cuts what comes one by one into groups of a limited size, each of which is worked on at once."""


def groups(items, size, limit):
    """Yields lists of neighbours.  Sizes in a list add up to at most `limit`; a larger item has a list of its own."""
    group, total = [], 0
    for item in items:
        total += size(item)
        if total > limit and group:
            yield group
            group, total = [], size(item)
        group.append(item)
    if group:
        yield group
