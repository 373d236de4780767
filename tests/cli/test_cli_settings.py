"""Where a setting's value comes from, and that the defaults are the engine's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from drift_edge.cli import chat
from drift_edge.cli.config import DEFAULT_ACTIVE, DEFAULT_BETA, NAMES, Settings, read_config, read_environment, resolve
from drift_edge.errors import UsageError
from tests.cli.fake import FakeEngine, Result

Cli = Callable[..., Result]


def test_flag_over_environment_over_config_over_default(
    cli: Cli, engine: FakeEngine, config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config("beta = 0.1\ntop-p = 0.1\nmin-p = 0.1\nstop = ['a', 'b']\n[weights]\nconcise = 0.5\n")
    monkeypatch.setenv("DRIFT_EDGE_BETA", "0.2")
    monkeypatch.setenv("DRIFT_EDGE_TOP_P", "0.2")
    monkeypatch.setenv("DRIFT_EDGE_SEED", "")  # as if it were not there
    cli("chat", "-p", "Hi", "--beta", "0.3")
    call = engine.calls[0]
    assert (call["beta"], call["sampler"].top_p, call["sampler"].min_p) == (0.3, 0.2, 0.1)
    assert (call["sampler"].temperature, call["seed"]) == (0.8, None)
    assert (call["weights"], call["stop"]) == ({"concise": 0.5}, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bata = 1", "unknown key 'bata'; did you mean beta?"),
        ("top_p = 0.5", "unknown key 'top_p'; did you mean top-p?"),
        ("beta = 'much'", "beta: expected a number, got 'much'"),
        ("beta = true", "beta: expected a number, got True"),
        ("beta = 0", "beta: expected a number over 0"),
        ("top-k = 1.5", "top-k: expected a whole number, 0 or more, got 1.5"),
        ("stats = 3", "stats: expected on or off, got 3"),
        ("steer = 'all'", "steer: expected one of logits, prompt, both, off, got 'all'"),
        ("system = 3", "system: expected text that is not empty, got 3"),
        ("stop = [1]", "stop: expected text that is not empty, got 1"),
        ("weights = 'consise=1'", "weights: unknown attribute 'consise'; did you mean concise?"),
        ("[weights]\nconcise = 'a lot'", "weights: weight of 'concise': expected a number within"),
        ("beta 0.5", "not valid TOML"),
        ("beta = " + "[" * 50_000, "not valid TOML"),
    ],
)
def test_bad_config_names_file_and_key(
    cli: Cli, engine: FakeEngine, config: Callable[[str], Path], text: str, says: str
) -> None:
    path = config(text)
    result = cli("chat", "-p", "Hi")
    assert result.code == 2
    assert result.err.startswith(f"Error: {path}: ")
    assert says in result.err
    assert not engine.calls


def test_bad_environment_names_the_variable(cli: Cli, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_EDGE_TOP_P", "0")
    result = cli("chat", "-p", "Hi")
    assert (result.code, engine.calls) == (2, [])
    assert result.err == "Error: DRIFT_EDGE_TOP_P: expected a number, over 0 and at most 1, got 0.0\n"


def test_every_setting_can_come_from_the_environment() -> None:
    good = {"llm": "a", "slm": "b", "cache-type": "q8_0", "flash-attn": "on", "weights": "concise=1", "steer": "off"}
    good |= {"system": "x", "stop": "x", "stats": "on", "color": "never", "save": "off", "profile": "me"}
    good |= {"speculate": "3", "draft": "base", "guard-form": "shieldgemma", "strength": "0.25"}
    values = {
        name: good.get(name, "16" if isinstance(default, int) or default is None else "0.25")
        for name, default in ((name, Settings().get(name)) for name in NAMES)
        if name != "attributes"
    }
    for other in ("beta", "strength"):  # each takes the other's place
        given = values.keys() - {other}
        names = {f"DRIFT_EDGE_{name.upper().replace('-', '_')}": values[name] for name in given}
        settings, weights = resolve(read_environment(names))
        assert weights == ("concise=1", "DRIFT_EDGE_WEIGHTS")
        for name in given - {"weights"}:
            assert settings.get(name) != Settings().get(name), name


@pytest.mark.parametrize(
    ("sources", "beta", "strength"),
    [
        ([{"beta": 0.3}, {"strength": 0.5}], None, 0.5),
        ([{"strength": 0.5}, {"beta": 0.3}], 0.3, None),
        ([{"beta": 0.3}, {"strength": 0.5}, {"beta": 0.2}], 0.2, None),
        ([{"beta": 0.3}, {"beta": None, "strength": 0}], None, 0.0),  # as a saved session has them
        ([{"strength": 0.5}, {"beta": None, "strength": None}], None, None),
    ],
)
def test_the_stronger_source_says_beta_or_strength(
    sources: list[dict[str, object]], beta: float | None, strength: float | None
) -> None:
    settings, _ = resolve(*({name: (value, "") for name, value in source.items()} for source in sources))
    assert (settings.beta, settings.strength) == (beta, strength)


def test_beta_and_strength_exclude_each_other(cli: Cli, engine: FakeEngine, config: Callable[[str], Path]) -> None:
    result = cli("chat", "-p", "Hi", "--beta", "0.3", "--strength", "0.5")
    assert (result.code, engine.calls) == (2, [])
    assert "--beta and --strength exclude each other" in result.err
    for wrong in ("-0.1", "1.5", "nan"):
        result = cli("chat", "-p", "Hi", "--strength", wrong)
        assert result.code == 2
        assert "--strength: expected a number from 0 (plain) to 1 (strongest)" in result.err
    config("beta = 0.3\n")
    assert cli("chat", "-p", "Hi", "--strength", "0.5").code == 0
    assert (engine.calls[-1]["beta"], engine.calls[-1]["strength"]) == (None, 0.5)


def test_files_in_config_are_found_beside_it(config: Callable[[str], Path]) -> None:
    path = config("llm = 'big.gguf'\nslm = '/models/small.gguf'")
    settings, _ = resolve(read_config(path))
    assert settings.llm == path.parent / "big.gguf"
    assert settings.slm == Path("/models/small.gguf")


def test_custom_pool_decides_which_names_are_known(cli: Cli, engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[attributes]\npirate = 'You are a pirate.'\n")
    assert cli("chat", "-p", "Hi", "--attributes", str(path), "--weights", "pirate=1").code == 0
    assert (engine.calls[0]["weights"], list(engine.attributes)) == ({"pirate": 1.0}, ["pirate"])
    result = cli("chat", "-p", "Hi", "--attributes", str(path), "--weights", "formal=1")
    assert result.code == 2
    assert "unknown attribute 'formal'" in result.err


@pytest.mark.parametrize(
    ("sources", "profile", "weights"),
    [
        ([{"weights": 1}, {"profile": "me"}], "me", None),  # the stronger source's profile takes their place
        ([{"profile": "me"}, {"weights": 1}], "me", 1),
        ([{"profile": "me", "weights": 1}], "me", 1),
        ([{"weights": 1}, {"profile": None}], None, 1),
        ([{"weights": 1}, {"beta": 0.3}], "default", 1),
    ],
)
def test_weights_and_profile_of_several_sources(sources: list[dict[str, object]], profile: str, weights: int) -> None:
    settings, found = resolve(*({name: (value, "") for name, value in source.items()} for source in sources))
    assert (settings.profile, found and found[0]) == (profile, weights)


def test_a_profile_is_a_name_or_a_path(config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = config("profile = 'mine/me.json'")
    monkeypatch.chdir(path.parent)
    assert resolve(read_config(path))[0].profile == str(path.parent / "mine" / "me.json")
    for given, expected in (("me", "me"), ("a.b", "a.b"), ("./me", str(path.parent / "me")), ("none", None)):
        assert resolve({"profile": (given, "--profile")})[0].profile == expected
    with pytest.raises(UsageError, match="expected a name of 1-64 letters"):
        resolve({"profile": ("?", "--profile")})


def test_defaults_are_the_engines() -> None:
    from drift_edge.engine import Drift

    settings = Settings(active=DEFAULT_ACTIVE)
    parameters = inspect.signature(Drift.chat).parameters
    for name in ("beta", "strength", "active", "steer", "seed", "max_tokens", "stop"):
        assert getattr(settings, name) == parameters[name].default, name
    parameters = inspect.signature(Drift.load).parameters
    for name in ("ctx_size", "threads", "gpu_layers", "slm_gpu_layers", "flash_attn", "cache_type"):
        assert getattr(settings, name) == parameters[name].default, name
    sampler, defaults = settings.sampler(), type(settings.sampler())()
    assert sampler == defaults


def test_every_setting_is_a_flag_and_help_shows_its_default(cli: Cli) -> None:
    flags = {name.replace("_", "-") for name in inspect.signature(chat.chat).parameters}
    assert set(NAMES) <= flags
    text = " ".join(cli("chat", "--help").out.split())
    settings = Settings(beta=DEFAULT_BETA, active=DEFAULT_ACTIVE)
    for name in ("beta", "active", "temperature", "top-k", "top-p", "min-p", "repeat-penalty", "max-tokens"):
        flag = text[text.index(f"--{name} ") :]
        default = flag[flag.index("[default: ") + len("[default: ") : flag.index("]")].removeprefix(
            "the profile's, or "
        )
        assert default == f"{settings.get(name):g}", name
