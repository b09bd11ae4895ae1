"""Schedules as they are declared: YAML, read and checked before anything is sent."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import BadInput
from pipelines.packages import Parameter
from pipelines.server.schedules_cron import Cron, read_cron

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "STRUCT": (dict,),
    "LIST": (list,),
}


def _cron(text: str) -> str:
    """The text as KFP takes it."""
    try:
        return read_cron(text).text if text else ""
    except BadInput as error:
        raise ValueError(str(error)) from error


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"there is no timezone {text!r}; give one such as Europe/Berlin") from error
    return text


def _every(text: str) -> str:
    if text and not re.fullmatch(r"[1-9]\d*[smhd]", text):
        raise ValueError("give a number and a unit, such as 90m, 6h or 1d")
    return interval(_seconds(text)) if text else ""


def _seconds(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]]


def interval(seconds: int) -> str:
    """An interval as it is declared, in the largest unit that fits."""
    unit = next(one for one in reversed(_UNITS) if seconds % _UNITS[one] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$")]


class Schedule(BaseModel):
    """One schedule.

    Attributes:
        name: a DNS label; what the recurring run is called.
        pipeline: the pipeline's name on the server.
        version: a version's name, or "newest": the newest that there is each time a run starts.
        cron: when, in five fields; as KFP's six once it is read.
        every: or how often, such as "6h".
        parameters: of the pipeline, where the defaults will not do.
        max_concurrency: how many of its runs may be going on at once.
        catch_up: whether times that were missed, with the scheduler away or the schedule paused, are all made up for,
            one run each; else only the last of them is.
        start: not before this time.
        end: not after this time.
        paused: whether it starts no runs.
        experiment: which its runs are filed under.
        service_account: that its runs have in the cluster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    pipeline: str
    version: str = "newest"
    cron: Annotated[str, AfterValidator(_cron)] = ""
    every: Annotated[str, AfterValidator(_every)] = ""
    parameters: dict[str, Any] = {}
    max_concurrency: int = Field(default=1, ge=1, le=10)
    catch_up: bool = False
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    paused: bool = False
    experiment: str = "Default"
    service_account: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Schedule":
        if bool(self.cron) == bool(self.every):
            raise ValueError("give either cron or every")
        if self.start and self.end and self.start >= self.end:
            raise ValueError("end is not after start")
        return self

    @property
    def times(self) -> Cron | timedelta:
        """When it starts runs: at what times, or how often."""
        return read_cron(self.cron) if self.cron else timedelta(seconds=self.seconds)

    @property
    def seconds(self) -> int:
        """Between two runs; 0 when cron says when."""
        return _seconds(self.every) if self.every else 0


class Document(BaseModel):
    """A file of schedules.

    Attributes:
        owner: whose they are: no schedule of another owner is ever touched.
        timezone: that KFP's scheduler goes by (its ``CRON_SCHEDULE_TIMEZONE``), to tell when runs will start.
        schedules: all of this owner's, unless there are more files in the folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: Name
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    schedules: list[Schedule]

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)


def read(path: Path) -> Document:
    """Read a file, or the YAML files of a folder as if they were one.

    Raises:
        BadInput: it is not there, no YAML, has unknown fields or bad values, or a name twice.
    """
    paths = sorted((*path.glob("*.yaml"), *path.glob("*.yml"))) if path.is_dir() else [path]
    if not paths:
        raise BadInput(f"There is no *.yaml in the folder {path}.")
    documents = {one: _read(one) for one in paths}
    first, *others = documents.values()
    for one, document in documents.items():
        if (document.owner, document.timezone) != (first.owner, first.timezone):
            raise BadInput(
                f"{one} has another owner or timezone than {paths[0]}: apply them one by one, or make them one."
            )
    whole = first.model_copy(update={"schedules": [one for each in (first, *others) for one in each.schedules]})
    names = [one.name for one in whole.schedules]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{path} has two schedules of the name {name}.")
    return whole


def _read(path: Path) -> Document:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no YAML: {str(error).splitlines()[0]}.") from error
    try:
        return Document.model_validate(given)
    except ValidationError as error:
        raise BadInput(f"{path}: {_told(error, given)}.") from error


def _told(error: ValidationError, given: Any) -> str:
    """The first mistake, with the schedule's name rather than its number."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if len(first["loc"]) > 1 and first["loc"][0] == "schedules" and isinstance(first["loc"][1], int):
        about = given["schedules"][first["loc"][1]]
        name = about.get("name") if isinstance(about, dict) else None
        place = [f"schedule {name or 'number ' + str(first['loc'][1] + 1)}", *place[2:]]
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{', '.join(place)}: {message}" if place else message


def check_parameters(schedule: Schedule, known: Mapping[str, Parameter]) -> None:
    """Check a schedule's parameters against what the pipeline declares.

    Raises:
        BadInput: an unknown parameter, a value of another type, or one without default that is left out.
    """
    import difflib

    where = f"Schedule {schedule.name}: "
    for name, value in schedule.parameters.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}."
            raise BadInput(f"{where}the pipeline {schedule.pipeline} has no parameter {name!r}: {hint}")
        wanted = known[name].type
        if not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "BOOLEAN"):
            kind = wanted.lower().replace("_", " ")
            raise BadInput(f"{where}parameter {name} takes a {kind}, not {value!r}.")
    for name, parameter in known.items():
        if parameter.required and name not in schedule.parameters:
            raise BadInput(f"{where}parameter {name} has no default: give it under parameters.")


def next_times(schedule: Schedule, zone: ZoneInfo, now: datetime, count: int = 1) -> list[datetime]:
    """When runs will start, as far as that can be told: an interval counts from the schedule's start or making."""
    if schedule.paused:
        return []
    begin = max(now, schedule.start) if schedule.start else now
    times = schedule.times
    if isinstance(times, Cron):
        found = times.first(count, begin, zone)
    else:
        anchor = schedule.start or now
        passed = max(0, (now - anchor) // times + 1) if anchor <= now else 1
        found = [(anchor + times * (passed + one)).astimezone(zone) for one in range(count)]
    return [one for one in found if not schedule.end or one <= schedule.end]
