"""`instaslice plan`, as a user types it; `test/e2e` has real API servers."""

from pathlib import Path

from test.support.command import instaslice, without


def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    done = instaslice("plan", "--kubeconfig", str(tmp_path / "missing"))
    assert (done.code, done.out) == (2, "")
    assert done.err == f"instaslice: kubeconfig: {tmp_path}/missing: No such file or directory\n"


def test_a_mapping_that_is_none_is_one_line() -> None:
    done = instaslice("plan", "--resource", "x")
    assert (done.code, done.out) == (2, "")
    assert done.err == "instaslice: --resource: 'x' is not NAME=DEVICECLASS\n"


def test_the_extra_is_named_where_it_is_missing() -> None:
    done = without("kubernetes", "plan")
    line = "instaslice: plan needs the kubernetes client: pip install 'instaslice[cli]'\n"
    assert done == (2, "", line)
