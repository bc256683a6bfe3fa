"""YAML that users bring, with bounded nesting, and as text only: class names such as `yes` and `1.0` are names."""

from typing import Any

import yaml

MAX_DEPTH = 32  # levels of nested values
ABSENT = (None, "", "~", "null", "Null", "NULL")  # a key without a value


class BoundedLoader(yaml.SafeLoader):
    """Plain values and bounded nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one value with everything it contains."""
        mark = self.peek_event().start_mark
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"values are nested deeper than {MAX_DEPTH}", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Loader(BoundedLoader):
    """Text, lists and mappings only; no aliases but of text."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one value with everything it contains."""
        mark = self.peek_event().start_mark
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
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
