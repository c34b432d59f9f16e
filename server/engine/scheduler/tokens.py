"""How much do two token sequences share? Sequences are `array('i')`, whose comparison is one C loop."""

from array import array


def common_prefix(ours: "array[int]", theirs: "array[int]") -> int:
    """How many tokens both begin with: halving, so that what is compared adds up to a few times the shorter one."""
    high = min(len(ours), len(theirs))
    if ours[:high] == theirs[:high]:
        return high
    low = 0  # ours[:low] == theirs[:low], ours[:high] != theirs[:high]
    while high - low > 1:
        middle = (low + high) // 2
        if ours[low:middle] == theirs[low:middle]:
            low = middle
        else:
            high = middle
    return low
