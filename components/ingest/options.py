"""How a source is to be read: what a person may say when the file does not speak for itself."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import BadInput
from components.ingest import keyed_hash

Format = Literal["csv", "tsv", "jsonl", "parquet", "avro"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".avro": "avro",
}
_COMPRESSIONS = (".gz", ".zst")

PersonalPolicy = Literal["report", "keep", "drop", "hash", "refuse"]


class PersonalData(BaseModel):
    """What to do with personal data; see :mod:`components.ingest.personal`.

    Attributes:
        policy: for columns in which it is found: ``report`` it, ``drop`` or ``hash`` them, ``refuse`` the source, or
            ``keep`` them without a word.
        columns: the same for single columns; those to drop or hash are, whatever is found in them.
        key: fingerprint of the key with which columns were hashed, as snapshots record it; with another key the run
            stops.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: PersonalPolicy = "report"
    columns: dict[str, PersonalPolicy] = {}
    key: str = ""

    @property
    def hashes(self) -> bool:
        """Whether anything may be hashed, so that the outcome depends on the key."""
        return "hash" in (self.policy, *self.columns.values())


class ReadOptions(BaseModel):
    """Options of an ingest; they are part of the snapshot's version.

    Attributes:
        format: what the files are, where their suffix does not say it.
        delimiter: between values; by default a tab for TSV, else what the header line suggests.
        header: whether the first line holds the column names.
        names: column names, for files without a header line (or to replace it).
        quote: the character around values that hold a delimiter or line break.
        escape: the character before a quote inside a quoted value.
        skip: lines before the header to leave out.
        null_values: texts that mean a missing value, beside the empty one.
        encoding: ``utf-8``, ``utf-16`` or ``latin-1``.
        date_format: strftime pattern of dates, where it is not recognised.
        timestamp_format: strftime pattern of timestamps, where it is not recognised.
        types: DuckDB types of columns, where the recognised one is wrong.
        personal_data: whether to report, drop, hash or refuse it.
        table: what to read from a database, as ``name`` or ``schema.name``.
        query: a SELECT to run there instead; with an ORDER BY its rows keep their order.
        value: what the messages of a Kafka topic are: ``json`` objects, or ``text`` for one column of their text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format | None = None
    delimiter: str = ""
    header: bool = True
    names: tuple[str, ...] = ()
    quote: str = '"'
    escape: str = '"'
    skip: int = 0
    null_values: tuple[str, ...] = ()
    encoding: Literal["utf-8", "utf-16", "latin-1"] = "utf-8"
    date_format: str = ""
    timestamp_format: str = ""
    types: dict[str, str] = {}
    personal_data: PersonalData = PersonalData()
    table: str = ""
    query: str = ""
    value: Literal["json", "text"] = "json"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ReadOptions":
        """Check options that came as a pipeline parameter.

        Raises:
            BadInput: an option is unknown or has a wrong value.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            known = ", ".join(cls.model_fields)
            raise BadInput(f"read_options: {name!r} is wrong ({first['msg']}); the options are {known}.") from error

    def given(self) -> dict[str, Any]:
        """The options that differ from the defaults: what the version depends on.

        Raises:
            BadInput: something is to be hashed, and there is no key, or another one than the options ask for.
        """
        values = self.model_dump(mode="json", exclude_defaults=True)
        if self.personal_data.hashes:
            values["personal_data"]["key"] = keyed_hash.fingerprint(self.personal_data.key)
        return values

    def format_of(self, name: str) -> Format | None:
        """What a file is, by option or suffix; None when neither says it."""
        return self.format or suffix_format(name)


def suffix_format(name: str) -> Format | None:
    """What a file is by its suffix; a compression suffix is looked through."""
    path = PurePosixPath(name.lower())
    if path.suffix in _COMPRESSIONS:
        path = path.with_suffix("")
    return _FORMATS.get(path.suffix)


def compression(name: str) -> str:
    """DuckDB's name of a file's compression."""
    return {".gz": "gzip", ".zst": "zstd"}.get(PurePosixPath(name.lower()).suffix, "none")
