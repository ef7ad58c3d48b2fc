"""Where the value of an option comes from when nobody typed it: the environment, then the config file.

    setting = OptionSetting.of("ctx_size", "--ctx-size", "EDGELLM_CTX_SIZE", int | None, None)
    values = FileValues(config, "chat", [setting], COMMON, model=lambda: "smollm2")
    values.get("ctx_size")          # from [models.smollm2], [chat] or the top of the file; or None

An option is a key by its long flag without the dashes. Its sections are, the first one wins: `[models.NAME]` of the
model in question, the verb's own (`[chat]`, `[chats.export]`), and the top of the file. The top and the sections of
models take the options that several verbs share; those of one verb belong into its section.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from edgellm.config_file import ConfigFile, Place, dotted
from edgellm.errors import ConfigInvalid, EdgellmError, UsageError
from edgellm.settings import FALSE_WORDS, SECRET, TRUE_WORDS
from edgellm.suggest import did_you_mean

MODELS = "models"
MASK = "********"
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
# What typing one option says of another: a setting of the first is left out where one of the others is typed.
EXCLUDED_BY = {
    "--system": ("--continue", "--id"),
    "--port": ("--all",),
    "--all": ("--port",),
    "--format": ("--grammar",),
    "--grammar": ("--format",),
}


def variable_of(flag: str) -> str:
    """The environment variable of an option: `--ctx-size` is EDGELLM_CTX_SIZE."""
    return f"EDGELLM_{flag.removeprefix('--').replace('-', '_').upper()}"


@dataclass(frozen=True, slots=True)
class OptionSetting:
    """An option: its parameter, flag, variable, and the type of its value, or of each value if it takes `many`."""

    name: str
    flag: str
    variable: str
    kind: type
    many: bool
    default: Any
    least: float | None = None
    most: float | None = None

    @classmethod
    def of(
        cls, name: str, flag: str, variable: str, annotation: Any, default: Any, **bounds: float | None
    ) -> OptionSetting:
        """The option of a parameter, from its type: `int | None`, `list[str] | None`, `bool`, a Path, an Enum."""
        union = get_origin(annotation) in (Union, UnionType)
        kind = next(each for each in get_args(annotation) if each is not NoneType) if union else annotation
        many = get_origin(kind) is list
        return cls(name, flag, variable, get_args(kind)[0] if many else kind, many, default, **bounds)

    @property
    def key(self) -> str:
        """Its name in the config file."""
        return self.flag.removeprefix("--")

    @property
    def is_own(self) -> bool:
        """Whether its flag means something else in other verbs, so that it has a variable of its own."""
        return self.variable != variable_of(self.flag)

    def read(self, value: Any) -> Any:
        """A value of the config file; `ValueError` says what is needed instead."""
        if self.many:
            values = value.split() if isinstance(value, str) else value
            if not isinstance(values, list):
                raise ValueError(f"a list is needed, not {_shown(value)}")
            return [self._one(each) for each in values]
        return self._one(value)

    def _one(self, value: Any) -> Any:
        number: Any = value  # what the kind says, once it is checked
        right: tuple[type, ...] = {bool: (bool,), int: (int,), float: (float, int)}.get(self.kind, (str, int, float))
        if not isinstance(value, right) or (isinstance(value, bool) and self.kind is not bool):
            raise ValueError(f"{WORDS.get(self.kind, 'a text')} is needed, not {_shown(value)}")
        if self.kind in (int, float):
            self._check_range(number)
        if issubclass(self.kind, Enum) and value not in (words := [each.value for each in self.kind]):
            raise ValueError(f"one of {', '.join(words)} is needed, not {_shown(value)}")
        if issubclass(self.kind, Path):
            return str(Path(number).expanduser())
        return value if self.kind in (bool, int, float) else str(value)

    def _check_range(self, value: float) -> None:
        least, most = self.least, self.most
        if (least is None or least <= value) and (most is None or value <= most) and value == value:
            return
        if least is not None and most is not None:
            raise ValueError(f"{value} is not from {least:g} to {most:g}")
        bound = f"at least {least:g}" if least is not None else f"at most {most:g}"
        raise ValueError(f"{value} is not {bound}" if value == value else "it is not a number")

    def parse(self, texts: Sequence[str]) -> Any:
        """A value as it is typed after `config set`; `ValueError` says what is needed instead."""
        if not self.many and len(texts) != 1:
            raise ValueError(f"one value is needed, not {len(texts)}")
        value = list(texts) if self.many else self._parse_one(texts[0])
        self.read(value)
        return value

    def problem(self, text: str) -> str:
        """What is wrong with a value of its variable; empty when nothing is."""
        try:
            self.parse(text.split() if self.many else [text])
        except ValueError as error:
            return str(error)
        return ""

    def _parse_one(self, text: str) -> Any:
        if self.kind is bool:
            if text.lower() not in TRUE_WORDS | FALSE_WORDS:
                raise ValueError(f"true or false is needed, not {text!r:.60}")
            return text.lower() in TRUE_WORDS
        if self.kind in (int, float):
            try:
                return int(text) if self.kind is int or text.lstrip("+-").isdecimal() else float(text)
            except ValueError:
                raise ValueError(f"{WORDS[self.kind]} is needed, not {text!r:.60}") from None
        return text


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return "a section" if isinstance(value, dict) else "a list"
    return f"{value!r:.60}"


def section_of(command: str) -> Place:
    """The section of a verb: `chats export` has [chats.export]."""
    return tuple(command.split())


class FileValues:
    """The values of a verb's options in the config file, as the parser asks for them: by parameter, None if unset.

    The file is read when the first one is asked for, and whatever in it concerns the verb is checked then.

    Args:
        read: reads the file.
        command: the full name of the verb, and `settings` its options.
        common: the options that several verbs share.
        verbs: the full names of all verbs.
        model: the model in question, once it is known.
        is_tolerant: take a wrong file for an empty one.
    """

    def __init__(
        self,
        read: Callable[[], ConfigFile],
        command: str,
        settings: Sequence[OptionSetting],
        common: Mapping[str, OptionSetting],
        verbs: Sequence[str],
        model: Callable[[], str | None],
        *,
        is_tolerant: bool = False,
    ) -> None:
        self._read, self._command, self._common, self._model = read, command, common, model
        self._is_tolerant = is_tolerant
        self._settings = {setting.name: setting for setting in settings}
        self._verbs: dict[str, Sequence[OptionSetting] | None] = {**dict.fromkeys(verbs), command: settings}
        self._config: ConfigFile | None = None

    @property
    def config(self) -> ConfigFile:
        """The file.

        Raises:
            ConfigInvalid: it is no TOML, or a key or value in it is wrong.
        """
        if self._config is None:
            try:
                self._config = self._checked()
            except EdgellmError:
                if not self._is_tolerant:
                    raise
                self._config = ConfigFile(Path())
        return self._config

    def _checked(self) -> ConfigFile:
        config = self._read()
        for problem in problems(config, self._verbs, self._common):
            raise problem
        return config

    def place_of(self, name: str) -> Place | None:
        """Where the value of a parameter stands, None if nowhere."""
        setting = self._settings.get(name)
        if setting is None or not self.config.values:
            return None
        places = places_of(setting, section_of(self._command), self._common, self._model())
        return next((place for place in places if self.config.at(place) is not None), None)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a parameter."""
        place = self.place_of(name)
        return default if place is None else self._settings[name].read(self.config.at(place))

    def origin_of(self, name: str) -> str:
        """Where the value of a parameter stands, in words."""
        place = self.place_of(name) or ()
        line = self.config.line_of(place)
        return f"{self.config.path}{f', line {line}' if line else ''}: {dotted(place)}"


