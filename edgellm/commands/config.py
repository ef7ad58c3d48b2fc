"""`edgellm config show|get|set|unset|path|edit`: the config file, and what it sets."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgellm.config_file import ConfigFile, Place, change, dotted
from edgellm.errors import ConfigInvalid, EdgellmError, FileAccessError, UsageError
from edgellm.files import write_atomically
from edgellm.settings import VARIABLES, Settings
from edgellm.suggest import did_you_mean
from edgellm.ui.console import note, print_line, print_table
from edgellm.ui.defaults import MODELS, OptionSetting, mask, parse_key, places_of, problems, section_of, verbs_with
from edgellm.ui.options import COMMON, JsonOutput
from edgellm.ui.render import render

TEMPLATE = """\
# Values of edgellm's options, for every command that nobody typed them for. `edgellm config set` keeps comments.
# A key is an option without its dashes. Options that several commands share stand here or in a section:
#
# threads = 4
#
# [chat]                      # for one command
# temp = 0.7
#
# [models.smollm2]            # for one model, in `run`, `chat`, `batch`, `fit` and `quality`
# ctx-size = 2048
"""

Key = Annotated[str, typer.Argument(help="An option without dashes, after its section: temp, chat.temp.")]


@dataclass(frozen=True, slots=True)
class ConfigValue:
    """A value: `origin` is "environment", "file" or "default", `source` the variable, or the file and its line."""

    key: str
    value: str | int | float | bool | list[str] | None
    origin: str
    source: str


@dataclass(frozen=True, slots=True)
class ShownConfig:
    """What is set; `problems` says what is wrong in the file."""

    path: Path
    values: list[ConfigValue]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class ChangedConfig:
    """A key of the file; `changed` is false when the file was like that already. `value` is null after `unset`."""

    path: Path
    key: str
    value: str | int | float | bool | list[str] | None
    changed: bool


@dataclass(frozen=True, slots=True)
class ConfigPath:
    """Where the file is, or would be."""

    path: Path
    exists: bool


def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Also where each value comes from.")] = False,
    *,
    output: JsonOutput,
) -> ShownConfig:
    """Show what is set, in the environment and in the file; keys and tokens are masked.

    A typed option wins over a variable, a variable over the file. What is wrong in the file is named.

    \b
    Examples: edgellm config show
              edgellm config show --origin
    """
    verbs: Mapping[str, Sequence[OptionSetting]] = ctx.obj
    config, wrong = _read(verbs)
    values = [*_from_environment(verbs), *_from_file(config)]
    shown = ShownConfig(config.path, values, [f"{each.what}: {each.why}" for each in wrong])
    return render(output, shown, lambda shown: _print(shown, origin=origin))


def get(ctx: typer.Context, key: Key, *, output: JsonOutput) -> ConfigValue:
    """Print the value that an option has when nobody types it; nothing is printed for one without a default.

    \b
    Examples: edgellm config get chat.temp
              edgellm config get models.smollm2.ctx-size --json
    """
    setting, place = _find(ctx, key)
    config = ConfigFile.read(_path())
    found = _value_of(setting, place, config)

    def say(found: ConfigValue) -> None:
        if found.value is None:
            note(f"{key} is not set; edgellm chooses")
        else:
            print_line(_text(found.value))

    return render(output, found, say)


def set_value(
    ctx: typer.Context,
    key: Key,
    value: Annotated[list[str], typer.Argument(help="The value; several for an option that takes several.")],
    *,
    output: JsonOutput,
) -> ChangedConfig:
    """Set a value in the file, which is made if need be; comments stay.

    \b
    Examples: edgellm config set threads 4
              edgellm config set chat.temp 0.7
              edgellm config set models.smollm2.system "Answer in French."
              edgellm config set serve.keep-alive -1
    """
    if unknown := next((word for word in value if word.startswith("--")), None):
        raise UsageError(f"there is no option {unknown:.60}", hint=f"edgellm config set {key} -- {unknown:.60}")
    setting, place = _find(ctx, key)
    parsed = _parsed(setting, place, value)
    changed = change(_path(), place, parsed)

    def say(result: ChangedConfig) -> None:
        note(f"{result.path}: {dotted(place)} = {_text(mask(key, parsed))}")
        if os.environ.get(setting.variable):
            note(f"{setting.variable} is set in the environment, and wins")

    return render(output, ChangedConfig(_path(), dotted(place), mask(key, parsed), changed), say)


def unset(ctx: typer.Context, key: Key, *, output: JsonOutput) -> ChangedConfig:
    """Remove a value from the file, also one whose key is wrong.

    Example: edgellm config unset chat.temp
    """
    config = ConfigFile.read(_path())
    plain = key.replace('"', "").replace("'", "")  # models."a.b".temp, as it stands in the file
    place = next((place for place in config.places() if dotted(place) == plain), None)
    changed = place is not None and change(_path(), place, None)
    if place is None:
        _find(ctx, key)  # a wrong key is an error, a right one that is not there is none

    def say(result: ChangedConfig) -> None:
        note(f"{result.path}: {key} is removed" if result.changed else f"{key} was not set in {result.path}")

    return render(output, ChangedConfig(_path(), key, None, changed), say)


def path(*, output: JsonOutput) -> ConfigPath:
    """Print where the file is.

    Example: edgellm config path
    """
    return render(output, ConfigPath(_path(), _path().exists()), lambda found: print_line(str(found.path)))


def edit(ctx: typer.Context, *, output: JsonOutput) -> ShownConfig:
    """Open the file in $VISUAL or $EDITOR, then check it.

    Example: EDITOR=nano edgellm config edit
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise UsageError("no editor is named", hint=f"export EDITOR=nano, or edit {_path()}")
    if not _path().exists():
        write_atomically(_path(), TEMPLATE.encode(), mode=0o600)
    try:
        status = subprocess.run([*shlex.split(editor), str(_path())], check=False).returncode
    except (OSError, ValueError) as error:
        raise FileAccessError(f"cannot run {editor!r:.60}", why=str(error), hint="export EDITOR=nano") from error
    if status != 0:
        raise FileAccessError(f"{editor:.60} ended with exit code {status}", hint="edgellm config edit")
    config, wrong = _read(ctx.obj)
    if wrong:
        raise wrong[0]
    shown = ShownConfig(config.path, [*_from_file(config)], [])
    return render(output, shown, lambda shown: note(f"{shown.path} is right"))


