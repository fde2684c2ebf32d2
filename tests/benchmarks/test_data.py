"""The benchmark of the input pipeline: its corpus, and what it reads of it."""
import re

import pytest

from benchmarks import data
from configs.errors import UserError
from datasets import integrity, manifest


def test_synthetic_corpus_has_the_size_asked_for_and_the_shape_of_real_text(tmp_path):
    data.make_corpus(str(tmp_path), 0.0005, 60, 50257)
    entries = manifest.load(str(tmp_path / "synthetic.manifest.json")).entries
    shards = [entry.shard for entry in entries]
    assert sum(shard.size for shard in shards) >= 5e5 > sum(shard.size for shard in shards[:-1])
    assert [shard.records for shard in shards] == [60] * len(shards)
    tokens = sum(shard.tokens for shard in shards)
    assert 600 < tokens / sum(shard.records for shard in shards) < 2000
    assert 2.1 < sum(shard.size for shard in shards) / tokens < 2.4
    assert max(shard.largest_id for shard in shards) < 50256  # the last id is <|endoftext|>
    assert integrity.scan(shards[0].path).tokens == shards[0].tokens


def test_synthetic_corpus_of_another_size_is_not_overwritten(tmp_path):
    data.make_corpus(str(tmp_path), 0.0001, 9, 300)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    data.make_corpus(str(tmp_path), 0.0001, 9, 300)
    with pytest.raises(UserError, match="is of another corpus: choose another --output_dir"):
        data.make_corpus(str(tmp_path), 0.0002, 9, 300)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_data_benchmark_reads_every_token_and_ends_with_one_json_line(tmp_path, measure):
    lines, found = measure(data, "--output_dir", tmp_path, "--gigabytes", 0.001, "--files_per", 200, "--shards", 2,
                           "--rounds", 1, "--set", "n_ctx=128", "--set", "train_batch_size=8")
    shards = [entry.shard for entry in manifest.load(str(tmp_path / "synthetic.manifest.json")).entries]
    read = {name: int(count.replace(",", ""))
            for name, count in re.findall(r"round 1: (\w+) +([\d,]+) tokens", "\n".join(lines))}
    assert read["bare"] == sum(shard.tokens for shard in shards[:2])
    whole = read["bare"] + sum(shard.records for shard in shards[:2])
    assert whole - 9 * 128 < read["pipeline"] <= whole
    assert 0 < found["ratio"] < 2 and 0 < found["pipeline_mb"] < found["peak_mb"]
    assert list(found["first_batch_seconds"]) == ["0", "10", "50", "99"]
