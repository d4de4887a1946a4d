"""A report there and back through JSON, and what damage does to it."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.profiler.made_up import report
from trt_blendmask.errors import DataError, InputMissingError
from trt_blendmask.profiler.report import VERSION, ModelProfile, ProfileReport, read_report


def small() -> ProfileReport:
    """Of few layers and samples."""

    def cut(model: ModelProfile) -> ModelProfile:
        layers = model.layers and replace(model.layers, layers=model.layers.layers[:2])
        return replace(model, layers=layers, times={key: times[:5] for key, times in model.times.items()})

    return replace(report(), models=tuple(cut(model) for model in report().models))


def plain() -> Any:
    return json.loads(json.dumps(small().as_dict()))


def test_there_and_back() -> None:
    assert ProfileReport.from_dict(plain()) == small()


def test_unknown_fields_are_passed_over() -> None:
    values = plain()
    values["new"] = 1
    values["models"][0]["new"] = {"a": [1]}
    values["environment"]["new"] = None
    assert ProfileReport.from_dict(values) == small()


def test_an_older_report_may_lack_what_has_a_default() -> None:
    values = plain()
    for name in ("readings", "warnings", "noise", "stopped"):
        del values[name]
    assert ProfileReport.from_dict(values).readings.series == {}


@pytest.mark.parametrize("version", [None, "1", True, 1.0, VERSION + 1])
def test_another_version(version: Any) -> None:
    with pytest.raises(DataError, match="update" if version == VERSION + 1 else "Expected a profile"):
        ProfileReport.from_dict({**plain(), "version": version})


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("command",), 3, "text as the profile.command"),
        (("environment", "cores"), "two", "a whole number as the profile.environment.cores"),
        (("environment", "cores"), True, "a whole number"),
        (("models", 0, "times", "host", 0), "fast", "a number"),
        (("models", 0, "times", "host", 0), float("nan"), "a number"),
        (("models", 0, "times"), [1.0], "fields by name"),
        (("models", 0, "input_hw"), [64], "2 values"),
        (("models",), {"a": 1}, "a list"),
        (("stopped",), 1, "true or false"),
        (("comparisons", 0), None, "fields by name"),
    ],
)
def test_damage(place: tuple[Any, ...], value: Any, words: str) -> None:
    values = plain()
    where = values
    for key in place[:-1]:
        where = where[key]
    where[place[-1]] = value
    with pytest.raises(DataError, match=words):
        ProfileReport.from_dict(values)


def test_any_damage_gives_a_sentence() -> None:
    """Parts of the tree replaced or removed at random."""
    rng, whole, sentences = random.Random(0), plain(), []
    for _ in range(300):
        values = copy.deepcopy(whole)
        where: Any = values
        for _ in range(rng.randrange(6)):
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            if not keys:
                break
            key = rng.choice(keys)
            if not isinstance(where[key], (dict, list)) or rng.random() < 0.3:
                where[key] = rng.choice([None, -1, "x", [], {}, 1e300, float("nan"), [[]], True])
                break
            where = where[key]
        try:
            ProfileReport.from_dict(values)
        except DataError as error:
            sentences.append(str(error))
    assert len(sentences) > 100
    assert all(sentence.startswith("Expected") for sentence in sentences)


def test_a_distribution_without_its_median_is_damaged() -> None:
    values = plain()
    values["pipeline"][0]["stages"][0]["ms"]["percentiles"] = {"90.0": 1.0}
    with pytest.raises(DataError, match="median"):
        ProfileReport.from_dict(values)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"version": 1}', "\xff", "[" * 100_000])
def test_files_that_are_no_report(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"'.*a\.json'"):
        read_report(file)


def test_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with pytest.raises(InputMissingError):
        read_report(file)
    file.write_text(json.dumps(report().as_dict()))
    assert read_report(file) == report()


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 30, "1e300", "-1e16", "Infinity", "NaN"])
def test_numbers_that_nothing_measures(tmp_path: Path, number: str) -> None:
    file = tmp_path / "a.json"
    for key in ("macs", "mj_per_frame"):
        values = plain()
        values["models"][0][key] = "NUMBER"
        file.write_text(json.dumps(values).replace('"NUMBER"', number))
        with pytest.raises(DataError, match=r"number|measurement"):
            read_report(file)


def test_the_json_has_the_percentiles_of_the_page() -> None:
    whole = replace(report(), percentiles=(50.0, 75.0))
    rows = json.loads(json.dumps(whole.as_dict()))["models"]
    for row, model in zip(rows, whole.models, strict=True):
        for key, samples in model.times.items():
            seen = row["distributions"][key]
            assert seen["percentiles"] == {"50.0": np.percentile(samples, 50), "75.0": np.percentile(samples, 75)}
            assert (seen["count"], seen["max_ms"]) == (len(samples), max(samples))
