"""What the two `expected.py` share: the Ansible that was recorded, in a process that knows nothing
of this machine.

`pip install -r tests/ansible-requirements.txt`, in a virtual environment, brings what is needed.
"""

import os
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("ansible-requirements.txt")
_HOME = tempfile.TemporaryDirectory(prefix="ansible-")


def prepare(**settings):
    """Before ansible is imported: no configuration of this machine, nothing left behind."""
    configuration = Path(_HOME.name, "ansible.cfg")
    configuration.touch()
    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        if name != "ANSIBLE_COLLECTIONS_PATH":
            del os.environ[name]
    os.environ.update(
        ANSIBLE_CONFIG=str(configuration),
        ANSIBLE_HOME=_HOME.name,
        LC_ALL="C.UTF-8",
        TZ="UTC",
        **settings,
    )
    try:
        from ansible.release import __version__ as version
    except ImportError as error:
        sys.exit(f"ansible-core is not installed here ({error}): pip install -r {REQUIREMENTS}")
    if f"ansible-core=={version}" not in REQUIREMENTS.read_text().split():
        sys.exit(f"this is ansible-core {version}, and not what {REQUIREMENTS.name} names")
