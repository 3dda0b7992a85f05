"""A hook of mkdocs: adapt the pages of docs/, which are also read in the repository, to the site.

Links from docs/ to other files become those files' names, since the site does not have the files.
Blocks of commands without output are highlighted as shell code, not as output.
"""

import re
from typing import Any

#: [text](../target): a link from docs/ to the rest of the repository.
OUTWARD = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]*)[^)]*\)")


#: A block of commands without output; in a block with output, commands begin with "$ ".
CONSOLE = re.compile(r"^```console\n((?:(?!\$ |```).*\n)+)```$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page for the site."""
    linked = OUTWARD.sub(lambda link: named(link[1], link[2]), markdown)
    return CONSOLE.sub(r"```sh\n\1```", linked)


def named(text: str, target: str) -> str:
    """A link's text, and the name of its target, unless the text has it."""
    return text if target.strip("/") in text else f"{text} (`{target}`)"
