"""`evalkit.toml`: every key, its default, and every problem at once with its line."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit import config
from evalkit.config import Price, Settings, load_settings
from evalkit.errors import ConfigError
from evalkit.records import Usage
from evalkit.schemas import find_faults, label, load_schema, nearest

SMALL = """
[providers.local]
wire = "openai"
base_url = "http://localhost:8000/v1"
[models.small]
provider = "local"
id = "llama"
[features.sort]
prompt = "sort@v2"
model = "small"
"""

Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write(text: str) -> Settings:
        path = tmp_path / "evalkit.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path)

    return write


@pytest.fixture
def problems(load: Load) -> Callable[[str], list[str]]:
    def found(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        return list(caught.value.problems)

    return found


Problems = Callable[[str], list[str]]


# --- what is read ------------------------------------------------------------------


def test_a_route_may_be_a_function_that_answers_without_a_model(load: Load) -> None:
    feature = """
tagger = "my_app:kind_of"
routes = { password-reset = "call:my_app:reset_link", other = "small" }
retriever = "my_app.search:find"
"""

    settings = load(SMALL + feature)

    assert settings.features["sort"].routes == {
        "password-reset": "call:my_app:reset_link",
        "other": "small",
    }


def test_every_key_of_the_documentation_is_read(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "ticket.json").write_text("{}")
    (tmp_path / "evalkit.toml").write_text(
        """
