"""Read the files of a configuration: look up names, follow the ``base:`` chain, make paths absolute."""

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from configs.data_folders import from_file, from_folder, yaml_in
from configs.yolo_yaml import SPLITS, darknet_data, from_yolo_yaml, is_yolo
from core.commands import INSTALLED
from core.files import expand_user, path_exists
from core.text import one_line
from core.text_files import read_text_file
from core.yaml_text import MAX_DEPTH, BoundedLoader, parse_text_yaml

Tree = dict[str, Any]  # a YAML mapping, not yet validated

CONFIGS = Path(__file__).resolve().parent
MAX_CONFIG_BYTES = 1 << 20
MAX_BASE_DEPTH = 8
DARKNET_SUFFIX = ".cfg"
DARKNET_DATA_SUFFIX = ".data"
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}


class _Loader(BoundedLoader):
    """Plain values only, written out: no aliases, dates or sets, no duplicate keys.

    Reads 1e-3 as a number, which is a string in YAML 1.1.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one value with everything it contains."""
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            # A few lines of aliases can stand for gigabytes ("billion laughs").
            raise ComposerError(None, None, "YAML aliases (*name) are not accepted", mark)
        node = super().compose_node(parent, index)
        if node is not None and node.tag not in PLAIN_TAGS:
            kind = node.tag.rsplit(":", 1)[-1]
            raise ComposerError(None, None, f"a value of type {kind!r} is not accepted; quote it if it is text", mark)
        if isinstance(node, yaml.ScalarNode) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in node.value):
            raise ComposerError(None, None, "a string contains a zero byte or an unpaired surrogate", mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping; duplicate keys are an error, where PyYAML keeps the last one."""
        mapping = super().construct_mapping(node, deep=deep)
        for key in mapping:
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"the key {key!r} is not a string; quote it", node.start_mark)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            duplicate = next((str(key) for key in keys if keys.count(key) > 1), "")
            raise ConstructorError(None, None, f"duplicate key {duplicate!r}", node.start_mark)
        return mapping


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values; raises no other exception than yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, KeyError, OverflowError, RecursionError) as error:  # from PyYAML, for !!int x or "\\UFFFFFFFF"
        raise yaml.YAMLError(f"invalid value: {error}") from error


def find(path: str | Path, folder: Path) -> Path:
    """Return the file at ``path``, or of that name in ``folder``; the suffix .yaml may be left out."""
    path = Path(path)
    if not path.name:
        raise FileNotFoundError(f"{str(path)!r}: not the name of a file; expected a YAML file")
    known_suffix = path.suffix in (".yaml", ".yml", DARKNET_SUFFIX)
    candidates = [path] if known_suffix else [path, path.with_name(path.name + ".yaml")]
    if path.parent == Path("."):
        candidates += [folder / candidate.name for candidate in candidates]
    for candidate in candidates:
        if path_exists(candidate, folder=False):
            return candidate.resolve()
    known = sorted(file.name for file in folder.glob("*.yaml"))
    raise FileNotFoundError(f"{path}: no such file, and no such name among {', '.join(known)}")


def read_yaml(file: Path) -> Tree:
    """Read a file of at most MAX_CONFIG_BYTES with a YAML mapping; ValueError for any other content."""
    try:
        tree = parse_yaml(_read_config(file))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not YAML: {one_line(error)}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ValueError(f"{file}: expected a mapping of keys to values, found a {type(tree).__name__}")
    return tree


def _read_config(file: Path) -> str:
    return read_text_file(file, limit=MAX_CONFIG_BYTES, what="a configuration")


def read_chain(file: Path) -> tuple[Tree, dict[str, str]]:
    """Read ``file`` on top of its ``base:`` chain; return the merged tree and the source file of each dotted key."""
    chain: list[tuple[Path, Tree]] = []
    if file.suffix == DARKNET_SUFFIX:
        chain.append((file, {"model": {"kind": "darknet", "cfg": str(file)}}))
        file = CONFIGS / "yolo.yaml"
    while True:
        tree = read_yaml(file)
        base = tree.pop("base", None)
        chain.append((file, tree))
        if base is None:
            break
        if not isinstance(base, str) or len(chain) >= MAX_BASE_DEPTH:
            raise ValueError(
                f"{file}: base: {base!r} is not the name of a file, or the chain is longer than {MAX_BASE_DEPTH}"
            )
        sibling = file.parent / base
        try:
            file = sibling.resolve() if path_exists(sibling, folder=False) else find(base, CONFIGS)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file}: base: {error}") from error
    merged: Tree = {}
    origins: dict[str, str] = {}
    for source, tree in reversed(chain):
        model = tree.get("model")
        if isinstance(model, dict) and "kind" in model and model["kind"] != _kind(merged):
            merged.pop("model", None)  # the keys of one kind do not apply to the other
            origins = {key: place for key, place in origins.items() if not key.startswith("model.")}
        if isinstance(model, dict) and isinstance(model.get("cfg"), str):
            model["cfg"] = str(source.parent / expand_user(model["cfg"]))
        _merge(merged, tree)
        origins |= dict.fromkeys(flatten(tree), source.name)
    return merged, origins


def _kind(tree: Mapping[str, object]) -> object:
    model = tree.get("model")
    return model.get("kind", "yolo") if isinstance(model, Mapping) else None


def embed_cfg(tree: Mapping[str, object]) -> None:
    """Add the text of the Darknet cfg that the model names to the tree, unless it is there already.

    FileNotFoundError if the file is missing, ValueError if it is too long or not text.
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
    try:
        text = read_text_file(path, limit=MAX_CONFIG_BYTES, what="a Darknet .cfg", any_encoding=True)
    except ValueError as error:
        raise ValueError(f"model.cfg: {error}") from error
    if "\0" in text:
        raise ValueError(f"model.cfg: {path}: a zero byte; expected the text of a Darknet .cfg")
    model |= {"cfg": str(path.absolute()), "text": text}


def _merge(into: Tree, tree: Mapping[str, object]) -> None:
    """Merge ``tree`` into ``into``; an activation is replaced as a whole."""
    for key, value in tree.items():
        if key not in ("act", "data") and isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy_tree(value)


def copy_tree(value: Any) -> Any:
    """Copy nested mappings; other values are shared."""
    return {key: copy_tree(child) for key, child in value.items()} if isinstance(value, Mapping) else value


def load_data(path: str | Path) -> Tree:
    """Read what ``--data`` names into the form of a data YAML with absolute paths.

    A data YAML of this project (a bare name is looked up in configs/data/; ``root`` is relative to the folder of the
    YAML, and defaults to it) or of YOLOv5 and Ultralytics, a folder, or an annotation file.
    """
    try:
        file = find(path, CONFIGS / "data")
    except FileNotFoundError as error:
        folder = expand_user(path)
        if not str(path).strip() or not path_exists(folder, folder=True):
            raise FileNotFoundError(f"data: {error}") from error
        return load_data_folder(folder)
    return _data_from(file)


def load_data_folder(folder: Path) -> Tree:
    """The data set in a folder: that of its data YAML, or what its files and folders are named for."""
    file = yaml_in(folder)
    return from_folder(folder) if file is None else _data_from(file.absolute())


def _data_from(file: Path) -> Tree:
    found = from_file(file)
    if found is not None:
        return found
    text = _read_config(file)
    try:
        tree: object = darknet_data(text) if file.suffix == DARKNET_DATA_SUFFIX else parse_text_yaml(text)
    except yaml.YAMLError as error:
        what = f"not YAML: {one_line(error)}; expected the keys train and val, with names for YOLO labels"
        raise ValueError(f"{file}: {what}") from error
    try:
        if is_yolo(tree):
            return from_yolo_yaml(tree, file)
    except (ValueError, RuntimeError) as error:  # the latter from pathlib, for loops of symbolic links
        named = str(error).startswith(str(file))
        raise ValueError(f"{error}" if named else f"{file}: {error}") from error
    # What is installed is not written into: its data sets belong to the current folder.
    place = Path.cwd() / file.relative_to(CONFIGS.parent) if INSTALLED and file.is_relative_to(CONFIGS) else file
    return absolute(read_yaml(file), place)


def absolute(data: Mapping[str, object], file: Path) -> Tree:
    """Return the data mapping of a file with absolute paths; values of the wrong type are left for validation.

    ValueError naming the file if a path cannot be made absolute.
    """
    data = dict(copy_tree(data))
    root = data.get("root")
    if root is not None and not isinstance(root, str):
        return data
    try:
        folder = (file.parent / expand_user(root or ".")).resolve()
        data["root"] = str(folder)
        for split in SPLITS:
            if isinstance(data.get(split), dict):
                for key, value in data[split].items():
                    if isinstance(value, str) and key != "format":
                        data[split][key] = str(folder / expand_user(value))
                    elif isinstance(value, list):
                        data[split][key] = [
                            str(folder / expand_user(part)) if isinstance(part, str) else part for part in value
                        ]
    except RuntimeError as error:  # from pathlib
        raise ValueError(f"{file}: {root}: symbolic link loop") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return data


def set_value(tree: Tree, keys: list[str], value: object) -> None:
    """Set the value at a path of keys, creating mappings as needed; ValueError for too long a path."""
    if len(keys) > MAX_DEPTH:
        raise ValueError(f"{'.'.join(keys[:4])}...: a key of {len(keys)} parts, expected at most {MAX_DEPTH}")
    for key in keys[:-1]:
        child = tree.get(key)
        if not isinstance(child, dict):
            child = tree[key] = {}
        tree = child
    tree[keys[-1]] = value


def flatten(tree: Mapping[str, object], prefix: str = "") -> Tree:
    """Return the leaves of a nested mapping by dotted key; an activation is a leaf."""
    leaves: Tree = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and key != "act":
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves
