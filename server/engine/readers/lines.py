"""Does a line begin with fewer blanks than an answer's lines are to have? Editors want the block they are in.

Source: llama.cpp 0c1e570 tools/server/server-context.cpp, process_token, n_indent.
"""

BLANKS = " \t"


class Lines:
    """The lines of a growing text. The first one goes on from the prompt's and may begin as it likes.

    `n_indent` 0: so may all of them.
    """

    def __init__(self, n_indent: int) -> None:
        self._n_indent = n_indent
        self._n_blanks: int | None = None  # that the line has begun with; None: it has begun with something else
        self.is_cut = False

    def feed(self, text: str) -> str:
        """Take more text; what of it may be shown. Sets `is_cut` at a line of too few blanks, which an empty one is."""
        if not self._n_indent:
            return text
        for at, character in enumerate(text):
            if self._n_blanks is not None and character in BLANKS:
                self._n_blanks += 1
            elif self._n_blanks is not None and self._n_blanks < self._n_indent:
                self.is_cut = True
                return text[:at]
            else:
                self._n_blanks = 0 if character == "\n" else None
        return text
