# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of kindnet_masq: what a configuration file of ip-masq-agent asks for, as options of the module."""

from __future__ import annotations

__metaclass__ = type

from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_native
from ansible.module_utils.common.validation import check_type_bool, check_type_list
from ansible.plugins.action import ActionBase

from ..module_utils._errors import KindnetError
from ..plugin_utils._ip_masq_agent import options_of

OPTION = "ip_masq_agent_config"
CIDRS = "non_masquerade_cidrs"


class ActionModule(ActionBase):
    """Turns O(ip_masq_agent_config) into options of the module, then runs it on the node."""

    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        source = args.pop(OPTION, None)
        notes: list[str] = []
        try:
            if source and args.get("state", "present") != "absent":
                args, notes = merged(args, self._read(source), source)
        except (KindnetError, AnsibleError) as e:
            host = (task_vars or {}).get("inventory_hostname", "this host")
            result.update(failed=True, host=host, msg="%s: %s" % (host, to_native(e)))
            if isinstance(e, KindnetError):
                result.update(field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        in_background = self._task.async_val and not self._connection.has_native_async
        done = self._execute_module(module_args=args, task_vars=task_vars, wrap_async=in_background)
        result.update(done)
        if notes:
            result["notes"] = notes + list(done.get("notes") or ())
        if not in_background:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _read(self, source: str) -> str:
        path = self._find_needle("files", source)
        readable = self._loader.get_real_file(path)  # decrypts a file in a vault
        try:
            with open(readable, encoding="utf-8") as f:
                return f.read()
        except (OSError, UnicodeDecodeError) as e:
            raise KindnetError(OPTION, path, "cannot be read (%s)" % e, "See that it is a readable text file in UTF-8.")
        finally:
            self._loader.cleanup_tmp_file(readable)


def merged(args: dict[str, Any], text: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """The task's options with those of the file: CIDRs of both, and of a switch what either says."""
    field = "%s %s" % (OPTION, source)
    agent = options_of(text, field)
    given = {key: value for key, value in args.items() if value is not None}
    options = {**agent.defaults, **given, **agent.options}
    for option in sorted(given.keys() & agent.options.keys()):
        try:
            if option == CIDRS:
                options[option] = list(dict.fromkeys(check_type_list(given[option]) + agent.options[option]))
            elif check_type_bool(given[option]) != agent.options[option]:
                problem = "is not what %s says, which is %s" % (field, str(agent.options[option]).lower())
                raise KindnetError(option, given[option], problem, "Say it in one of the two places.")
        except TypeError as e:
            raise KindnetError(option, given[option], str(e), "Correct it.")
    return options, agent.notes
