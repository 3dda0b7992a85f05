"""`instaslice rewrite`, as a user types it."""

import pytest

from instaslice.cli.main import main
from test.support.command import without


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["rewrite", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-i"], "--in-place needs the names of files, and not standard input"),
        (["-i", "a", "-"], "--in-place needs the names of files, and not standard input"),
        (["-i", "--check", "a"], "--in-place and --check exclude one another"),
    ],
)
def test_flags_that_make_no_sense(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, capsys=capsys) == (2, "", f"instaslice: {line}\n")


def test_the_extra_is_named_where_it_is_missing() -> None:
    line = "instaslice: rewrite needs ruamel.yaml: pip install 'instaslice[cli]'\n"
    assert without("ruamel.yaml", "rewrite", "-") == (2, "", line)
