"""Documents in the styles of YAML that people write."""

import json
import re
from random import Random
from typing import Any

from hypothesis import strategies as st

#: Any style, drawn as a seed: hypothesis records every choice of st.randoms(), which took most of a
#: property test's time.
STYLES = st.builds(Random, st.integers(0, 2**32 - 1))

SAFE = re.compile(r"[a-zA-Z][a-zA-Z0-9./-]*")


def written(value: Any, random: Random) -> str:
    """A document as YAML in a random style, with numbered comments."""
    writer = _Writer(random)
    lines = writer.block(value, 0)
    ends = random.choice([["\n"], ["\n"], ["\r\n"], ["\n", "\r\n"]])
    text = "".join(line + random.choice(ends) for line in lines)
    return text if random.random() < 0.8 else text.rstrip("\r\n")


class _Writer:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.comments = 0
        self.anchors: dict[str, Any] = {}
        self.likes_sharing = random.random() < 0.3
        self.likes_flow = random.choice([0.0, 0.1, 0.5])
        self.likes_remarks = random.choice([0.0, 0.2])
        self.steps = random.choice([[2], [4], [2, 3, 4]])
        self.dashes = random.choice([[0], [2], [0, 2], [4]])
        self.gaps = random.choice([[1], [3], [1, 2, 3]])

    def block(self, value: Any, margin: int) -> list[str]:
        """A mapping or a list as a block."""
        dash = self.random.choice(self.dashes)
        lines = []
        if isinstance(value, dict):
            for key, item in self.merged(value):
                lines += self.member(key, item, margin, dash)
        else:
            for item in value:
                lines += self.item(item, margin)
        return lines

    def merged(self, value: dict[str, Any]) -> list[tuple[str, Any]]:
        """The members, some of them behind a merge key."""
        members = list(value.items())
        if self.likes_sharing:
            for name, known in self.anchors.items():
                if (
                    isinstance(known, dict)
                    and set(known) < set(value)
                    and all(value[key] == known[key] for key in known)
                ):
                    rest = [(key, item) for key, item in members if key not in known]
                    return [("<<", _Alias(name)), *rest]
        return members

    def member(self, key: str, item: Any, margin: int, dash: int) -> list[str]:
        head = " " * margin + self.key(key) + ":"
        lines = self.remarks(margin)
        if self.is_inline(item):
            return [*lines, *self.tail(f"{head} {self.inline(item, margin)}".rstrip())]
        inner = margin + (dash if isinstance(item, list) else self.random.choice(self.steps))
        return [*lines, *self.tail(head + self.anchor(item)), *self.block(item, inner)]

    def item(self, item: Any, margin: int) -> list[str]:
        gap = " " * self.random.choice(self.gaps)
        head = " " * margin + "-" + gap
        if self.is_inline(item):
            return [*self.remarks(margin), *self.tail(head + self.inline(item, margin))]
        anchor = self.anchor(item)
        if anchor or self.random.random() < 0.1:
            step = self.random.choice(self.steps)
            return [*self.remarks(margin), head.rstrip() + anchor, *self.block(item, margin + step)]
        lines = self.block(item, margin + 1 + len(gap))
        # Comments before the first line go before the dash.
        first = next(i for i, line in enumerate(lines) if not is_remark(line))
        return [*lines[:first], head + lines[first].lstrip(), *lines[first + 1 :]]

    def is_inline(self, value: Any) -> bool:
        if isinstance(value, _Alias) or not value or not isinstance(value, dict | list):
            return True
        if self.likes_sharing and value in self.anchors.values() and self.random.random() < 0.8:
            return True
        return self.random.random() < self.likes_flow

    def inline(self, value: Any, margin: int = -1) -> str:
        """A value on one line, or with a margin perhaps on several, in brackets."""
        if isinstance(value, _Alias):
            return f"*{value.name}"
        if not isinstance(value, dict | list):
            return self.scalar(value)
        if value and self.likes_sharing:
            for name, known in self.anchors.items():
                if known == value:
                    return f"*{name}"
        parts = (
            [f"{self.key(k)}: {self.inline(v)}" for k, v in value.items()]
            if isinstance(value, dict)
            else [self.inline(item) for item in value]
        )
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        if not parts:
            return opening + closing
        anchor = self.anchor(value).lstrip()
        anchor += " " if anchor else ""
        trailing = self.random.choice(["", "", ","])
        if margin >= 0 and self.random.random() < 0.3:
            pad = "\n" + " " * (margin + 4)
            end = "\n" + " " * (margin + 2) if self.random.random() < 0.5 else ""
            return anchor + opening + pad + f",{pad}".join(parts) + trailing + end + closing
        blank = self.random.choice(["", "", " "])
        return anchor + opening + blank + ", ".join(parts) + trailing + blank + closing

    def anchor(self, value: Any) -> str:
        if not self.likes_sharing or not value or self.random.random() < 0.6:
            return ""
        # Registered before the values inside it are, so that their anchors have other names.
        name = f"a{len(self.anchors)}"
        self.anchors[name] = value
        return f" &{name}"

    def key(self, key: str) -> str:
        return key if key == "<<" else self.random.choice([key, key, key, f'"{key}"', f"'{key}'"])

    def scalar(self, value: Any) -> str:
        if value is None:
            return self.random.choice(["null", "~"])
        if not isinstance(value, str):
            return json.dumps(value)
        styles = [json.dumps(value), f"'{value}'"]
        if SAFE.fullmatch(value):
            styles += [value, value]
        return self.random.choice(styles)

    def remarks(self, margin: int) -> list[str]:
        lines = []
        while self.random.random() < self.likes_remarks:
            self.comments += 1
            lines.append(" " * margin + f"# {self.comments}")
            if self.random.random() < 0.2:
                lines.append("")
        return lines

    def tail(self, line: str) -> list[str]:
        """The lines of a text, perhaps with a comment after the last."""
        if self.random.random() < self.likes_remarks:
            self.comments += 1
            line += f"  # {self.comments}"
        return line.split("\n")


class _Alias:
    def __init__(self, name: str) -> None:
        self.name = name


def is_remark(line: str) -> bool:
    """Whether a line is empty or a comment."""
    return not line.strip() or line.lstrip().startswith("#")
