#!/bin/sh
# A string of the format "date-time", as Pydantic writes a datetime, is a time by RFC 3339: with Z or with an offset from it, and with as many decimals as one
# likes. In the regular expression that outlines-core makes of it, for a model to keep to, there is no offset, and Z may be missing: a model that is to
# copy 10:00+02:00 has to end the time at 10:00, or says Z and means another hour. Decimals are three or none. An "email" and a "uuid" have no capital
# letters, and a "uri" is http to a name with a dot or localhost: no address in digits, no mailto:, no file:. What is written instead fits the
# schema.
# Source: outlines-core 0.2.14 src/json_schema/types.rs, DATE_TIME, EMAIL, UUID, URI; RFC 3339, 5.6; JSON Schema 2020-12, validation, 7.3.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'outlines-core==0.2.14'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import json
import re
import sys

from outlines_core.json_schema import build_regex_from_schema

VALID = {
    "date-time": ["2026-03-01T10:00:00Z", "2026-03-01T10:00:00+02:00", "2026-03-01T10:00:00.123456Z"],
    "email": ["ada@example.com", "Ada@Example.com"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"],
    "uri": ["https://example.com/a", "http://127.0.0.1:8080/v1", "mailto:ada@example.com"],
}


def written(name, text):
    """Whether a model may write this text as a string of this format."""
    return re.fullmatch(build_regex_from_schema(json.dumps({"type": "string", "format": name})), json.dumps(text)) is not None


refused = {name: [text for text in texts if not written(name, text)] for name, texts in VALID.items()}
print("version:   outlines-core", importlib.metadata.version("outlines-core"))
print("expected:  each of these may be written, and a time without Z or an offset may not")
print("behaviour: of each format the first alone may be, and a time without either")
print(f"seen:      refused {refused}; 2026-03-01T10:00:00 is", "written" if written("date-time", "2026-03-01T10:00:00") else "refused")
sys.exit(not (refused == {name: texts[1:] for name, texts in VALID.items()} and written("date-time", "2026-03-01T10:00:00")))
PYTHON
