"""What the files of deploy/ name is there: flags, ports, metrics, paths, endpoints."""

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from ggufphys.memory.predict import predict_memory
from ggufphys.params import Params
from server.accounts.ledger import Ledger
from server.app import create_app
from server.config import ServerConfig
from server.flags.serve import add_arguments
from tests.server.fake_engine import FakeEngine

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
PORT: Final = 8080


def text(name: str) -> str:
    return (DEPLOY / name).read_text()


def lines_of_arguments(name: str) -> list[str]:
    """The arguments of `ggufphys serve` in a file, as its format has them."""
    if name == "ggufphys.service":
        (start,) = re.findall(r"^ExecStart=\S+ serve (.*)$", text(name), re.MULTILINE)
        return shlex.split(start)
    (listed,) = re.findall(r"^\s*(?:command|args|CMD):? (\[.*\])$", text(name), re.MULTILINE)
    arguments: list[str] = json.loads(listed)
    return arguments


@pytest.mark.parametrize("name", ["ggufphys.service", "compose.yaml", "Dockerfile", "kubernetes/deployment.yaml"])
def test_flags(name: str) -> None:
    """The line that starts the server is parsed by it, for the port that the others name; keys are asked for."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_arguments(parser)
    args = parser.parse_args(lines_of_arguments(name))

    assert args.model.endswith(".gguf")
    assert args.port == PORT
    assert (args.api_key_file is not None) == (name != "Dockerfile")
    assert not hasattr(args, "refused_flags")
    assert not hasattr(args, "other_flags")


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("ggufphys.service", r"TimeoutStopSec=(\d+)"),
        ("compose.yaml", r"stop_grace_period: (\d+)s"),
        ("kubernetes/deployment.yaml", r"terminationGracePeriodSeconds: (\d+)"),
    ],
)
def test_nobody_is_killed_while_draining(name: str, pattern: str) -> None:
    """Whoever stops the server waits for longer than it drains, and what runs before."""
    arguments = lines_of_arguments(name)
    drain_s = int(arguments[arguments.index("--drain-timeout") + 1])
    before = re.findall(r'\["sleep", "(\d+)"\]', text(name))

    assert int(re.findall(pattern, text(name))[0]) > drain_s + sum(map(int, before))


def test_ports_and_names() -> None:
    """The proxy and Prometheus ask the replicas that compose starts, at their port; compose publishes the proxy's."""
    services = set(re.findall(r"^  ([\w-]+):(?: \*replica)?$", text("compose.yaml"), re.MULTILINE))
    asked = set(re.findall(r"(replica-\w+):(\d+)", text("nginx.conf") + text("prometheus.yml")))

    assert {name for name, _ in asked} == {"replica-a", "replica-b"} <= services
    assert {port for _, port in asked} == {str(PORT)}
    (listening,) = re.findall(r"listen (\d+);", text("nginx.conf"))
    assert f'"{listening}:{listening}"' in text("compose.yaml")


def test_mounted_files_are_there() -> None:
    """Every file that compose mounts from here exists, and goes where its reader looks."""
    mounted = re.findall(r"^\s+- \./(\S+?):(\S+?):ro$", text("compose.yaml"), re.MULTILINE)

    assert len(mounted) >= 5
    for ours, _ in mounted:
        assert (DEPLOY / ours).is_file(), ours
    targets = dict(mounted)
    folder = re.findall(r"path: (\S+)", text("grafana/provider.yaml"))[0]
    assert targets["grafana/dashboard.json"].startswith(folder)
    assert targets["alerts.yml"] == "/etc/prometheus/alerts.yml"


def test_paths_are_endpoints() -> None:
    """Probes and locations name endpoints that there are; what they rely on is answered without a key."""
    app = create_app(ServerConfig(api_keys=("key",)), FakeEngine())
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    named = set(re.findall(r"location = (/\S+)", text("nginx.conf")))
    named |= set(re.findall(r"path: (/\w+)[,}]", text("kubernetes/deployment.yaml")))
    named |= set(re.findall(rf"http://127\.0\.0\.1:{PORT}(/\w+)", text("compose.yaml")))
    named |= set(re.findall(r"metrics_path: (/\w+)", text("prometheus.yml")))

    assert named == {"/health", "/metrics"}
    assert named <= rules
    assert app.test_client().get("/health").status_code == 200
    assert app.test_client().get("/metrics").status_code == 401


def test_metrics_are_there() -> None:
    """Every metric, and every label of one, that the dashboard and the alerts ask for is the server's."""
    from ggufphys import open_gguf
    from ggufphys.embedded import MODEL

    with open_gguf(MODEL) as gguf:
        predicted = predict_memory(gguf, Params(n_ctx=256))
    app = create_app(ServerConfig(), FakeEngine(), Ledger(predicted=predicted))
    client = app.test_client()
    client.post("/v1/completions", json={"prompt": "abc"})
    shown = client.get("/metrics").get_data(as_text=True)
    have = set(re.findall(r"^([\w:]+)[{ ]", shown, re.MULTILINE)) | set(
        re.findall(r"^# TYPE (\S+)", shown, re.MULTILINE)
    )
    dashboard = json.loads(text("grafana/dashboard.json"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += re.findall(r"expr: (.*)", text("alerts.yml"))
    asked = {name for each in expressions for name in re.findall(r'__name__="([^"]+)"', each)}
    asked |= set(re.findall(r'__name__="([^"]+)"', text("alerts.yml")))

    assert len(asked) > 15
    assert asked <= have, asked - have
    for label, value in re.findall(r'\b(role|kind|quantity)="(\w+)"', text("alerts.yml") + " ".join(expressions)):
        assert f'{label}="{value}"' in shown or value == "worker"


def test_page_names_every_file() -> None:
    """docs/deployment.md tells of each file."""
    page = (DEPLOY.parent / "docs" / "deployment.md").read_text()
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file():
            assert f"deploy/{path.relative_to(DEPLOY).as_posix()}" in page, path
