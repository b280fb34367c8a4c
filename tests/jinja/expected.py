#!/usr/bin/env python3
"""Evaluates the cases of this folder with Ansible's own templating.

    expected.py              compares what Ansible gives with what is recorded; 1 if they differ
    expected.py --record     records what Ansible gives
    expected.py --print      prints it as JSON
    expected.py NAME...      only these topics and templates

It needs what `pip install -r tests/ansible-requirements.txt` brings, in a virtual environment of its
own; it installs nothing. The topics that name a collection under `needs` are left out where the
collection is not installed (`pip install ansible==12.3.0` has all of them).

A topic is `expressions/TOPIC.yml`:

    needs: ansible.utils        # optional: a collection
    environment: { NAME: text } # optional: environment variables for `lookup('env', …)`
    variables: { … }            # optional: variables, which may have templates in them
    expressions: { case: … }    # each is evaluated as `{{ … }}`
    texts: { case: … }          # each is evaluated as it stands, as the argument of a task is

and `expressions/TOPIC.json` has for each case `{"value": …}` or `{"error": KIND}`, KIND being
`undefined`, `syntax` or `other`. Backslashes in an expression are what they are in Ansible's tasks:
themselves. Paths are relative to this folder; `files/` is where `lookup('file', …)` looks.

A template is `templates/NAME.j2`, rendered with `templates/variables.yml` as the `template` module
does it, and `templates/NAME.txt` what comes out, or `templates/NAME.error` the kind of the error.
Templates that others include, import or extend are in `templates/parts/`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from ansible_as_recorded import prepare

prepare(ANSIBLE_DEPRECATION_WARNINGS="False", ANSIBLE_SYSTEM_WARNINGS="False")
from ansible.errors import AnsibleTemplateSyntaxError, AnsibleUndefinedVariable
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.display import Display

COLLECTIONS = {"ansible.utils": "'10.0.0.1' | ansible.utils.ipaddr"}


def kind_of(error):
    """The kind of an error; what an undefined variable causes further up is undefined, too."""
    while error is not None:
        if isinstance(error, AnsibleUndefinedVariable):
            return "undefined"
        if isinstance(error, AnsibleTemplateSyntaxError):
            return "syntax"
        error = error.__cause__
    return "other"


def evaluated(templar, value):
    try:
        return {"value": json.loads(json.dumps(templar.template(value), default=str))}
    except Exception as error:  # noqa: BLE001 - whatever a filter raises is the answer
        return {"error": kind_of(error), "said": str(error)}


def topic(loader, path):
    """The results of a topic by case; none if what it needs is not there."""
    content = loader.load_from_file(str(path), trusted_as_template=True)
    needs = content.get("needs")
    if needs and "error" in evaluated(Templar(loader), braced(COLLECTIONS[needs])):
        return None
    os.environ.update({name: str(text) for name, text in content.get("environment", {}).items()})
    templar = Templar(loader, variables=content.get("variables", {}))
    cases = {name: braced(text) for name, text in content.get("expressions", {}).items()}
    texts = content.get("texts", {})
    twice = cases.keys() & texts.keys()
    if twice:
        sys.exit(f"{path.name}: twice the same name: {', '.join(sorted(twice))}")
    return {str(name): evaluated(templar, value) for name, value in (cases | texts).items()}


def braced(expression):
    return trust_as_template("{{ " + str(expression) + " }}")


def rendered(loader, path):
    """What a template file gives, as ansible/plugins/action/template.py asks for it."""
    variables = loader.load_from_file(
        str(path.parent / "variables.yml"), trusted_as_template=True
    )
    templar = Templar(loader).copy_with_new_env(
        searchpath=[str(path.parent)], available_variables=variables
    )
    template = trust_as_template(path.read_bytes().decode())
    overrides = {"trim_blocks": True, "lstrip_blocks": False}
    try:
        result = templar.template(template, escape_backslashes=False, overrides=overrides)
        return {"value": "" if result is None else str(result)}
    except Exception as error:  # noqa: BLE001
        return {"error": kind_of(error), "said": str(error)}


def without_words(result):
    return {key: value for key, value in result.items() if key != "said"}


def topic_text(results):
    """A case a line, so that a difference is readable."""
    lines = [
        f"  {json.dumps(name)}: {json.dumps(without_words(result), ensure_ascii=False)}"
        for name, result in results.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def template_files(path, result):
    """The recorded files of a template: name to content, none where there is to be no file."""
    error = result.get("error")
    return {
        path.with_suffix(".txt"): result.get("value"),
        path.with_suffix(".error"): error and f"{error}\n",
    }


def main():
    parser = argparse.ArgumentParser(description="Ansible's answers to the cases of this folder.")
    parser.add_argument("--record", action="store_true", help="record the answers")
    parser.add_argument("--print", action="store_true", help="print the answers as JSON")
    parser.add_argument("names", nargs="*", help="only these topics and templates")
    arguments = parser.parse_args()
    init_plugin_loader()
    Display().warning = lambda *_, **__: None
    loader = DataLoader()
    loader.set_basedir(str(HERE))
    os.chdir(HERE)

    def wanted(path):
        return not arguments.names or path.stem in arguments.names

    answers, files, left_out = {}, {}, []
    for path in sorted(HERE.glob("expressions/*.yml")):
        if wanted(path):
            results = topic(loader, path)
            if results is None:
                left_out.append(path.stem)
                continue
            answers[f"expressions/{path.stem}"] = results
            files[path.with_suffix(".json")] = topic_text(results)
    for path in sorted(HERE.glob("templates/*.j2")):
        if wanted(path):
            answers[f"templates/{path.stem}"] = result = rendered(loader, path)
            files.update(template_files(path, result))

    if arguments.print:
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    if left_out:
        print(f"left out, their collection is missing: {', '.join(left_out)}", file=sys.stderr)
    if arguments.record:
        for path, content in files.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content.encode())
        return 0
    if arguments.print:
        return 0
    different = [
        str(path.relative_to(HERE))
        for path, content in files.items()
        if content != (path.read_bytes().decode() if path.exists() else None)
    ]
    for name in different:
        print(f"{name} is not what Ansible gives now", file=sys.stderr)
    print(f"{len(answers)} topics and templates, {len(different)} files differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