def places_of(
    setting: OptionSetting, section: Place, common: Mapping[str, OptionSetting], model: str | None = None
) -> Iterator[Place]:
    """Where the value of an option may stand, the first place first."""
    shared = setting.key in common and not setting.is_own
    if shared and model:
        yield MODELS, model, setting.key
    if section:
        yield *section, setting.key
    if shared:
        yield (setting.key,)


def problems(
    config: ConfigFile, verbs: Mapping[str, Sequence[OptionSetting] | None], common: Mapping[str, OptionSetting]
) -> Iterator[ConfigInvalid]:
    """Everything that is wrong in a file: unknown sections and keys, and values of a wrong type.

    Args:
        verbs: the options of each verb; None for one whose section is not looked into.
        common: the options that stand at the top and in the sections of models.
    """
    sections = {name.split()[0] for name in verbs} | {MODELS}
    for name, value in config.values.items():
        if name == MODELS:
            yield from _models(config, value, common)
        elif name in sections:
            yield from _section(config, (name,), value, verbs)
        elif isinstance(value, dict):
            yield config.invalid((name,), "there is no such section", known=sorted(sections))
        else:
            yield from _value(config, (name,), common, verbs)


def _models(config: ConfigFile, models: Any, common: Mapping[str, OptionSetting]) -> Iterator[ConfigInvalid]:
    if not isinstance(models, dict):
        yield config.invalid((MODELS,), "a section for each model is needed: [models.smollm2]")
        return
    for name, table in models.items():
        if not isinstance(table, dict):
            yield config.invalid((MODELS, name), "a section is needed: [models.smollm2]")
            continue
        for key in table:
            yield from _value(config, (MODELS, name, key), common)


