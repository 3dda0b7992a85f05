"""`make run` and `make help`, as a new user runs them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from test.support.process import HOST, ROOT, Process, free_port, until

RUN = [sys.executable, "-m", "hack.run", "--port"]
PORT = free_port()  # both runs use it: it is free again after Ctrl-C


@pytest.mark.parametrize("time", ["first", "second"])
def test_run_shows_a_pod_rewritten_and_serves_until_ctrl_c(time: str, tmp_path: Path) -> None:
    process = Process([*RUN, str(PORT)], tmp_path / "output")
    try:
        until(lambda: "Ctrl-C ends it" in process.printed(), "it serves", process.check)
        text = process.printed()
        assert "\n-        nvidia.com/mig-1g.5gb: 1\n" in text
        assert "\n+    resourceClaimTemplateName: mig-1g.5gb\n" in text
        assert "\nkind: ResourceClaimTemplate\n" in text
        assert " INFO " not in text  # the log's lines
        command = re.search(r"^  curl .*\n.*", text, re.MULTILINE)
        assert command
        if shutil.which("curl"):
            again = subprocess.run(
                ["sh", "-c", command[0]], capture_output=True, text=True, check=True, timeout=20
            )
            assert json.loads(again.stdout)["response"]["allowed"] is True
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(timeout=20) == 0
        assert "Traceback" not in process.printed()
    finally:
        process.kill()


def test_run_says_in_one_line_that_the_port_is_in_use(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [*RUN, str(port)], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )
    assert (result.returncode, result.stdout) == (1, "")
    advice = "choose another with `make run PORT=...`"
    assert result.stderr == f"make run: port {port} is taken; {advice}\n"


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_help_lists_every_target() -> None:
    command = ["make", "--no-print-directory"]  # make prints more if make runs it
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")}
    assert {"help", "run", "test", "lint"} <= listed
    lines = (ROOT / "Makefile").read_text().splitlines()
    phony = {line.split()[1] for line in lines if line.startswith(".PHONY:")}
    assert listed == {target for target in phony if not target.startswith("need-")}
