"""Actions run where a play has found Ansible's plugins."""
from __future__ import annotations

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader()