def _section(
    config: ConfigFile, section: Place, table: Any, verbs: Mapping[str, Sequence[OptionSetting] | None]
) -> Iterator[ConfigInvalid]:
    members = {verb.split()[1] for verb in verbs if verb.split()[:-1] == [*section]}
    if not isinstance(table, dict):
        yield config.invalid(section, "this is the name of a section")
        return
    settings = verbs.get(" ".join(section))
    known = {setting.key: setting for setting in settings or ()}
    for key, value in table.items():
        if key in members:
            yield from _section(config, (*section, key), value, verbs)
        elif members:
            yield config.invalid((*section, key), "there is no such verb", known=sorted(members))
        elif settings is not None:
            yield from _value(config, (*section, key), known)


def _value(
    config: ConfigFile,
    place: Place,
    known: Mapping[str, OptionSetting],
    verbs: Mapping[str, Sequence[OptionSetting] | None] | None = None,
) -> Iterator[ConfigInvalid]:
    """What is wrong with a value, or its key; `verbs` are those whose section it could have been meant for."""
    setting = known.get(place[-1])
    if setting is None:
        why, homes = "there is no such option", verbs_with(place[-1], verbs or {})
        if homes:
            why = f"this is an option of {', '.join(homes)}; it belongs into [{homes[0].replace(' ', '.')}]"
        yield config.invalid(place, why, known=None if homes else [*known])
        return
    try:
        setting.read(config.at(place))
    except ValueError as error:
        yield config.invalid(place, str(error))


def verbs_with(key: str, verbs: Mapping[str, Sequence[OptionSetting] | None]) -> list[str]:
    """The verbs that have an option."""
    return [name for name, settings in verbs.items() if any(setting.key == key for setting in settings or ())]


def parse_key(text: str, verbs: Sequence[str]) -> tuple[str, Place]:
    """The verb and the place that a key names; no verb for a shared option: `temp`, `models.smollm2.temp`.

    Raises:
        UsageError: there is no such section.
    """
    *section, key = text.split(".")
    if section[:1] == [MODELS] and len(section) > 1:  # a model's name may have dots
        return "", (MODELS, ".".join(section[1:]).strip("\"'"), key)
    verb = " ".join(section)
    if section and verb not in verbs:
        guess = did_you_mean(verb, verbs)
        why = f"did you mean {guess.replace(' ', '.')}.{key}?" if guess else "a section is a verb, or models.NAME"
        raise UsageError(
            f"there is no section {'.'.join(section)!r:.60}", why=why, hint="edgellm config set chat.temp 0.7"
        )
    return verb, (*section, key)


def mask(key: str, value: Any) -> Any:
    """A value as it may be shown: a key or a token is not."""
    return MASK if SECRET.search(key) and value not in (None, "", []) else value


def with_origins(error: EdgellmError, origins: Mapping[str, str]) -> None:
    """Say where the options that an error speaks of come from, if nobody typed them; `origins` is by flag."""
    flags = set(FLAG.findall(f"{error.what} {error.why} {error.hint}"))
    named = [f"{flag} comes from {origin}" for flag, origin in origins.items() if flag in flags]
    error.why = "; ".join(filter(None, [error.why, *named]))
