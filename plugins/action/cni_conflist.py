# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the CNI configuration on the controller and checks it there, so that a bad template costs no node anything."""

from __future__ import annotations

__metaclass__ = type

import json
import os
from typing import TYPE_CHECKING

from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_native
from ansible.plugins.action import ActionBase

from ..module_utils._conflist_data import OPTIONS, parse_conflist, parse_text, refuse_unused, template_variables
from ..module_utils._errors import KindnetError
from ..module_utils._ranges import without_route

try:
    # ansible-core 2.19: only what is said to be a template is rendered
    from ansible.template import trust_as_template
except ImportError:
    trust_as_template = None

if TYPE_CHECKING:
    from typing import Any

TEMPLATE = os.path.join(os.path.dirname(__file__), os.pardir, os.pardir, "templates", "10-kindnet.conflist.j2")


def notes_of(variables: dict[str, Any]) -> list[str]:
    """What somebody may not have meant."""
    outside = without_route(variables["pod_cidrs"], variables["ranges"])
    notes = ["%s lies in no pod CIDR: peers have no route to pods at these addresses." % subnet for subnet in outside]
    if any(plugin["type"] == "sbr" and "table" not in plugin for plugin in variables["chained"]):
        notes.append("sbr moves the routes of pods: a program there that does not bind its sockets to the pod's address reaches nothing.")
    return notes


class ActionModule(ActionBase):
    """Turns O(template) and its variables into O(conflist), then runs the module on the node."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = dict(self._task.args)
        notes: list[str] = []
        try:
            if args.get("state", "present") != "absent":
                notes = self._prepare(args, task_vars)
        except (KindnetError, AnsibleError) as e:
            host = task_vars.get("inventory_hostname", "this host")
            result.update(failed=True, host=host, msg="%s: %s" % (host, to_native(e)))
            if isinstance(e, KindnetError):
                result.update(field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        result.update(self._execute_module(module_name="kindnet.host.cni_conflist", module_args=args, task_vars=task_vars))
        if "notes" in result:
            result["notes"] += notes
            result.setdefault("warnings", []).extend("%s: %s" % (task_vars.get("inventory_hostname"), note) for note in notes)
        return result

    def _prepare(self, args: dict[str, Any], task_vars: dict[str, Any]) -> list[str]:
        """Put the configuration into ``args``; what is worth knowing of it."""
        notes: list[str] = []
        # An option that a template left empty is none; {} turns a plugin on.
        options = {name: args.pop(name) for name in OPTIONS if name in args}
        options = {name: value for name, value in options.items() if value is not None and value != ""}
        if args.get("conflist") is None:
            variables = template_variables(
                args.get("pod_cidrs"), args.get("mtu"), args.get("name", "kindnet"), args.get("cni_version", "0.3.1"), options
            )
            template = args.pop("template", None)
            source = self._find_needle("templates", template) if template else os.path.abspath(TEMPLATE)
            field = "template %s" % source
            conflist = parse_text(field, self._render(field, source, variables, task_vars) or "")
            refuse_unused(field, options, conflist)
            notes = notes_of(variables)
        elif args.get("template"):
            raise KindnetError("conflist", "given", "excludes template", "Give one of the two.")
        elif options:
            raise KindnetError("conflist", "given", "excludes %s" % ", ".join(sorted(options)), "Say it in the configuration itself.")
        else:
            given = args["conflist"]
            conflist = parse_text("conflist", given) if isinstance(given, str) else parse_conflist("conflist", given)
        args["conflist"] = json.dumps(conflist)
        if not isinstance(args.get("peer_ips", ""), str):
            # One string, however many: a list is templated and logged item by item.
            args["peer_ips"] = json.dumps(args["peer_ips"])
        return notes

    def _render(self, field: str, source: str, variables: dict[str, Any], task_vars: dict[str, Any]) -> Any:
        """The template's text with the host's variables and ``variables``, by the same engine as ansible.builtin.template."""
        readable = self._loader.get_real_file(source)  # decrypts a template in a vault
        try:
            with open(readable, encoding="utf-8") as f:
                text = f.read()
        except (OSError, UnicodeDecodeError) as e:
            raise KindnetError(field, source, "cannot be read (%s)" % e, "See that it is a readable text file in UTF-8.")
        finally:
            self._loader.cleanup_tmp_file(readable)
        folders = list(task_vars.get("ansible_search_path", [])) + [self._loader.get_basedir(), os.path.dirname(source)]
        context = {
            "available_variables": dict(task_vars, **variables),
            "searchpath": [place for folder in folders for place in (os.path.join(folder, "templates"), folder)],
        }
        try:
            if trust_as_template:
                return self._templar.copy_with_new_env(**context).template(trust_as_template(text), escape_backslashes=False)
            # Without the plain environment a text that looks like data would come back as Python's.
            from ansible.template import AnsibleEnvironment

            templar = self._templar.copy_with_new_env(environment_class=AnsibleEnvironment, **context)
            return templar.do_template(text, preserve_trailing_newlines=True, escape_backslashes=False)
        except AnsibleError as e:
            raise KindnetError(field, source, "does not render: %s" % to_native(e), "Correct the template, or define what it wants.")
