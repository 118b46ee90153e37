"""The HTTP reference, as Markdown, from the OpenAPI document that the service makes."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from service.app import create_app
from service.settings import read_settings

__all__ = ["http"]

Schema = dict[str, Any]
_TAGS = ("scoring", "exams", "operations", "administration")


def http() -> str:
    """Every operation with what it takes and answers, then every object that occurs in them."""
    document = create_app(read_settings({})).openapi()
    text = (
        f"# HTTP\n\n{document['info']['description']}\n\nMade from the OpenAPI document, which a "
        "running service gives at `GET /openapi.json`. What may be relied on, and why: "
        "[the service](../service.md). A field that is marked * is always there.\n"
    )
    by_tag: dict[str, list[str]] = defaultdict(list)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            told = "".join(_operation(f"{method.upper()} {path}", operation))
            by_tag[operation["tags"][0]].append(told)
    for tag in (*_TAGS, *sorted(set(by_tag) - set(_TAGS))):
        text += f"\n## {tag.capitalize()}\n" + "".join(by_tag[tag])
    text += "\n## Objects\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        text += "".join(_object(name, schema))
    return text


def _operation(title: str, operation: Schema) -> Iterator[str]:
    yield f"\n### `{title}` {{ #{operation['operationId']} }}\n\n**{operation['summary']}.** "
    yield f"{operation.get('description', '')}\n"
    rows = [
        f"| `{one['name']}`{'*' * one.get('required', False)} | {one['in']} "
        f"| {kind(one['schema'])} | {_cell(one.get('description', ''))} |\n"
        for one in operation.get("parameters", [])
    ]
    if rows:
        yield "\n| parameter | in | type | what |\n|---|---|---|---|\n" + "".join(rows)
    if "requestBody" in operation:
        yield "\n| body | what |\n|---|---|\n" + "".join(_contents(operation["requestBody"]))
    yield "\n| status | answer |\n|---|---|\n"
    for status, answer in sorted(operation["responses"].items()):
        told = _cell(answer.get("description", ""))
        schemas = [media.get("schema", {}) for media in answer.get("content", {}).values()]
        named = "; ".join(dict.fromkeys(kind(one) for one in schemas if "$ref" in one))
        yield f"| {status} | {told}{f' {named}' if named else ''} |\n"


def _contents(body: Schema) -> Iterator[str]:
    """Rows of the forms in which a body may come; forms that hold the same share one."""
    forms: dict[str, list[str]] = defaultdict(list)
    for media, content in body["content"].items():
        forms[_form(content["schema"])].append(f"`{media}`")
    for told, medias in forms.items():
        yield f"| {', '.join(medias)} | {told} |\n"


def _form(schema: Schema) -> str:
    if schema.get("format") == "binary":
        return "the image file itself"
    if "properties" not in schema:
        return kind(schema)
    return "<br>".join(
        f"`{name}`: {kind(part)}. {_cell(part.get('description', ''))}"
        for name, part in schema["properties"].items()
    )


def _object(name: str, schema: Schema) -> Iterator[str]:
    yield f"\n### {name.lstrip('_')} {{ #{_anchor(name)} }}\n\n{schema.get('description', '')}\n"
    if "enum" in schema:
        yield f"\nOne of {kind(schema)}.\n"
    required = schema.get("required", [])
    rows = [
        f"| `{field}`{'*' * (field in required)} | {kind(part)} | {_told(part)} |\n"
        for field, part in schema.get("properties", {}).items()
    ]
    if rows:
        yield "\n| field | type | what |\n|---|---|---|\n" + "".join(rows)


def _told(schema: Schema) -> str:
    """What is said of a field, by itself or inside of the alternatives that it has."""
    inside = [one.get("description", "") for one in schema.get("anyOf", [])]
    return _cell(schema.get("description") or next((told for told in inside if told), ""))


def kind(schema: Schema) -> str:
    """A schema's type in words, with links to the objects of this page."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name.lstrip('_')}](#{_anchor(name)})"
    many = schema.get("anyOf") or schema.get("oneOf")
    if many:
        return " or ".join(dict.fromkeys(kind(one) for one in many))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        items: Schema = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
        return f"list of {kind(items)}"
    values = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(values, dict) and values:
        return f"text → {kind(values)}"
    if schema.get("format") == "binary":
        return "file"
    named: str = schema.get("type", "any")
    return "text" if named == "string" else named


def _anchor(name: str) -> str:
    return f"object-{name.strip('_').lower()}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
