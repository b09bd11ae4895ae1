"""Personal data is noticed before it is copied; the rest is left alone."""

import hashlib
import hmac
import random
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import BadInput
from components.ingest import keyed_hash
from components.ingest.options import ReadOptions
from components.ingest.personal import Finding, Plan, missed, plan
from components.ingest.personal_kinds import is_card, is_iban, is_phone
from components.ingest.resolve import resolve

KEY = "a key of thirty-two characters or so"

DATA = Path(__file__).parents[3] / "shared" / "data"

VALID = {
    "mail": ("e-mail", ["ann@example.org", "Bob.Miller+x@mail.example.co.uk", "c_d@example.com"]),
    "contact": ("phone", ["+49 30 901820", "+1 (415) 555-2671", "+442079460958"]),
    "ring": ("phone", ["(415) 555-2671", "020 7946 0958", "01 42 68 53 00"]),
    "phone_no": ("phone", ["4155552671", "02079460958", "0142685300"]),
    "paid_with": ("card number", ["4111111111111111", "5500 0055 5555 5559", "378282246310005"]),
    "transfer": ("IBAN", ["DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19", "FR1420041010050500013M02606"]),
    "a": ("national id (US SSN)", ["536-22-8723", "219-09-1235", "457-55-5462"]),
    "b": ("national id (UK NINO)", ["AB123456C", "JG 10 37 59 A", "NH123456D"]),
    "c": ("national id (FR NIR)", ["255081416802538", "1 84 12 76 451 089 46", "188057208107893"]),
    "d": ("national id (ES DNI)", ["12345678Z", "X1234567L", "00000001-R"]),
    "e": ("national id (IT codice fiscale)", ["RSSMRA85T10A562S", "VRDGPP13R10B293P", "BNCMRC80A01H501C"]),
    "f": ("national id (DE Steuer-ID)", ["86095742719", "47036892816", "65929970489"]),
    "g": ("national id (PL PESEL)", ["44051401359", "02070803628", "90090515836"]),
    "h": ("national id (BR CPF)", ["529.982.247-25", "11144477735", "123.456.789-09"]),
    "i": ("national id (SE personnummer)", ["811218-9876", "19670919-9530", "900118+9811"]),
    "j": ("national id (CA SIN)", ["130 692 544", "193-456-787", "487 912 347"]),
    "k": ("national id (IN Aadhaar)", ["2341 2341 2346", "3675 9834 6016", "4991 1866 5246"]),
    "bsn": ("national id (NL BSN)", ["111222333", "123456782", "100000009"]),
}

OTHERS = {
    "order_number": [f"{n:04d}-{n * 7919 % 100000:05d}" for n in range(200)],
    "order": [str(4_000_000_000_000_000 + n * 7919) for n in range(200)],
    "epoch": [str(1_700_000_000 + n * 3607) for n in range(200)],
    "epoch_ms": [str(1_700_000_000_000 + n * 3_607_001) for n in range(200)],
    "day": [f"2024-{1 + n % 12:02d}-{1 + n % 28:02d}" for n in range(200)],
    "german_day": [f"{1 + n % 28:02d}.{1 + n % 12:02d}.2024" for n in range(200)],
    "moment": [f"2024-01-{1 + n % 28:02d} 10:{n % 60:02d}:00" for n in range(200)],
    "md5": [hashlib.md5(str(n).encode()).hexdigest() for n in range(200)],
    "sha": [hashlib.sha256(str(n).encode()).hexdigest() for n in range(200)],
    "large": [str(random.Random(n).getrandbits(63)) for n in range(200)],
    "nine": [str(100_000_000 + n * 3_456_789) for n in range(200)],
    "eleven": [str(10_000_000_000 + n * 345_678_901) for n in range(200)],
    "zip": [f"0{n:04d}-{n * 13 % 10000:04d}" for n in range(200)],
    "price": [f"{n}.{n % 100:02d}" for n in range(200)],
    "address": [f"10.{n}.{n % 7}.1" for n in range(200)],
    "handle": [f"@user{n}" for n in range(200)],
    "phone_minutes": [str(1_000_000 + n) for n in range(200)],
    "part": [f"{n:03d}-{n * 17 % 1000:03d}-{n:02d}" for n in range(200)],
}


