"""What a YAML text without quotes stands for, and values written so that they are read as what they are.

Knows values; knows nothing of files or of what the values mean. Numbers, true, false and null are those of YAML
1.2, where PyYAML goes by 1.1: it would write the text `1e5` without quotes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE, _FALSE = {"true", "True", "TRUE"}, {"false", "False", "FALSE"}
# Numbers with more digits than any has stay text: what checks the value says what it should be.
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,300}|[0-9]{1,300}(\.[0-9]{0,300})?)([eE][-+]?[0-9]{1,9})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# What YAML takes for the end of a line, though few mean it so; between double quotes PyYAML writes it by its number.
_LINE_ENDS = re.compile("[\x85\u2028\u2029\ufeff]")


def plain(text: str) -> Any:
    """What a text without quotes stands for."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def dump(value: Any, width: int = 80) -> str:
    """Sections, lists and plain values as YAML, keys in the order that they have.

    Args:
        value: of dicts, lists, texts, numbers, truth values and None.
        width: columns after which a long text goes on in the next line.
    """
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width))


class _Dumper(yaml.SafeDumper):
    """Quotes what would be read as something else than text."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if isinstance(plain(data), str) else "'"
        if _LINE_ENDS.search(data):
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)
