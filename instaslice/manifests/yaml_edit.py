"""YAML documents, edited without losing their form. Needs the extra `cli`.

ruamel.yaml keeps comments, order and quotes, yet lays a document out anew: a folded scalar becomes
one line, `~` becomes nothing, `[ a, b ]` loses its blanks. So what it writes is only used to learn
which lines an edit changes, and those changes are merged into the lines as they were typed. What
comes out is read again and must mean what was meant; if not, the layout is ruamel.yaml's.

What a document means is what kubectl reads in it, which is YAML 1.1 (sigs.k8s.io/yaml): `0644` is
420 and `yes` is true.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from copy import deepcopy
from io import StringIO
from itertools import pairwise
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarint import ScalarInt

from instaslice.patch import Operation

#: More values than a manifest has, and few enough to be read at once: aliases can be nested so that
#: a short text stands for billions (a "billion laughs").
MAX_VALUES: Final = 1_000_000

#: What YAML 1.1 takes for a truth value and YAML 1.2, which ruamel.yaml reads, for a word.
_WORDS: Final = {
    spelling: meaning
    for words, meaning in ((("yes", "on"), True), (("no", "off"), False))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}


class BadDocument(Exception):
    """The text is no YAML document, or none that can be edited; `str()` of it says why."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line  #: from 0, in the document