@pytest.fixture
def connection():
    with duckdb.connect() as one:
        yield one


def table(connection, columns: dict[str, list]) -> str:
    connection.execute("CREATE OR REPLACE TABLE people AS SELECT 1 AS row")
    rows = max(len(values) for values in columns.values())
    selects = [f'unnest($v{index}::VARCHAR[]) AS "{name}"' for index, name in enumerate(columns)]
    padded = {f"v{index}": values + [None] * (rows - len(values)) for index, values in enumerate(columns.values())}
    connection.execute(f"CREATE OR REPLACE TABLE people AS SELECT {', '.join(selects)}", padded)
    return "SELECT * FROM people"


def options(policy: str = "report", **columns: str) -> ReadOptions:
    return ReadOptions.of({"personal_data": {"policy": policy, "columns": columns}})


def copied(connection, made: Plan) -> list[dict]:
    found = connection.execute(made.query)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HASH_KEY", KEY)


def test_each_kind_is_found(connection):
    made = plan(connection, table(connection, {name: values for name, (_, values) in VALID.items()}), options())
    assert {one.column: one.kind for one in made.found} == {name: kind for name, (kind, _) in VALID.items()}
    assert all(one.share == 1 and one.policy == "report" for one in made.found)
    assert made.query == "SELECT * FROM people", "reporting changes nothing"


@pytest.mark.parametrize("name", [name for name, (kind, _) in VALID.items() if name in "cdefghijk" or name == "bsn"])
def test_a_number_with_a_wrong_check_digit_is_none(connection, name):
    wrong = []
    for value in VALID[name][1]:
        at = max(place for place, character in enumerate(value[:-1]) if character.isdigit())
        wrong.append(value[:at] + str((int(value[at]) + 1) % 10) + value[at + 1 :])
    assert plan(connection, table(connection, {name: wrong}), options()).found == ()


def test_orders_times_hashes_and_codes_are_no_personal_data(connection):
    assert plan(connection, table(connection, OTHERS), options()).found == ()
    numbers = {name: OTHERS[name] for name in ("order", "epoch", "epoch_ms", "large", "nine", "eleven")}
    casts = ", ".join(f'"{name}"::BIGINT AS "{name}"' for name in numbers)
    assert plan(connection, f"SELECT {casts} FROM ({table(connection, numbers)})", options()).found == ()


@pytest.mark.parametrize("name", ["telco_churn.csv", "electricity.csv", "movielens_100k_ratings.tsv"])
def test_real_tables_without_personal_data_have_none(connection, name):
    if not (DATA / name).exists():
        pytest.skip(f"no ../shared/data/{name} here")
    assert plan(connection, f"SELECT * FROM read_csv('{DATA / name}')", options()).found == ()


def test_a_mail_in_one_of_fifty_free_texts_is_found(connection):
    notes = ["called twice, no answer"] * 98 + ["write to ann@example.org instead", "see bob@example.net"]
    (found,) = plan(connection, table(connection, {"note": notes}), options()).found
    assert (found.kind, found.share) == ("e-mail", 0.02)


@pytest.mark.parametrize(
    ("is_one", "text", "expected"),
    [
        (is_card, "4111 1111 1111 1112", False),
        (is_card, "0000000000000000", False),
        (is_card, "9111111111111111", False),
        (is_iban, "DE88370400440532013000", False),
        (is_phone, "+49", False),
        (is_phone, "12:30:45", False),
        (is_phone, "00 49 30 901820", True),
        (is_phone, "1-800-555-0199", True),
    ],
)
def test_single_values(is_one, text, expected):
    assert is_one(text) is expected


def test_columns_are_dropped_hashed_and_kept_as_asked(connection, key):
    query = table(
        connection, {"mail": [" Ann@Example.org", None, " "], "n": ["1", "2", "3"], "phone": ["+49 30 1234567"] * 3}
    )
    made = plan(connection, query, options("hash", phone="drop", n="keep"))
    expected = hmac.new(KEY.encode(), b"ann@example.org", "sha256").hexdigest()
    assert copied(connection, made) == [
        {"mail": expected, "n": "1"},
        {"mail": None, "n": "2"},
        {"mail": None, "n": "3"},
    ]
    assert made.found == (Finding("mail", "e-mail", 1.0, "hash"), Finding("phone", "phone", 1.0, "drop"))
    assert KEY not in made.query


