"""YAML whose scalars all stay text: class names such as `yes`, `null` and `1.0` are names."""

from typing import Any

import yaml

MAX_DEPTH = 32
ABSENT = ("", "~", "null", "Null", "NULL")  # a key without a value


class _Loader(yaml.SafeLoader):
    """Text, lists and mappings only; no aliases but of text, bounded nesting."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one value with everything it contains."""
        mark = self.peek_event().start_mark
        is_alias = self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"values are nested deeper than {MAX_DEPTH}", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if is_alias and not isinstance(node, yaml.ScalarNode):
            # A few lines of aliases can stand for gigabytes ("billion laughs").
            raise yaml.composer.ComposerError(None, None, "YAML aliases (*name) of lists are not accepted", mark)
        if isinstance(node, yaml.ScalarNode):
            node.tag = "tag:yaml.org,2002:str"
        return node


def parse_text_yaml(text: str) -> Any:
    """Mappings, lists and text; raises no other exception than yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, LookupError, AttributeError, OverflowError, RecursionError, TypeError) as error:  # from PyYAML
        raise yaml.YAMLError(f"invalid value: {error}") from error
