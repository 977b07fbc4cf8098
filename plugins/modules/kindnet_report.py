#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_report
short_description: Report what a look at the hosts has found, and end each of them accordingly
version_added: "0.2.0"
description:
  - Made for C(playbooks/drift.yml). Collects what the roles of this collection have registered for each host of the play, says it in one line per host,
    and writes it to C(drift.json) (see C(docs/drift.md)), C(drift.xml) (JUnit), C(drift.html) (one page with all in it) and C(map.mmd) (the map
    as Mermaid).
  - Runs on the controller alone and opens no connection. Use it with C(run_once). It changes no host, and writes its files in check mode too.
  - A host that was not looked at is never reported as in sync.
  - To have the same report of other playbooks, enable the callback plugin P(kindnet.host.kindnet_report#callback).
options:
  report_dir:
    description:
      - Folder for the files; made if it is missing. A relative one starts where the first inventory source is, beside it.
      - By default C(kindnet-report) there.
    type: str
    default: ""
  cluster_name:
    description: Name of the cluster, for the report.
    type: str
    default: kindnet
  playbook:
    description: Name of the playbook, for the report.
    type: str
    default: drift.yml
  verdict:
    description:
      - One of RV(verdicts). No report is made then; the task ends as this says, so that C(ansible-playbook) ends with the code for it.
    type: dict
attributes:
  check_mode:
    support: full
    description: The same as otherwise.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
seealso:
  - module: kindnet.host.kindnet_verify
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Make the report
  kindnet.host.kindnet_report:
    report_dir: /var/lib/ci/kindnet
  run_once: true
  register: report

- name: End each host as reported
  kindnet.host.kindnet_report:
    verdict: "{{ report.verdicts[inventory_hostname] }}"
"""

RETURN = r"""
verdicts:
  description: Status and line of each host.
  returned: unless O(verdict) is given
  type: dict
  sample: {worker: {status: drifted, line: "drifted, 1 difference: kindnet-reconcile.timer"}}
verdict:
  description: V(in_sync), V(drifted), V(failed) or V(unreachable), the worst of all hosts.
  returned: unless O(verdict) is given
  type: str
  sample: drifted
totals:
  description: Numbers of hosts by status, and of what was found.
  returned: unless O(verdict) is given
  type: dict
  sample: {hosts: 3, in_sync: 2, drifted: 1, changed: 0, failed: 0, unreachable: 0, differences: 1, problems: 0, cross_host: 0}
files:
  description: The files, in full.
  returned: unless O(verdict) is given
  type: list
  elements: path
  sample: [/home/me/kindnet-report/drift.json, /home/me/kindnet-report/drift.xml, /home/me/kindnet-report/drift.html, /home/me/kindnet-report/map.mmd]
problem:
  description: Why there are no files, and what to do; empty if there are.
  returned: unless O(verdict) is given
  type: str
  sample: ""
"""
