"""What the processor of this machine can do, as Linux tells it."""
import functools


@functools.lru_cache(maxsize=None)
def features():
    """Names of the processor's instruction sets, as in /proc/cpuinfo; none where Linux does not tell them."""
    try:
        with open("/proc/cpuinfo") as f:
            return frozenset(word for line in f if line.startswith("flags") for word in line.split())
    except OSError:
        return frozenset()


def multiplies_bfloat16():
    """Whether the processor has instructions that multiply numbers in bfloat16."""
    return not features().isdisjoint({"avx512_bf16", "amx_bf16"})
