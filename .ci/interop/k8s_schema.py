"""Strict validation of rendered manifests: Kubernetes' own kinds by kubernetes-validate's schemas, PodMonitor by its
CRD. An unknown field is an error, as is a kind without a schema."""

import copy
import pathlib

import jsonschema
import yaml
from kubernetes_validate import utils
from referencing import Registry, Resource

KUBERNETES = "1.37.0"
# Maps whose keys are the author's: a typo there is the policies' to find.
FREE = {"annotations", "data", "labels", "limits", "matchLabels", "requests", "selector", "stringData"}


class Schemas:
    """A validator for each kind, made at first use."""

    def __init__(self, crds):
        self.crds = {}
        for file in crds:
            crd = yaml.safe_load(pathlib.Path(file).read_text(encoding="utf-8"))["spec"]
            for version in crd["versions"]:
                name = (f"{crd['group']}/{version['name']}", crd["names"]["kind"])
                self.crds[name] = version["schema"]["openAPIV3Schema"]
        folder = f"kubernetes-json-schema/v{KUBERNETES}-local-strict"
        self.folder = folder
        self.definitions = Resource.from_contents(utils.schema_contents(f"{folder}/_definitions.json", KUBERNETES))
        self.made = {}

    def errors(self, document):
        """What is wrong with a document, in words."""
        name = (document.get("apiVersion"), document.get("kind"))
        if name not in self.made:
            self.made[name] = self._make(*name)
        if self.made[name] is None:
            return [f"there is no schema for {name[1]} of {name[0]}"]
        found = [f"{'.'.join(map(str, error.path)) or 'top'}: {error.message}" for error in self.made[name].iter_errors(document)]
        if name in self.crds:
            # A CRD says nothing of metadata: that of a ServiceAccount is the same.
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": document.get("metadata", {})}
            found += self.errors(account)
        return found

    def _make(self, version, kind):
        if (version, kind) in self.crds:
            return jsonschema.Draft202012Validator(strict(self.crds[(version, kind)]))
        if not version or not kind:
            return None
        group, _, number = version.rpartition("/")
        name = f"{kind.lower()}-{group.split('.')[0]}{'-' if group else ''}{number}.json"
        try:
            schema = utils.schema_contents(f"{self.folder}/{name}", KUBERNETES)
        except FileNotFoundError:
            return None
        registry = Resource.from_contents(schema) @ (self.definitions @ Registry())
        return jsonschema.Draft202012Validator(schema, registry=registry)


def strict(schema):
    """A CRD's schema that refuses fields it does not name."""
    schema = copy.copy(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = strict(schema[key])
    if "properties" in schema:
        schema["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
    return schema


def typos(document):
    """Copies of a document with one mistake each: every key misspelt, every number and truth value a word."""
    for path, value in _walk(document):
        broken = copy.deepcopy(document)
        parent = broken
        for step in path[:-1]:
            parent = parent[step]
        if isinstance(path[-1], str):
            parent[misspelt(path[-1])] = parent.pop(path[-1])
            yield "key", path, broken
        if isinstance(value, (bool, int)):
            word = copy.deepcopy(document)
            parent = word
            for step in path[:-1]:
                parent = parent[step]
            parent[path[-1]] = f"{value}O"
            yield "value", path, word


def misspelt(key):
    """A letter lost in the middle: `replicas` is `repicas`."""
    middle = len(key) // 2
    return key[:middle] + key[middle + 1 :] if len(key) > 2 else key + key


def _walk(node, path=()):
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key), value
            if key not in FREE or (key == "selector" and isinstance(value, dict) and set(value) & {"matchLabels", "matchExpressions"}):
                yield from _walk(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            if isinstance(value, (dict, list)):
                yield from _walk(value, (*path, index))
