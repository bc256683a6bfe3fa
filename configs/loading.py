"""Reading the files of a configuration: where a name is looked up, the ``base:`` chain, absolute paths."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from core.files import expand_user, path_exists

CONFIGS = Path(__file__).resolve().parent
MAX_CONFIG_BYTES = 1 << 20
MAX_BASE_DEPTH = 8
DARKNET = ".cfg"
MAX_DEPTH = 32  # of nested values, and of the parts of a dotted key
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}


class _Loader(yaml.SafeLoader):
    """Plain values only, each written out: no aliases, no dates or sets, no key twice, no bottomless nesting.

    YAML 1.1 takes 1e-3 for a text; people mean the number.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One value with all that it holds."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            # An alias lets a few lines stand for gigabytes ("billion laughs"); no configuration needs one.
            raise ComposerError(None, None, "YAML aliases (*name) are not accepted", mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ComposerError(None, None, f"values are nested deeper than {MAX_DEPTH}", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in PLAIN_TAGS:
            kind = node.tag.rsplit(":", 1)[-1]
            raise ComposerError(None, None, f"a value of the kind {kind!r} is not accepted; quote a text", mark)
        if isinstance(node, yaml.ScalarNode) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in node.value):
            raise ComposerError(None, None, "a text holds a zero byte or half a character", mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key that stands twice is an error, where YAML lets the last one win."""
        mapping = super().construct_mapping(node, deep=deep)
        for key in mapping:
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"the key {key!r} is no text; quote it", node.start_mark)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((str(key) for key in keys if keys.count(key) > 1), "a key")
            raise ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return mapping


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """Read plain YAML values, numbers as people write them; raises yaml.YAMLError, and nothing else."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, KeyError, OverflowError, RecursionError) as error:  # PyYAML's own for !!int x or "\\UFFFFFFFF"
        raise yaml.YAMLError(f"a value that cannot be read: {error}") from error


def find(path: str | Path, folder: Path) -> Path:
    """Return the file that ``path`` names: as it stands, or with or without its .yaml in ``folder``."""
    path = Path(path)
    if not path.name:
        raise FileNotFoundError(f"{str(path)!r}: not the name of a file; expected a YAML file")
    known_suffix = path.suffix in (".yaml", ".yml", DARKNET)
    candidates = [path] if known_suffix else [path, path.with_name(path.name + ".yaml")]
    if path.parent == Path("."):
        candidates += [folder / candidate.name for candidate in candidates]
    for candidate in candidates:
        if path_exists(candidate, folder=False):
            return candidate.resolve()
    known = sorted(found.name for found in folder.glob("*.yaml"))
    raise FileNotFoundError(f"{path}: no such file, and none of that name among {', '.join(known)}")


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one YAML mapping with string keys, of at most MAX_CONFIG_BYTES; ValueError for what is none."""
    size = file.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise ValueError(f"{file}: {size} bytes, a configuration has at most {MAX_CONFIG_BYTES}")
    try:
        tree = parse_yaml(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text: {error}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ValueError(f"{file}: expected a mapping of keys to values, found a {type(tree).__name__}")
    return tree


def read_chain(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read ``file`` over its ``base:`` chain; return the merged tree and the file that each dotted key came from."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    if file.suffix == DARKNET:
        chain.append((file, {"model": {"kind": "darknet", "cfg": str(file)}}))
        file = CONFIGS / "yolo.yaml"
    while True:
        tree = read_yaml(file)
        base = tree.pop("base", None)
        chain.append((file, tree))
        if base is None:
            break
        if not isinstance(base, str) or len(chain) >= MAX_BASE_DEPTH:
            raise ValueError(f"{file}: base: {base!r} is not the name of a file, or the chain of bases does not end")
        beside = file.parent / base
        try:
            file = beside.resolve() if path_exists(beside, folder=False) else find(base, CONFIGS)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file}: base: {error}") from error
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, tree in reversed(chain):
        model = tree.get("model")
        if isinstance(model, dict) and "kind" in model and model["kind"] != _kind(merged):
            merged.pop("model", None)  # of another family, whose keys mean nothing to this one
            origins = {key: place for key, place in origins.items() if not key.startswith("model.")}
        if isinstance(model, dict) and isinstance(model.get("cfg"), str):
            model["cfg"] = str(source.parent / expand_user(model["cfg"]))
        _merge(merged, tree)
        origins |= dict.fromkeys(flatten(tree), source.name)
    return merged, origins


def _kind(tree: Mapping[str, Any]) -> Any:
    model = tree.get("model")
    return model.get("kind", "yolo") if isinstance(model, Mapping) else None


def embed_cfg(tree: Mapping[str, Any]) -> None:
    """Put the text of the Darknet cfg that the model names beside its name, unless it is there.

    FileNotFoundError or ValueError where there is no such file, or it is too long or no text.
    """
    model = tree.get("model")
    if not isinstance(model, dict) or model.get("kind") != "darknet" or model.get("text") is not None:
        return
    cfg = model.get("cfg")
    if not isinstance(cfg, str):
        return
    path = expand_user(cfg)
    if not path_exists(path, folder=False):
        raise FileNotFoundError(f"model.cfg: {path}: no such file; expected a Darknet .cfg")
    size = path.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise ValueError(f"model.cfg: {path}: {size} bytes, expected a Darknet .cfg of at most {MAX_CONFIG_BYTES}")
    text = path.read_bytes().decode("utf-8", errors="replace")  # comments are in any encoding
    if "\0" in text:
        raise ValueError(f"model.cfg: {path}: a zero byte; expected the text of a Darknet .cfg")
    model |= {"cfg": str(path.absolute()), "text": text.replace("\r\n", "\n")}


def _merge(into: dict[str, Any], tree: Mapping[str, Any]) -> None:
    """Lay ``tree`` over ``into``; an activation is replaced whole, never mixed from two."""
    for key, value in tree.items():
        if key not in ("act", "data") and isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy_tree(value)


def copy_tree(value: Any) -> Any:
    """Copy nested mappings; other values are shared."""
    return {key: copy_tree(child) for key, child in value.items()} if isinstance(value, Mapping) else value


def load_data(path: str | Path) -> dict[str, Any]:
    """Read a data YAML (a bare name is looked up in configs/data/): ``root`` (optional) and the splits, made absolute.

    A relative ``root`` is meant from the folder of the YAML, and stands for that folder where it is absent.
    """
    try:
        file = find(path, CONFIGS / "data")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data: {error}") from error
    return absolute(read_yaml(file), file)


def absolute(data: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the data mapping of a file with absolute paths; wrong types are left to validation.

    ValueError that names the file where a path cannot be made absolute.
    """
    try:
        return _absolute(data, file.parent)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _absolute(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    data = copy_tree(data)
    root = data.get("root")
    if root is None or isinstance(root, str):
        root = _resolved(folder / expand_user(root or "."))
        data["root"] = str(root)
        for split in ("train", "val", "test"):
            if isinstance(data.get(split), dict):
                for key, value in data[split].items():
                    if isinstance(value, str) and key != "format":
                        data[split][key] = str(root / expand_user(value))
    return data


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError as error:
        raise ValueError(f"{path}: the links on this path lead in a circle") from error


def set_value(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set the value at a path of keys, making the mappings on the way; ValueError for a path of too many."""
    if len(keys) > MAX_DEPTH:
        raise ValueError(f"{'.'.join(keys[:4])}...: a key of {len(keys)} parts, expected at most {MAX_DEPTH}")
    for key in keys[:-1]:
        child = tree.get(key)
        if not isinstance(child, dict):
            child = tree[key] = {}
        tree = child
    tree[keys[-1]] = value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a nested mapping under their dotted keys; an activation is a leaf."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and key != "act":
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves
