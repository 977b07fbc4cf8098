# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of kindnet_idle: what each module would be started with on the host."""

from __future__ import annotations

__metaclass__ = type

import json
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.text.converters import to_native
from ansible.plugins.action import ActionBase

from ..module_utils._idle import SECTIONS
from ..module_utils._module import COMMON_OPTIONS
from ..modules import cni_conflist, cni_plugin_links, kindnet_masq, kindnet_neighbours, kindnet_reconcile, kindnet_route, kindnet_sysctl
from ..plugin_utils._own_code import own_code
from .kindnet_route import plain

if TYPE_CHECKING:
    from typing import Any

VALIDATORS = {
    module.__name__.rpartition(".")[2]: ArgumentSpecValidator(dict(COMMON_OPTIONS, **module.OPTIONS), required_if=getattr(module, "REQUIRED_IF", None))
    for module in (cni_conflist, cni_plugin_links, kindnet_masq, kindnet_neighbours, kindnet_reconcile, kindnet_route, kindnet_sysctl)
}
# Of the code that kindnet_reconcile would bring along. Here, so that it is computed once and not in the process of each host.
_VERSION, DIGEST = own_code()


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        modules = self._task.args.get("modules")
        unknown = sorted(set(modules) - set(SECTIONS)) if isinstance(modules, dict) else ["no mapping"]
        if unknown or set(self._task.args) != {"modules"}:
            raise AnsibleActionFail("modules is to be a mapping of modules (%s) to their options, and nothing else is to be given" % ", ".join(SECTIONS))
        # What these say is Ansible's to merge, for the module itself.
        defaults = sorted({key for entry in self._task.module_defaults or () for key in entry if "kindnet.host." in key})
        prepared: dict[str, Any] = {}
        busy: dict[str, str] = dict.fromkeys(modules, "module_defaults of %s" % ", ".join(defaults)) if defaults else {}
        for name, args in modules.items() if not defaults else ():
            try:
                prepared[name] = validated(name, self._sent_by(name, args or {}, task_vars))
            except Exception as e:  # whatever it is, the module itself is to tell
                busy[name] = to_native(e)
        if prepared:
            arguments = {"modules": json.dumps(prepared), "digest": DIGEST}
            result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        if not result.get("failed"):
            result["busy"] = {**busy, **result.get("busy", {})}
            result.setdefault("idle", [])
        return result

    def _sent_by(self, name: str, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The options with which the action plugin of a module would start it. It does not come to that."""
        plugins = self._shared_loader_obj.action_loader
        full_name = "kindnet.host." + name
        if not plugins.has_plugin(full_name):
            return args
        task = self._task.copy()
        task.action, task.args = full_name, args
        plugin = plugins.get(
            full_name,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        sent: list[dict[str, Any]] = []

        def keep(module_args: dict[str, Any], **_unused: Any) -> dict[str, Any]:
            sent.append(module_args)
            return {"changed": False, "notes": []}

        plugin._execute_module = keep
        said = plugin.run(task_vars=task_vars)
        if said.get("failed") or said.get("notes") or not sent:
            raise AnsibleError(str(said.get("msg") or said.get("notes")))
        return sent[0]


def validated(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """As the module itself would have them."""
    given = {key: value for key, value in plain(args).items() if key != "tools_predicted"}
    checked = VALIDATORS[name].validate(given)
    if checked.error_messages:
        raise AnsibleError("; ".join(checked.error_messages))
    return dict(checked.validated_parameters)
