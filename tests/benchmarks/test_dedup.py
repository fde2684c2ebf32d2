"""The benchmark of near-duplicates."""
import pytest

from benchmarks import dedup


def test_synthetic_copies_are_found_and_measured(measure):
    _, found = measure(dedup, "--documents", 0, "--signatures", 3000, "--lines", 500)
    memory, whole = found["memory"], found["whole"]
    assert memory["documents"] == 3000 and memory["precision"] == memory["recall"] == 1
    assert 0.2 * 3000 < memory["dropped"] < 0.4 * 3000
    assert 0 < memory["imports_mb"] <= memory["names"]["peak_rss_mb"] <= memory["list"]["peak_rss_mb"]
    assert whole["dropped"] == 100 and whole["peak_rss_mb"] > 0


@pytest.mark.slow
def test_list_of_dedup_is_set_beside_exact_similarities(measure):
    _, found = measure(dedup, "--documents", 60, "--signatures", 0, "--lines", 0)
    assert found["quality"]["texts"] == 60 and found["speed"]["together"] > 0
    assert len(found["quality"]["lists"]) == len(dedup.THRESHOLDS) * len(dedup.LEVELS)
