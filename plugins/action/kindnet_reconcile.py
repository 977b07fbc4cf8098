# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the units of kindnet-reconcile on the controller, for the module of this name, where it is documented."""

from __future__ import annotations

__metaclass__ = type

import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._installation import FILES, OPTIONS, validate
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

# The collection's own, and its own variables alone: what a unit says does not depend on a play's variables.
TEMPLATES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "templates")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(argument_spec=OPTIONS)
        if args["rendered"] is not None:
            raise AnsibleActionFail("rendered is what this action plugin makes of the other options; leave it out")
        try:
            validate(args)
        except KindnetError as e:
            host = (task_vars or {}).get("inventory_hostname", "this host")
            result.update(failed=True, host=host, msg="%s: %s" % (host, e), field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        args["rendered"] = render(args)
        module = "kindnet.host.kindnet_reconcile"
        result.update(self._execute_module(module_name=module, module_args=args, task_vars=task_vars))
        return result


def render(options: Dict[str, Any]) -> Dict[str, str]:
    """The content of each file by its name."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    values = {name: options[name] for name in ("interval", "protocol", "writable_paths", "textfile_dir")}
    return {name: environment.get_template(name + ".j2").render(values) for name in FILES}
