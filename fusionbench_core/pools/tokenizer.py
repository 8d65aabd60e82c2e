"""The `modelpool.tokenizer` section: which tokens the result has, and what rows new ones get."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fusionbench_core.errors import ConfigError
from fusionbench_core.suggest import did_you_mean

BASE, UNION, MEAN, ZERO = "base", "union", "mean", "zero"


class TokenRule(BaseModel):
    """Where the row of one token comes from, in models that lack it. Short: the source alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(description="`mean` of the models that have it, `zero`, `base`, or a model's name")
    token: str | None = Field(default=None, description="take the row of another token of that model")
    force: bool = Field(default=False, description="also in models that have the token")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_row(self) -> TokenRule:
        if self.token is not None and self.source in (MEAN, ZERO):
            raise ValueError("`token` names a token of one model: say which as `source`")
        return self


class TokenizerConfig(BaseModel):
    """How models of different vocabularies are brought to one. Short: the source alone.

    Tokens that only one model has get its row in the others; tokens of several models get the base's,
    or else the mean of theirs; `tokens` overrules that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        default=UNION,
        description="whose tokenizer the result has: `base`, a model's name, or the `union` of all",
    )
    tokens: dict[str, TokenRule] = Field(default={}, description="rules of single tokens")
    padding: Literal["keep", "drop"] = Field(
        default="keep",
        description="rows that belong to no token: as many as the tokenizer's model has, or none",
    )
    pad_to_multiple_of: int | None = Field(
        default=None, ge=1, description="add rows of zeros until their number is a multiple of this"
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    def check(self, models: Collection[str], base: bool) -> None:
        """Check the names of models.

        Raises:
            ConfigError: if there is no such model, or no base, or a model is called like a rule.
        """
        for name in (BASE, UNION, MEAN, ZERO):
            if name in models:
                raise ConfigError(
                    f"with `modelpool.tokenizer` no model may be called {name!r}",
                    config=f"modelpool.models.{name}",
                    fix="call it otherwise",
                )
        known = [*models, *([BASE] if base else [])]
        self._check_name("source", self.source, [UNION, *known], base)
        for token, rule in self.tokens.items():
            self._check_name(f"tokens.{token}", rule.source, [MEAN, ZERO, *known], base)

    def _check_name(self, where: str, name: str, known: list[str], base: bool) -> None:
        if name in known:
            return
        why = "this model pool has no base" if name == BASE and not base else f"known are {', '.join(known)}"
        raise ConfigError(
            f"`modelpool.tokenizer` names {name!r}, which is no model of the pool",
            config=f"modelpool.tokenizer.{where}",
            why=why,
            fix=did_you_mean(name, known) or f"choose one of {', '.join(known)}",
        )
