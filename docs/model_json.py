"""Write the table of fields in docs/artifact.md from the schema of `model.json`.

python docs/model_json.py
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from trainer import artifact

PAGE = pathlib.Path(__file__).resolve().parent / "artifact.md"
_FIRST, _LAST = "| field | type and range | |\n|---|---|---|\n", "\n\n"


def page() -> str:
    """Return docs/artifact.md with its table of fields written anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_FIRST)
    after = rest.partition(_LAST)[2]
    return "".join([before, _FIRST, "\n".join(_rows(artifact.schema())), _LAST, after])


def _rows(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row for each field, and for each field of the objects that it holds."""
    definitions = schema.get("$defs", {})

    def walk(owner: Mapping[str, Any], path: str) -> Iterator[str]:
        for name, field in owner["properties"].items():
            needed = "" if name in owner.get("required", ()) else ", optional"
            meaning = field.get("description", "")
            yield f"| `{path}{name}` | {_type(field, definitions)}{needed} | {meaning} |"
            inner, step = _inner_object(field, definitions)
            if inner:
                yield from walk(inner, f"{path}{name}{step}.")

    yield from walk(schema, "")


def _inner_object(
    field: Mapping[str, Any], definitions: Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, str]:
    """Return the object that a field is, or whose names lead to it, and the step of the path."""
    values = field.get("additionalProperties")
    for held, step in ((field, ""), (values, ".*")):
        if isinstance(held, Mapping) and "$ref" in held:
            return definitions[held["$ref"].rpartition("/")[2]], step
    return None, ""


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return the type and range of a field in words."""
    if "anyOf" in field:
        return " or ".join(_type(option, definitions) for option in field["anyOf"])
    if "$ref" in field:
        return "object"
    kind = field.get("type", "any")
    if kind == "array":
        if "prefixItems" in field:
            return f"array of {len(field['prefixItems'])}: {_type(field['prefixItems'][0], {})}"
        return f"array of: {_type(field['items'], definitions)}"
    limits = [
        f"{words} {field[key]}"
        for key, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
        )
        if key in field
    ]
    if "pattern" in field:
        limits.append(f"`{field['pattern']}`")
    return " ".join([kind, *limits])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
