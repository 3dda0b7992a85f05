"""`instaslice doctor`, as a user types it."""

from pathlib import Path

from test.support.command import instaslice, without


def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    done = instaslice("doctor", "--kubeconfig", str(tmp_path / "missing"))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("instaslice: kubeconfig: ")
    assert done.err.count("\n") == 1


def test_the_extra_is_named_where_it_is_missing() -> None:
    line = "instaslice: doctor needs the kubernetes client: pip install 'instaslice[cli]'\n"
    assert without("kubernetes", "doctor") == (2, "", line)
