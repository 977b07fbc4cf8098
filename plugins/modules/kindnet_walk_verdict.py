#!/usr/bin/python
DOCUMENTATION = r"""
module: kindnet_walk_verdict
short_description: x
"""
