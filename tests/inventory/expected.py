#!/usr/bin/env python3
"""Asks ansible-inventory about the inventories of this folder.

    expected.py              compares what Ansible answers with what is recorded; 1 if they differ
    expected.py --record     records what Ansible answers
    expected.py NAME...      only these inventories

It needs what `pip install -r tests/ansible-requirements.txt` brings, in a virtual environment of its
own; it installs nothing.

An inventory is a folder; all paths in it are relative to the folder, which is the working directory:

    arguments      an `-i` a line
    play/          where the state file would be (`--playbook-dir`), if it is somewhere else
    limit          what `--list` is limited to (`--limit`)
    host.txt       hosts whose variables are asked for one by one, one a line
    patterns.txt   patterns of hosts, one a line; `PATTERN -l LIMIT` for one with a limit
    list.json      what `--list` prints
    graph.txt      what `--graph` prints
    host.json      what `--host` prints, by host; null where it fails
    patterns.json  what `ansible PATTERN --list-hosts` selects: the hosts, or null where it fails
    refused        instead of the answers: what Ansible says of an inventory that it does not read
"""

import argparse
import io
import json
import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from ansible_as_recorded import prepare

prepare(
    ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="True",
    ANSIBLE_INVENTORY_ENABLED="advanced_host_list,script,auto,yaml,ini",
    ANSIBLE_NOCOLOR="True",
    COLUMNS="1000",
)
from ansible.cli import CLI
from ansible.cli.inventory import InventoryCLI
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.utils.display import Display


def apart(answer, *arguments):
    """Runs a function in a process of its own, as Ansible keeps what it is told; gives its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            result = answer(*arguments)
        except BaseException as error:  # noqa: BLE001
            result = {"died": f"{type(error).__name__}: {error}"}
        with os.fdopen(writer, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def asked(folder, options):
    """What ansible-inventory prints: code, standard output, standard error."""
    os.chdir(folder)
    output, errors = io.StringIO(), io.StringIO()
    beside = ["--playbook-dir", "play"] if Path("play").is_dir() else []
    code = 0
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            program = InventoryCLI(["ansible-inventory", *sources(folder), *beside, *options])
            program.parse()
            program.run()
        except SystemExit as end:
            code = end.code
        except AnsibleError as error:
            return [1, output.getvalue(), str(error)]
    return [code, output.getvalue(), errors.getvalue()]


def sources(folder):
    lines = (folder / "arguments").read_text().splitlines()
    return [part for line in lines for part in ("-i", line)]


def selected(folder, lines):
    """The hosts that patterns select, as `ansible PATTERN --list-hosts` finds them."""
    os.chdir(folder)
    given = (folder / "arguments").read_text().splitlines()
    answers = {}
    for line in lines:
        pattern, *limit = re.split(r"\s+-l\s+", line)
        try:
            inventory = InventoryManager(loader=DataLoader(), sources=given)
            hosts = CLI.get_host_list(inventory, limit[0] if limit else None, pattern)
            answers[line] = [getattr(host, "name", host) for host in hosts]
        except AnsibleError:
            answers[line] = None
    return answers


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def answers(folder):
    """The recorded files of an inventory: name to content, none where there is to be no file."""
    names = ["list.json", "graph.txt", "host.json", "patterns.json", "refused"]
    files = dict.fromkeys(names)
    limit = lines_of(folder / "limit")
    limited = ["--limit", limit[0]] if limit else []
    code, listed, said = apart(asked, folder, ["--list", *limited])
    if code != 0:
        files["refused"] = reason(said, folder)
        return files
    files["list.json"] = listed
    files["graph.txt"] = apart(asked, folder, ["--graph"])[1]
    if hosts := lines_of(folder / "host.txt"):
        found = {host: apart(asked, folder, ["--host", host]) for host in hosts}
        found = {host: json.loads(out) if code == 0 else None for host, (code, out, _) in found.items()}
        files["host.json"] = as_text(found)
    if patterns := lines_of(folder / "patterns.txt"):
        found = apart(selected, folder, patterns)
        lines = [f"  {json.dumps(name)}: {json.dumps(hosts)}" for name, hosts in found.items()]
        files["patterns.json"] = "{\n" + ",\n".join(lines) + "\n}\n"
    return files


def as_text(value):
    return json.dumps(value, indent=4, sort_keys=True) + "\n"


def reason(said, folder):
    """Ansible's words without the places of this machine."""
    return said.replace(f"{folder}/", "").strip() + "\n"


def main():
    parser = argparse.ArgumentParser(description="Ansible's answers about these inventories.")
    parser.add_argument("--record", action="store_true", help="record the answers")
    parser.add_argument("names", nargs="*", help="only these inventories")
    arguments = parser.parse_args()
    init_plugin_loader()
    Display().warning = lambda *_, **__: None

    folders = [path.parent for path in sorted(HERE.glob("*/arguments"))]
    if arguments.names:
        folders = [folder for folder in folders if folder.name in arguments.names]
    different = []
    for folder in folders:
        for name, content in answers(folder).items():
            path = folder / name
            recorded = path.read_text() if path.exists() else None
            if content == recorded:
                continue
            different.append(str(path.relative_to(HERE)))
            if not arguments.record:
                continue
            if content is None:
                path.unlink()
            else:
                path.write_text(content)
    verb = "recorded anew" if arguments.record else "is not what Ansible answers now"
    for name in different:
        print(f"{name}: {verb}", file=sys.stderr)
    print(f"{len(folders)} inventories, {len(different)} files differ")
    return 1 if different and not arguments.record else 0


if __name__ == "__main__":
    sys.exit(main())
