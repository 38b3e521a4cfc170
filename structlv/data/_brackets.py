"""The scanner of bracketed trees. Cython compiles this very file where it can (types: `_brackets.pxd`)."""

from __future__ import annotations


class Scanner:
    """Takes lines one after another; gives the trees that each completes, as labels and arity in pre-order.

    A node without a label has the label "". Words are what stands between brackets and ASCII white space.
    """

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.arity: list[int] = []
        self.stack: list[int] = []  # the open nodes, as positions in `labels`
        self.fresh = False  # just after an opening bracket: what comes may be its label

    def feed(self, line: str) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
        """The trees that end in this line. Raises ValueError, without the line's number."""
        done: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
        i = 0
        end = len(line)
        while i < end:
            c = line[i]
            start = i
            i += 1
            if c == "(":
                self._node("")
                self.stack.append(len(self.labels) - 1)
                self.fresh = True
            elif c == ")":
                self._close()
                if not self.stack:
                    done.append((tuple(self.labels), tuple(self.arity)))
                    self.labels, self.arity = [], []
            elif c not in " \n\t\r\f\v":
                while i < end:
                    c = line[i]
                    if c in " ()\n\t\r\f\v":
                        break
                    i += 1
                self._word(line[start:i])
        return done

    def _node(self, label: str) -> None:
        if self.stack:
            self.arity[self.stack[-1]] += 1
        self.labels.append(label)
        self.arity.append(0)

    def _word(self, word: str) -> None:
        if self.fresh:
            self.labels[-1] = word
            self.fresh = False
        elif self.stack:
            self._node(word)
        else:
            raise ValueError(f"the word {word!r} stands outside of any tree")

    def _close(self) -> None:
        if not self.stack:
            raise ValueError("a bracket closes that was never opened")
        node = self.stack.pop()
        if self.arity[node] == 0:
            raise ValueError(f"the node {self.labels[node]!r} has no children")
        self.fresh = False
