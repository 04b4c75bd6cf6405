"""Reading /metrics as Prometheus does."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """What one answer said."""

    def __init__(self, text: bytes) -> None:
        found = list(text_string_to_metric_families(text.decode()))
        self.families: dict[str, Metric] = {family.name: family for family in found}
        assert len(found) == len(self.families), "a family stands there twice"

    def __getitem__(self, sample: str) -> dict[tuple[str, ...], float]:
        """The values of the samples of a name, by the values of their labels in the order of the names of these."""
        return {
            tuple(value for _, value in sorted(one.labels.items())): one.value
            for family in self.families.values()
            for one in family.samples
            if one.name == sample
        }
