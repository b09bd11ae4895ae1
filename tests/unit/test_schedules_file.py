"""Schedule files: what is read from them, and when they start runs."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from components.errors import BadInput
from pipelines.cli import app
from pipelines.packages import parameters
from pipelines.server import schedules
from pipelines.server.schedules_cron import read_cron

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 27, 12, tzinfo=UTC)
ONE = "owner: me\nschedules:\n  - {name: a, pipeline: p, cron: '@daily'}\n"


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("30 3 * * *", "0 30 3 * * *"),
        ("15 30 3 * * *", "15 30 3 * * *"),
        ("@hourly", "0 0 * * * *"),
        ("0 5 * * 7", "0 0 5 * * 0"),
        ("*/15 9-17 * jan,JUL mon-fri", "0 */15 9-17 * jan,JUL mon-fri"),
    ],
)
def test_cron_is_sent_with_six_fields_for_five_mean_something_else_to_kfp(text, sent):
    assert read_cron(text).text == sent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3 * *", "has 3 fields: give five"),
        ("61 * * * *", "has '61' for the minute: it is 0 to 59"),
        ("0 0 * * fre", "has 'fre' for the day of the week: give a number or a name such as sun"),
        ("0 5-3 * * *", "ascending ranges"),
        ("0 0 * * 5-7", "it is 0 to 6"),
        ("*/0 * * * *", "for the minute"),
        ("0 0 30 2 *", "no such day comes within 5 years"),
    ],
)
def test_cron_that_kfp_would_refuse_or_never_come_to_is_told(text, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        read_cron(text)


field = st.sampled_from(["*", "*/7", "3", "1-4", "2,5", "4/3"])


@given(st.tuples(field, field, field, field, st.sampled_from(["*", "*/2", "1", "1-3", "0,5"])))
@settings(max_examples=25, deadline=None)
def test_the_next_time_is_the_first_that_fits_every_field(fields):
    """Against a search through every minute; weekday and date: either, unless one of them begins with a star."""
    cron = read_cron(" ".join(fields))
    _, minutes, hours, days, months, weekdays = cron.fields

    def fits(at):
        date, weekday = at.day in days, at.isoweekday() % 7 in weekdays
        day = (date and weekday) if "*" in fields[2] + fields[4] else (date or weekday)
        return at.minute in minutes and at.hour in hours and at.month in months and day

    (found,) = cron.first(1, NOW, UTC)
    assert fits(found)
    assert not any(
        fits(NOW + timedelta(minutes=one)) for one in range(1, min(5_000, int((found - NOW).total_seconds() / 60)))
    )


def test_an_hour_that_the_clock_skips_in_spring_has_no_run():
    times = read_cron("30 2 * * *").first(2, datetime(2026, 3, 28, tzinfo=UTC), ZoneInfo("Europe/Berlin"))
    assert [f"{one:%d %H:%M %z}" for one in times] == ["28 02:30 +0100", "30 02:30 +0200"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("owner: me\n", "", "owner: Field required"),
        ("cron: '@daily'", "", "schedule a: give either cron or every"),
        ("cron: '@daily'", "cron: '* *'", "schedule a, cron: cron is '* *'"),
        ("cron: '@daily'", "every: soon", "schedule a, every: give a number and a unit, such as 90m"),
        ("name: a", "name: A b", "schedule A b, name: String should match"),
        ("pipeline: p", "pipeline: p, retries: 3", "schedule a, retries: Extra inputs"),
        ("pipeline: p", "pipeline: p, max_concurrency: 11", "schedule a, max_concurrency: Input should be less"),
        ("pipeline: p", "pipeline: p, start: 2026-01-01T00:00:00", "schedule a, start: Input should have timezone"),
        ("owner: me\n", "owner: me\ntimezone: Mars/Base\n", "timezone: there is no timezone 'Mars/Base'"),
        ("owner: me\n", "owner: me\n  x", "is no YAML"),
    ],
)
def test_a_mistake_in_a_file_is_told_in_one_sentence_with_its_place(tmp_path, old, new, message):
    path = tmp_path / "bad.yaml"
    path.write_text(ONE.replace(old, new))
    with pytest.raises(BadInput, match=re.escape(message)) as told:
        schedules.read(path)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)


def test_the_files_of_a_folder_are_one_and_a_name_stands_once(tmp_path):
    (tmp_path / "one.yaml").write_text(ONE)
    (tmp_path / "two.yaml").write_text(ONE.replace("name: a", "name: b"))
    assert [one.name for one in schedules.read(tmp_path).schedules] == ["a", "b"]
    (tmp_path / "two.yaml").write_text(ONE)
    with pytest.raises(BadInput, match="two schedules of the name a"):
        schedules.read(tmp_path)
    (tmp_path / "two.yaml").write_text(ONE.replace("owner: me", "owner: you"))
    with pytest.raises(BadInput, match="another owner"):
        schedules.read(tmp_path)


def test_next_times_go_by_start_end_and_interval():
    def times(**about):
        one = schedules.Schedule(name="a", pipeline="p", **about)
        return [f"{at:%d %H:%M}" for at in schedules.next_times(one, ZoneInfo("UTC"), NOW, 3)]

    assert times(cron="0 3 * * *", start=NOW + timedelta(days=2), end=NOW + timedelta(days=4)) == [
        "30 03:00",
        "31 03:00",
    ]
    assert times(every="6h", start=NOW - timedelta(hours=7)) == ["27 17:00", "27 23:00", "28 05:00"]
    assert times(cron="0 3 * * *", paused=True) == []
    assert schedules.Schedule(name="a", pipeline="p", every="90s") != schedules.Schedule(
        name="a", pipeline="p", every="1m"
    )
    assert schedules.Schedule(name="a", pipeline="p", every="60m") == schedules.Schedule(
        name="a", pipeline="p", every="1h"
    )


def test_the_example_fits_the_package_that_is_released():
    known = parameters(ROOT / "tests/golden/train-and-deploy.yaml")
    for one in schedules.read(ROOT / "schedules").schedules:
        schedules.check_parameters(one, known)
        assert one.paused, "nobody's cluster starts an example"


def test_the_guide_shows_the_example_and_every_field():
    guide = (ROOT / "docs/schedules.md").read_text(encoding="utf-8")
    (shown,) = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)]
    example = yaml.safe_load((ROOT / "schedules/churn.yaml").read_text(encoding="utf-8"))
    assert shown | {"schedules": example["schedules"]} == example
    assert shown["schedules"] == example["schedules"][:1]
    for name in (*schedules.Document.model_fields, *schedules.Schedule.model_fields):
        assert name == "schedules" or f"`{name}`" in guide, name


def test_check_shows_the_next_times_without_a_server(tmp_path):
    path = tmp_path / "schedules.yaml"
    golden = str(ROOT / "tests/golden/train-and-deploy.yaml")
    path.write_text(ONE.replace("pipeline: p", "pipeline: train-and-deploy, parameters: {target: y}"))
    shown = CliRunner().invoke(app, ["schedule", "check", str(path), "--package", golden])
    assert shown.exit_code == 0
    assert shown.stdout.count("00:00 UTC") == 3
    path.write_text(path.read_text().replace("target", "tarqet"))
    told = CliRunner().invoke(app, ["schedule", "check", str(path), "--package", golden])
    assert told.exit_code == 1
    assert "has no parameter 'tarqet': did you mean target?" in told.stderr
