"""bench/RESULTS.md: a section for each measurement, from its last run."""

import re
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("RESULTS.md")


def record(title: str, text: str) -> None:
    """Print a section, and write it in place of the one with the same title."""
    section = f"## {title}\n\n{text.rstrip()}\n"
    print(f"\n{section}", flush=True)
    head, *sections = re.split(r"^(?=## )", FILE.read_text(), flags=re.MULTILINE)
    titles = [each.partition("\n")[0].removeprefix("## ") for each in sections]
    if title in titles:
        sections[titles.index(title)] = section
    else:
        sections.append(section)
    FILE.write_text("\n".join(part.rstrip() + "\n" for part in (head, *sections)))
