"""The text that Prometheus reads: one name once, escaped labels, numbers without loss."""

from __future__ import annotations

import pytest

from lotabotsd.daemon.exposition import Sample, counter, exposition, gauge, known, one_of


def test_a_family_is_its_help_its_type_and_its_samples() -> None:
    text = exposition([counter("a_total", "How many.", [Sample(3, {"b": "c", "a": "d"}), Sample(4)])])
    assert text == '# HELP a_total How many.\n# TYPE a_total counter\na_total{b="c",a="d"} 3\na_total 4\n'


def test_labels_and_help_are_escaped() -> None:
    text = exposition([gauge("a", "one\\\ntwo", [Sample(1, {"n": 'x"\\\n'})])])
    assert text == '# HELP a one\\\\\\ntwo\n# TYPE a gauge\na{n="x\\"\\\\\\n"} 1\n'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"), (1e18, "1000000000000000000"), (-2.5, "-2.5"), (0.1, "0.1"), (1e-7, "1e-07"),
        (float("nan"), "NaN"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"),
    ],
)  # fmt: skip
def test_numbers_are_written_without_loss(value: float, written: str) -> None:
    assert exposition([gauge("a", "A.", [Sample(value)])]).splitlines()[-1] == f"a {written}"


def test_what_is_not_known_is_not_there() -> None:
    assert exposition([gauge("a", "A.", known(None)), gauge("b", "B.", known(0))]).splitlines()[-1] == "b 0"
    assert exposition([gauge("a", "A.", known(None))]) == ""


def test_a_state_is_one_of_all_its_values() -> None:
    assert [(s.labels["state"], s.value) for s in one_of("state", ("up", "down"), "down")] == [
        ("up", 0),
        ("down", 1),
    ]


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "ä"])
def test_a_name_that_prometheus_refuses_is_refused_here(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a metric"):
        exposition([gauge(name, "A.", [Sample(1)])])


@pytest.mark.parametrize("label", ["", "__name", "a.b", "1"])
def test_a_label_that_prometheus_refuses_is_refused_here(label: str) -> None:
    with pytest.raises(ValueError, match="no name of a label"):
        exposition([gauge("a", "A.", [Sample(1, {label: "x"})])])


def test_a_name_comes_once() -> None:
    with pytest.raises(ValueError, match="used before"):
        exposition([gauge("a", "A.", [Sample(1)]), gauge("a", "A.", [Sample(2)])])
