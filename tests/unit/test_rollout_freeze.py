from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from components.errors import BadInput
from components.rollout.freeze import Freeze, frozen_until
from components.rollout.plan import parse_plan

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


FRIDAY_AFTERNOON = Freeze(days=("fri",), start="14:00", end="18:00", timezone="Europe/Berlin")


def test_a_plan_without_windows_is_never_frozen():
    assert frozen_until((), utc("2026-08-07 15:00")) is None


@pytest.mark.parametrize(
    ("local", "until"),
    [
        ("2026-08-07 13:59:59", None),
        ("2026-08-07 14:00", "2026-08-07 18:00"),
        ("2026-08-07 17:59:59", "2026-08-07 18:00"),
        ("2026-08-07 18:00", None),
        ("2026-08-06 15:00", None),
    ],
)
def test_a_window_holds_from_its_first_moment_until_just_before_its_last(local, until):
    assert frozen_until((FRIDAY_AFTERNOON,), berlin(local)) == (berlin(until) if until else None)


def test_the_window_is_in_its_own_time_zone_whatever_the_machine_thinks():
    new_york = Freeze(start="09:30", end="16:00", timezone="America/New_York")
    assert frozen_until((new_york,), utc("2026-01-15 14:29")) is None
    assert frozen_until((new_york,), utc("2026-01-15 14:30")) == utc("2026-01-15 21:00")
    assert frozen_until((new_york,), utc("2026-07-15 13:30")) == utc("2026-07-15 20:00")


def test_a_window_over_midnight_ends_on_the_next_day_and_belongs_to_the_day_it_begins_on():
    night = Freeze(days=("fri",), start="22:00", end="06:00", timezone="Europe/Berlin")
    assert frozen_until((night,), berlin("2026-08-07 23:00")) == berlin("2026-08-08 06:00")
    assert frozen_until((night,), berlin("2026-08-08 05:59")) == berlin("2026-08-08 06:00")
    assert frozen_until((night,), berlin("2026-08-07 05:00")) is None  # Friday morning: Thursday night is not named
    assert frozen_until((night,), berlin("2026-08-08 23:00")) is None


def test_a_whole_day_is_written_with_the_same_start_and_end():
    saturday = Freeze(days=("sat",), timezone="Europe/Berlin")
    assert frozen_until((saturday,), berlin("2026-08-08 00:00")) == berlin("2026-08-09 00:00")
    assert frozen_until((saturday,), berlin("2026-08-07 23:59")) is None


def test_windows_that_touch_or_overlap_are_one():
    weekend = (FRIDAY_AFTERNOON, Freeze(days=("fri",), start="17:00", end="00:00", timezone="Europe/Berlin"),
               Freeze(days=("sat", "sun"), timezone="Europe/Berlin"))  # fmt: skip
    assert frozen_until(weekend, berlin("2026-08-07 14:30")) == berlin("2026-08-10 00:00")


def test_windows_of_two_zones_join():
    both = (
        Freeze(start="14:00", end="18:00", timezone="Europe/Berlin"),  # until 16:00 UTC
        Freeze(start="12:00", end="15:00", timezone="America/New_York"),  # 16:00 to 19:00 UTC
    )
    assert frozen_until(both, utc("2026-08-07 13:00")) == utc("2026-08-07 19:00")


def test_the_night_of_the_change_to_summer_time_is_an_hour_shorter():
    night = Freeze(start="22:00", end="06:00", timezone="Europe/Berlin")  # clocks go from 02:00 to 03:00 on 29 March
    assert frozen_until((night,), utc("2026-03-28 21:00")) == utc("2026-03-29 04:00")
    assert frozen_until((night,), utc("2026-03-27 21:00")) == utc("2026-03-28 05:00")


def test_a_time_that_summer_time_leaves_out_is_read_with_the_offset_before():
    window = Freeze(start="02:30", end="04:00", timezone="Europe/Berlin")  # 02:30 does not exist on 29 March
    assert frozen_until((window,), utc("2026-03-29 01:29")) is None
    assert frozen_until((window,), utc("2026-03-29 01:30")) == utc("2026-03-29 02:00")
    ends_in_the_gap = Freeze(start="01:00", end="02:30", timezone="Europe/Berlin")
    assert frozen_until((ends_in_the_gap,), utc("2026-03-29 00:30")) == utc("2026-03-29 01:30")


def test_an_hour_that_comes_twice_in_autumn_is_frozen_both_times():
    window = Freeze(start="02:15", end="02:45", timezone="Europe/Berlin")  # 25 October: 03:00 goes back to 02:00
    first, second = berlin("2026-10-25 02:15"), berlin("2026-10-25 02:45", fold=1)
    assert (second - first).total_seconds() == 90 * 60
    assert frozen_until((window,), first) == second
    assert frozen_until((window,), berlin("2026-10-25 02:00", fold=1)) == second
    assert frozen_until((window,), second) is None


def test_what_is_always_frozen_is_told_with_an_end():
    until = frozen_until((Freeze(),), utc("2026-08-07 12:00"))
    assert until is not None
    assert until >= utc("2026-08-15 00:00")


@pytest.mark.parametrize("field", ["start", "end"])
@pytest.mark.parametrize("value", ["24:00", "9:00", "12:60", "noon", "12:00:00", "", "1\uff12:00"])
def test_a_wrong_time_is_named_with_its_place(field, value):
    with pytest.raises(BadInput, match=rf'freeze\.0\.{field}: .*a time is "HH:MM"'):
        parse_plan({"freeze": [{field: value}]})


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "Europe", "CEST+"])
def test_a_wrong_time_zone_is_named_with_an_example(zone):
    with pytest.raises(BadInput, match=r"freeze\.0\.timezone: .*Europe/Berlin"):
        parse_plan({"freeze": [{"timezone": zone}]})


def test_a_day_that_is_none_is_refused():
    with pytest.raises(BadInput, match=r"freeze\.0\.days\.0: .*'mon', 'tue'"):
        parse_plan({"freeze": [{"days": ["Freitag"]}]})