def _path() -> Path:
    return Settings.from_environment().config_file


def _read(verbs: Mapping[str, Sequence[OptionSetting]]) -> tuple[ConfigFile, list[EdgellmError]]:
    """The file and everything that is wrong in it; an empty one when it cannot be read."""
    try:
        config = ConfigFile.read(_path())
    except (ConfigInvalid, FileAccessError) as error:
        return ConfigFile(_path()), [error]
    return config, [*problems(config, verbs, COMMON)]


def _from_environment(verbs: Mapping[str, Sequence[OptionSetting]]) -> Iterator[ConfigValue]:
    """The variables that are set: those of options by the option's key, others by their own name."""
    ours = {name for name, text in os.environ.items() if name.startswith("EDGELLM_") and text}
    keys = {setting.variable: setting.key for setting in COMMON.values()}
    if not ours <= {*keys, *VARIABLES}:  # importing all verbs takes a moment
        keys |= {setting.variable: setting.key for settings in verbs.values() for setting in settings}
    for name, text in sorted(os.environ.items()):
        known = keys.get(name) or (name if name in VARIABLES else None)
        if text and known:
            yield ConfigValue(known, mask(known, text), "environment", name)
        elif text and name.startswith("EDGELLM_"):
            guess = did_you_mean(name, [*keys, *VARIABLES])
            note(f"{name} means nothing to edgellm" + (f"; did you mean {guess}?" if guess else ""))


def _from_file(config: ConfigFile) -> Iterator[ConfigValue]:
    for place in config.places():
        yield ConfigValue(dotted(place), _plain(mask(place[-1], config.at(place))), "file", _source(config, place))


def _source(config: ConfigFile, place: Place) -> str:
    line = config.line_of(place)
    return str(config.path) + (f", line {line}" if line else "")


# What other tools call options, as the command line knows it too.
SPELLINGS = {"temperature": "temp", "num-ctx": "ctx-size", "num-predict": "max-tokens"}


def _find(ctx: typer.Context, key: str) -> tuple[OptionSetting, Place]:
    """The option that a key names, and its place in the file.

    Raises:
        UsageError: there is no such option or section, or it is in the wrong one.
    """
    verbs: Mapping[str, Sequence[OptionSetting]] = ctx.obj
    verb, place = parse_key(key, [*verbs])
    name = place[-1].replace("_", "-")
    place = (*place[:-1], SPELLINGS.get(name, name))
    settings = {setting.key: setting for setting in verbs[verb]} if verb else COMMON
    setting = settings.get(place[-1])
    if setting is not None:
        return setting, place
    homes = verbs_with(place[-1], verbs)
    if homes and place[:1] != (MODELS,):
        right = dotted((*section_of(homes[0]), place[-1]))
        raise UsageError(
            f"there is no option {key!r:.60}",
            why=f"it is one of {', '.join(homes)}",
            hint=f"edgellm config set {right} VALUE",
        )
    guess = did_you_mean(place[-1], settings)
    why = f"did you mean {dotted((*place[:-1], guess))}?" if guess else ""
    where = f"edgellm {verb or 'run'} --help"
    raise UsageError(f"there is no option {key!r:.60}", why=why, hint=where)


def _parsed(setting: OptionSetting, place: Place, texts: Sequence[str]) -> Any:
    """The value that was typed, if the option takes it."""
    try:
        return setting.parse(texts)
    except ValueError as error:
        raise UsageError(f"{dotted(place)}: {error}", hint=f"edgellm config set {dotted(place)} VALUE") from None


def _value_of(setting: OptionSetting, place: Place, config: ConfigFile) -> ConfigValue:
    """Where an option's value comes from when nobody types it."""
    key = dotted(place)
    if text := os.environ.get(setting.variable):
        return ConfigValue(key, text, "environment", setting.variable)
    *section, _ = place
    model = section[1] if section[:1] == [MODELS] else None
    for each in places_of(setting, () if model else tuple(section), COMMON, model):
        if config.at(each) is not None:
            return ConfigValue(key, _plain(config.at(each)), "file", _source(config, each))
    return ConfigValue(key, _plain(setting.default), "default", "")


def _plain(value: Any) -> Any:
    """A value as JSON can have it: an option's default may be a word of an enumeration, a file may have a date."""
    if isinstance(value, list):
        return [str(each) for each in value]
    value = getattr(value, "value", value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print(shown: ShownConfig, *, origin: bool) -> None:
    rows = [(each.key, _text(each.value), each.source) for each in shown.values]
    if rows and origin:
        print_table(("KEY", "VALUE", "FROM"), rows)
    elif rows:
        print_table(("KEY", "VALUE"), [row[:2] for row in rows])
    for problem in shown.problems:
        note(f"wrong: {problem}")
    if not rows and not shown.problems:
        note(f"nothing is set; {shown.path} would be the file\nnext: edgellm config set chat.temp 0.7")
