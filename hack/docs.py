"""A hook of mkdocs: what the site has otherwise than the repository, where the pages are read too.

Links from docs/ to other files become those files' names, since the site has nothing to link to.
Blocks of commands without output are highlighted as a shell's, and not as output.
"""

import re
from typing import Any

#: [text](../target), as a page of docs/ links to the rest of the repository.
OUTWARD = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]*)[^)]*\)")


#: A block of commands; with output, "$ " stands before each.
CONSOLE = re.compile(r"^```console\n((?:(?!\$ |```).*\n)+)```$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page as the site has it."""
    linked = OUTWARD.sub(lambda link: named(link[1], link[2]), markdown)
    return CONSOLE.sub(r"```sh\n\1```", linked)


def named(text: str, target: str) -> str:
    """A link's text, and the file that it leads to, if the text does not name it."""
    return text if target.strip("/") in text else f"{text} (`{target}`)"
