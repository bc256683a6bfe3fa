"""Reading the files of a configuration: where a name is looked up, the ``base:`` chain, absolute paths."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parent
MAX_CONFIG_BYTES = 1 << 20
MAX_BASE_DEPTH = 8


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for a text; people mean the number."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """Read plain YAML values, numbers as people write them; raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)


def find(path: str | Path, folder: Path) -> Path:
    """Return the file that ``path`` names: as it stands, or with or without its .yaml in ``folder``."""
    path = Path(path)
    candidates = [path, path.with_name(path.name + ".yaml")] if path.suffix not in (".yaml", ".yml") else [path]
    if path.parent == Path("."):
        candidates += [folder / candidate.name for candidate in candidates]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    known = sorted(found.name for found in folder.glob("*.yaml"))
    raise FileNotFoundError(f"{path}: no such file, and none of that name among {', '.join(known)}")


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one YAML mapping with string keys, of at most MAX_CONFIG_BYTES and without aliases."""
    size = file.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise ValueError(f"{file}: {size} bytes, a configuration has at most {MAX_CONFIG_BYTES}")
    try:
        text = file.read_text(encoding="utf-8")
        # An alias lets a few lines stand for gigabytes ("billion laughs"); no configuration needs one.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError(f"{file}: YAML aliases (*name) are not accepted")
        tree = parse_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text: {error}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ValueError(f"{file}: expected a mapping of keys to values, found {type(tree).__name__}")
    return tree


def read_chain(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read ``file`` over its ``base:`` chain; return the merged tree and the file that each dotted key came from."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    while True:
        tree = read_yaml(file)
        base = tree.pop("base", None)
        chain.append((file, tree))
        if base is None:
            break
        if not isinstance(base, str) or len(chain) >= MAX_BASE_DEPTH:
            raise ValueError(f"{file}: base: {base!r} is not the name of a file, or the chain of bases does not end")
        beside = file.parent / base
        file = beside.resolve() if beside.is_file() else find(base, CONFIGS)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, tree in reversed(chain):
        _merge(merged, tree)
        origins |= dict.fromkeys(flatten(tree), source.name)
    return merged, origins


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
    file = find(path, CONFIGS / "data")
    return absolute(read_yaml(file), file.parent)


def absolute(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a data mapping with absolute paths; wrong types are left to validation."""
    data = copy_tree(data)
    root = data.get("root")
    if root is None or isinstance(root, str):
        root = (folder / Path(root or ".").expanduser()).resolve()
        data["root"] = str(root)
        for split in ("train", "val", "test"):
            if isinstance(data.get(split), dict):
                for key, value in data[split].items():
                    data[split][key] = str(root / Path(value).expanduser()) if isinstance(value, str) else value
    return data


def set_value(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set the value at a path of keys, making the mappings on the way."""
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
