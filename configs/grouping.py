"""Cuts what comes one by one into groups of a limited size, each of which is worked on at once."""


def groups(items, size, limit):
    """Yields lists of consecutive items, each of a single one or of some whose sizes add up to `limit` at most."""
    group, total = [], 0
    for item in items:
        total += size(item)
        if total > limit and group:
            yield group
            group, total = [], size(item)
        group.append(item)
    if group:
        yield group