store = "s3://bucket/evals"
[providers.openai]
wire = "openai"
base_url = "https://api.openai.com/v1"
api_key_env = "OPENAI_API_KEY"
max_in_flight = 64
rpm = 3000
tpm = 2_000_000
headers = { X-Team = "search", X-Key = { env = "TEAM_KEY", prefix = "Bearer " } }
[models.small]
provider = "openai"
id = "gpt-4o-mini"
tier = "cheap"
context = 128_000
price = { input = 0.15, cached_input = 0.075, output = 0.60 }
params = { top_p = 0.9 }
[models.haiku]
provider = "openai"
id = "haiku"
[features.classify-ticket]
task = "classify"
prompt = "classify-ticket@v2"
model = "small"
fallbacks = ["haiku"]
escalate_below = 0.6
output_schema = "schemas/ticket.json"
max_tokens = 256
max_latency_ms = 2000
ttft_ms = 1000
retries = 2
cache_ttl = 3600
on_failure = "degrade:evalkit_app.rules:classify"
review = "never"
flag = "classify-ticket-llm"
[flags]
classify-ticket-llm = { share = 0.1 }
[run]
judge_model = "small"
[gate]
alpha = 0.01
strict = true
[budgets]
total = { day_usd = 5 }
users = { bot = { day_calls = 3 } }
"""
    )

    settings = load_settings(tmp_path / "evalkit.toml")

    feature, model = settings.features["classify-ticket"], settings.models["small"]
    assert (feature.prompt_name, feature.prompt_version) == ("classify-ticket", "v2")
    assert feature.output_schema == tmp_path / "schemas" / "ticket.json"
    assert (feature.fallbacks, feature.flag) == (("haiku",), "classify-ticket-llm")
    assert model.price == Price(input=0.15, cached_input=0.075, output=0.60)
    assert settings.providers["openai"].headers["X-Key"] == {"env": "TEAM_KEY", "prefix": "Bearer "}
    assert settings.flags["classify-ticket-llm"].share == 0.1
    assert (settings.gate.alpha, settings.gate.strict, settings.gate.max_drop) == (0.01, True, 0.05)
    assert settings.budgets.total.day_usd == 5
    assert settings.budgets.users["bot"].day_calls == 3
    assert settings.store_path == "s3://bucket/evals"


def test_nothing_configured_is_the_embedded_model(tmp_path: Path) -> None:
    settings = load_settings(start=tmp_path)

    assert settings == Settings(root=tmp_path)
    assert settings.models["embedded"].provider == "embedded"
    assert settings.store_path == str(tmp_path / ".evalkit")


def test_configuration_is_found_upwards(tmp_path: Path) -> None:
    (tmp_path / "evalkit.toml").write_text(SMALL)
    (tmp_path / "src" / "app").mkdir(parents=True)
    (tmp_path / "src" / "pyproject.toml").write_text("[project]\nname = 'app'\n")

    settings = load_settings(start=tmp_path / "src" / "app")

    assert (settings.root, settings.path) == (tmp_path, tmp_path / "evalkit.toml")


def test_pyproject_says_the_same(tmp_path: Path, load: Load) -> None:
    tables = re.sub(r"\[(?=\w)", "[tool.evalkit.", SMALL)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "pyproject.toml").write_text(f"[project]\nname = 'app'\n{tables}")

    settings = load_settings(start=tmp_path / "app")

    assert settings.root == tmp_path / "app"
    assert (settings.models, settings.features) == (load(SMALL).models, load(SMALL).features)


def test_problems_of_pyproject_have_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[project]\nname = 'app'\n\n[tool.evalkit.gate]\nalpa = 0.05\n")

    with pytest.raises(ConfigError) as caught:
        load_settings(path)

    assert caught.value.problems == (
        'pyproject.toml:5: unknown key "alpa" in gate. Did you mean "alpha"?',
    )


def test_embedded_is_there_beside_what_is_configured(load: Load) -> None:
    assert set(load(SMALL).models) == {"embedded", "small"}


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: there is no such file\. Correct the path"):
        load_settings(tmp_path / "no.toml")


def test_this_repository_is_configured() -> None:
    settings = load_settings(start=Path(__file__).parent)

    assert set(settings.features) == {"classify-ticket", "extract-order", "answer-from-docs"}


def test_costs_count_cached_tokens_apart_and_are_none_where_unknown() -> None:
    price = Price(input=1.0, cached_input=0.1, output=2.0)
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=500_000, cached_prompt_tokens=400_000)

    assert price.cost_usd(usage) == pytest.approx(0.6 + 0.04 + 1.0)
    assert Price(input=1.0, output=2.0).cost_usd(usage) == pytest.approx(2.0)
    assert Price(input=0.0, output=0.0).cost_usd(Usage()) == 0.0
    assert Price(input=0.0, output=0.0, up_to=100).cost_usd(Usage()) is None
    assert price.cost_usd(Usage(prompt_tokens=3)) is None


# --- problems ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("[gates]\nalpha = 0.1", 'unknown key "gates". Did you mean "gate"?'),
        ("max_tokns = 3", 'unknown key "max_tokns" in features.sort. Did you mean "max_tokens"?'),
        ("model2 = 'x'", 'unknown key "model2" in features.sort. Did you mean "model"?'),
        (
            "fallbacks = ['smal']",
            'features.sort.fallbacks[0]: there is no model "smal". Did you mean "small"?',
        ),
        (
            "[models.big]\nprovider = 'locale'\nid = 'x'",
            'models.big.provider: there is no provider "locale". Did you mean "local"?',
        ),
        (
            "[run]\njudge_model = 'xxxxx'",
            'run.judge_model: there is no model "xxxxx". Known: embedded, small.',
        ),
        (
            "[budgets.features]\nsrot = { day_usd = 1 }",
            'budgets.features.srot: there is no feature "srot". Did you mean "sort"?',
        ),
        (
            "flag = 'new'",
            'features.sort.flag: there is no flag "new". Add new = true under [flags].',
        ),
        (
            "output_schema = 'no.json'",
            "features.sort.output_schema: there is no file {root}/no.json. Correct the path.",
        ),
        (
            "fallbacks = ['small']",
            'features.sort falls back from model "small" to itself. Remove it from fallbacks.',
        ),
        (
            "escalate_below = 0.5",
            (
                "features.sort.escalate_below has no model to escalate to. "
                'Add fallbacks = ["…"], or remove it.'
            ),
        ),
        ("ttft_ms = 90_000", "features.sort.ttft_ms is more than max_latency_ms 30000. Lower it."),
        (
            "routes = { short = 'small' }",
            (
                "features.sort.routes has no tagger that says the kind of a query. "
                'Add tagger = "module:function", or a .jsonl file of examples.'
            ),
        ),
        (
            "tagger = 'kinds.jsonl'",
            "features.sort.tagger: there is no file {root}/kinds.jsonl. Correct the path.",
        ),
        (
            "retriever = 'help'",
            "features.sort.retriever: there is no folder {root}/help. Correct the path.",
        ),
        (
            "retries = 2.5",
            ("features.sort.retries must be a whole number, not 2.5. Write a whole number."),
        ),
        (
            "retries = '2'",
            ('features.sort.retries must be a whole number, not "2". Write it without quotes.'),
        ),
        ("retries = 99", "features.sort.retries is 99. It must be at most 10."),
        (
            "seed = true",
            ("features.sort.seed must be a whole number, not true. Write a whole number."),
        ),
        ("flag = 3", 'features.sort.flag must be text, not 3. Quote it: "3".'),
        ("task = 'clasify'", 'features.sort.task is "clasify". Did you mean "classify"?'),
        (
            "on_failure = 'ignore'",
            (
                'features.sort.on_failure is "ignore". '
                "Write error, text:… or degrade:module:function."
            ),
        ),
        (
            "fallbacks = 'small'",
            ('features.sort.fallbacks must be a list, not "small". Write a list: ["small"].'),
        ),
        ("[gate]\nalpha = 0", "gate.alpha is 0. It must be more than 0."),
        ("[gate]\nalpha = 5", "gate.alpha is 5. It must be at most 0.5."),
        (
            "[flags]\nnew = 3",
            ("flags.new is 3. Write true, false, or { enabled = true, share = 0.1 }."),
        ),
        ("[flags]\nnew = { shar = 1 }", 'unknown key "shar" in flags.new. Did you mean "share"?'),
        (
            "[models.'a/b']\nprovider = 'local'\nid = 'x'",
            ('models.a/b is "a/b". Use 1 to 128 of A-Z a-z 0-9 . _ - and no dot in front.'),
        ),
        ("[models.big]\nid = 'x'", 'no "provider" in models.big. Add provider.'),
        (
            "[models.big]\nprovider = 'local'",
            (
                'models.big has no "id". '
                'Add the name under which local knows it, e.g. id = "gpt-4o-mini".'
            ),
        ),
        (
            "[models.big]\nprovider = 'local'\nid = 'x'\nprice = { input = 1 }",
            'no "output" in models.big.price. Add output: per million completion tokens.',
        ),
        (
            "[providers.app]\nwire = 'python'",
            ('providers.app has wire "python" but no target. Add target.'),
        ),
        (
            "[providers.app]\nwire = 'embedded'\nbase_url = 'http://x'",
            (
                'providers.app.base_url means nothing for wire "embedded". '
                "Remove it; it belongs to wire openai or anthropic or http."
            ),
        ),
        (
            "[features.two]\nprompt = 'sort'\nmodel = 'small'",
            'features.two.prompt is "sort". Write NAME@VERSION, e.g. "classify-ticket@v2".',
        ),
    ],
    ids=lambda value: value[:40],
)
def test_problem_names_line_and_fix(
    problems: Problems, tmp_path: Path, addition: str, expected: str
) -> None:
    text = SMALL + addition

    (found,) = problems(text)

    place, _, message = found.partition(": ")
    assert message == expected.replace("{root}", str(tmp_path))
    file, _, line = place.partition(":")
    assert file == "evalkit.toml"
    assert text.split("\n")[int(line) - 1] in addition.split("\n")


def test_a_key_that_cannot_be_used_is_not_told_as_missing_too(problems: Problems) -> None:
    found = problems(
        """
        [providers.app]
        wire = "http"
        base_url = "no address"
        [providers.one]
        wire = "openai"
        [models.small]
        provider = "one"
        id = 5
        """
    )

    assert len(found) == 2
    assert "providers.app.base_url" in found[0]
    assert "models.small.id must be text" in found[1]


def test_all_problems_come_at_once_with_their_lines(problems: Problems) -> None:
    text = """
