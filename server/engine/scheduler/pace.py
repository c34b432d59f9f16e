"""How many prompt tokens may ride along with a step, so that those who read don't wait for long?

A step's time grows with its tokens, roughly in a straight line: weights are read once, whatever the number, and each
token is computed. Both are learned from the steps themselves, the older the less, so that depth, load and frequency of
the processor need no model.
"""

from typing import Final

FORGET: Final = 0.98  # what a step's weight is multiplied by with each later one: half of it is gone after 34
MIN_CHUNK: Final = 16  # below that a step mostly reads weights, and prompts would take for ever
TILE: Final = 64 + 1  # tokens whose attention the processor computes together, and the one that goes with answers
DEEP: Final = 2.0  # times as long as a prompt's first step: from there on most of it is attention


class Pace:
    """Seconds of a step by its tokens: a weighted least-squares line, and the largest step that keeps to a target."""

    def __init__(self, target_s: float, n_max: int) -> None:
        self.target_s = target_s
        self.n_max = n_max
        self._w = self._n = self._t = self._nn = self._nt = 0.0  # weighted sums

    def learn(self, n_tokens: int, seconds: float) -> None:
        """Note what a step took."""
        self._w = FORGET * self._w + 1
        self._n = FORGET * self._n + n_tokens
        self._t = FORGET * self._t + seconds
        self._nn = FORGET * self._nn + n_tokens * n_tokens
        self._nt = FORGET * self._nt + n_tokens * seconds

    @property
    def line(self) -> tuple[float, float]:
        """Seconds that a step takes at least, and seconds a token; both 0 while nothing is known."""
        if not self._w:
            return 0.0, 0.0
        spread = self._w * self._nn - self._n * self._n
        mean = self._t / self._w
        slope = (self._w * self._nt - self._n * self._t) / spread if spread > 1e-9 * self._w * self._nn else 0.0
        if slope <= 0:  # all steps alike, or disturbed: as if all of it were for the tokens
            return 0.0, self._t / self._n
        slope = min(slope, self._t / self._n)  # a step takes no less than nothing
        return mean - slope * self._n / self._w, slope

    def n_prompt(self, n_rows: int, n_prompts: int, n_pending: int, least: int = MIN_CHUNK) -> int:
        """How many of the `n_pending` tokens of `n_prompts` prompts may go with `n_rows` tokens of answers; with none
        of these, all. Not fewer than `least`, however long it takes.

        Who waits for his first token waits, too: each of them is worth as much as the readers' wait, so that the first
        of many that come at once does not hold the others up. What is at most twice as much goes as a whole: the rest
        would be one more step for everybody, which reads all weights again.
        """
        most = self.n_max - n_rows
        if not n_rows:
            return most
        fixed, each = self.line
        if not each:  # nothing is known
            return min(most, MIN_CHUNK * 4)
        n = max(least, int((self.target_s * n_prompts - fixed) / each) - n_rows)
        return min(most, n_pending if n_pending <= 2 * n else n)

    def fit(self, n_prompts: int, n_pending: int) -> bool:
        """Whether readers wait for all of the `n_pending` tokens of `n_prompts` prompts no longer than these are worth.

        That many prompts are not one step's, and readers' tokens among them would be one more pass over the weights in
        each: they go when the prompts have been read.
        """
        fixed, each = self.line
        return bool(each) and fixed * -(-n_pending // self.n_max) + each * n_pending <= self.target_s * n_prompts
