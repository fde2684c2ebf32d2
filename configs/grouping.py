"""Cuts what comes one by one into groups of a limited size, each of which is worked on at once."""


def groups(items, size, limit):
    """Yields lists of consecutive items, each of a single one or of some whose sizes add up to `limit` at most."""
    group, total = [], 0
    for item in items:
        if group and total + size(item) > limit:
            yield group
            group, total = [], 0
        group.append(item)
        total += size(item)
    if group:
        yield group