class _Constructor(RoundTripConstructor):
    """Leaves a time as it is spelt: JSON, and so Kubernetes, has no type for it."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", RoundTripConstructor.construct_scalar)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.Constructor = _Constructor
    yaml.preserve_quotes = True
    yaml.width = 2**30  # folds nothing
    yaml.brace_single_entry_mapping_in_flow_sequence = True  # [{a: 1}], not [a: 1]
    return yaml


def load(text: str) -> Any:
    """Read one document as ruamel.yaml's nodes, which are dicts, lists and scalars and know more.

    Raises BadDocument.
    """
    try:
        return _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # A duplicate key brings a lecture of many lines along.
        problem = " ".join((error.problem or error.context or "not YAML").split("\n")[0].split())
        raise BadDocument(problem, mark.line if mark else 0) from None
    except (YAMLError, ValueError) as error:  # ValueError: 0x, or a number of 5,000 digits
        raise BadDocument(str(error).split("\n")[0] or "not YAML") from None
    except RecursionError:
        raise BadDocument("is nested too deeply") from None


def plain(node: Any) -> Any:
    """What a node means, as decoded JSON. Raises BadDocument where that is too large."""
    values = 0

    def convert(value: Any) -> Any:
        nonlocal values
        values += 1
        if values > MAX_VALUES:
            raise BadDocument(f"stands for more than {MAX_VALUES:,} values")
        if isinstance(value, dict):
            return {_key(key): convert(item) for key, item in value.items()}
        if isinstance(value, list):
            return [convert(item) for item in value]
        return _scalar(value)

    try:
        return convert(node)
    except RecursionError:
        raise BadDocument("is nested too deeply, or in itself") from None


def _key(key: Any) -> str:
    key = _scalar(key)
    return key if isinstance(key, str) else str(key).lower() if key is not None else "null"


def _scalar(value: Any) -> Any:
    if type(value) is str:
        return _WORDS.get(value, value)  # a quoted word is of a subclass
    if isinstance(value, ScalarInt) and getattr(value, "_width", None):
        return _octal(str(int(value)), int(value))
    if isinstance(value, ScalarBoolean):  # true or false with an anchor, and a kind of int
        return bool(value)
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def _octal(digits: str, otherwise: int) -> int:
    """A number that was written with zeros in front: octal in YAML 1.1, if it can be."""
    return int(digits, 8) if set(digits) <= set("01234567") else otherwise


def position(node: Any, tokens: Sequence[str | int]) -> int:
    """The line, from 0, on which the value at a path is; of its nearest parent if it has none."""
    line = 0
    for token in tokens:
        try:
            lines = node.lc.data[token]
            node = node[token]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
        line = lines[0]
    return line


def edit(text: str, operations: list[Operation]) -> str:
    """Apply RFC 6902 `add` and `remove` operations to the text of one document.

    Raises BadDocument where the result cannot be written as YAML that means what it should.
    """
    node = load(text)
    yaml = _yaml()
    _indent(yaml, node)
    # Untouched aliases are shared nodes, which an edit of one place must not change elsewhere.
    base = _lines(yaml, node)
    node = _unshared(node, [_tokens(operation["path"]) for operation in operations])
    apply(node, operations)
    theirs = _lines(yaml, node)
    meaning = plain(node)
    ours = text.splitlines(keepends=True)
    for lines in (_merge(base, ours, theirs), _merge(base, base, theirs), theirs):
        candidate = "".join(lines)
        try:
            if plain(load(candidate)) == meaning:
                return candidate
        except BadDocument:
            continue
    raise BadDocument("cannot be rewritten as YAML; try -o json")


def _lines(yaml: YAML, node: Any) -> list[str]:
    stream = StringIO()
    yaml.dump(node, stream)
    return stream.getvalue().splitlines(keepends=True)


def _indent(yaml: YAML, node: Any) -> None:
    """Have new lines indented as most of the document is."""
    maps: dict[int, int] = {}
    dashes: dict[int, int] = {}
    for parent, child in _edges(node, set()):
        if isinstance(parent, CommentedMap) and not child.fa.flow_style():
            counts = dashes if isinstance(child, CommentedSeq) else maps
            # A list's column is that of its first dash.
            step = child.lc.col - parent.lc.col
            if 0 <= step <= 8:
                counts[step] = counts.get(step, 0) + 1
    offset = max(dashes, key=dashes.__getitem__, default=0)
    yaml.indent(mapping=max(maps, key=maps.__getitem__, default=2) or 2, sequence=offset + 2)
    yaml.sequence_dash_offset = offset


def _edges(node: Any, seen: set[int]) -> Iterator[tuple[Any, Any]]:
    """Every collection with each collection that holds it, as often as it does."""
    if id(node) in seen or not isinstance(node, CommentedMap | CommentedSeq):
        return
    seen.add(id(node))
    for child in node.values() if isinstance(node, CommentedMap) else node:
        if isinstance(child, CommentedMap | CommentedSeq):
            yield node, child
            yield from _edges(child, seen)


def _tokens(pointer: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _step(holder: Any, token: str) -> Any:
    """The key or index that a token of a JSON Pointer names in a collection."""
    return int(token) if isinstance(holder, list) else token


def _unshared(root: Any, paths: list[list[str]]) -> Any:
    """Give each place that is to be edited a node of its own, and return the root.

    A node with an alias elsewhere, or with keys merged into it ("<<"), is replaced by its plain
    meaning.
    """
    if getattr(root, "merge", None):
        return plain(root)
    uses: dict[int, int] = {}
    for _, child in _edges(root, set()):
        uses[id(child)] = uses.get(id(child), 0) + 1
    for path in paths:
        holder = root
        for token in path[:-1]:
            key = _step(holder, token)
            child = holder[key]
            if uses.get(id(child), 0) > 1 or getattr(child, "merge", None):
                child = holder[key] = plain(child)
            holder = child
    return root


def apply(root: Any, operations: list[Operation]) -> None:
    """Apply the `add` and `remove` operations that `rewrite` makes, in place, to nodes or JSON."""
    for operation in operations:
        *parents, last = _tokens(operation["path"])
        holder = root
        for token in parents:
            holder = holder[_step(holder, token)]
        if operation["op"] == "remove":
            del holder[last]
        elif last == "-":
            holder.append(deepcopy(operation["value"]))
        else:
            holder[last] = deepcopy(operation["value"])


def _merge(base: list[str], ours: list[str], theirs: list[str]) -> list[str]:
    """Make the changes that led from `base` to `theirs` in `ours`, as diff3 does.

    Where both differ from the base, `theirs` has it. Lines of comment that `theirs` lost, together
    with the values that they hung on, stay.
    """
    known: dict[tuple[int, str, int], int] = {}
    one, two, three = (_identities(lines, known) for lines in (base, ours, theirs))
    in_ours, in_theirs = _matches(one, two), _matches(one, three)
    shared = [(i, in_ours[i], in_theirs[i]) for i in in_ours if i in in_theirs]
    merged: list[str] = []
    for (b0, o0, t0), (b1, o1, t1) in pairwise(
        [(-1, -1, -1), *shared, (len(base), len(ours), len(theirs))]
    ):
        before, mine, new = base[b0 + 1 : b1], ours[o0 + 1 : o1], theirs[t0 + 1 : t1]
        if before == new:
            merged += mine
        else:
            # A comment stays after what it came after; what is new goes before it.
            above = len(merged)
            while above and _is_comment(merged[above - 1]):
                above -= 1
            merged[above:above] = [line for line in new if not _is_comment(line)]
            merged += filter(_is_comment, mine)
        merged += ours[o1 : o1 + 1]
    return merged


#: Stands for an item of a list, whatever it says.
_DASH: Final = re.compile(r"-(?:\s+|$)")


def _identities(lines: list[str], known: dict[tuple[int, str, int], int]) -> list[int]:
    """A number for each line, the same in every text that shares `known`.

    Manifests repeat themselves, so a line is known by what it says, by the line or the item of a
    list that it is below, as indentation has it, and by how often that was said there before.
    """
    counts: dict[tuple[int, str], int] = {}
    above: list[tuple[int, int]] = []  #: indentation and number of what the line is below

    def number(text: str) -> int:
        parent = above[-1][1] if above else -1
        count = counts[parent, text] = counts.get((parent, text), 0) + 1
        return known.setdefault((parent, text, count), len(known))

    numbers = []
    for line in lines:
        text = line.strip()
        if _is_comment(line):
            numbers.append(number(text))
            continue
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] >= indent:
            above.pop()
        rest = text
        while dash := _DASH.match(rest):
            above.append((indent, number("-")))
            rest, indent = rest[dash.end() :], indent + dash.end()
        numbers.append(number(text))
        above.append((indent, numbers[-1]))
    return numbers


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _matches(one: list[int], other: list[int]) -> dict[int, int]:
    """The lines that two texts have in common, in order: index in one -> index in the other.

    The longest increasing run of indices in the other, found by patience sorting, since a line's
    identity occurs once in a text.
    """
    places = {identity: index for index, identity in enumerate(other)}
    pairs = [(index, places[identity]) for index, identity in enumerate(one) if identity in places]
    tops: list[int] = []  #: the lowest end of a run of each length, and where in `pairs` it is
    where: list[int] = []
    before: list[int] = []
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(tops, place)
        if length == len(tops):
            tops.append(place)
            where.append(number)
        else:
            tops[length], where[length] = place, number
        before.append(where[length - 1] if length else -1)
    run = []
    number = where[-1] if where else -1
    while number >= 0:
        run.append(pairs[number])
        number = before[number]
    return dict(reversed(run))
