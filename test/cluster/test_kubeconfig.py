import base64
import json
import socket
import ssl
import tempfile
import threading
from pathlib import Path

import pytest
import yaml

from instaslice.cluster.client import ClusterError
from instaslice.cluster.kubeconfig import from_kubeconfig
from test.support.apiserver import GROUP, APIServer
from test.support.certs import Authority


def kubeconfig(port: int, user: dict[str, object], **cluster: object) -> dict[str, object]:
    server = {"server": f"https://127.0.0.1:{port}", **cluster}
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": user}],
    }


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump])
@pytest.mark.parametrize("inline", [True, False])
def test_a_kubeconfig_leads_to_its_cluster(
    inline: bool, dump: object, api_server: APIServer, authority: Authority, account: Path
) -> None:
    pem = authority.ca.cert_pem.bytes()
    ca = (
        {"certificate-authority-data": base64.b64encode(pem).decode()}
        if inline
        else {"certificate-authority": "ca.crt"}
    )
    user: dict[str, object] = {"token": "first"} if inline else {"tokenFile": "token"}
    path = account / "config"
    path.write_text(dump(kubeconfig(api_server.port, user, **ca)))  # type: ignore[operator]
    assert from_kubeconfig(path).call("GET", GROUP).status == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a kubeconfig with a current context"),
        ("[]", "is not a kubeconfig with a current context"),
        ("{", "is not YAML"),
        (json.dumps({**kubeconfig(1, {}), "current-context": "gone"}), "current context: 'gone'"),
        (json.dumps(kubeconfig(1, {"exec": {}})), "logs in by a program"),
        (json.dumps(kubeconfig(1, {}, server="http://localhost")), "its server is not https"),
        (None, "No such file or directory"),
    ],
)
def test_a_bad_kubeconfig_gives_a_one_line_error(
    text: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClusterError) as caught:
        from_kubeconfig(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_client_certificate_is_sent_and_its_key_does_not_stay_on_disk(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubeconfig with everything inline, as kind and kubeadm write it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pair = authority.mint(tmp_path / "pair")
    leaf = authority.ca.issue_cert(common_name="admin")
    data = {
        "client-certificate-data": leaf.cert_chain_pems[0].bytes(),
        "client-key-data": leaf.private_key_pem.bytes(),
    }
    ca = authority.ca.cert_pem.bytes()
    shown: list[object] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    context.load_verify_locations(cadata=ca.decode())
    context.verify_mode = ssl.CERT_REQUIRED

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_once() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                connection.recv(65536)
                shown.append(connection.getpeercert())
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve_once)
        thread.start()
        user: dict[str, object] = {k: base64.b64encode(v).decode() for k, v in data.items()}
        inline = {"certificate-authority-data": base64.b64encode(ca).decode()}
        path = tmp_path / "config"
        path.write_text(json.dumps(kubeconfig(listener.getsockname()[1], user, **inline)))
        assert from_kubeconfig(path).call("GET", GROUP).status == 200
        thread.join()
    assert "admin" in str(shown)
    assert sorted(file.name for file in tmp_path.iterdir() if "instaslice" in file.name) == []
