"""Which language a text is in, by py3langid (Lui and Baldwin 2012; 140 languages, its model comes with the package)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import Field

from rlpt.config_objectives import Section
from rlpt.errors import ConfigError
from rlpt.registry import suggest


class LanguageConfig(Section):
    """Documents in other languages are dropped. Needs the extra `data`. Short texts and source code are told badly."""

    languages: list[str] = Field(min_length=1, description="ISO 639 codes, e.g. [en, de]; the likeliest must be one")
    min_probability: float = Field(0.5, ge=0, le=1, description="least probability of the likeliest language")
    sample_characters: int = Field(
        2048, ge=1, description="the text's first characters, which are looked at; the cost does not grow beyond"
    )


class LanguageFilter:
    """Tells whether a text is in one of some languages. Reading the model takes seconds, once a process."""

    def __init__(self, config: LanguageConfig) -> None:
        """Raises ConfigError for an unknown language, or when py3langid is not installed."""
        self._identifier = _load_identifier()
        known = sorted(self._identifier.labels)
        for index, language in enumerate(config.languages):
            if language not in known:
                raise ConfigError(
                    f"language.languages.{index}: unknown language '{language}'{suggest(language, known)}"
                )
        self._config = config

    def __call__(self, text: str) -> bool:
        """Whether the text's likeliest language is one of those wanted, and likely enough."""
        language, probability = self._identifier.classify(text[: self._config.sample_characters])
        return language in self._config.languages and probability >= self._config.min_probability


@lru_cache(1)
def _load_identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError("language: py3langid is not installed; pip install 'rlpt[data]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
