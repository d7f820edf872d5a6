"""Where the environment is read, and nowhere else: paths and default models of this machine."""

from __future__ import annotations

import difflib
import os
import socket
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from ssd_lab.errors import ConfigError

PREFIX = "SSD_"
DOTENV_FILE = ".env"
TOML_FILE = "ssd_lab.toml"
DEFAULT = "default"


class Settings(BaseModel):
    """Settings of this machine, by precedence: arguments, `SSD_...` variables, `.env`, `ssd_lab.toml`, the defaults.

    Both files are looked for in the current folder. `origin(name)` says which of the five a value came from. Raises
    ConfigError, naming the origin, for a wrong value and for an unknown key of the TOML file; unknown `SSD_...`
    variables may belong to other programs and are only listed, in `unknown`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hf_cache: Path | None = Field(
        None, description="folder of downloaded models (models--owner--name inside); None takes the hub's own default"
    )
    dataset_dir: Path | None = Field(None, description="folder of prepared prompts; None takes the bundled samples")
    target_model: str | None = Field(None, min_length=1, description="the target when neither size nor name is given")
    draft_model: str | None = Field(None, min_length=1, description="the draft when neither size nor name is given")
    eagle3_specforge: str | None = Field(
        None, min_length=1, description="EAGLE3 head for Llama 70B: hub id or folder; None takes SpecForge's"
    )
    cuda_arch: str | None = Field(
        None,
        pattern=r"^(\d{1,2}\.\d[a-z]?|gfx[0-9a-f]+)$",
        description="GPU architecture to build kernels for, such as 9.0 or gfx942; None asks the device",
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _unknown: list[str] = PrivateAttr(default_factory=list)

    def __init__(self, **arguments: Any) -> None:
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        unknown: list[str] = []
        for layer in _layers(arguments):
            for name, value in layer.values.items():
                if name in type(self).model_fields:
                    values[name], origins[name] = value, layer.origin(name)
                elif layer.holds_others:
                    unknown.append(layer.origin(name))
                else:
                    raise ConfigError(_no_such_setting(name, layer.origin(name)))
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError("; ".join(_explain(detail, origins) for detail in error.errors())) from error
        self._origins.update(origins)
        self._unknown.extend(unknown)

    @property
    def unknown(self) -> list[str]:
        """Where a variable that begins with `SSD_` was found that is no setting: another program's, or a slip."""
        return list(self._unknown)

    def origin(self, name: str) -> str:
        """Where a setting's value came from: `default`, or the argument, variable or file."""
        return self._origins.get(name, DEFAULT)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Each setting's value, origin, variable and meaning."""
        return {
            name: {
                "value": value if value is None else str(value),
                "source": self.origin(name),
                "variable": PREFIX + name.upper(),
                "description": type(self).model_fields[name].description,
            }
            for name, value in self
        }

    @field_validator("cuda_arch", mode="before")
    @classmethod
    def _number_as_text(cls, value: object) -> object:
        """`cuda_arch = 9.0` in a TOML file is a number."""
        return str(value) if isinstance(value, float) else value

    @field_validator("hf_cache", "dataset_dir", mode="before")
    @classmethod
    def _no_empty_path(cls, value: object) -> object:
        if value == "":
            raise ValueError("a folder's path must not be empty")
        return value

    @field_validator("hf_cache", "dataset_dir")
    @classmethod
    def _a_folder(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        folder = value.expanduser()
        if folder.exists() and not folder.is_dir():
            raise ValueError("this is a file: give a folder")
        return folder


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This process's settings, read once; `settings.cache_clear()` reads them again."""
    return Settings()


def no_colour() -> bool:
    """Does the user want no colours? `NO_COLOR` is what all programs look at; any value but an empty one says so."""
    return bool(os.environ.get("NO_COLOR"))


def secret(variable: str) -> str:
    """What an environment variable holds, such as a server's key, which no command line should show.

    Raises ConfigError, which names the variable alone, if it is not set or empty.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"the environment variable {variable} is not set: put the key in it, or leave the option out")
    return value


class TorchRun(NamedTuple):
    """This process among those that `torchrun` started. local_rank: among those of its host. host: what tells hosts
    apart. address, port: where they meet.
    """

    rank: int
    world_size: int
    local_rank: int
    host: str
    address: str
    port: int


def torchrun() -> TorchRun | None:
    """None for a program that was not started by `torchrun`, or by what sets the same variables."""
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    told = [os.environ.get(name, "") for name in needed]
    if not all(told):
        return None
    rank, size, address, port = told
    try:
        group, local = os.environ.get("GROUP_RANK", ""), int(os.environ.get("LOCAL_RANK", "0"))
        return TorchRun(int(rank), int(size), local, f"{socket.gethostname()}/{group}", address, int(port))
    except ValueError as error:
        raise ConfigError(
            f"RANK, WORLD_SIZE, LOCAL_RANK and MASTER_PORT are numbers where torchrun sets them, and {error}: unset "
            "RANK, or start the program by torchrun"
        ) from error


# Read here and not by pydantic-settings (2.16 was tried): it tells neither which source a value came from nor that an
# `SSD_` variable is no setting, and takes such a variable in `.env` for an error. Wrappers that add this around its
# sources are longer than the reading itself, which python-dotenv and tomllib do.
class _Layer(NamedTuple):
    """One source of settings. holds_others: other programs keep theirs there too, so an unknown name is no error."""

    origin_format: str
    values: Mapping[str, Any]
    holds_others: bool = False

    def origin(self, name: str) -> str:
        return self.origin_format.format(name=name, variable=PREFIX + name.upper())


def _layers(arguments: Mapping[str, Any]) -> list[_Layer]:
    """From the weakest to the strongest."""
    return [
        _Layer(f"{{name}} in {TOML_FILE}", _read_toml(Path(TOML_FILE))),
        _Layer(f"{{variable}} in {DOTENV_FILE}", _with_prefix(dotenv_values(DOTENV_FILE)), holds_others=True),
        _Layer("environment variable {variable}", _with_prefix(os.environ), holds_others=True),
        _Layer("argument {name}", arguments),
    ]


def _with_prefix(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Variables of ours by setting; an empty one counts as not set."""
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in variables.items()
        if name.startswith(PREFIX) and value
    }


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f'{file} cannot be read ({error}): it takes lines such as dataset_dir = "folder"') from error


def _no_such_setting(name: str, origin: str) -> str:
    known = list(Settings.model_fields)
    close = difflib.get_close_matches(name.lower().removeprefix(PREFIX.lower()), known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{origin} is no setting: {hint}There are {', '.join(known)}"


def _explain(detail: Any, origins: Mapping[str, str]) -> str:
    name = str(detail["loc"][0])
    allowed = Settings.model_fields[name].description
    reason = detail["msg"].removeprefix("Value error, ")
    return f"{origins.get(name, name)} is {detail['input']!r}: {reason} ({name}: {allowed})"