stor = "x"
[providers.openai]
wire = "opnai"
[models.small]
provider = "openai"
id = "x"
tier = "frontier"
context = 100
[models.broken]
[features.sort]
prompt = "sort@v1"
model = "small"
fallbacks = ["smal", "broken"]
max_tokens = 256
[gate]
alpha = "0.05"
"""

    assert problems(text) == [
        'evalkit.toml:2: unknown key "stor". Did you mean "store"?',
        'evalkit.toml:4: providers.openai.wire is "opnai". Did you mean "openai"?',
        'evalkit.toml:10: no "provider" in models.broken. Add provider.',
        (
            'evalkit.toml:13: features.sort uses model "small" of tier frontier without opting in. '
            "Add allow_frontier = true under [features.sort], or name a cheap model."
        ),
        (
            'evalkit.toml:14: features.sort.fallbacks[0]: there is no model "smal". '
            'Did you mean "small"?'
        ),
        (
            "evalkit.toml:15: features.sort.max_tokens 256 leaves no room for a prompt in model "
            '"small" (context 100). Lower max_tokens.'
        ),
        'evalkit.toml:17: gate.alpha must be a number, not "0.05". Write it without quotes.',
    ]


SECRET = "sk-" + "Zq7" * 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"[providers.my-ai]\nwire = 'openai'\napi_key = '{SECRET}'",
            (
                "3: providers.my-ai.api_key is a secret written into the file. Put it into an "
                'environment variable and name that: api_key_env = "MY_AI_API_KEY".'
            ),
        ),
        (
            f"[providers.ai]\nwire = 'openai'\napi_key_env = '{SECRET}'",
            (
                "3: providers.ai.api_key_env is a value that is not shown here. Write the NAME of "
                'an environment variable, e.g. "OPENAI_API_KEY", never the value itself.'
            ),
        ),
        (
            f"[providers.ai]\nwire = 'openai'\nheaders = {{ Authorization = 'Bearer {SECRET}' }}",
            (
                "3: header Authorization of providers.ai is a secret written into the file. "
                'Write Authorization = { env = "NAME_OF_A_VARIABLE" }.'
            ),
        ),
        (
            f"[providers.ai]\nwire = 'openai'\nheaders = 'Bearer {SECRET}'",
            (
                "3: providers.ai.headers must be a table of keys and values, not a value that is "
                "not shown here. Write a table of keys and values."
            ),
        ),
        (
            f"[providers.ai]\nwire = 'openai'\nheaders = {{ X-Key = '{SECRET * 200}' }}",
            (
                "3: providers.ai.headers.X-Key is a value that is not shown here. "
                "It must have 4096 characters at most."
            ),
        ),
        (
            f"[providers.ai]\nwire = 'openai'\nbase_url = 'https://me:{SECRET}@host/v1'",
            (
                "3: providers.ai.base_url is a value that is not shown here. Write http:// or "
                "https://, a host and perhaps a path, without user, password or query."
            ),
        ),
        (
            f"[providers.ai]\nwire = 'openai'\noptions = {{ token = '{SECRET}' }}",
            (
                "3: providers.ai.options.token is a secret written into the file. Put it into an "
                'environment variable and name that: api_key_env = "AI_API_KEY".'
            ),
        ),
        (
            f"token = '{SECRET}'",
            (
                "1: token is a secret written into the file. Put it into an environment variable "
                'and name that: api_key_env = "MY_API_KEY".'
            ),
        ),
    ],
    ids=lambda value: value[:45],
)
def test_a_secret_in_the_file_is_refused_and_never_shown(
    problems: Problems, text: str, expected: str
) -> None:
    found = problems(text)

    assert found == [f"evalkit.toml:{expected}"]
    assert SECRET[:6] not in "\n".join(found)


UNCLOSED = "expected ']' at the end of a table declaration"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"\xef\xbb\xbfstore = 'x'",
            "1: the file starts with a byte order mark. Save it as UTF-8 without BOM.",
        ),
        (
            b"# Gr\xfc\xdfe",
            "1: byte 0xfc at offset 4 is not UTF-8. Save the file as UTF-8.",
        ),
        (b"[gate]\nalpha = nan", "2: gate.alpha is not a finite number."),
        (b"[gate]\nmax_drop = inf", "2: gate.max_drop is not a finite number."),
        (b"store = 'a'\nstore = 'b'", "2: not valid TOML: cannot overwrite a value."),
        (b"[gate\nalpha = 1", f"1: not valid TOML: {UNCLOSED}."),
        (b"store = " + b"[" * 5000, "1: nested too deeply."),
        (b"a" * 1_000_001, "1: the file is larger than 1 MB. Split it."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_file_that_cannot_be_read_says_where(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "evalkit.toml"
    path.write_bytes(data)

    with pytest.raises(ConfigError) as caught:
        load_settings(path)

    assert caught.value.problems == (f"evalkit.toml:{expected}",)


def test_a_huge_line_is_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "evalkit.toml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    started = time.process_time()

    with pytest.raises(ConfigError, match="larger than 1 MB"):
        load_settings(path)

    assert time.process_time() - started < 1


JUNK = st.recursive(
    st.one_of(st.booleans(), st.integers(-5, 5), st.sampled_from(["", "x", "a@v1", "openai"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["provider", "prompt", "x", "file"]), inner, max_size=3),
    ),
    max_leaves=6,
)
KEYS = ["store", "providers", "models", "features", "flags", "gate", "budgets", "guard", "run"]
PATHS = [
    ("providers", "p"), ("models", "m"), ("features", "f"), ("flags", "f"),
    ("guard", "input_rules"), ("features", "f", "fallbacks"), ("providers", "p", "headers"),
    ("budgets", "users"),
]  # fmt: skip


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=3),
    st.lists(st.tuples(st.sampled_from(PATHS), JUNK), max_size=3),
)
def test_any_table_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    table: dict[str, Any],
    more: list[tuple[tuple[str, ...], Any]],
) -> None:
    for place, value in more:
        holder: Any = table
        for key in place[:-1]:
            inner = holder.get(key)
            holder[key] = holder = inner if isinstance(inner, dict) else {}
        holder[place[-1]] = value
    # In a folder of its own: what lies in the folder above is found by other tests.
    path = tmp_path_factory.getbasetemp() / "any" / "evalkit.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(to_toml(table))

    try:
        loaded: Settings | None = load_settings(path)
        found: tuple[str, ...] = ()
    except ConfigError as error:
        loaded, found = None, error.problems

    assert (loaded is None) == bool(found)
    assert all(re.fullmatch(r"evalkit\.toml:\d+: .+[.?]", line) for line in found)


def to_toml(table: dict[str, Any]) -> str:
    """Inline TOML of a table of plain values."""

    def written(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {written(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(written, value)) + "]"
        return json.dumps(value)

    return "".join(f"{key} = {written(value)}\n" for key, value in table.items())


# --- the schemas -----------------------------------------------------------------------

TABLES = {
    "run": config.RunSettings,
    "gate": config.GateSettings,
    "pytest": config.PytestSettings,
    "guard": config.GuardSettings,
    "retention": config.RetentionSettings,
    "alerts": config.AlertSettings,
    "budgets": config.BudgetSettings,
}
DEFS = {
    "provider": config.ProviderSettings,
    "model": config.ModelSettings,
    "price": config.Price,
    "feature": config.FeatureSettings,
    "cap": config.SpendCap,
    "semantic_cache": config.SemanticCacheSettings,
}
NAMED_OTHERWISE = {"name", "price_from", "prompt", "prompt_name", "prompt_version"}


def pairs() -> Iterator[tuple[str, dict[str, Any], Any]]:
    schema = load_schema("config")
    for name, record in TABLES.items():
        yield name, schema["properties"][name], record
    for name, record in DEFS.items():
        yield name, schema["$defs"][name], record


@pytest.mark.parametrize("name", [name for name, _, _ in pairs()])
def test_schema_and_settings_have_the_same_keys_and_defaults(name: str) -> None:
    table, record = next((table, record) for n, table, record in pairs() if n == name)
    fields = {field.name: field for field in dataclasses.fields(record)}

    assert table["properties"].keys() - NAMED_OTHERWISE == fields.keys() - NAMED_OTHERWISE
    for key, rule in table["properties"].items():
        if "default" in rule:
            assert fields[key].default == rule["default"], key


@pytest.mark.parametrize("name", ["config", "golden_set", "case", "judge", "prompt"])
def test_shipped_schemas_are_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(dict(load_schema(name)))


def test_a_wrong_type_is_one_fault_and_a_whole_float_is_no_integer() -> None:
    faults = find_faults({"features": {"f": {"task": 3, "prompt": "a@v1", "model": "m"}}}, "config")
    whole = find_faults({"run": {"concurrency": 16.0}}, "config")

    assert [str(f) for f in faults] == ['features.f.task must be text, not 3. Quote it: "3".']
    assert [f.place for f in whole] == [("run", "concurrency")]


def test_hostile_keys_are_shown_short_and_on_one_line() -> None:
    key = "a\n\x1b[31m" + "x" * 500

    (fault,) = find_faults({key: 1}, "config")

    assert "\n" not in str(fault)
    assert "\x1b" not in str(fault)
    assert len(fault.problem) < 100


def test_faults_start_at_a_given_place() -> None:
    (fault,) = find_faults({"alpa": 1, "created": "2026-01-01"}, "prompt", at=("front", 0))

    assert (fault.place, label(fault.place)) == (("front", 0, "alpa"), "front[0].alpa")


def test_nearest_names_all_where_none_is_near() -> None:
    assert nearest("gpt", ["small", "large"]) == "Known: large, small."
    assert nearest("smal", ["small", "large"]) == 'Did you mean "small"?'
    assert nearest("x", []) == "There are none."
