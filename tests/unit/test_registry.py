"""Names to classes, options to fields."""

from dataclasses import dataclass, field

import pytest

from rlpt.errors import ConfigError, UserError
from rlpt.registry import build, create, lookup, names, register, suggest

KIND = "test kind"


@register(KIND, "gear")
@dataclass(frozen=True)
class Gear:
    teeth: int = 8
    ratio: float = 1.0
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.teeth < 3:
            raise ConfigError(f"teeth={self.teeth}: at least 3")


def test_create_fills_fields_and_defaults():
    assert create(KIND, {"name": "gear", "teeth": 12, "ratio": 2}) == Gear(12, 2.0, [])
    assert names(KIND) == ["gear"]
    assert names("no such kind") == []
    assert lookup(KIND, "gear") is Gear


def test_a_duplicate_name_raises():
    with pytest.raises(ValueError, match="'gear' is registered twice"):

        @register(KIND, "gear")
        class Other:
            pass

    assert lookup(KIND, "gear") is Gear


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "geer"}, r"^play\.part\.name: unknown test kind 'geer'; did you mean 'gear'\?$"),
        ({"name": "wholly different"}, r"^play\.part\.name: unknown test kind .*; known: gear$"),
        ({"teeth": 3}, r"^play\.part\.name: missing; known test kinds: gear$"),
        ({"name": "gear", "tooth": 3}, r"^play\.part\.tooth: unknown key; did you mean 'teeth'\?$"),
        ({"name": "gear", "teeth": "many"}, r"^play\.part\.teeth: .*integer.* \(given: 'many'\)$"),
        ({"name": "gear", "labels": [1]}, r"^play\.part\.labels\.0: .*string"),
        ({"name": "gear", "teeth": 2}, r"^play\.part: teeth=2: at least 3$"),
    ],
)
def test_errors_name_the_key(spec, message):
    with pytest.raises(ConfigError, match=message) as caught:
        create(KIND, spec, "play.part")
    assert isinstance(caught.value, UserError)
    assert caught.value.exit_code == 2


def test_build_needs_no_name():
    assert build(Gear, {"teeth": 5}, "gear") == Gear(5)


def test_suggest():
    assert suggest("stpes", ["steps", "lr"]) == "; did you mean 'steps'?"
    assert suggest("x", []) == "; known: none"
