"""Where the environment is read, and nowhere else: paths and default models of this machine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

TOML_FILE = "ssd_lab.toml"


class Settings(BaseSettings):
    """Settings of this machine, by precedence: arguments, `SSD_...` variables, `.env`, `ssd_lab.toml`, the defaults."""

    model_config = SettingsConfigDict(
        env_prefix="SSD_", env_file=".env", toml_file=TOML_FILE, extra="ignore", frozen=True, env_ignore_empty=True
    )

    hf_cache: Path | None = Field(None, description="folder of downloaded models; None takes the hub's own default")
    dataset_dir: Path | None = Field(None, description="folder with one sub-folder a dataset")
    target_model: str | None = Field(None, description="the target when none is given; None takes the bundled one")
    draft_model: str | None = Field(None, description="the draft when none is given; None takes the bundled one")
    eagle3_specforge: str | None = Field(None, description="an EAGLE3 head: hub id or folder")
    cuda_arch: str | None = Field(None, description="compute capability to build kernels for, such as 9.0")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the TOML file below the environment."""
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This process's settings, read once; `settings.cache_clear()` reads them again."""
    return Settings()
