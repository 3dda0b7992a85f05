"""Help and wrong commands."""

import pytest

import instaslice
from instaslice.cli.main import COMMANDS, main


def test_help_and_version_are_commands_too(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for typed in ([], ["help"], ["help", "help"], ["--help"], ["version"], ["--version"]):
        assert main(typed) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0].startswith("usage: instaslice")
    assert printed[0] == printed[1] == printed[2] == printed[3]
    assert printed[4] == printed[5] == f"instaslice {instaslice.__version__}\n"


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", name]) == 0
    text = capsys.readouterr().out
    assert "\nexamples:\n  instaslice " + name in text
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out == text


MANY = " ".join(f"--resource example.com/gpu{i}=gpu{i}.example.com" for i in range(17))
NO_PROFILE = "is not a MIG profile, such as 1g.5gb or 1g.10gb+me"
STANDARD_INPUT = "--in-place needs file names: it cannot write standard input"
#: Wrong commands, and the message for each.
MISTAKES = {
    "docter": "invalid choice 'docter'; did you mean doctor? (see instaslice --help)",
    "help plann": "invalid choice 'plann'; did you mean plan? (see instaslice --help)",
    "--": "unknown argument '--' (see instaslice --help)",
    "doctor --kubconfig=x": "unknown argument '--kubconfig=x'; did you mean --kubeconfig? "
    "(see instaslice doctor --help)",
    "plan -o jsn": "argument --output/-o: invalid choice 'jsn'; did you mean json? "
    "(see instaslice plan --help)",
    "doctor ../x": "argument POD: '../x' is not the name of a pod (see instaslice doctor --help)",
    "webhook-configuration -n a.b": "argument --namespace/-n: 'a.b' is not the name of a namespace "
    "(see instaslice webhook-configuration --help)",
    "plan x": "unknown argument 'x' (see instaslice plan --help)",
    "plan --files a --context x": "--files uses no cluster: omit --kubeconfig and --context",
    "plan --files /none": "/none: No such file or directory",
    "doctor --kubeconfig /none": "kubeconfig: /none: No such file or directory",
    "plan --kubeconfig /none": "kubeconfig: /none: No such file or directory",
    "plan --resource x": "--resource: 'x' is not NAME=DEVICECLASS",
    "webhook-configuration --resource =gpu.nvidia.com": "--resource: '=gpu.nvidia.com' is not "
    "NAME=DEVICECLASS",
    "serve --resource-api v1 --cert-dir / --bind here": "--bind: 'here' is not HOST:PORT",
    "rewrite -i": STANDARD_INPUT,
    "rewrite -i a -": STANDARD_INPUT,
    "rewrite -i --check a": "--in-place and --check cannot be used together",
    "rewrite --reverse --strict": "--reverse and --strict cannot be used together",
    "rewrite --reverse --with-templates": "--reverse and --with-templates cannot be used together",
    "rewrite --reverse --templates-to x": "--reverse and --templates-to cannot be used together",
    "rewrite --resource a": "--resource: 'a' is not NAME=DEVICECLASS",
    "rewrite --kinds Rollout=spec": "--kinds: 'Rollout=spec' is not GROUP/KIND=PATH, such as "
    "argoproj.io/Rollout=spec.template",
    "deviceclasses --resource-api v1alpha2": "argument --resource-api: invalid choice 'v1alpha2'; "
    "did you mean v1alpha3? (see instaslice deviceclasses --help)",
    f"deviceclasses --kueue {MANY}": "--kueue: Kueue accepts at most 16 mappings, but these need "
    "28: name only the profiles that your nodes have",
    "deviceclasses --or-bigger": "--or-bigger needs the profiles that pods ask for, such as 1g.5gb",
    "deviceclasses --or-bigger --kueue 1g.5gb": "--kueue and --or-bigger cannot be used together",
    "deviceclasses mig-1g.5gb.x2": f"'mig-1g.5gb.x2' {NO_PROFILE}",
    "deviceclasses nvidia.com/gpu": f"'nvidia.com/gpu' {NO_PROFILE}",
    "templates banana": f"'banana' {NO_PROFILE}",
    "templates --resource amd.com/gpu=gpu.amd.com banana": f"'banana' {NO_PROFILE}; "
    "amd.com/gpu may be named too",
    "templates --resource cpu=x 1g.5gb": "--resource: 'cpu' is not an extended resource, such as "
    "nvidia.com/gpu",
    "templates -n ml": "--namespace needs --apply",
    "templates -A": "--all-namespaces needs --apply",
    "templates --apply -A -n ml": "--namespace and --all-namespaces cannot be used together",
    "templates 1g.5gb --count 0": "--count 0: must be at least 1",
    "templates mig-1g.5gb.x2 --count 2": "'mig-1g.5gb.x2' is a template, which has a fixed "
    "count: omit --count",
    "templates 1g.5gb --count 33": "mig-1g.5gb.x33: a claim of resource.k8s.io/v1 holds at most 32",
    "templates 1g.5gb --count 2 --resource-api v1alpha2": "mig-1g.5gb.x2: a claim of "
    "resource.k8s.io/v1alpha2 holds at most 1",
    "templates mig-3g.20gb-or-4g.20gb --resource-api v1beta1": "mig-3g.20gb-or-4g.20gb: "
    "resource.k8s.io/v1beta1 has no alternatives",
    "templates different-gpus-mig-1g.5gb.x2 --resource-api v1beta1": "different-gpus-mig-1g.5gb.x2:"
    " resource.k8s.io/v1beta1 cannot keep the placement different-gpus",
    "templates --resource amd.com/gpu=gpu.amd.com amd.com/gpu --resource-api v1alpha2": "gpu.amd."
    "com: the driver of resource.k8s.io/v1alpha2 does not have amd.com/gpu",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gives_a_one_line_error(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    assert capsys.readouterr() == ("", f"instaslice: {MISTAKES[typed]}\n")


@pytest.mark.parametrize("typed", [["rewrite"], ["plan", "--files"], ["doctor", "--kubeconfig"]])
def test_a_name_of_two_lines_is_shown_in_one(
    typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*typed, "two\nlines"]) == 2
    assert capsys.readouterr().err.endswith("two lines: No such file or directory\n")