def test_a_named_column_is_hashed_whatever_is_in_it(connection, key):
    made = plan(connection, table(connection, {"name": ["Ann", "Bob"], "n": ["1", "2"]}), options(name="hash"))
    assert [row["name"] for row in copied(connection, made)] == [keyed_hash.of("Ann"), keyed_hash.of("Bob")]
    assert [(one.column, one.kind) for one in made.found] == [("name", "named in read_options")]


def test_personal_data_is_refused_with_columns_and_kinds(connection):
    with pytest.raises(BadInput, match=r"mail \(e-mail, 100% of the values looked at\)"):
        plan(connection, table(connection, {"mail": ["a@example.org"]}), options("refuse"))


def test_a_column_that_does_not_exist_is_named(connection):
    with pytest.raises(BadInput, match="names the column 'nmae', which is not among name"):
        plan(connection, table(connection, {"name": ["Ann"]}), options(nmae="drop"))


def test_what_begins_after_the_first_rows_is_found_in_the_copy(connection, tmp_path, key):
    query = (
        "SELECT i, CASE WHEN i > 5000 THEN 'p' || i || '@example.org' ELSE 'none' END AS note FROM range(50000) t(i)"
    )
    asked = options("hash")
    made = plan(connection, query, asked)
    assert made.found == ()
    connection.execute(f"COPY ({made.query}) TO '{tmp_path / 'part.parquet'}' (FORMAT parquet)")
    with pytest.raises(BadInput, match=r'note \(e-mail\).*"columns": {"note": "hash"}'):
        missed(connection, [tmp_path / "part.parquet"], made, asked)
    missed(connection, [tmp_path / "part.parquet"], made, options("report"))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=20))
def test_hashes_are_pythons_hmac(values):
    with pytest.MonkeyPatch.context() as patch, duckdb.connect() as connection:
        patch.setenv("SLUICEWAY_HASH_KEY", KEY)
        keyed_hash.prepare(connection)
        query = f"SELECT {keyed_hash.expression('v')} FROM (SELECT unnest($values::VARCHAR[]) AS v)"
        found = [row[0] for row in connection.execute(query, {"values": values}).fetchall()]
        assert found == [keyed_hash.of(value) for value in values]


def test_the_same_person_has_the_same_hash_however_written(key):
    assert keyed_hash.of("+49 (30) 901-820") == keyed_hash.of("+4930901820")
    assert keyed_hash.of("DE89 3704 0044 0532 0130 00") == keyed_hash.of("DE89370400440532013000")
    assert keyed_hash.of("ANN@example.org ") == keyed_hash.of("ann@example.org")
    assert keyed_hash.of("1-23") != keyed_hash.of("12-3")


def test_a_missing_or_short_key_says_how_to_make_one(connection, monkeypatch):
    monkeypatch.delenv("SLUICEWAY_HASH_KEY", raising=False)
    with pytest.raises(BadInput, match=r"secrets\.token_hex"):
        options("hash").given()
    monkeypatch.setenv("SLUICEWAY_HASH_KEY", "short")
    with pytest.raises(BadInput, match="could be guessed"):
        options("hash").given()


def test_the_version_depends_on_the_key_and_does_not_reveal_it(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("mail\na@example.org\n")
    asked = {"personal_data": {"columns": {"mail": "hash"}}}
    versions, given = [], []
    for secret in (KEY, KEY[::-1]):
        monkeypatch.setenv("SLUICEWAY_HASH_KEY", secret)
        source = resolve(str(tmp_path / "a.csv"), asked)
        versions.append(source.version)
        given.append(source.options.given())
    assert versions[0] != versions[1]
    assert KEY not in str(given)
    with pytest.raises(BadInput, match="set the former one"):
        resolve(str(tmp_path / "a.csv"), given[0])
    monkeypatch.setenv("SLUICEWAY_HASH_KEY", KEY)
    assert resolve(str(tmp_path / "a.csv"), given[0]).version == versions[0], "restoring takes the options as recorded"
    assert resolve(str(tmp_path / "a.csv"), {}).options.given() == {}
