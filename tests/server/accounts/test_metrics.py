"""What Prometheus reads of a server that has done nothing yet."""

from prometheus_client.parser import text_string_to_metric_families

from server.access.refusals import Refusal
from server.app import create_app
from server.config import ServerConfig
from tests.server.fake_engine import FakeEngine


def test_every_reason_is_there_from_the_start() -> None:
    """`rate` counts a first event only where the series was there before it, at 0."""
    text = create_app(ServerConfig(), FakeEngine()).test_client().get("/metrics").text
    values = {
        (family.name, sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.endswith("_total") and "reason" in sample.labels
    }

    assert not any(values.values())
    assert {reason for name, reason in values if name == "ggufphys:requests_rejected"} == set(Refusal)
    assert {reason for name, reason in values if name == "ggufphys:answers_finished"} == {"stop", "length", "cancelled"}
    assert ("ggufphys:tokens_reevaluated", "window") in values
